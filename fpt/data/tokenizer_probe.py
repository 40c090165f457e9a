"""Try a tokenizer of someone else in a small process of its own before it is built in ours.

What its JSON does not show, the library meets when it runs: an allocation that fails ends the process, a regular expression may
take for ever, an index outside of a table is a panic. The process has little memory and time, and only reads its input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import tokenizers

from fpt.data.tokenizer_checks import CheckedTokenizer
from fpt.errors import FPTError
from fpt.untrusted.bounded_json import short

CHILD = Path(__file__).with_name("tokenizer_child.py")
# Bytes of address space, to which come so many for each byte of the tokenizer's file.
MEMORY, MEMORY_PER_BYTE = 2**30, 40
# Seconds of computing, to which come so many for each megabyte, and of waiting on a machine that is busy.
SECONDS, SECONDS_PER_MB, PATIENCE = 10, 1, 120
REPEATS = 4_000

# Molecules, proteins, code, prose, numbers, scripts, what Unicode makes long, and long runs of one character.
TEXTS = (
    "",
    " ",
    "CC(=O)Oc1ccccc1C(=O)O.[Na+] C[C@@H](N)C(=O)O [nH]1cccc1 Clc1ccc(Br)cc1 C%12CC%12",
    "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQFEVVHSLAKWKRQTLGQHDFSAGEGLYTHMKALRPDEDRLSPLHS",
    "( ( ( [MAX 2 ) 9 ) ] ) 01011 3.14159e-10 2024-02-29",
    "The quick brown fox jumps over the lazy dog. I'm sure it's 100% fine; don't you?\n\n\tdef f(x): return x**2  # done",
    "".join(map(chr, range(32, 127))),
    "Größe, naïve café, Ελληνικά, Русский, עברית, العربية, हिन्दी, 中文字符, 日本語テキスト, 한국어, ไทย, 👩‍👩‍👧‍👦🏳️‍🌈",
    "\ufdfa\u1e9b\u0323\u2126\ufb03 e\u0301\u0301\u0301 \u200b\ufeff\u00ad\u202e\u0000\x1b[31m \ufffd\U0010ffff\ue000",
    "[PAD][UNK][BOS][EOS][CLS][SEP][MASK]<s></s><pad><unk><|endoftext|>",
    *(character * REPEATS for character in "aC 0.(-▁中\ufdfa\n"),
    "ab" * (REPEATS // 2) + "!",
    "a b " * (REPEATS // 4),
)

# Tokenizers that were tried or made in this process, by their sha256: why they were refused, or None.
_VERDICTS: dict[tuple[str, int | None], str | None] = {}


def trust(checked: CheckedTokenizer) -> None:
    """Remember a tokenizer that this process trained itself: it need not be tried."""
    _VERDICTS[checked.sha256, None] = None


def try_out(checked: CheckedTokenizer, vocab_size: int | None = None) -> None:
    """Try a tokenizer on a few texts in a limited process, once per content.

    Raises:
        FPTError: it is refused; the message is the end of a sentence about the tokenizer.
    """
    key = (checked.sha256, vocab_size)
    if _VERDICTS.get((checked.sha256, None), "") is None:
        return
    if key not in _VERDICTS:
        _VERDICTS[key] = _verdict(checked, vocab_size)
    if (verdict := _VERDICTS[key]) is not None:
        raise FPTError(verdict)


def _verdict(checked: CheckedTokenizer, vocab_size: int | None) -> str | None:
    size = len(checked.text)
    order = {
        "paths": [str(Path(tokenizers.__file__).parent.parent)],  # -I leaves out a user's own site-packages
        "memory": MEMORY + MEMORY_PER_BYTE * size,
        "seconds": SECONDS + SECONDS_PER_MB * (size >> 20),
        "vocab_size": vocab_size,
        "texts": TEXTS,
    }
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(CHILD)],
            input=json.dumps(order).encode() + b"\n" + checked.text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            env=environment,
        )
        return _reason(json.loads(done.stdout)["error"]) if done.stdout else _cause(done.returncode)
    except subprocess.TimeoutExpired:
        return "takes too long on short texts"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"could not be tried in a process of its own ({short(error)})"


def _reason(error: str | None) -> str | None:
    return None if error is None else f"does not work ({' '.join(error.split())[:200]})"


def _cause(status: int) -> str:
    if status in (-24, -9):  # the signals of a process that used up its seconds
        return "takes too long on short texts"
    return "takes too much memory on short texts, or ends the process that reads it"

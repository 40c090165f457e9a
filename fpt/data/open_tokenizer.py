"""Open the tokenizer of someone else (of a checkpoint, a backbone): it is checked, tried, and then built from its JSON alone.

Of the files beside ``tokenizer.json`` only the names of its special tokens are read: no class, no other file, no template.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fpt.data.tokenizer_checks import MOST_BYTES, check_tokenizer, limits
from fpt.data.tokenizer_probe import try_out
from fpt.errors import FPTError
from fpt.untrusted.bounded_json import read_json, short
from fpt.untrusted.pretrained import (
    CONFIG_BYTES,
    CONFIG_VALUES,
    OLD_TOKENIZER,
    SPECIAL_TOKENS,
    TOKENIZER,
    TOKENIZER_CONFIG,
    VOCABULARIES,
)

# The part of a tokenizer that each special token plays.
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Seconds for the conversion of a tokenizer in an old format: most of it is the import of transformers.
CONVERSION = 300
# Bytes that its process may take.
CONVERSION_MEMORY = 8 * 2**30
_STDERR = threading.RLock()
Result = TypeVar("Result")


def open_tokenizer(folder: Path, vocab_size: int | None = None, of_backbone: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in ``tokenizer.json`` of `folder`, with the special tokens that the files beside it name.

    Args:
        vocab_size: rows of the embedding that its ids go into; None where that is made to fit.
        of_backbone: leave out added tokens that have no row, as some published models have.

    Raises:
        FPTError: it is missing, damaged, does not fit the embedding, or would do harm.
    """
    path = folder / TOKENIZER
    tree = read_json(path, *limits(vocab_size))
    try:
        checked = check_tokenizer(tree, vocab_size, of_backbone)
        del tree
        try_out(checked, vocab_size)
        with native():
            backend = Tokenizer.from_str(checked.text)
        known = backend.get_vocab(with_added_tokens=True)
        options = _options(folder, known if vocab_size is not None else None)
        with native():
            tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **options)
            highest = max(tokenizer.get_vocab().values())
    except FPTError as error:
        raise FPTError(f"the tokenizer {path} {error}") from error
    except ValueError as error:
        raise FPTError(f"the tokenizer {path} does not work ({short(error)})") from error
    if vocab_size is not None and highest >= vocab_size:
        raise FPTError(f"the tokenizer {path} has ids up to {highest:,}, and the embedding has {vocab_size:,} rows")
    # What long texts are measured by; one that was trained here has none.
    tokenizer.fpt_growth = checked.growth  # type: ignore[attr-defined]
    return tokenizer


def find_tokenizer(source: Path, vocab_size: int | None = None, of_backbone: bool = False) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a folder or a GGUF file, of an old format as well; None where there is none.

    Args:
        vocab_size, of_backbone: as `open_tokenizer`.

    Raises:
        FPTError: as `open_tokenizer`.
    """
    if (source / TOKENIZER).exists():
        return open_tokenizer(source, vocab_size, of_backbone)
    if not source.is_file() and not any((source / name).is_file() for name in VOCABULARIES):
        return None
    if large := [name for name in OLD_TOKENIZER if (source / name).is_file() and (source / name).stat().st_size > MOST_BYTES]:
        raise FPTError(f"{source / large[0]} is larger than {MOST_BYTES:,} bytes, which makes no sense for such a file")
    with tempfile.TemporaryDirectory(prefix="fpt-", ignore_cleanup_errors=True) as folder:
        _convert(source, Path(folder))
        try:
            return open_tokenizer(Path(folder), vocab_size, of_backbone)
        except FPTError as error:
            raise FPTError(str(error).replace(str(Path(folder) / TOKENIZER), f"of {source}")) from error


def _convert(source: Path, target: Path) -> None:
    """Convert a tokenizer in a process of its own, without a network and a terminal."""
    code = (
        "import sys; from pathlib import Path; root, source, target, memory, seconds = sys.argv[1:]; sys.path.insert(0, root);"
        "from fpt.data.tokenizer_child import limit; from fpt.untrusted.pretrained import convert_tokenizer;"
        "limit({'RLIMIT_DATA': int(memory), 'RLIMIT_CPU': int(seconds)}); convert_tokenizer(Path(source), Path(target))"
    )
    root, most = str(Path(__file__).parents[2]), [str(CONVERSION_MEMORY), str(CONVERSION)]
    failed = ""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, root, str(source.resolve()), str(target), *most],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CONVERSION,
            cwd=target,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "RUST_BACKTRACE": "0"},
        )
        if done.returncode or not (target / TOKENIZER).is_file():
            failed = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it ended without a word"])[-1][:200]
    except subprocess.TimeoutExpired:
        failed = f"it took more than {CONVERSION} seconds"
    except OSError as error:
        failed = short(error)
    if failed:
        raise FPTError(f"the tokenizer of {source} can't be converted to {TOKENIZER} ({failed})")


def _options(folder: Path, known: dict[str, int] | None) -> dict[str, Any]:
    """What the files beside a tokenizer say of it, as arguments of its class; nothing else in them is read.

    Args:
        known: the tokens that there are, where no other may be added.
    """
    values: dict[str, Any] = {}
    for name in (SPECIAL_TOKENS, TOKENIZER_CONFIG):
        if (folder / name).is_file():
            values |= read_json(folder / name, CONFIG_BYTES, CONFIG_VALUES)
    options: dict[str, Any] = {}
    for role in ROLES:
        token = _token(values.get(role), role)
        if token is not None and (known is None or token in known):
            options[role] = token
    extra = values.get("extra_special_tokens") or values.get("additional_special_tokens") or []
    if isinstance(extra, dict):
        extra = list(extra.values())
    if not isinstance(extra, list) or len(extra) > CONFIG_VALUES:
        raise FPTError("has extra special tokens that are not a list")
    tokens = [_token(token, "special token") for token in extra]
    if kept := [token for token in tokens if token is not None and (known is None or token in known)]:
        options["extra_special_tokens"] = kept
    for name in ("split_special_tokens", "clean_up_tokenization_spaces"):
        if (flag := values.get(name)) is not None:
            if not isinstance(flag, bool):
                raise FPTError(f"has a {name} that is neither true nor false: {flag!r:.60}")
            options[name] = flag
    longest = values.get("model_max_length")
    if not isinstance(longest, (int, float, type(None))):
        raise FPTError(f"has a model_max_length that is not a number: {longest!r:.60}")
    if isinstance(longest, int) and 0 < longest < 10**9:
        options["model_max_length"] = longest
    return {"padding_side": "right", **options}


def _token(value: Any, role: str) -> str | None:
    """The text of a special token, which may stand with its options."""
    text = value.get("content") if isinstance(value, dict) else value
    if text is None and value is None:
        return None
    if not isinstance(text, str) or not 1 <= len(text) <= 1_000:
        raise FPTError(f"has a {role} that is not text: {value!r:.60}")
    return text


@contextlib.contextmanager
def native(hide: bool = True) -> Iterator[None]:
    """Turn what the tokenizers' native code raises into a ValueError; a panic is no Exception, and prints lines of its own.

    Args:
        hide: keep what is printed to standard error until it is clear that there was no panic.

    Raises:
        ValueError: whatever was raised, but for a `TimeoutError`.
    """
    with _held_stderr() if hide else contextlib.nullcontext():
        try:
            yield
        except (FPTError, TimeoutError):
            raise
        except Exception as error:  # the library raises the bare class
            raise ValueError(short(error)) from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            raise ValueError(short(error)) from error


def in_time(call: Callable[[], Result], seconds: float) -> Result:
    """What `call` returns, in at most so many seconds.

    It runs in a thread that is left behind when it takes longer (native code can't be stopped), and that ends with the process.

    Raises:
        TimeoutError: it takes longer.
    """
    done: dict[str, Any] = {}

    def work() -> None:
        try:
            done["result"] = call()
        except BaseException as error:  # raised where it was asked for
            done["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if "error" in done:
        raise done["error"]
    if "result" not in done:
        raise TimeoutError
    return done["result"]


@contextlib.contextmanager
def _held_stderr() -> Iterator[None]:
    """Hold what is written to file descriptor 2, and drop it when the block raises."""
    with _STDERR, contextlib.ExitStack() as stack:
        try:
            sys.stderr.flush()
            before = os.dup(2)
            stack.callback(os.close, before)
            held = stack.enter_context(tempfile.TemporaryFile())
            os.dup2(held.fileno(), 2)
        except (AttributeError, OSError, ValueError):  # there is none
            yield
            return
        try:
            yield
        except BaseException:
            os.dup2(before, 2)
            raise
        sys.stderr.flush()
        os.dup2(before, 2)
        held.seek(0)
        with contextlib.suppress(OSError):
            os.write(2, held.read())

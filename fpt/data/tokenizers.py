"""Tokenizers trained on the training texts (atom-level SMILES, characters, words, BPE), or one from the Hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fpt.args import DataArguments
from fpt.data.open_tokenizer import find_tokenizer, in_time, native, open_tokenizer
from fpt.data.tokenizer_checks import check_tokenizer
from fpt.data.tokenizer_probe import trust
from fpt.errors import FPTError, did_you_mean
from fpt.untrusted.bounded_json import short
from fpt.untrusted.pretrained import fetch

__all__ = ["TRAINED", "build_tokenizer", "encode_texts", "open_tokenizer", "tokenizer_sha256", "unknown_id", "vocabulary_size"]

PAD, UNK, BOS, EOS = SPECIAL = ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]

# A text that has the name of a special token as a word gets "[" and the rest, so that it is not taken for that token.
_NAME = rf"\[(?=(?:{'|'.join(token[1:-1] for token in SPECIAL)})\]"
# How a text is cut into tokens. atom: an atom in brackets, a two-letter organic atom, a ring number above 9, or a character.
PIECES = {
    "atom": pre_tokenizers.Split(Regex(rf"{_NAME})|\[[^\]]*\]|Br|Cl|%\d\d|[\s\S]"), behavior="isolated"),
    "char": pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated"),
    "word": pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(rf"^{_NAME}$)"), behavior="isolated")]
    ),
}
# The longest token that BPE learns, in characters or bytes. Longer ones save little (13.4 tokens for a molecule of CYP3A4 in
# place of 13.3), and remember one training text each.
LONGEST_TOKEN = 15
# BPE takes time quadratic in the length of what it merges: longer runs without a space are cut here.
SHORT = pre_tokenizers.FixedLength(512)


def _pieces(texts: Sequence[str], args: DataArguments, words: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
    tokenizer.pre_tokenizer = PIECES[args.tokenizer or ""]
    if args.tokenizer != "word":
        tokenizer.decoder = decoders.Fuse()
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return tokenizer


def _bpe(texts: Sequence[str], args: DataArguments, words: bool) -> Tokenizer:
    """BPE of bytes within words, or of characters where there are none. A token is in two places of different texts at least."""
    different = list(dict.fromkeys(texts))
    longest, alphabet = LONGEST_TOKEN, []
    if words:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False), SHORT])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        least, why = len(alphabet) + len(SPECIAL), "BPE of text starts from the 256 bytes"
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=UNK))
        tokenizer.pre_tokenizer = SHORT
        tokenizer.decoder = decoders.Fuse()
        # Half a text at most, or short texts would become one token each.
        longest = min(longest, max(1, int(median([len(text) for text in different] or [0])) // 2))
        characters = len(set().union(*different))
        least, why = characters + len(SPECIAL), f"the data has {characters} different characters"
    if args.vocab_size < least:
        raise FPTError(
            f"--vocab_size {args.vocab_size} is too small: {why} and {len(SPECIAL)} special tokens; give {least} or more"
        )
    trainer = trainers.BpeTrainer(
        vocab_size=args.vocab_size,
        min_frequency=2,
        max_token_length=longest + 1,  # the trainer stops below it
        initial_alphabet=alphabet,
        special_tokens=SPECIAL,
        show_progress=False,
    )
    tokenizer.train_from_iterator(different, trainer)
    return tokenizer


TRAINED: dict[str, Callable[[Sequence[str], DataArguments, bool], Tokenizer]] = {**dict.fromkeys(PIECES, _pieces), "bpe": _bpe}


def build_tokenizer(texts: Sequence[str], args: DataArguments, words: bool = True) -> PreTrainedTokenizerBase:
    """Return the tokenizer that ``--tokenizer`` names; `texts` are the training inputs and nothing else.

    Every trained sequence is ``[BOS] tokens [EOS]``: the readout reads the state at the last token, which has then
    seen the whole input. The name of a special token in a text is text like any other.

    Args:
        words: whether texts are made of words. ``bpe`` then merges the bytes of a word, and knows every text; of molecules and
            sequences it merges characters.

    Raises:
        FPTError: there is no such tokenizer, or the vocabulary is too small.
    """
    if args.tokenizer not in TRAINED:
        return _from_hub(args.tokenizer or "")
    tokenizer = TRAINED[args.tokenizer](texts, args, words)
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, ids[BOS]), (EOS, ids[EOS])]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="right",
        split_special_tokens=True,
    )
    trust(check_tokenizer(_tree(made)))
    return made


def unknown_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that stands for what `tokenizer` does not know; None where it has none, or uses one that means something else.

    (GPT-2's unknown token is its end of text: a tokenizer of bytes knows everything.)
    """
    others = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
    return None if tokenizer.unk_token_id in others else tokenizer.unk_token_id


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows of an embedding for all ids of `tokenizer`: some leave numbers out."""
    return max(tokenizer.get_vocab().values()) + 1


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hex SHA-256 of all that decides which tokens a text has; how batches are padded and cut is no part of that."""
    return hashlib.sha256(json.dumps(_tree(tokenizer), sort_keys=True).encode()).hexdigest()


def _tree(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {**json.loads(tokenizer.backend_tokenizer.to_str()), "padding": None, "truncation": None}


def _from_hub(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or of a repository of the Hub, which the user named."""
    try:
        folder = fetch(name, weights=False).folder
    except (OSError, ValueError) as error:
        raise FPTError(
            f"--tokenizer {name!r} is neither {' nor '.join(sorted(TRAINED))}{did_you_mean(name, TRAINED)}, and it can't be"
            f" loaded from a folder or the Hub: {short(error)}"
        ) from error
    tokenizer = find_tokenizer(folder)
    if tokenizer is None:
        raise FPTError(f"--tokenizer {name!r}: {folder} has no tokenizer")
    if tokenizer.pad_token is None:
        # Padded positions are masked, so any token serves.
        first = tokenizer.convert_ids_to_tokens(min(tokenizer.get_vocab().values()))
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or first
    return tokenizer


# Characters that a text may have after a tokenizer of someone else has replaced some; far below what memory holds.
LONGEST_GROWN = 20_000_000
# Characters that are measured at a time.
PIECE = 100
# How long a tokenizer of someone else may take, a hundred times what is usual: regular expressions can be made to take days.
SECONDS, CHARACTERS_A_SECOND = 60, 2_000


def encode_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[list[list[int]], list[bool]]:
    """Tokenize; a sequence longer than `max_length` loses tokens before its last one, which the readout reads.

    Returns:
        The token ids of each text, and whether it was cut. A text that the tokenizer fails on has no tokens.
    """
    growth = getattr(tokenizer, "fpt_growth", None)
    fitting = [growth is None or _fits(text, tokenizer, growth) for text in texts]
    found = iter(_encode([text for text, fits in zip(texts, fitting, strict=True) if fits], tokenizer, growth is not None))
    ids = [next(found) if fits else [] for fits in fitting]
    cut = [len(i) > max_length for i in ids]
    return [i if not c else i[: max_length - 1] + i[-1:] for i, c in zip(ids, cut, strict=True)], cut


def _encode(texts: list[str], tokenizer: PreTrainedTokenizerBase, foreign: bool) -> list[list[int]]:
    if not texts:
        return []
    try:
        with native(hide=foreign):
            if not foreign:
                return tokenizer(texts, add_special_tokens=True)["input_ids"]
            seconds = SECONDS + sum(map(len, texts)) / CHARACTERS_A_SECOND
            return in_time(lambda: tokenizer(texts, add_special_tokens=True)["input_ids"], seconds)
    except TimeoutError as error:
        raise FPTError(f"the tokenizer takes more than {seconds:,.0f} seconds for {len(texts):,} texts; use another") from error
    except ValueError:
        if len(texts) == 1:
            return [[]]
        return [_encode([text], tokenizer, foreign)[0] for text in texts]


def _fits(text: str, tokenizer: PreTrainedTokenizerBase, growth: int) -> bool:
    """Whether a text stays small when its characters are replaced. Only one that could become large is measured, in pieces."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    if len(text) * growth <= LONGEST_GROWN or normalizer is None:
        return True
    grown = 0
    try:
        with native():
            for start in range(0, len(text), PIECE):
                grown += len(normalizer.normalize_str(text[start : start + PIECE]))
                if grown > LONGEST_GROWN:
                    return False
    except ValueError:
        return False
    return True

"""What a ``tokenizer.json`` of someone else may say: sizes, ids and growth are checked on its JSON, before anything is built.

The library that reads such a file trusts it: an id may be outside of the embedding, a chain of replacements may make gigabytes of
a short text (its allocator then ends the process), a fixed padding may have 10**12 tokens, a merge may be drawn at random.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fpt.errors import FPTError

# The largest known files have 33 MB and 2.3 million values (262,144 tokens, 514,906 merges).
MOST_BYTES, MOST_VALUES = 64 * 2**20, 4_000_000
# Of a tokenizer whose embedding is known: more than its merges, scores and added tokens need.
BYTES_PER_TOKEN, VALUES_PER_TOKEN = 1_000, 10
SPARE_BYTES, SPARE_VALUES = 4 * 2**20, 10_000
# Characters of one string outside of the vocabulary, such as a regular expression, and of an added token.
LONGEST_STRING, LONGEST_TOKEN, LONGEST_AFFIX = 20_000, 1_000, 100
# Normalizers, pre-tokenizers, ... of one tokenizer, and how deep they are nested.
MOST_PARTS, DEEPEST = 100, 20
# Characters that Unicode makes of one (NFKC of U+FDFA), and that a tokenizer may. An ordinary one, T5's or ALBERT's, has some
# 2,000 on paper: Unicode's, SentencePiece's table with 33 bytes for one character, and a regular expression that is replaced.
UNICODE_GROWTH, MOST_GROWTH = 18, 20_000
# Copies of a text in its own encoding, and tokens that are put around it.
MOST_COPIES, MOST_AROUND = 4, 1_000

# The parts by section: the name of the list in a sequence of them, and the kinds that there are.
UNICODE = {"BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Nmt"}
NORMALIZERS = {*UNICODE, "ByteLevel", "Precompiled", "Prepend", "Replace", "Strip", "StripAccents"}
PRE_TOKENIZERS = {
    *("BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Delimiter", "Digits", "FixedLength", "Metaspace", "Punctuation"),
    *("Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit"),
}
PROCESSORS = {"BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing"}
DECODERS = {"BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"}
SECTIONS = {
    "normalizer": ("normalizers", NORMALIZERS),
    "pre_tokenizer": ("pretokenizers", PRE_TOKENIZERS),
    "post_processor": ("processors", PROCESSORS),
    "decoder": ("decoders", DECODERS),
}
MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")


@dataclass(frozen=True)
class CheckedTokenizer:
    """A tokenizer's JSON that passed.

    Attributes:
        text: the JSON, written again, so that what is built is what was checked.
        growth: characters that one character of a text can become.
    """

    text: str
    growth: int

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def limits(vocab_size: int | None) -> tuple[int, int]:
    """The most bytes and JSON values of the file of a tokenizer for an embedding of `vocab_size` rows, None if not known."""
    if vocab_size is None:
        return MOST_BYTES, MOST_VALUES
    return (
        min(MOST_BYTES, SPARE_BYTES + BYTES_PER_TOKEN * vocab_size),
        min(MOST_VALUES, SPARE_VALUES + VALUES_PER_TOKEN * vocab_size),
    )


def check_tokenizer(tree: dict[str, Any], vocab_size: int | None = None, drop_beyond: bool = False) -> CheckedTokenizer:
    """Check a parsed ``tokenizer.json``.

    Args:
        vocab_size: rows of the embedding that its ids go into, when that is known.
        drop_beyond: leave out added tokens without a row: published models have such, for uses that are not ours.

    Returns:
        What is to be built: without padding and truncation, which are ours to do.

    Raises:
        FPTError: it can't be used safely, and why; the message is the end of a sentence about the tokenizer.
    """
    model, added = tree.get("model"), tree.get("added_tokens") or []
    if not isinstance(model, dict) or not isinstance(added, list):
        raise FPTError("has no model, or no list of added tokens")
    model = {**model, "type": _model_type(model)}
    if drop_beyond and vocab_size is not None:
        added = [token for token in added if not _is_beyond(token, vocab_size)]
    _check_model(model)
    _check_vocabulary(model.get("vocab"), _added_ids(added), vocab_size)
    growth, count = 1, 0
    for section, (name, kinds) in SECTIONS.items():
        parts = list(_parts(tree.get(section), name, kinds, section))
        count += len(parts)
        if count > MOST_PARTS:
            raise FPTError(f"has more than {MOST_PARTS} normalizers, pre-tokenizers, processors and decoders")
        if section == "post_processor":
            _check_processors(parts, vocab_size)
        elif section == "decoder":
            _growth(parts, section)
        else:
            growth = _growth(parts, section, growth)
    kept = {section: tree.get(section) for section in SECTIONS}
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **kept, "model": model}
    try:
        return CheckedTokenizer(json.dumps(whole, allow_nan=False), growth)
    except (ValueError, RecursionError) as error:
        raise FPTError("has a number that is not finite, or lists too deep") from error


def _model_type(model: dict[str, Any]) -> str:
    """The kind of model; files from before there was an entry for it have only its options."""
    kind = model.get("type")
    if kind is None:
        if isinstance(model.get("vocab"), list):
            kind = "Unigram"
        else:
            kind = "BPE" if "merges" in model else "WordPiece" if "max_input_chars_per_word" in model else "WordLevel"
    if kind not in MODELS:
        raise FPTError(f"has a model of the unknown type {_shown(kind)}")
    return kind


def _check_model(model: dict[str, Any]) -> None:
    for key in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if not isinstance(model.get(key), (str, type(None))):
            raise FPTError(f"has a {key} that is not text: {_shown(model[key])}")
    if len(model.get("unk_token") or "") > LONGEST_TOKEN:
        raise FPTError("has an unknown token of more than 1,000 characters")
    if any(len(model.get(key) or "") > LONGEST_AFFIX for key in ("continuing_subword_prefix", "end_of_word_suffix")):
        raise FPTError(f"puts more than {LONGEST_AFFIX} characters around pieces of words")
    if model.get("dropout"):
        raise FPTError(
            f"leaves out merges at random (dropout {_shown(model['dropout'])}): a text would have other tokens each time"
        )


def _is_beyond(token: Any, vocab_size: int) -> bool:
    return isinstance(token, dict) and isinstance(token.get("id"), int) and token["id"] >= vocab_size


def _added_ids(added: list[Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for token in added:
        content, index = (token.get("content"), token.get("id")) if isinstance(token, dict) else (None, None)
        if not isinstance(content, str) or not 1 <= len(content) <= LONGEST_TOKEN or type(index) is not int:
            raise FPTError(f"has the added token {_shown(token)}, which makes no sense")
        if found.setdefault(content, index) != index:
            raise FPTError(f"has the added token {_shown(content)} twice")
    return found


def _check_vocabulary(vocab: Any, added: dict[str, int], vocab_size: int | None) -> None:
    """Refuse ids that two tokens share, and those that have no row in the embedding."""
    if isinstance(vocab, list):
        if not all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) and type(p[1]) in (int, float) for p in vocab):
            raise FPTError("has a vocabulary that is not a list of tokens and their scores")
        ids: list[Any] = list(range(len(vocab)))
        known = {pair[0]: index for index, pair in enumerate(vocab)} if added else {}
    elif isinstance(vocab, dict):
        ids, known = list(vocab.values()), vocab
    else:
        raise FPTError("has no vocabulary")
    if not all(type(index) is int for index in ids):
        raise FPTError(f"has an id that is not a whole number: {_shown(next(i for i in ids if type(i) is not int))}")
    ids += [index for token, index in added.items() if known.get(token) != index]
    if not ids:
        raise FPTError("has no tokens")
    if len(set(ids)) != len(ids):
        raise FPTError("has two tokens with the same id")
    highest, lowest = max(ids), min(ids)
    if lowest < 0:
        raise FPTError(f"has the negative id {lowest}")
    if vocab_size is not None and highest >= vocab_size:
        raise FPTError(f"has {len(ids):,} tokens with ids up to {highest:,}, and the embedding has {vocab_size:,} rows")
    if highest > 2 * len(ids) + SPARE_VALUES:
        raise FPTError(f"has {len(ids):,} tokens with ids up to {highest:,}: an embedding would be mostly empty")


def _parts(part: Any, name: str, kinds: set[str], section: str, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The parts of a section, those of sequences in their order."""
    if part is None and depth == 0:
        return
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "Sequence" and isinstance(part.get(name), list) and depth < DEEPEST:
        for inner in part[name]:
            yield from _parts(inner, name, kinds, section, depth + 1)
    elif isinstance(kind, str) and kind in kinds:
        _check_strings(part, section)
        yield part
    else:
        raise FPTError(f"has a {section} of the unknown type {_shown(kind)}")


def _check_strings(part: dict[str, Any], section: str) -> None:
    for key, value in part.items():
        longest = MOST_BYTES if key == "precompiled_charsmap" else LONGEST_STRING
        inner = value.values() if isinstance(value, dict) else [value]
        if any(isinstance(text, str) and len(text) > longest for text in inner):
            raise FPTError(f"has a {section} with a {_shown(key)} of more than {longest:,} characters")
    if part["type"] == "FixedLength" and not _is_count(part.get("length"), 1):
        raise FPTError(f"cuts a text into pieces of {_shown(part.get('length'))} characters")
    if part["type"] == "Strip" and section == "decoder" and not all(_is_count(part.get(k), 0, 100) for k in ("start", "stop")):
        raise FPTError("strips a number of characters that makes no sense")


def _is_count(value: Any, least: int, most: int = 2**31) -> bool:
    return type(value) is int and least <= value <= most


def _growth(parts: list[dict[str, Any]], section: str, growth: int = 1) -> int:
    """The most characters that `parts`, one after the other, make of one that was `growth` before.

    Unicode's own forms do not grow what they made: they count each time that something new was put in before them.
    """
    fresh = True
    for part in parts:
        if part["type"] in UNICODE:
            growth *= UNICODE_GROWTH if fresh else 1
            fresh = False
        else:
            growth *= _own_growth(part, section)
            fresh = fresh or part["type"] in ("ByteLevel", "Precompiled", "Prepend", "Replace")
        if growth > MOST_GROWTH:
            raise FPTError(f"can make {growth:,} characters of one")
    return growth


def _own_growth(part: dict[str, Any], section: str) -> int:
    kind = part["type"]
    if kind in ("ByteLevel", "Metaspace"):
        return 1 if section == "decoder" else 2
    if kind == "Prepend":
        return 1 + len(_text(part.get("prepend"), "prepends"))
    if kind == "Precompiled":
        return _precompiled_growth(part.get("precompiled_charsmap"))
    if kind == "Replace":
        content, pattern = _text(part.get("content"), "puts in"), part.get("pattern")
        literal = pattern.get("String") if isinstance(pattern, dict) else None
        if isinstance(literal, str) and literal:
            return max(1, -(-len(content) // len(literal)))
        return 1 + len(content)  # a regular expression may match nothing, between any two characters
    return 1


def _text(value: Any, does: str) -> str:
    if not isinstance(value, str):
        raise FPTError(f"{does} something that is not text: {_shown(value)}")
    return value


def _precompiled_growth(table: Any) -> int:
    """The longest replacement of SentencePiece's table: a trie after its length in bytes, then texts that end with zeros."""
    try:
        data = base64.b64decode(table, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise FPTError("has a table of characters that is not base64") from error
    length = int.from_bytes(data[:4], "little")
    if len(data) < 4 or length % 4 or 4 + length > len(data):
        raise FPTError("has a table of characters that is cut")
    return max(1, max(map(len, data[4 + length :].split(b"\0"))))


def _check_processors(parts: list[dict[str, Any]], vocab_size: int | None) -> None:
    """Refuse templates that lose the text or have it many times, and tokens around it that have no row in the embedding."""
    copies = 1
    ids: list[Any] = []
    for part in parts:
        if part["type"] == "TemplateProcessing":
            copies *= _copies(part)
            specials = part.get("special_tokens")
            if not isinstance(specials, dict) or not all(isinstance(s, dict) for s in specials.values()):
                raise FPTError("has a template without a table of its special tokens")
            for special in specials.values():
                own = special.get("ids")
                ids += own if isinstance(own, list) else [None]
        elif part["type"] != "ByteLevel":
            ids += [p[1] if isinstance(p, list) and len(p) == 2 else None for p in (part.get("sep"), part.get("cls"))]
    if copies > MOST_COPIES:
        raise FPTError(f"puts a text {copies:,} times into its own encoding")
    if len(ids) > MOST_AROUND:
        raise FPTError(f"puts more than {MOST_AROUND:,} tokens around a text")
    for index in ids:
        if type(index) is not int or index < 0 or (vocab_size is not None and index >= vocab_size):
            raise FPTError(f"puts a token of the id {_shown(index)} around a text, which has no row in the embedding")


def _copies(part: dict[str, Any]) -> int:
    """How many times a template has its text."""
    for name in ("single", "pair"):
        pieces = part.get(name)
        if not isinstance(pieces, list) or len(pieces) > MOST_AROUND or not all(isinstance(p, dict) for p in pieces):
            raise FPTError("has a template that makes no sense")
    texts = [piece["Sequence"] for piece in part["single"] if "Sequence" in piece]
    named = [text.get("id") if isinstance(text, dict) else None for text in texts]
    if not named or any(name != "A" for name in named):
        raise FPTError("has a template without the text, or with a second one")
    return len(named)


def _shown(value: Any) -> str:
    return repr(value)[:60]

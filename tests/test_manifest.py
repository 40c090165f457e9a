"""The manifest of a cache entry: written and read as one record, its JSON and the keys of entries as they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fpt.data.manifest import Manifest, Request, read_made, read_manifest
from fpt.errors import FPTError
from fpt.files.whole import write_json
from fpt.inputs import Tokens
from fpt.outputs import Classes

REQUEST = Request("mine", {"a": None}, "random", 1, (3, 2), 512, False, {"datasets": "5"})
TEXTS = replace(REQUEST, tokenizer="char", augment=0)


def manifest(request: Request = TEXTS) -> Manifest:
    return Manifest(
        request=request,
        origin="here",
        users_own=True,
        data_sha256="0",
        input=Tokens(20, 0),
        output=Classes(("a", "b")),
        primary_metric="auroc",
        rows={"train": 2, "valid": 1, "test": 1},
        rejected=1,
        notes=("odd",),
    )


def test_a_request_has_only_what_applies() -> None:
    """Its JSON is hashed into the key of an entry."""
    numbers = {"task", "options", "split", "split_seed", "code", "max_length", "keep_notation", "libraries"}
    assert set(REQUEST.to_dict()) == numbers
    assert set(TEXTS.to_dict()) == numbers | {"tokenizer", "vocab_size", "augment"}
    assert set(replace(REQUEST, split_seed=None, features="graph").to_dict()) == numbers | {"features"}
    assert set(Request("xor", {}, "generated", 1, (1,)).to_dict()) == {"task", "options", "split", "split_seed", "code"}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_json(path, manifest().to_dict())
    assert read_manifest(path) == manifest()
    made = read_made(path)
    assert made is not None
    assert (made.request, made.origin, made.users_own, made.data_sha256) == (TEXTS, "here", True, "0")


def test_generated_data_describes_no_files() -> None:
    told = replace(manifest(), input=None).to_dict()
    assert not {"input", "unused", "notes", "schema", "split_method", "with_unknown_tokens"} & set(told)
    assert told == json.loads(json.dumps(told))


def test_an_entry_of_another_version_answers_no_request(tmp_path: Path) -> None:
    path, values = tmp_path / "manifest.json", manifest().to_dict()
    write_json(path, {**values, "later": 1})
    assert read_made(path) is not None
    write_json(path, {**values, "request": {**values["request"], "later": 1}})
    assert read_made(path) is None


@pytest.mark.parametrize("damage", [{"rows": None}, {"rejected": "1"}, {"output": {"kind": "x"}}, {"input": None}])
def test_a_damaged_manifest_is_refused(damage: dict, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_json(path, {**manifest().to_dict(), **damage})
    with pytest.raises(FPTError):
        read_manifest(path)

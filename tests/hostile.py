"""Damaged and hostile files, for the tests that read them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fpt.files.whole import sha256_file

SEED = 9


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut out, put in, repeated or cut short."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 40])):
        at = rng.randrange(len(out) + 1)
        what = rng.randrange(6)
        if what == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif what == 1 and at < len(out):
            out[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif what == 2:
            del out[at : at + rng.choice([1, 2, 8, 100])]
        elif what == 3:
            out[at:at] = rng.randbytes(rng.choice([1, 4, 8, 64]))
        elif what == 4:
            out[at:at] = out[max(0, at - 64) : at]
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


def survives(read: Callable[[bytes], Any], data: bytes, count: int, *errors: type[Exception]) -> tuple[int, int]:
    """Read so many damaged copies; returns how many were read and how many refused."""
    rng = random.Random(SEED)
    good = bad = 0
    for number in range(count):
        copy = damaged(data, rng)
        try:
            read(copy)
            good += 1
        except errors as error:
            assert str(error), f"an error without words for copy {number}"
            bad += 1
        except Exception as error:
            raise AssertionError(f"copy {number} of {len(copy)} bytes: {type(error).__name__}: {error}") from error
    assert good + bad == count
    return good, bad


def through_file(path: Path, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    def do(data: bytes) -> Any:
        path.write_bytes(data)
        return read(path)

    return do


def with_hashes(folder: Path) -> None:
    """Someone who changes a file can change its hash as well."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["model_sha256"] = sha256_file(folder / "model.safetensors")
    if config["tokenizer_sha256"] is not None:
        config["tokenizer_sha256"] = sha256_file(folder / "tokenizer.json")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [p for key, inner in items for p in places(inner, (*path, key))]


DELETED = object()
# What a value of a configuration may be that should be another one.
VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 2, 7, 99_999, 2**31, 2**63, 10**12, 2**70, 1.5, -1.5, 1e308, float("nan"), float("inf")),
    *("", "x", "a\0b", "<img src=x onerror=alert(1)>", "../../x", "run:.", "random:gpt2-xl", "user/repo", "\ud800", "9" * 5000),
    *([], [0], [[]], [20_000, 20_000], ["a", "a"], {}, {"a": 1}, {"kind": "bits", "size": 1, "tokens": 1000}, DELETED),
]


def put(values: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy of JSON values with another value at `place`, or none."""
    copy = json.loads(json.dumps(values))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    if value is DELETED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return copy

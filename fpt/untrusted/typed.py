"""JSON that anybody may have written, as typed records: each value has its declared type, or one line says which has not."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from fpt.errors import FPTError

T = TypeVar("T")
# Values of a file: some hundred bytes each once they are read, so that a file can't take much more memory than a model does.
MOST_VALUES = 1_000_000
MOST_BYTES = 64 * 2**20
DEEPEST = 50
# Digits of a whole number: Python takes quadratic time for long ones.
LONGEST_NUMBER = 400


def read_json(path: Path) -> Any:
    """Return what a JSON file says. Numbers are finite, and neither memory nor time can be much more than an honest file takes.

    Raises:
        FPTError: the file is not there, not UTF-8, not JSON, too large or too deep, or has a number that is not finite.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ValueError(f"it has {size / 2**20:,.0f} MiB, and at most {MOST_BYTES / 2**20:,.0f} are read")
        return parse_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "too deep"
        raise FPTError(f"{path} can't be read: {why}; copy the file again") from error


def parse_json(data: bytes) -> Any:
    """Return what JSON says; see `read_json`.

    Raises:
        ValueError: it is not UTF-8, not JSON, has too many values, or a number that is not finite.
        RecursionError: it is too deep.
    """
    if (values := data.count(b",") + data.count(b"[") + data.count(b"{")) > MOST_VALUES:
        raise ValueError(f"it has {values:,} values, and at most {MOST_VALUES:,} are read")
    found = json.loads(data.decode("utf-8-sig"), parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    _check(found, DEEPEST)
    return found


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is not finite")
    return value


def _check(value: Any, depth: int) -> None:
    """Refuse what is too deep, and texts that can't be written as UTF-8."""
    if not depth:
        raise ValueError(f"it is more than {DEEPEST} levels deep")
    if isinstance(value, str):
        value.encode()  # a lone surrogate; UnicodeEncodeError is a ValueError
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check(key, depth)
            _check(inner, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth - 1)


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def as_type(kind: Callable[..., T], values: Any, where: str) -> T:
    """Return JSON values as `kind`, a dataclass or any annotation. Nothing is converted but lists to tuples and int to float.

    Args:
        where: the values are, for the error.

    Raises:
        FPTError: a value is missing or has another type, or `kind` itself refuses the values (with a ValueError).
    """
    try:
        # Through JSON: only there the strict mode takes a list for a tuple.
        return _adapter(kind).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in (where, *first["loc"]) if part != "")
        if first["type"] == "missing":
            raise FPTError(f"{place} is missing") from error
        said = first["msg"].removeprefix("Value error, ")
        shown = "" if isinstance(first["input"], (Mapping, list)) else f"{str(first['input'])[:50]!r}: "
        raise FPTError(f"{place} is {shown or 'wrong: '}{said[:1].lower()}{said[1:]}") from error

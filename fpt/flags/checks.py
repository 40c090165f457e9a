"""Checks of arguments: values of the right type, numbers in their range, names that are known. Used in ``__post_init__``."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fpt.errors import FPTError, did_you_mean

# Seeds of numpy's old generators have 32 bits.
LARGEST_SEED = 2**32 - 1
# More of anything that is counted is a slip of the finger.
LARGEST_COUNT = 10**9
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`. With `above` or `below`, that end itself is not one of them."""

    low: float = 1
    high: float = LARGEST_COUNT
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low = f"above {self.low:,}" if self.above else f"at least {self.low:,}"
        return f"{low} and {f'below {self.high:,}' if self.below else f'at most {self.high:,}'}"


COUNT = Range()
COUNT_OR_NONE = Range(0)
SEED = Range(0, LARGEST_SEED)
RATE = Range(0, 1_000, above=True)
SHARE = Range(0, 1)
DROPOUT = Range(0, 1, below=True)
WIDTH = Range(1, 2**20)


def check_types(arguments: Any) -> None:
    """Refuse values that are not of the type of their field, text without anything in it, and numbers that are not finite.

    Raises:
        FPTError: a value is refused; the message names its flag.
    """
    hints = typing.get_type_hints(type(arguments))
    may_be_empty = getattr(arguments, "_may_be_empty", ())
    for field in dataclasses.fields(arguments):
        if not field.init:
            continue
        value: Any = getattr(arguments, field.name)
        kinds = typing.get_args(hints[field.name]) or (hints[field.name],)
        if value is None and type(None) in kinds:
            continue
        kind = next((k for k in kinds if k in NAMES), None)
        if kind is None:
            continue
        several = typing.get_origin(hints[field.name]) is list
        if several and (not isinstance(value, list) or not value):
            raise FPTError(f"--{field.name} {_short(value)} must be one or several values")
        for one in value if several else [value]:
            _check_type(field.name, one, kind, field.name in may_be_empty)


def _check_type(name: str, value: Any, kind: Any, may_be_empty: bool) -> None:
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise FPTError(f"--{name} {_short(value)} must be {NAMES[kind]}")
    if kind is float and not -math.inf < value < math.inf:
        raise FPTError(f"--{name} {value} must be a finite number")
    empty = kind is str and not str(value).strip() and not may_be_empty
    if empty and not (value and "delimiter" in name):
        raise FPTError(f"--{name} is empty; give a value, or leave it out")


def check_ranges(arguments: Any, **ranges: Range) -> None:
    """Refuse what `check_types` does, and numbers outside of the range of their name; None is always allowed.

    Raises:
        FPTError: a number is refused.
    """
    check_types(arguments)
    for name, range_ in ranges.items():
        value = getattr(arguments, name)
        if value is not None and value not in range_:
            raise FPTError(f"--{name} {value} must be {range_}")


def check_known(arguments: Any, **known: Iterable[str]) -> None:
    """Refuse what `check_types` does, and names that are not known; None is always allowed.

    Raises:
        FPTError: a name is refused; the message suggests the nearest ones.
    """
    check_types(arguments)
    for name, names in known.items():
        value = getattr(arguments, name)
        if value is not None and value not in names:
            raise FPTError(f"unknown --{name} {_short(value)}{did_you_mean(value, names)}; known: {', '.join(names)}")


def number_list(text: str, kind: Callable[[str], Any], range_: Range, option: str, example: str) -> list[Any]:
    """The numbers of a list with commas.

    Raises:
        FPTError: one is not a number, comes twice, or is out of range.
    """
    try:
        values = [kind(word) for word in text.split(",")]
    except ValueError as error:
        raise FPTError(f"{option} {_short(text)} must be numbers separated by commas: {example}") from error
    if len(set(values)) < len(values):
        raise FPTError(f"{option} {_short(text)} names a number twice")
    for value in values:
        if value not in range_:
            raise FPTError(f"{option} {_short(text)}: {value} must be {range_}")
    return values


def check_heads(width: int, heads: int, width_flag: str, heads_flag: str) -> None:
    """Refuse a number of attention heads that does not divide the width.

    Raises:
        FPTError: it does not.
    """
    if width % heads:
        raise FPTError(f"--{heads_flag} {heads} must divide --{width_flag} {width}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"

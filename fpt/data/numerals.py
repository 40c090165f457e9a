"""Numbers as people write them: decimal points and commas, thousands separators, missing values. A guess is never silent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from fpt.data.table import cell_text, printable
from fpt.errors import FPTError

POINT, COMMA = ".", ","
# What counts as no value, in any case; pandas' own list, and "-", "?" and "." as people type them.
MISSING = (
    *("", "na", "n/a", "nan", "-nan", "<na>", "#n/a", "#na", "none", "null", "nil", "n.d.", "-", "?", "."),
    *("#value!", "#div/0!", "#null!", "#ref!", "#name?", "#num!"),
)
# Squares of larger numbers are not finite.
LARGEST = 1e150
SIGN = r"[+\-]?"
EXPONENT = r"(?:[eE][+\-]?\d+)?"
PLAIN = re.compile(rf"{SIGN}\d+{EXPONENT}", re.ASCII)
# By decimal separator: a number with a fraction, and one whose thousands are set apart by the other one.
FRACTION = {d: re.compile(rf"{SIGN}(?:\d+{re.escape(d)}\d*|{re.escape(d)}\d+){EXPONENT}", re.ASCII) for d in (POINT, COMMA)}
GROUPED = {
    POINT: re.compile(rf"{SIGN}\d{{1,3}}(?:,\d{{3}})+(?:\.\d*)?", re.ASCII),
    COMMA: re.compile(rf"{SIGN}\d{{1,3}}(?:\.\d{{3}})+(?:,\d*)?", re.ASCII),
}
SPACED = re.compile(rf"{SIGN}\d{{1,3}}(?:[ '’\u00a0\u202f]\d{{3}})+(?:[.,]\d*)?", re.ASCII)
SPACES = re.compile(r"[ '’\u00a0\u202f]")
# One group only: 9,452 is 9452 or 9.452.
EITHER = {d: re.compile(rf"{SIGN}[1-9]\d{{0,2}}{re.escape(d)}\d{{3}}", re.ASCII) for d in (POINT, COMMA)}
DIGITS = re.compile(r"\d", re.ASCII)


def is_missing(text: str, missing: Iterable[str] = MISSING) -> bool:
    """Whether a cell holds no value; `missing` are lower-case texts that mean it."""
    return text.strip().lower() in missing


def number_of(cell: Any, decimal: str = POINT) -> float:
    """The number in a cell, in full precision.

    Args:
        decimal: the decimal separator, ``.`` or ``,``; the other one, spaces and apostrophes may set thousands apart.

    Raises:
        ValueError: it is not a finite number.
    """
    if isinstance(cell, (int, float, np.integer, np.floating, np.bool_, Decimal)):
        try:
            number = float(cell)
        except OverflowError:
            number = math.inf
    else:
        text = cell_text(cell).strip().replace("\u2212", "-")
        if SPACED.fullmatch(text):
            text = SPACES.sub("", text)
        if GROUPED[decimal].fullmatch(text):
            text = text.replace(COMMA if decimal == POINT else POINT, "")
        elif not (PLAIN.fullmatch(text) or FRACTION[decimal].fullmatch(text)):
            if text.lower().lstrip("+-") in ("inf", "infinity", "nan"):
                raise ValueError(f"{printable(text)!r} is not a finite number")
            raise ValueError(f"{printable(text)!r} is not a number")
        number = float(text.replace(COMMA, POINT))
    if not abs(number) <= LARGEST:
        raise ValueError(f"{printable(cell_text(cell))!r} is not a finite number, or too large")
    return number


def written(cell: Any, decimal: str) -> str:
    """A cell as text in the file's own way to write numbers, so that one that is a number already keeps its value."""
    text = cell_text(cell)
    return text.replace(POINT, decimal) if isinstance(cell, (float, np.floating, Decimal)) else text


def plain(number: float) -> str:
    """A number as the name of a class or a group: whole ones without a fraction."""
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)


def is_number(cell: Any, decimal: str = POINT) -> bool:
    """Whether `number_of` can read a cell."""
    try:
        number_of(cell, decimal)
    except ValueError:
        return False
    return True


def decimal_of(
    columns: Mapping[str, Sequence[Any]],
    given: str | None = None,
    whose: str = "the table",
    default: str | None = None,
    doubt_points: bool = True,
) -> str:
    """The decimal separator of a file: it is one in all columns of numbers.

    Args:
        columns: cells by column.
        given: what ``--decimal`` says.
        default: taken where the cells don't say it.
        doubt_points: whether 24.211 beside 730 may be 24211.

    Raises:
        FPTError: the cells speak for both or for neither, and nothing was given.
    """
    if given is not None:
        if given not in (POINT, COMMA):
            raise FPTError(f"--decimal {given!r} must be '.' or ','")
        return given
    proof: dict[str, str] = {}
    doubt: dict[str, str] = {}
    for name, cells in columns.items():
        texts = [SPACES.sub("", cell.strip().replace("\u2212", "-")) for cell in cells if isinstance(cell, str)]
        for text in texts:
            if (found := _proof(text)) and found not in proof:
                proof[found] = f"{text!r} in column {name!r}"
            elif EITHER[COMMA].fullmatch(text):
                doubt.setdefault(COMMA, f"{text!r} in column {name!r}")
        points = [text for text in texts if EITHER[POINT].fullmatch(text)]
        # 24.211 beside 730: where thousands are set apart by points, smaller numbers have none.
        whole = [text for text in texts if PLAIN.fullmatch(text)]
        if points and (default == COMMA or (doubt_points and whole and all(len(text.lstrip("+-")) <= 3 for text in whole))):
            doubt.setdefault(POINT, f"{points[0]!r} in column {name!r}")
    if len(proof) == 2:
        raise FPTError(
            f"{whose} has numbers with a decimal point ({proof[POINT]}) and with a decimal comma ({proof[COMMA]});"
            " write them in one way, or pass --decimal . or --decimal ,"
        )
    if proof:
        return next(iter(proof))
    # What was usual in training is not in doubt.
    doubt.pop(default or "", None)
    if doubt:
        sign, where = next(iter(doubt.items()))
        number = where.split("'")[1]
        raise FPTError(
            f"{whose}: {where} may be {number.replace(sign, '')} or {number.replace(sign, '.')}; pass"
            f" --decimal {POINT if sign == COMMA else COMMA} where {sign!r} sets thousands apart,"
            f" --decimal {sign} where it is the decimal separator"
        )
    return default or POINT


def _proof(text: str) -> str | None:
    """The decimal separator that a number proves; None where it proves neither."""
    for decimal, other in ((POINT, COMMA), (COMMA, POINT)):
        if FRACTION[decimal].fullmatch(text):
            return None if EITHER[decimal].fullmatch(text) else decimal
        if GROUPED[decimal].fullmatch(text) and (decimal in text or text.count(other) > 1):
            return decimal
    return None


def numbers_of(text: str, decimal: str = POINT, missing: Iterable[str] = ()) -> list[float]:
    """The numbers of a cell that holds a list: in brackets or not, separated by spaces, semicolons, or commas.

    Args:
        missing: lower-case texts that mean no value: nan.

    Raises:
        ValueError: it holds none, or something that is not a finite number.
    """
    inner = text.strip().strip("[](){}").strip()
    comma = r"\s*[;\s]\s*" if decimal == COMMA else r"\s*[,;\s]\s*"
    words = re.split(comma, inner) if inner else []
    if not words:
        raise ValueError("no numbers")
    if any(not word for word in words):
        raise ValueError(f"an empty place in the list {printable(text)!r}")
    return [math.nan if is_missing(word, missing) else number_of(word, decimal) for word in words]

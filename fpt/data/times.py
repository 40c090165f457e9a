"""Time stamps as people write them, read as numbers, and shown again. Nothing is guessed without being told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fpt.data.numerals import is_number
from fpt.data.table import cell_text, printable
from fpt.errors import FPTError

# Ways to write a date without the year first; a column must be of one of them throughout.
DAYS = ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%Y/%m/%d", "%Y.%m.%d")
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
FORMATS = (*(day + clock for day in DAYS for clock in CLOCKS), "%b %d %Y", "%d %b %Y", "%b %Y", "%Y %b", "%m/%Y", "%d-%b-%Y")
# What numbers may be, in place of a format.
STEP = "step"
UNITS = ("s", "ms", "us", "ns")
# Only behind a time of day: 2020-01-0130 is none.
OFFSET = re.compile(r":\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)$")
# Frequencies whose times need no time of day.
DAYS_OR_MORE = re.compile(r"\d*(?:[DBW]|[MQY][SE])")


def shown_time(time: int, frequency: str) -> str:
    """A time as `Timeline` has it, as text."""
    if frequency.isdecimal():
        return str(int(time))
    stamp = pd.Timestamp(int(time))
    return f"{stamp:%Y-%m-%d}" if DAYS_OR_MORE.match(frequency) and stamp == stamp.normalize() else str(stamp)


def next_times(last: int, frequency: str, count: int) -> np.ndarray:
    """The `count` times (int64) after `last`."""
    if frequency.isdecimal():
        return last + int(frequency) * np.arange(1, count + 1)
    return nanoseconds(pd.date_range(pd.Timestamp(last), periods=count + 1, freq=frequency)[1:])


def read_times(cells: Sequence[Any], time_format: str | None, whose: str) -> tuple[np.ndarray, bool, list[str]]:
    """The times of a column.

    Args:
        time_format: as ``strftime`` writes it; ``step`` for numbers of steps; s, ms, us or ns for numbers since 1970.
        whose: the column, for errors.

    Returns:
        (rows,) int64, whether they are numbers of steps, and what was guessed.

    Raises:
        FPTError: a cell is empty or no time, or the cells may be read in several ways.
    """
    texts = [cell_text(cell).strip() for cell in cells]
    if empty := [row for row, text in enumerate(texts, 1) if not text]:
        raise FPTError(f"{whose} has no time in {len(empty):,} rows (first: row {empty[0]}); complete them, or delete the rows")
    if time_format in (STEP, *UNITS) or (time_format is None and all(map(is_number, texts)) and not _compact(texts)):
        return _numbers(texts, time_format, whose)
    if time_format is not None:
        return nanoseconds(_parsed(texts, time_format, whose)), False, []
    guess = _offsets(texts, whose)
    try:
        parsed = _parsed(texts, "ISO8601", whose)
    except FPTError:
        found = [name for name in FORMATS if _fits(texts, name)]
    else:
        return nanoseconds(parsed), False, guess
    if len(found) > 1:
        even = [name for name in found if _even(_parsed(texts, name, whose))]
        found = even if len(even) == 1 else found
    if not found:
        _parsed(texts, "ISO8601", whose)  # says which cell
    if len(found) > 1:
        raise FPTError(
            f"{whose}: {printable(texts[0])!r} may be {' or '.join(found)}; pass --time_format, for example"
            f" --time_format {found[0]!r}"
        )
    return nanoseconds(_parsed(texts, found[0], whose)), False, [f"{whose} is read as {found[0]} (--time_format)"]


def _offsets(texts: Sequence[str], whose: str) -> list[str]:
    """A line where times have an offset to UTC.

    Raises:
        FPTError: only some have one.
    """
    count = sum(OFFSET.search(text) is not None for text in texts)
    if 0 < count < len(texts):
        raise FPTError(
            f"{whose}: {count:,} of {len(texts):,} times have an offset to UTC and the others none; write all in one way"
        )
    return [f"{whose} has offsets; times are brought to UTC"] if count else []


def _compact(texts: Sequence[str]) -> bool:
    """Whether numbers are dates such as 20160701, which are times in ISO 8601."""
    return all(len(text) == 8 and text.isdecimal() and "19" <= text[:2] <= "20" and "01" <= text[4:6] <= "12" for text in texts)


def _numbers(texts: Sequence[str], time_format: str | None, whose: str) -> tuple[np.ndarray, bool, list[str]]:
    try:
        numbers = np.array([float(text) for text in texts])
    except ValueError as error:
        raise FPTError(f"{whose}: {error}; --time_format {time_format} reads numbers") from error
    largest = np.abs(numbers).max()
    unit = time_format or (STEP if largest < 1e8 else UNITS[int(np.searchsorted((1e11, 1e14, 1e17), largest))])
    guess = (
        []
        if time_format
        else [f"{whose} is read as {'numbers of steps' if unit == STEP else f'{unit} since 1970'} (--time_format)"]
    )
    if unit != STEP:
        try:
            return nanoseconds(pd.DatetimeIndex(pd.to_datetime(numbers, unit=unit))), False, guess
        except (ValueError, OverflowError) as error:
            raise FPTError(f"{whose}: {error}; check --time_format") from error
    if largest >= 1e11 or (numbers != np.round(numbers)).any():
        raise FPTError(f"{whose}: numbers of steps must be whole and below 1e11; pass --time_format s for seconds since 1970")
    return numbers.astype(np.int64), True, guess


def _parsed(texts: Sequence[str], time_format: str, whose: str) -> pd.DatetimeIndex:
    """Times in one format; those with an offset are brought to UTC.

    Raises:
        FPTError: a text is not a time in it.
    """
    try:
        found = pd.to_datetime(pd.Series(texts, dtype=object), format=time_format, utc=True)
    except (ValueError, OverflowError) as error:
        bad = pd.to_datetime(pd.Series(texts, dtype=object), format=time_format, utc=True, errors="coerce").isna().to_numpy()
        row = int(np.flatnonzero(bad)[0]) if bad.any() else 0
        known = "a date and time" if time_format == "ISO8601" else f"a time as {time_format}"
        raise FPTError(
            f"{whose}: {printable(texts[row], 40)!r} in row {row + 1} is not {known}; correct it, or pass --time_format (as"
            " strftime writes it, such as '%d.%m.%Y %H:%M')"
        ) from error
    return pd.DatetimeIndex(found).tz_localize(None)


def _fits(texts: Sequence[str], time_format: str) -> bool:
    try:
        pd.to_datetime(texts[0], format=time_format)  # most formats fail here
        pd.to_datetime(pd.Series(texts, dtype=object), format=time_format)
    except (ValueError, OverflowError):
        return False
    return True


def _even(times: pd.DatetimeIndex) -> bool:
    steps = np.diff(np.unique(nanoseconds(times)))
    return len(steps) > 0 and bool((steps == steps[0]).mean() > 0.9)


def nanoseconds(times: pd.DatetimeIndex) -> np.ndarray:
    """Nanoseconds since 1970, (times,) int64.

    Raises:
        FPTError: a time is farther away than they can count.
    """
    try:
        return times.astype("datetime64[ns]").to_numpy().astype(np.int64)
    except (ValueError, OverflowError) as error:
        raise FPTError(f"times must be between 1678 and 2261; {times.min()} to {times.max()} are not") from error

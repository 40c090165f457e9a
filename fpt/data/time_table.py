"""Series of a table: which column is the time, which ones are series, and their values on an even grid."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpt.data.long_table import check_one_row_a_time, side_by_side
from fpt.data.numerals import MISSING, decimal_of, is_missing, is_number, number_of
from fpt.data.table import Table, cell_text, printable
from fpt.data.timeline import Timeline, even_grid
from fpt.data.times import read_times
from fpt.errors import FPTError, did_you_mean

# What a column of times is usually called, in any case.
USUAL_TIMES = ("date", "time", "datetime", "timestamp", "ds", "date_time", "time_stamp", "zeit", "datum")
NONE = "none"
# Names of columns in a line.
SHOWN = 6


@dataclass(frozen=True)
class SeriesOptions:
    """How a table is read as series; None leaves it to the table.

    Attributes:
        time_column: ``none`` for rows at an even distance, without times.
        target_columns: all columns of numbers when None.
        series_column: tells series apart that are below one another; None where each column is one.
        time_format, frequency, duplicates: see `fpt.data.timeline`.
        decimal: separator of the numbers.
        missing_values: lower-case texts that mean no value.
    """

    time_column: str | None = None
    target_columns: tuple[str, ...] | None = None
    series_column: str | None = None
    time_format: str | None = None
    frequency: str | None = None
    duplicates: str = "error"
    decimal: str | None = None
    missing_values: tuple[str, ...] = MISSING


@dataclass(frozen=True)
class SeriesTable:
    """Series that were read.

    Attributes:
        names: of the series.
        time_column: empty where rows have no times.
        timeline: their values.
        notes: what was guessed, left out or looks odd.
    """

    names: tuple[str, ...]
    time_column: str
    timeline: Timeline
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.timeline.times)

    def sha256(self) -> str:
        """Hash of names, times and values."""
        digest = hashlib.sha256("\x1e".join((self.time_column, *self.names)).encode("utf-8", "backslashreplace"))
        digest.update(np.ascontiguousarray(self.timeline.times).tobytes())
        digest.update(np.ascontiguousarray(self.timeline.values).tobytes())
        return digest.hexdigest()


def read_series_table(table: Table, options: SeriesOptions, whose: str) -> SeriesTable:
    """The series of a table.

    Args:
        whose: the file, for notes and errors.

    Raises:
        FPTError: a column is not there or holds no numbers, a cell is not a number, or times can't be read.
    """
    if table.rejected:
        bad = table.rejected[0]
        raise FPTError(
            f"{whose}: {len(table.rejected):,} records can't be read (first: record {bad.row}, {bad.reason}); a series has no"
            " rows to spare: correct them, or delete them"
        )
    names = [str(name) for name in table.rows.columns]
    notes: list[str] = []
    time_column = _time_column(names, options, whose, notes)
    series_column = _known(options.series_column, names, "--series_column", whose)
    columns = {name: list(table.rows[name]) for name in names if name not in (time_column, series_column)}
    targets = _targets(columns, options, whose, notes)
    decimal = decimal_of(
        {n: columns[n] for n in targets}, options.decimal, whose, doubt_points=table.format.get("delimiter") != "comma"
    )
    values = np.stack([_numbers(name, columns[name], decimal, options.missing_values, whose) for name in targets], axis=1)
    if time_column:
        where = f"column {time_column!r} of {whose}"
        times, steps, guessed = read_times(list(table.rows[time_column]), options.time_format, where)
        notes += guessed
    else:
        times, steps = np.arange(len(values), dtype=np.int64), True
    if series_column is not None:
        if not time_column:
            raise FPTError(f"{whose}: --series_column needs times, and --time_column none says that there are none")
        ids = list(table.rows[series_column])
        times, values, targets = side_by_side(times, values, steps, ids, targets, options.duplicates, whose, notes)
        notes.append(f"{len(targets):,} series by column {series_column!r}: {_listed(targets)}")
    else:
        check_one_row_a_time(times, {name: cells for name, cells in columns.items() if name not in targets}, whose)
    timeline = even_grid(times, values, steps, options.frequency, options.duplicates, whose)
    return SeriesTable(tuple(targets), time_column, timeline, (*notes, *timeline.notes, *_told_missing(targets, values)))


def _time_column(names: Sequence[str], options: SeriesOptions, whose: str, notes: list[str]) -> str:
    given = options.time_column
    if given == NONE and NONE not in names:
        notes.append("rows are taken at an even distance, in their order (--time_column none)")
        return ""
    if given is not None:
        return str(_known(given, names, "--time_column", whose))
    found = [name for name in names if name.strip().lower() in USUAL_TIMES]
    if len(found) != 1:
        what = f"columns {_listed(found)} may be the time" if found else f"no column is called date or time ({_listed(names)})"
        raise FPTError(f"{whose}: {what}; pass --time_column, or --time_column none where rows are at an even distance")
    notes.append(f"the time is column {found[0]!r} (--time_column)")
    return found[0]


def _known(given: str | None, names: Sequence[str], flag: str, whose: str) -> str | None:
    if given is not None and given not in names:
        raise FPTError(f"{whose} has no column {given!r}{did_you_mean(given, names)} for {flag}; it has {_listed(names)}")
    return given


def _targets(columns: Mapping[str, Sequence[Any]], options: SeriesOptions, whose: str, notes: list[str]) -> list[str]:
    if options.target_columns is not None:
        wanted = list(options.target_columns)
        for name in wanted:
            if name not in columns:
                raise FPTError(
                    f"{whose} has no column {name!r}{did_you_mean(name, columns)} for --target_columns; it has {_listed(columns)}"
                )
        if not wanted or len(set(wanted)) < len(wanted):
            raise FPTError("--target_columns names no column, or one of them twice")
        return wanted
    missing = options.missing_values
    found = [name for name, cells in columns.items() if _is_numeric(cells, options.decimal, missing)]
    if not found:
        raise FPTError(f"{whose} has no column of numbers besides the time; pass --target_columns ({_listed(columns)})")
    others = [name for name in columns if name not in found]
    notes.append(f"{len(found):,} series: {_listed(found)} (--target_columns)")
    if others:
        notes.append(f"left out, not all numbers: {_listed(others)}")
    return found


def _is_numeric(cells: Sequence[Any], decimal: str | None, missing: Sequence[str]) -> bool:
    """Whether a column holds numbers: 99 % of its cells. One bad cell is then an error, and no column is left out."""
    texts = [cell_text(cell) for cell in cells]
    known = [text for text in texts if not is_missing(text, missing)]
    good = sum(any(is_number(text, d) for d in ((decimal,) if decimal else (".", ","))) for text in known)
    return bool(known) and good >= 0.99 * len(known)


def _numbers(name: str, cells: Sequence[Any], decimal: str, missing: Sequence[str], whose: str) -> np.ndarray:
    """A column as float64; nan where there is no value."""
    out = np.full(len(cells), math.nan)
    for row, cell in enumerate(cells):
        if is_missing(cell_text(cell), missing):
            continue
        try:
            out[row] = number_of(cell, decimal)
        except ValueError as error:
            raise FPTError(
                f"{whose}: {error}, row {row + 1}, column {printable(name, 30)!r}; correct it, or pass --missing_values"
            ) from error
    return out


def _told_missing(names: Sequence[str], values: np.ndarray) -> list[str]:
    """A line about cells without a value."""
    counts = np.isnan(values).sum(axis=0)
    if not counts.any():
        return []
    most = int(counts.argmax())
    return [f"{int(counts.sum()):,} cells have no value (most: {int(counts[most]):,} in {printable(names[most], 30)!r})"]


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    shown = [repr(printable(name, 30)) for name in list(names)[:SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")

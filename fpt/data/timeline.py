"""Series on an even grid of time: sorted and completed. Nothing is guessed without being told."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from fpt.data.times import nanoseconds, shown_time
from fpt.errors import FPTError

# Grids that are tried where the time stamps are at no constant distance: months, quarters, years, working days.
CALENDARS = ("B", "MS", "ME", "QS", "QE", "YS", "YE")
POLICIES = ("error", "first", "last", "mean")
# Grid points for each time stamp: a grid of seconds over a year's few rows is a mistake.
SPARSEST = 100


@dataclass
class Timeline:
    """Series on an even grid.

    Attributes:
        times: (steps,) int64: nanoseconds since 1970, or numbers of steps where `frequency` is a number.
        values: (steps, series) float64; nan where there is none.
        frequency: of the grid, as pandas names it, or a number of steps.
        notes: what was guessed, sorted, left out or is missing, with counts.
    """

    times: np.ndarray
    values: np.ndarray
    frequency: str
    notes: list[str] = field(default_factory=list)


def even_grid(times: np.ndarray, values: np.ndarray, steps: bool, frequency: str | None, duplicates: str, whose: str) -> Timeline:
    """Sort rows by time, settle times that occur twice, and put the rest on an even grid.

    Args:
        times: (rows,) int64, of `read_times`; `steps` says what they are.
        values: (rows, series) float64, nan where there is none.
        frequency: as pandas names it; what most rows show when None.
        duplicates: what becomes of rows of one time and other values: one of `POLICIES`.

    Raises:
        FPTError: there are fewer than three times, two rows of one time differ, or times are off the grid.
    """
    notes = []
    if behind := int(np.count_nonzero(np.diff(times) < 0)):
        notes.append(f"{whose} is not sorted: {behind:,} rows come before the row above them; they are sorted by time")
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    times, values = single_rows(times, values, steps, duplicates, whose, notes)
    if len(times) < 3:
        raise FPTError(f"{whose} has {len(times)} different times; a series needs many more")
    grid, name = _grid(times, steps, frequency, whose)
    places = np.searchsorted(grid, times)
    off = (places >= len(grid)) | (grid[np.minimum(places, len(grid) - 1)] != times)
    if off.any():
        raise FPTError(
            f"{whose}: {int(off.sum()):,} of {len(times):,} times are not on a grid of {name} (first:"
            f" {shown_time(times[off][0], name)}); pass --frequency (as pandas names it: h, 15min, D, MS, ...), or write the rows"
            " at even times"
        )
    whole = np.full((len(grid), values.shape[1]), np.nan)
    whole[places] = values
    notes.append(f"times from {shown_time(grid[0], name)} to {shown_time(grid[-1], name)}, {_named(name, steps)}")
    if gaps := len(grid) - len(times):
        there = np.zeros(len(grid) + 2, dtype=bool)
        there[[0, *(places + 1), len(grid) + 1]] = True
        edges = np.flatnonzero(there)
        longest = int(np.argmax(np.diff(edges)))
        notes.append(
            f"{gaps:,} of {len(grid):,} times are not there (most at once: {np.diff(edges)[longest] - 1:,}, from"
            f" {shown_time(grid[edges[longest]], name)})"
        )
    return Timeline(grid, whole, name, notes)


def _named(frequency: str, steps: bool) -> str:
    return (
        f"a row every {frequency} steps"
        if steps and frequency != "1"
        else "a row a step"
        if steps
        else f"a row every {frequency}"
    )


def single_rows(
    times: np.ndarray, values: np.ndarray, steps: bool, policy: str, whose: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """One row for each time."""
    first = np.flatnonzero(np.r_[True, np.diff(times) > 0])
    if len(first) == len(times):
        return times, values
    ends = np.r_[first[1:], len(times)]
    same = np.array([_equal(values[a:b]) for a, b in zip(first, ends, strict=True)])
    if same.all():
        notes.append(f"{whose} has {len(times) - len(first):,} rows twice; each is taken once")
        return times[first], values[first]
    place = first[~same][0]
    if policy == "error":
        raise FPTError(
            f"{whose} has {int((~same).sum()):,} times with several rows of different values (first:"
            f" {shown_time(times[place], _kind(steps))}); pass --duplicate_times first, last or mean (where clocks go back an"
            " hour, times with an offset or in UTC are better)"
        )
    notes.append(f"{whose} has {len(times) - len(first):,} rows of a time that there is already; --duplicate_times {policy}")
    if policy == "mean":
        with np.errstate(invalid="ignore"):
            means = np.array([_mean(values[a:b]) for a, b in zip(first, ends, strict=True)])
        return times[first], means
    return times[first], values[first if policy == "first" else ends - 1]


def _kind(steps: bool) -> str:
    return "1" if steps else "s"


def _equal(rows: np.ndarray) -> bool:
    return bool(((rows == rows[0]) | (np.isnan(rows) & np.isnan(rows[0]))).all())


def _mean(rows: np.ndarray) -> np.ndarray:
    there = ~np.isnan(rows)
    count = there.sum(axis=0)
    return np.where(count > 0, np.where(there, rows, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _grid(times: np.ndarray, steps: bool, frequency: str | None, whose: str) -> tuple[np.ndarray, str]:
    """The even times from the first to the last one, and their frequency."""
    if steps:
        step = _whole_step(frequency) if frequency else _usual(times)
        return _checked(np.arange(times[0], times[-1] + 1, step) if _few(times, step) else None, times, "1", whose), str(step)
    stamps = pd.DatetimeIndex(times.astype("datetime64[ns]"))
    if frequency is None:
        frequency = _frequency(stamps)
    try:
        offset = pd.tseries.frequencies.to_offset(frequency)
        one = (stamps[0] + offset).value - stamps[0].value if offset is not None else 0
        if one <= 0:
            raise ValueError("not a distance ahead")
    except (ValueError, TypeError) as error:
        raise FPTError(
            f"unknown --frequency {frequency!r:.50}; as pandas names it: s, min, 15min, h, D, B, W, MS, ..."
        ) from error
    return _checked(
        nanoseconds(pd.date_range(stamps[0], stamps[-1], freq=frequency)) if _few(times, one) else None, times, "s", whose
    ), frequency


def _few(times: np.ndarray, step: int) -> bool:
    return (int(times[-1]) - int(times[0])) / step <= SPARSEST * len(times)


def _checked(grid: np.ndarray | None, times: np.ndarray, kind: str, whose: str) -> np.ndarray:
    if grid is None:
        raise FPTError(
            f"{whose}: a grid over its {len(times):,} times would be more than {SPARSEST} times as long; pass --frequency, or"
            f" check the first and last times {shown_time(times[0], kind)} and {shown_time(times[-1], kind)}"
        )
    return grid


def _whole_step(frequency: str) -> int:
    if not frequency.isdecimal() or int(frequency) < 1:
        raise FPTError(f"--frequency {frequency!r} must be a whole number of steps, where times are numbers of steps")
    return int(frequency)


def _usual(times: np.ndarray) -> int:
    """The distance that most times have."""
    distances, counts = np.unique(np.diff(times), return_counts=True)
    return int(distances[counts.argmax()])


def _frequency(stamps: pd.DatetimeIndex) -> str:
    """The frequency of sorted times, as most of them show it."""
    usual = _usual(nanoseconds(stamps))
    if (nanoseconds(stamps) - nanoseconds(stamps)[0] == np.arange(len(stamps)) * usual).all():
        return _name(usual)
    even = ((nanoseconds(stamps) - nanoseconds(stamps)[0]) % usual == 0).all()
    for name in CALENDARS:
        grid = pd.date_range(stamps[0], stamps[-1], freq=name) if usual >= 86_400 * 10**9 else ()
        if len(grid) and stamps.isin(grid).all() and 2 * len(stamps) > len(grid) and (name != "B" or even):
            return name
    return _name(usual)


def _name(distance: int) -> str:
    """A distance in nanoseconds as pandas names it."""
    days, rest = divmod(distance, 86_400 * 10**9)
    if not rest:
        return "D" if days == 1 else f"{days}D"
    return str(pd.tseries.frequencies.to_offset(pd.Timedelta(distance)).freqstr)

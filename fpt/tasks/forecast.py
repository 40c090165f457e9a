"""Forecasts: the next values of a series from its last ones, ``--dataset forecast:FILE`` for a user's own.

Each column is a series of its own (channel independence, arXiv 2211.14730). Train, valid and test follow one another in time,
never at random; what validation and test are scored on lies after their border, and only look-backs reach over it. Series are
standardised by their training rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments, arg
from fpt.data.files import read_own_table
from fpt.data.numerals import MISSING
from fpt.data.table import TableOptions, printable
from fpt.data.time_table import SeriesOptions, SeriesTable, read_series_table
from fpt.data.timeline import POLICIES
from fpt.data.times import shown_time
from fpt.errors import FPTError
from fpt.files.whole import user_path
from fpt.flags import checks
from fpt.flags.checks import check_known, check_ranges
from fpt.forecasts import LONGEST_HORIZON, LOSSES, Forecast
from fpt.options import options_of
from fpt.tasks.base import SPLITS, TASKS, Examples, Source, Task
from fpt.text.log import Log
from fpt.windows import LONGEST_WINDOW, Windows

TIME = "time"
NORMS = ("revin", "none")
# Share of a look-back that must have values of its own.
LEAST_OBSERVED = 0.5


@dataclass
class ForecastOptions:
    """What is read of a series, and what is asked for."""

    _argument_group_name = "forecast"
    horizon: int = arg(96, "Values ahead that are forecast.")
    lookback: int = arg(336, "Values that a forecast is made from.")
    patch_size: int = arg(16, "Values of a token.")
    patch_stride: int = arg(8, "Values from the start of one token to that of the next.")
    window_norm: str = arg(
        "revin",
        "revin (each window by its own mean and deviation, and the forecast put back) or none (by the training rows alone).",
    )
    loss: str = arg("mse", "What training lowers: mse or mae, of standardised values.")
    train_stride: int = arg(1, "Train on every N-th window of a series.")
    valid_stride: int = arg(1, "Pick the model on every N-th window of the validation split; test always has all.")

    def __post_init__(self) -> None:
        check_ranges(self, horizon=checks.Range(1, LONGEST_HORIZON), lookback=checks.Range(1, LONGEST_WINDOW))
        check_ranges(
            self, patch_size=checks.COUNT, patch_stride=checks.COUNT, train_stride=checks.COUNT, valid_stride=checks.COUNT
        )
        check_known(self, loss=LOSSES, window_norm=NORMS)
        if self.patch_size > self.lookback:
            raise FPTError(f"--patch_size {self.patch_size} is longer than --lookback {self.lookback}")
        if self.patch_stride > self.patch_size:
            raise FPTError(
                f"--patch_stride {self.patch_stride} would leave out values between patches of --patch_size {self.patch_size}"
            )

    def stride(self, split: str) -> int:
        """Every which window of a split is taken."""
        return {"train": self.train_stride, "valid": self.valid_stride}.get(split, 1)


@dataclass
class FileOptions(ForecastOptions):
    """Where a table has times and series."""

    time_column: str | None = arg(
        None, "Column of times; one called date, time, ... when not given; none for rows at an even distance."
    )
    target_columns: str | None = arg(None, "Columns to forecast, separated by commas; all columns of numbers when not given.")
    series_column: str | None = arg(
        None, "Column that names the series, where several are below one another (unique_id, ds, y); else each column is one."
    )
    time_format: str | None = arg(
        None, "How times are written, as strftime has it; step, s or ms for numbers; ISO 8601 or what all cells show by default."
    )
    frequency: str | None = arg(
        None, "Distance of rows as pandas names it (h, 15min, D, MS); what most rows show when not given."
    )
    duplicate_times: str = arg("error", "Rows of one time with different values: error, first, last or mean.")
    valid_fraction: float = arg(0.1, "Share of the rows, before those of test, that the model is picked on.")
    test_fraction: float = arg(0.2, "Share of the rows, the last ones, that are forecast for the test scores.")
    decimal: str | None = arg(None, "Decimal separator, . or , ; what the cells show when not given.")
    missing_values: str | None = arg(None, "Texts that mean no value, separated by commas; NA, nan and the like when not given.")
    delimiter: str | None = arg(None, "Between cells: a character, or comma, tab, semicolon, bar; what the first rows show.")
    encoding: str | None = arg(None, "Of a text file: utf-8, utf-16, latin-1, cp1252, ...; UTF-8, or as its first bytes say.")
    sheet: str | None = arg(None, "Of an Excel file; the first one when not given.")
    _may_be_empty = ("missing_values",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known(self, duplicate_times=POLICIES)
        check_ranges(self, valid_fraction=checks.Range(0, 1), test_fraction=checks.Range(0, 1))

    def reading(self) -> SeriesOptions:
        """How a table is read."""
        names = None if self.target_columns is None else tuple(name.strip() for name in self.target_columns.split(","))
        marks = MISSING if self.missing_values is None else tuple(w.strip().lower() for w in self.missing_values.split(","))
        return SeriesOptions(
            self.time_column,
            names,
            self.series_column,
            self.time_format,
            self.frequency,
            self.duplicate_times,
            self.decimal,
            ("", *marks),
        )


class ForecastTask(Task):
    """Series in one table."""

    tokenizer = None
    slow = False
    cut_flag = "--lookback"
    options: type[ForecastOptions] = ForecastOptions
    text_columns = ()

    def reading(self, args: DataArguments) -> SeriesOptions:
        """How its table is read."""
        raise NotImplementedError

    def borders(self, source: SeriesTable, args: DataArguments) -> tuple[int, int, int]:
        """Rows before the end of train, of valid and of test."""
        raise NotImplementedError

    def dim(self, args: DataArguments) -> int:
        """Values in a token."""
        return options_of(args, ForecastOptions).patch_size

    def input(self, args: DataArguments) -> Windows:
        """Windows of a series."""
        o = options_of(args, ForecastOptions)
        return Windows(o.patch_size, lookback=o.lookback, stride=o.patch_stride, normalise=o.window_norm == "revin")

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """Cut at the borders; each series standardised by its training rows."""
        table: SeriesTable = source.rows
        o = options_of(args, ForecastOptions)
        ends = self.borders(table, args)
        notes = list(table.notes)
        if unused := len(table) - ends[-1]:
            notes.append(f"{unused:,} rows after the last border are not used")
        _check_room(ends, o, self.name)
        line = table.timeline
        moments = _moments(table.names, line.values[: ends[0]], notes, self.name)
        bounds = {"train": (0, ends[0]), "valid": (ends[0] - o.lookback, ends[1]), "test": (ends[1] - o.lookback, ends[2])}
        splits, left_out = {}, dict.fromkeys(SPLITS, 0)
        for split, (start, end) in bounds.items():
            rows = []
            for name, column, (mean, std) in zip(table.names, line.values.T, moments, strict=True):
                begun = bool((~np.isnan(column[: start + 1])).any())
                starts, left = usable(column[start:end], o.lookback, o.horizon, o.stride(split), begun)
                left_out[split] += left
                values = filled(column[:end])[start:]
                rows.append(
                    {"id": name, "values": values, "times": line.times[start:end], "starts": starts, "mean": mean, "std": std}
                )
            splits[split] = _dataset(rows)
        notes += _told(table, ends, o, left_out)
        for split in SPLITS:
            if not sum(len(starts) for starts in splits[split]["starts"]):
                raise FPTError(f"{self.name}: no window of {split} has values to forecast; too many of them are missing")
        means, deviations = zip(*moments, strict=True)
        output = Forecast(o.horizon, table.names, means, deviations, line.frequency, table.time_column, o.loss)
        return Examples(splits, output, notes=notes, seeded=False)

    def encode(
        self, rows: dict[str, list[Any]], args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
    ) -> dict[str, list[Any]]:
        """As they are; windows are cut when they are read."""
        count = len(rows["id"])
        tokens = self.input(args).tokens
        names = ("values", "times", "starts", "mean", "std")
        return {**{name: rows[name] for name in names}, "length": [tokens] * count, "reason": [""] * count}


class ForecastFile(ForecastTask):
    """A user's own table.

    Args:
        where: its path.
    """

    licence = "the user's own"
    splits = (TIME,)
    options = FileOptions

    def __init__(self, where: str) -> None:
        self.where = where
        self.name = self.source = f"forecast:{user_path(where).name}"

    def reading(self, args: DataArguments) -> SeriesOptions:
        return options_of(args, FileOptions).reading()

    def locate(self, args: DataArguments, log: Log) -> Source:
        """Read the table, by its path or by its name in --data_dir."""
        o = options_of(args, FileOptions)
        table = read_own_table("forecast", self.where, args.data_dir, TableOptions(o.delimiter, o.encoding, o.sheet), log)
        series = read_series_table(table, self.reading(args), user_path(self.where).name)
        series = replace(series, notes=(*series.notes, *(f"{count:,} {what}" for what, count in sorted(table.odd.items()))))
        return Source(series, self.name, series.sha256(), users_own=True)

    def borders(self, source: SeriesTable, args: DataArguments) -> tuple[int, int, int]:
        """By the shares of the options, as most sets of the field are cut (7 : 1 : 2)."""
        o, rows = options_of(args, FileOptions), len(source)
        if not (o.valid_fraction > 0 and o.test_fraction > 0 and o.valid_fraction + o.test_fraction < 1):
            raise FPTError(
                f"--valid_fraction {o.valid_fraction:g} and --test_fraction {o.test_fraction:g} must be above 0, and leave rows"
                " for training"
            )
        test = round(rows * (1 - o.test_fraction))
        return round(rows * (1 - o.test_fraction - o.valid_fraction)), test, rows


def filled(values: np.ndarray) -> np.ndarray:
    """Values (steps,) with the last one before it in place of a missing one; 0 where there is none before it."""
    there = np.where(np.isnan(values), -1, np.arange(len(values)))
    last = np.maximum.accumulate(there)
    return np.where(last >= 0, values[np.maximum(last, 0)], 0.0)


def usable(values: np.ndarray, lookback: int, horizon: int, stride: int, begun: bool = False) -> tuple[np.ndarray, int]:
    """Which windows of values (steps,) can be used.

    Args:
        begun: whether the series has a value at the first step or before it, so that no look-back begins before the series.

    Returns:
        Their first values, every `stride`-th window's, and how many can't be used: a value ahead is missing, the look-back begins
        before the series, or more than half of it is missing.
    """
    count = len(values) - lookback - horizon + 1
    missing = np.r_[0, np.cumsum(np.isnan(values))]
    starts = np.arange(0, count, stride)
    ahead = missing[starts + lookback + horizon] - missing[starts + lookback]
    behind = missing[starts + lookback] - missing[starts]
    there = np.flatnonzero(~np.isnan(values))
    good = (ahead == 0) & (behind <= LEAST_OBSERVED * lookback)
    good &= begun | (starts >= (there[0] if len(there) else count))
    return starts[good].astype(np.int32), int((~good).sum())


def _dataset(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_dict({name: [row[name] for row in rows] for name in rows[0]})


def _check_room(ends: tuple[int, int, int], o: ForecastOptions, name: str) -> None:
    """Refuse a split that has no window."""
    whole = o.lookback + o.horizon
    sizes = dict(zip(SPLITS, (ends[0], ends[1] - ends[0], ends[2] - ends[1]), strict=True))
    ahead = (o.horizon, "--horizon needs")
    needs = {"train": (whole, "--lookback and --horizon need"), "valid": ahead, "test": ahead}
    for split, (need, what) in needs.items():
        if sizes[split] < need:
            raise FPTError(
                f"{name}: {split} has {sizes[split]:,} rows, and {what} {need:,}; give a shorter --horizon"
                f"{' or --lookback' if split == 'train' else ''}, or more rows"
            )


def _moments(names: tuple[str, ...], train: np.ndarray, notes: list[str], whose: str) -> list[tuple[float, float]]:
    """Mean and deviation of the training rows of each series; of a constant one the deviation is 1."""
    found, constant = [], []
    for name, column in zip(names, train.T, strict=True):
        there = column[~np.isnan(column)]
        if not len(there):
            raise FPTError(f"{whose}: {printable(name, 30)!r} has no value in the training rows; leave it out (--target_columns)")
        mean, std = float(there.mean()), float(there.std())
        if std <= 1e-12 * max(abs(mean), 1e-300):
            constant.append(name)
            std = 1.0
        found.append((mean, std))
    if len(constant) == len(names):
        raise FPTError(f"{whose}: every series is constant in the training rows; there is nothing to learn")
    if constant:
        notes.append(
            f"{len(constant):,} series are constant in train (first: {printable(constant[0], 30)!r}); they are not scaled"
        )
    return found


def _told(table: SeriesTable, ends: tuple[int, int, int], o: ForecastOptions, left_out: dict[str, int]) -> list[str]:
    """Lines about borders and windows that are left out."""
    line = table.timeline
    first = [shown_time(line.times[end], line.frequency) for end in ends[:2]]
    lines = [f"train ends before {first[0]}, valid before {first[1]}; what is scored of each lies after its border"]
    if count := sum(left_out.values()):
        shown = ", ".join(f"{split} {n:,}" for split, n in left_out.items() if n)
        lines.append(
            f"{count:,} windows are left out, for values that are missing ({shown}); gaps in look-backs hold the last value"
        )
    thinned = [f"{split} has every {o.stride(split)}th window" for split in ("train", "valid") if o.stride(split) > 1]
    return lines + thinned


TASKS.register("forecast:FILE")(ForecastFile)  # type: ignore[arg-type]

"""Time series as cells of a table: complete, hashed, and short where they are shown."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fpt.data.schema import SPLIT
from fpt.data.table import Table
from fpt.data.ts_files import SeriesFile, parse_channels

SERIES, LABEL, ID = "series", "label", "id"


@dataclass(frozen=True, eq=False)
class Series:
    """A series in a table.

    Attributes:
        values: (channels, time) float64, nan where a value is missing.
    """

    values: np.ndarray

    def __str__(self) -> str:
        channels, steps = self.values.shape
        return f"{steps} steps" + (f" of {channels} channels" if channels > 1 else "")

    def sha256(self) -> str:
        """Hash of shape and values."""
        shape = "x".join(map(str, self.values.shape))
        return hashlib.sha256(shape.encode() + np.ascontiguousarray(self.values, dtype="<f8").tobytes()).hexdigest()


def filled(values: np.ndarray) -> np.ndarray:
    """A series without missing values: between two known ones on the line through them, beyond the first and last as these are.

    Args:
        values: (channels, time) float64.

    Raises:
        ValueError: there is no value at all, or none in a channel.
    """
    missing = np.isnan(values)
    if not missing.any():
        return values
    if missing.all():
        raise ValueError("no value in the whole series")
    if missing.all(axis=1).any():
        raise ValueError(f"no value in channel {int(np.flatnonzero(missing.all(axis=1))[0]) + 1} of {len(values)}")
    steps = np.arange(values.shape[1])
    known = [~row for row in missing]
    return np.stack([np.interp(steps, steps[k], row[k]) for row, k in zip(values, known, strict=True)])


def series_of(cell: Any) -> np.ndarray:
    """The series of a cell: an array or a list, (channels, time) or (time,), or text as in a line of a ``.ts`` file.

    Returns:
        (channels, time) float64, nan where a value is missing.

    Raises:
        ValueError: it is no series, or has no values.
    """
    if isinstance(cell, Series):
        return cell.values
    if isinstance(cell, str):
        return parse_channels(cell)
    try:
        values = np.asarray(cell, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("not an array of numbers (channels, time)") from None
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.size:
        raise ValueError(f"an array of shape {values.shape}, not (channels, time) with values")
    if np.isinf(values.astype(np.float32, copy=False)).any():
        raise ValueError("a value is not finite in fp32")
    return values


def count_missing(series: Sequence[np.ndarray]) -> tuple[int, int]:
    """Missing values, and the series that have some."""
    counts = [int(np.isnan(one).sum()) for one in series]
    return sum(counts), sum(count > 0 for count in counts)


def series_table(parts: Sequence[tuple[str, SeriesFile]], folder: Path) -> Table:
    """Files as one table with the columns ``series`` and, where they have labels, ``label``.

    Args:
        parts: files with the names of their splits; empty where there are no splits, and there is one file.

    Returns:
        A table whose format tells of channels and lengths; of several parts with ids "train-1" and a column of splits.
    """
    records: list[dict[str, Any]] = []
    for split, file in parts:
        labels = file.labels or [""] * len(file.series)
        for number, (values, label) in enumerate(zip(file.series, labels, strict=True), 1):
            own = {ID: f"{split}-{number}", SPLIT: split} if split else {}
            records.append({**own, SERIES: Series(values), **({LABEL: label} if file.labels else {})})
    frame = pd.DataFrame(records, index=range(1, len(records) + 1), dtype=object)
    first = parts[0][1]
    lengths = np.concatenate([file.lengths for _, file in parts])
    about = {"kind": "time series", "channels": first.channels, "steps": span(lengths)}
    table = Table(frame, about, folder=folder, named={"input": SERIES, "label": LABEL, **({ID: ID} if ID in frame else {})})
    for _, file in parts:
        table.odd.update(file.odd)
    missing, rows = count_missing([one for _, file in parts for one in file.series])
    if missing:
        table.odd[f"missing values in {rows:,} series, interpolated"] = missing
    if first.kind == "classes":
        table.kinds[LABEL] = "classes"
    return table


def span(numbers: np.ndarray) -> str:
    """The smallest and the largest of whole numbers in words: "24" or "7 to 29"."""
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"

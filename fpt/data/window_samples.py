"""Windows of series as samples: each is cut from its series when it is read, so that a series is kept once.

A row of an Arrow split is a series: ``id`` (its name), ``values`` (float64, in its unit; where there is none, the last one before
it), ``times`` (int64: nanoseconds since 1970 or numbers of steps), ``mean`` and ``std`` (by which it is standardised) and
``starts`` (first values of its windows; those that can't be used are not among them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from fpt.data.samples import Samples
from fpt.data.times import shown_time
from fpt.forecasts import Forecast, restored
from fpt.windows import Windows


@dataclass(frozen=True)
class Series:
    """One row of a split; see above."""

    name: str
    values: np.ndarray
    times: np.ndarray
    starts: np.ndarray
    mean: float
    std: float


def read_series(rows: Dataset) -> list[Series]:
    """The series of a split; nothing is copied."""
    found = []
    for row in rows.with_format("arrow").iter(batch_size=1):
        values, times, starts = (row.column(n).combine_chunks().flatten().to_numpy() for n in ("values", "times", "starts"))
        name, mean, std = (row.column(column)[0].as_py() for column in ("id", "mean", "std"))
        found.append(Series(name, values, times, starts, mean, std))
    return found


def count_windows(rows: Dataset) -> int:
    """Windows of a split; 0 where its rows are no series."""
    return sum(len(starts) for starts in rows["starts"]) if "starts" in rows.column_names else 0


class WindowSamples(Samples):
    """Each window of each series of a split.

    Args:
        output: says how many values after a window are its label.
    """

    def __init__(self, rows: Dataset, inputs: Windows, output: Forecast) -> None:
        self.series, self.lookback = read_series(rows), inputs.lookback
        self.horizon, self.frequency = output.horizon, output.frequency
        self.column, self.epoch = inputs.column, 0
        self.starts = np.concatenate([one.starts for one in self.series])
        self.of = np.repeat(np.arange(len(self.series)), [len(one.starts) for one in self.series])
        self.moments = np.array([(one.mean, one.std) for one in self.series]).reshape(-1, 2)
        self.lengths = np.full(len(self.starts), inputs.tokens)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [{self.column: self.window(index), "label": self.label(index)} for index in indices]

    def window(self, index: int) -> np.ndarray:
        """Standardised values (lookback,) fp32."""
        one, start = self.series[self.of[index]], self.starts[index]
        return ((one.values[start : start + self.lookback] - one.mean) / one.std).astype(np.float32)

    def label(self, index: int) -> np.ndarray:
        """The values after a window, (horizon + 2,) float64 as `fpt.forecasts.Forecast` has them."""
        one, start = self.series[self.of[index]], self.starts[index] + self.lookback
        return np.append(one.values[start : start + self.horizon], (one.mean, one.std))

    @property
    def labels(self) -> np.ndarray:
        """The labels (windows, horizon + 2) of all."""
        each = []
        for one in self.series:
            if len(one.starts):
                ahead = np.lib.stride_tricks.sliding_window_view(one.values[self.lookback :], self.horizon)[one.starts]
                each.append(np.concatenate([ahead, np.tile((one.mean, one.std), (len(ahead), 1))], axis=1))
        return np.concatenate(each)

    @property
    def ids(self) -> list[str]:
        """The name of a window's series, and the time of the first value ahead."""
        return [
            f"{one.name} {shown_time(one.times[start + self.lookback], self.frequency)}"
            for one, start in zip((self.series[n] for n in self.of), self.starts, strict=True)
        ]

    def restored(self, predictions: np.ndarray) -> np.ndarray:
        """Standardised predictions (windows, horizon) in the unit of each series, with its mean and deviation."""
        return restored(predictions, self.moments[self.of])

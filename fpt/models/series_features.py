"""Whole series for models that read them as they are, without tokens."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np

from fpt.data.prepared import Prepared
from fpt.data.samples import numbers
from fpt.errors import FPTError
from fpt.inputs import Patches
from fpt.tasks.base import GeneratedTask, Task
from fpt.tasks.series import SeriesTask


@dataclass(frozen=True)
class SeriesSplit:
    """A split.

    Attributes:
        series: each (time, channels) float32.
        labels: (series,) class numbers, or numbers.
    """

    series: tuple[np.ndarray, ...]
    labels: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """(series,) time steps."""
        return np.array([len(one) for one in self.series])

    def padded(self, steps: int | None = None) -> np.ndarray:
        """(series, channels, steps) float32, 0 beyond the end of a series; `steps` of the longest when not given."""
        whole = np.zeros((len(self.series), self.series[0].shape[1], steps or int(self.lengths.max())), dtype=np.float32)
        for row, one in zip(whole, self.series, strict=True):
            row[:, : len(one)] = one.T[:, : whole.shape[2]]
        return whole


def whole_series(model: str, task: Task | GeneratedTask) -> Task | GeneratedTask:
    """The task with a token for each time step, nothing cut.

    Raises:
        FPTError: it has no time series.
    """
    if not isinstance(task, SeriesTask):
        raise FPTError(f"--model {model} reads time series; {task.name} has none")
    view = copy.copy(task)
    view.whole, view.features = True, "whole series"
    return view


def read_split(prepared: Prepared, split: str) -> SeriesSplit:
    """The series of a split, values as they are in the files."""
    rows, shape = prepared.splits[split], prepared.input
    assert isinstance(shape, Patches)
    series = [np.asarray(one, dtype=np.float32).reshape(-1, shape.dim) for one in rows.with_format("numpy")[:]["values"]]
    return SeriesSplit(tuple(series), numbers(rows, "label"))

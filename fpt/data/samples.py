"""A split as a map-style dataset: rows of Arrow files, or samples that are generated on the fly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from fpt.args import DataArguments
from fpt.inputs import Input, Patches
from fpt.sample_vectors import COLUMN
from fpt.tasks.base import SPLITS, GeneratedTask


class Samples(torch.utils.data.Dataset, ABC):
    """A split as a map-style dataset of ``{input column: array, "label": ...}``.

    Attributes:
        lengths: (samples,) tokens of each.
    """

    lengths: np.ndarray

    def restored(self, predictions: np.ndarray) -> np.ndarray:
        """Predictions (samples, columns) of all samples, in the unit of their labels."""
        return predictions

    def start_epoch(self, epoch: int) -> None:
        """Choose the epoch; samples may differ from one to another."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    @abstractmethod
    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """The samples of a batch, read at once."""


def numbers(rows: Dataset, column: str) -> np.ndarray:
    """A column as one array, read at once instead of row by row; in full precision, which `datasets` does not keep by itself."""
    feature = rows.features[column]
    dtype = getattr(getattr(feature, "feature", feature), "dtype", "")
    exact = {"dtype": np.float64} if dtype.startswith("float") else {}
    return np.asarray(rows.select_columns([column]).with_format("numpy", **exact)[:][column])


class ArrowSamples(Samples):
    """An Arrow split; each epoch reads another variant of a sample when there are any."""

    def __init__(self, rows: Dataset, inputs: Input, seed: int = 0) -> None:
        wanted = [c for c in (inputs.column, "variants", COLUMN) if c in rows.column_names]
        self.lengths, self.labels = numbers(rows, "length"), numbers(rows, "label")
        self.rows = rows.select_columns(wanted).with_format("numpy")
        self.column, self.seed, self.epoch = inputs.column, seed, 0
        self.carried = [COLUMN] if inputs.vector is not None else []

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        rows = self.rows[indices]
        samples = [{self.column: s, "label": y} for s, y in zip(rows[self.column], self.labels[indices], strict=True)]
        for name in self.carried:
            for sample, value in zip(samples, rows[name], strict=True):
                sample[name] = value
        for index, sample, variants in zip(indices, samples, rows.get("variants", ()), strict=False):
            choice = int(np.random.default_rng([self.seed, self.epoch, index]).integers(len(variants) + 1))
            if choice:
                sample[self.column] = variants[choice - 1]
        return samples


class GeneratedSamples(Samples):
    """Samples drawn on the fly: valid and test are decided by the seed, train draws new ones in each epoch."""

    def __init__(self, task: GeneratedTask, args: DataArguments, split: str, seed: int) -> None:
        self.task, self.args, self.fresh, self.epoch = task, args, split == "train", 0
        self.key = [seed, SPLITS.index(split)]
        self.lengths = np.full(task.sizes[split], len(self._draw(0)[0]) // task.dim(args))

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [{Patches.column: values, "label": label} for values, label in map(self._draw, indices)]

    def _draw(self, index: int) -> tuple[np.ndarray, Any]:
        epoch = self.epoch if self.fresh else 0
        return self.task.sample(np.random.default_rng([*self.key, epoch, index]), self.args)

"""From a row of a user's file to samples of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments
from fpt.data.rewritten import smiles_of, write
from fpt.data.schema import Schema
from fpt.data.table import printable
from fpt.errors import FPTError
from fpt.inputs import Input
from fpt.sample_vectors import COLUMN
from fpt.tasks.audio import AudioTask
from fpt.tasks.base import Task
from fpt.tasks.images import ImageTask
from fpt.tasks.row_vectors import ROW_NUMBERS
from fpt.tasks.rows import beside

# Of the random SMILES that a prediction is the mean of.
WRITING_SEED = 0


@dataclass(frozen=True)
class RowReader:
    """Makes samples of the rows of a file.

    Attributes:
        shape: the model's input.
        writings: random SMILES of a molecule besides the given one, each a sample.

    Raises:
        FPTError: there are to be some, and the task has no SMILES.
    """

    task: Task
    args: DataArguments
    tokenizer: PreTrainedTokenizerBase | None
    shape: Input
    writings: int = 0

    def __post_init__(self) -> None:
        if self.writings:
            smiles_of(self.task)

    def read(self, cells: Mapping[str, Any], folder: Path | None) -> tuple[list[dict[str, Any]], str]:
        """The samples of a row, and what a user should know of them.

        Raises:
            ValueError: there are none, and why.
        """
        read = _read(self.task, {name: _cell(cell, self.task, folder) for name, cell in cells.items()})
        features = self.task.encode({k: [v] for k, v in read.items()}, self.args, self.tokenizer)
        if reason := features["reason"][0]:
            raise ValueError(reason)
        samples = [self._sample(features, 0)]
        if self.writings:
            others = write(smiles_of(self.task), read["text"], self.writings, WRITING_SEED)
            same = {name: [value] * len(others) for name, value in read.items()}
            features_of_others = self.task.encode({**same, "text": list(others)}, self.args, self.tokenizer)
            samples += [self._sample(features_of_others, i) for i, why in enumerate(features_of_others["reason"]) if not why]
        return samples, "; ".join(_remarks(features, read, self.task, self.args))

    def _sample(self, features: Mapping[str, Sequence[Any]], number: int) -> dict[str, Any]:
        names = (self.shape.column, *([COLUMN] if self.shape.vector else []))
        sample = {name: np.asarray(features[name][number]) for name in names}
        _check_vector(sample, self.shape)
        return {**sample, "length": features["length"][number]}


def _read(task: Task, cells: dict[str, Any]) -> dict[str, Any]:
    """Raw columns of a row; a picture or sound may be given as the bytes of its file."""
    (first, *_) = cells.values()
    if isinstance(first, bytes) and isinstance(task, (ImageTask, AudioTask)):
        return {"image" if isinstance(task, ImageTask) else "sound": first}
    # What stands beside a text is a number, which says by itself what is wrong with it.
    if isinstance(first, (list, tuple, dict, np.ndarray)) and task.tokenizer is not None:
        raise ValueError("not a text")
    return task.read_row(cells)


def _cell(cell: Any, task: Task, folder: Path | None) -> Any:
    """A cell as the task reads it; a relative name of a file is looked for beside the table first."""
    return beside(cell, folder) if isinstance(task, (ImageTask, AudioTask)) else cell


def _check_vector(sample: Mapping[str, np.ndarray], shape: Input) -> None:
    """Refuse a vector of other numbers than the model was trained on."""
    if shape.vector is not None and len(sample[COLUMN]) != shape.vector.dim:
        raise FPTError(
            f"the model was trained on vectors of {shape.vector.dim:,} numbers, the rdkit that is installed here computes"
            f" {len(sample[COLUMN]):,}; install the release that the checkpoint's config.json names under data.request.libraries"
        )


def _remarks(features: Mapping[str, Sequence[Any]], read: Mapping[str, Any], task: Task, args: DataArguments) -> list[str]:
    """What a user should know of an input that was predicted."""
    remarks = [task.cut_reason(args)] if features.get("cut", [False])[0] else []
    unknown = int(features.get("unknown", [0])[0])
    remarks += [f"{unknown} unknown {'token' if unknown == 1 else 'tokens'}"] if unknown else []
    schema: Schema | None = getattr(task, "schema", None)
    missing = np.flatnonzero(np.isnan(read.get(ROW_NUMBERS, ())))
    names = [printable(schema.vectors[place], 30) for place in missing] if schema is not None else []
    return remarks + ([f"no value in {', '.join(map(repr, names))}, the training mean is read"] if names else [])

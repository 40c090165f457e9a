"""A checkpoint in Python: `fpt.load("user/repo").predict(["CCO", "c1ccccc1"])`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fpt.args import DataArguments
from fpt.checkpoint import CheckpointConfig, read_config
from fpt.checkpoint.load import understood
from fpt.ensemble import SPREAD
from fpt.errors import FPTError
from fpt.evaluation.files import as_rows, predict_file
from fpt.evaluation.forecasts import forecast, frame_history
from fpt.evaluation.members import check_alike, find_members, load_members
from fpt.evaluation.task import task_of
from fpt.files.whole import read_stably
from fpt.models.base import Network
from fpt.parallel import make_accelerator
from fpt.tasks.base import GeneratedTask, Task
from fpt.tasks.forecast import ForecastTask
from fpt.text.log import Log, silent


class Predictor:
    """A trained model with all it needs to read raw inputs.

    Args:
        checkpoint: a run of ``train.py``, its ``checkpoint/``, or ``user/repo[@revision]`` of the Hub; a list of them for the
            mean of their predictions.
        backbone: where the backbone is, when that is not where it was in training.

    Attributes:
        task, args: that it was trained on, as they read inputs.
        models, tokenizer, accelerator, folders: what is loaded, and from where; `model` is the first one.

    Raises:
        FPTError: it is not there, damaged, or its backbone is not available.
    """

    def __init__(self, checkpoint: str | Sequence[str], backbone: str | None = None, log: Log = silent) -> None:
        self.folders = find_members([checkpoint] if isinstance(checkpoint, (str, os.PathLike)) else list(checkpoint), log)
        records = [read_stably(folder, read_config) for folder in self.folders]
        _task_of(records[0], self.folders[0])  # refused before the backbone is loaded
        check_alike(records, self.folders)
        self.accelerator = make_accelerator(records[0].mixed_precision)
        # A run may have replaced the checkpoint meanwhile: this record is the one of the model.
        self._members = load_members(self.folders, log, backbone)
        self.models, self.tokenizer = self._members.models, self._members.tokenizer
        self._record = self._members.config
        self.task, self.args = _task_of(self._record, self.folders[0])

    @property
    def model(self) -> Network:
        """The first of the models."""
        return self.models[0]

    @property
    def config(self) -> CheckpointConfig:
        """The content of ``config.json``."""
        return self._record

    def predict(
        self, inputs: Sequence[Any] | pd.DataFrame, batch_size: int | None = None, test_time_augment: int = 0
    ) -> list[dict[str, Any]]:
        """Predict raw inputs: SMILES, texts or sequences as they are, pictures and sounds by their file names.

        Args:
            inputs: for a model of several columns (of numbers, or --vector_columns beside its input), mappings by the columns'
                names, sequences in their order (the input first), or a table.
                For a forecast the history: a table, or mappings, with the columns of the training data.
            test_time_augment: random SMILES of each molecule whose predictions are averaged with that of the given one.

        Returns:
            For each input ``prediction`` (a label's name, or a number), for classes ``probabilities`` by name, of several models
            ``spread`` (the standard deviation over them, see `fpt.ensemble`), and ``reason``: empty, why the prediction is
            None, or that the input was cut. Of a forecast for each step ahead its time and the value of each series by name.

        Raises:
            FPTError: an input does not have the model's columns, or only SMILES can be augmented.
        """
        if isinstance(self.task, ForecastTask):
            return self._forecast(inputs, batch_size)
        rows = as_rows(inputs, self._record.data.schema)
        if rows.rows.empty:
            return []
        size = self._record.eval_batch_size if batch_size is None else batch_size
        if size < 1:
            raise FPTError(f"batch_size {size} must be at least 1")
        with understood(self.folders[0]):
            about = self.task, self.args, self._members
            out = predict_file(rows, *about, size, self.accelerator, test_time_augment)
        return [self._plain(row) for row in out.to_dict("records")]

    def _forecast(self, inputs: Any, batch_size: int | None) -> list[dict[str, Any]]:
        """The next values of the series of a history; see `fpt.evaluation.forecasts`."""
        assert isinstance(self.task, ForecastTask)
        size = self._record.eval_batch_size if batch_size is None else batch_size
        with understood(self.folders[0]):
            history = frame_history(inputs, self.task, self.args, self._record)
            ahead = forecast(history, self.models, self._record, size, self.accelerator, silent)
        time = ahead.columns[0]
        return [{name: cell if name == time else float(cell) for name, cell in row.items()} for row in ahead.to_dict("records")]

    def _plain(self, row: dict[str, Any]) -> dict[str, Any]:
        known = row["prediction"] != ""
        number = self._record.output.kind == "value"
        said: Any = (float(row["prediction"]) if number else row["prediction"]) if known else None
        shares = {k.removeprefix("probability_"): float(v) for k, v in row.items() if k.startswith("probability_") and known}
        out = {"prediction": said, **({"probabilities": shares} if shares else {})}
        if len(self.models) > 1:
            out[SPREAD] = float(row[SPREAD]) if known else None
        return {**out, "reason": row["reason"]}


def _task_of(record: CheckpointConfig, folder: Path) -> tuple[Task, DataArguments]:
    """The task of a checkpoint as it reads inputs.

    Raises:
        FPTError: it has none to read.
    """
    task, args = task_of(record, folder, data_dir=None, cache_dir=None)
    if isinstance(task, GeneratedTask):
        raise FPTError(f"{task.name} is generated, it has no inputs to predict; score it with evaluate.py")
    return task, args

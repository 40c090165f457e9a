"""A task that is ready to be trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments
from fpt.data.manifest import Manifest
from fpt.data.rewritten import Rewritten
from fpt.data.samples import ArrowSamples, Samples, numbers
from fpt.data.window_samples import WindowSamples
from fpt.forecasts import Forecast
from fpt.inputs import Input
from fpt.outputs import Output
from fpt.tasks.base import GeneratedTask, Task
from fpt.windows import Windows


@dataclass
class Prepared:
    """A task ready to train on.

    Attributes:
        task: where it came from.
        args: what was asked for.
        splits: for each of train, valid and test an Arrow dataset with the columns ``id`` (str), ``label``, ``length`` (int,
            tokens) and ``input_ids`` (list of int) or ``values`` (list of tokens * dim numbers); tasks on text have ``text``
            and train may have ``variants`` (list of lists of int): the same inputs written in other ways. Of forecasts a row is
            a series, see `fpt.data.window_samples`. Or the samples of a generated task.
        input: what goes into the backbone.
        output: what the labels are.
        tokenizer: turns text into ``input_ids``; None for patches.
        manifest: what the entry was made from and holds.
        rejected: rows that could not be used, with the reason.
    """

    task: Task | GeneratedTask
    args: DataArguments
    splits: dict[str, Any]
    input: Input
    output: Output
    tokenizer: PreTrainedTokenizerBase | None
    manifest: Manifest
    rejected: pd.DataFrame

    def samples(self, split: str, seed: int = 0) -> Samples:
        """The samples of a split; `seed` picks the variants."""
        rows = self.splits[split]
        if isinstance(rows, Samples):
            return rows
        if isinstance(self.input, Windows) and isinstance(self.output, Forecast):
            return WindowSamples(rows, self.input, self.output)
        return ArrowSamples(rows, self.input, seed)

    def labels(self, split: str) -> np.ndarray | None:
        """The labels (samples, ...) of a split in full precision; None of generated data, which draws them."""
        rows = self.splits[split]
        if isinstance(rows, Samples):
            return None
        samples = self.samples(split)
        return samples.labels if isinstance(samples, WindowSamples) else numbers(rows, "label")

    def ids(self, split: str) -> list[Any]:
        """What each sample of a split is called."""
        samples = self.samples(split)
        if isinstance(samples, WindowSamples):
            return samples.ids
        rows = self.splits[split]
        return list(range(len(rows))) if isinstance(rows, Samples) else list(rows["id"])

    def train_samples(self, seed: int) -> Samples:
        """The samples of the training split as training reads them; `seed` decides how they are written and augmented."""
        return self.rewritten("train", seed) if self.args.augment_each_epoch else self.samples("train", seed)

    def rewritten(self, split: str, seed: int) -> Rewritten:
        """The samples of a split of molecules, written in other ways."""
        return Rewritten(self.splits[split], self.input, seed, self.task, self.args, self.tokenizer)

    @property
    def primary_metric(self) -> str:
        """The metric that picks the model on the validation split."""
        return self.manifest.primary_metric

    @property
    def split_method(self) -> str:
        """How train, valid and test were made, in words."""
        return self.manifest.split_method or self.manifest.request.split

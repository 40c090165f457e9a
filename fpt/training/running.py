"""A run in progress."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from fpt.args import TrainArguments
from fpt.checkpoint import ModelRecord
from fpt.data.batches import LengthGroupedBatchSampler
from fpt.data.prepared import Prepared
from fpt.data.samples import Samples
from fpt.models.base import Made, Network
from fpt.results import Calibration
from fpt.training.averaging import Average
from fpt.training.monitor import Losses, Tracker, say
from fpt.training.random_state import OwnRandom
from fpt.training.records import Failure, Job, Progress
from fpt.training.stop import Stop


@dataclass(eq=False)
class Run:
    """A run in progress: what it trains with, and how far it has come.

    Attributes:
        label: what its lines begin with, where several runs share the process; else empty.
        count: runs that go side by side in this process.
        config: what its checkpoints have in common.
        shell: the model without memory for its weights, for its operations to be counted.
        model, optimizer: as they are spread over processes; `network` and `plain_optimizer` are what they wrap.
        peak_at_start: operations per second of plain matrix products, measured before the first step.
        average: of its trainable parameters, which is evaluated in their place.
        calibration: of the finished model's probabilities, None where there is none.
        predictions, labels: of each split that the finished model was scored on, where several runs share the process.
        random: the random numbers of its own, where several runs share the process.
        stop: whether the process was told to stop; `stopped`: whether the run has saved its state for that.
    """

    job: Job
    made: Made
    label: str
    count: int
    tracker: Tracker | None
    config: ModelRecord
    shell: torch.nn.Module
    samples: Samples
    sampler: LengthGroupedBatchSampler
    loader: Iterable[dict[str, torch.Tensor]]
    padding: dict[str, float]
    monitor: Losses
    plain_optimizer: torch.optim.Optimizer
    schedule: Any
    model: Any
    optimizer: Any
    random: OwnRandom | None = None
    average: Average | None = None
    calibration: Calibration | None = None
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    peak_at_start: float = 0.0
    progress: Progress = field(default_factory=Progress)
    stop: Stop = field(default_factory=Stop)
    stopped: bool = False
    failure: Failure | None = None

    @property
    def accelerator(self) -> Accelerator:
        """What it runs on."""
        return self.job.accelerator

    @property
    def args(self) -> TrainArguments:
        """Its arguments."""
        return self.job.args

    @property
    def prepared(self) -> Prepared:
        """Its data."""
        return self.job.prepared

    @property
    def output(self) -> Path:
        """Its folder."""
        return self.job.output

    @property
    def network(self) -> Network:
        """Its model as it was built."""
        return self.made.network

    @property
    def out_of_patience(self) -> bool:
        """Whether the last evaluations brought nothing better."""
        patience = self.args.early_stopping_patience
        return bool(patience) and self.progress.evaluations_without_gain >= patience

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model is the one that is evaluated and kept."""
        return self.average.applied() if self.average else contextlib.nullcontext()

    def log(self, line: str) -> None:
        """Print a line about this run."""
        say(self.accelerator, f"{self.label}: {line}" if self.label else line)

    def track(self, values: dict[str, float]) -> None:
        """Send numbers of the last step to the tracker."""
        if self.tracker:
            start = f"{self.label}/" if self.label else ""
            self.tracker.log({start + name: value for name, value in values.items()}, self.progress.step)

    def fail(self, error: Exception) -> None:
        """Leave this run out, among others that go on; its states stay.

        Raises:
            Exception: it is the only one.
        """
        if self.count == 1:
            raise error
        reason = " ".join(str(error).split())
        self.failure = Failure(self.output.name, self.args.seed, self.args.learning_rate, self.progress.step, reason)
        self.log(f"left out at step {self.progress.step}, the other runs go on: {reason}")

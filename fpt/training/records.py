"""What a run is, and how far it has come."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fpt.args import ModelArguments, TrainArguments
from fpt.data.cache import Prepared


@dataclass
class Progress:
    """Where a run is; JSON values, saved with its state."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_score: float | None = None
    best_step: int = 0
    best_metrics: dict[str, Any] = field(default_factory=dict)
    evaluations_without_gain: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Job:
    """One run: what is trained on what, and where it goes. `held` is what is given back when it ends."""

    kind: Any
    prepared: Prepared
    model_args: ModelArguments
    args: TrainArguments
    arguments: dict[str, Any]
    accelerator: Accelerator
    output: Path
    started: float
    held: contextlib.ExitStack

"""What a run is, and how far it has come."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as checked
from typing_extensions import TypedDict

from fpt.args import ModelArguments, TrainArguments
from fpt.backbones.base import BackboneSpec
from fpt.data.prepared import Prepared
from fpt.models.base import Model
from fpt.results import Arguments

# What is read from a file has exactly these fields, of exactly these types.
STRICT = ConfigDict(strict=True, extra="forbid")


class Evaluated(TypedDict):
    """An evaluation: after which step, the mean training loss since the one before, and the scores."""

    step: int
    train_loss: float
    valid: dict[str, float | None]


@checked(config=STRICT)
class Progress:
    """Where a run is; JSON values, saved with its state."""

    step: NonNegativeInt = 0
    epoch: NonNegativeInt = 0
    batch: NonNegativeInt = 0
    best_score: float | None = None
    best_step: NonNegativeInt = 0
    best_metrics: dict[str, float | None] = field(default_factory=dict)
    evaluations_without_gain: NonNegativeInt = 0
    tokens: NonNegativeInt = 0
    train_seconds: NonNegativeFloat = 0.0
    wall_seconds: NonNegativeFloat = 0.0
    history: list[Evaluated] = field(default_factory=list)


@dataclass
class SavedBackbone:
    """The backbone of a state. Of a random or a trained one the hash is known; without the key, nobody knows which it was."""

    name: str
    sha256: str | None
    revision: str | None = None
    seed: int | None = None
    num_layers: int | None = None
    dtype: str = "fp32"
    hub_id: str | None = None

    def spec(self) -> BackboneSpec:
        """As a backbone is described elsewhere."""
        return BackboneSpec(**vars(self))


class StateInfo(BaseModel):
    """What ``state.json`` contains. The last three are in every state from format 2 on.

    Attributes:
        schedule: PyTorch's own description of its schedule, whose keys are those of its version.
    """

    model_config = STRICT

    format: PositiveInt = 1
    sha256: str
    progress: Progress
    schedule: dict[str, Any]
    core: SavedBackbone
    processes: PositiveInt
    data_key: dict[str, Any] | None = None
    arguments: Arguments | None = None
    mixed_precision: str | None = None


@dataclass(frozen=True)
class State:
    """A state that a run can go on from.

    Attributes:
        tensors: on the CPU: ``model.NAME``, ``optimizer.NAME.MOMENT`` and ``process.RANK.losses``, ``.random`` and ``.cuda``.
    """

    folder: Path
    info: StateInfo
    tensors: dict[str, torch.Tensor]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """Tensors whose name begins with `prefix`, without it."""
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


@dataclass
class Job:
    """One run: what is trained on what, and where it goes.

    Attributes:
        held: is given back when the run ends.
        data_key: what a continuation must find again of the data; see `fpt.training.content.data_key`.
        state: to go on from, None for a run that starts at step 0.
    """

    kind: Model
    prepared: Prepared
    model_args: ModelArguments
    args: TrainArguments
    arguments: Arguments
    accelerator: Accelerator
    output: Path
    started: float
    held: contextlib.ExitStack
    data_key: dict[str, Any] = field(default_factory=dict)
    state: State | None = None


@dataclass(frozen=True)
class Failure:
    """A run among several that was left out; the others went on.

    Attributes:
        step: the last one that it took.
        reason: in one line.
    """

    folder: str
    seed: int
    learning_rate: float
    step: int
    reason: str

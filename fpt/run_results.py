"""``results.json`` of a finished run, as typed records."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fpt.errors import FPTError
from fpt.results import RESULTS_FILE, Scores
from fpt.untrusted.typed import as_type, read_json

Count = Annotated[int, Field(ge=0, lt=2**63)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Seconds = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class BackboneResult:
    """The backbone of a run; a random one has a seed."""

    name: str
    sha256: str | None = None
    seed: Seed | None = None
    num_layers: Count | None = None


@dataclass(frozen=True)
class SplitResult:
    """How the data was split, and rows of each split."""

    method: str
    seed: Seed
    rows: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputResult:
    """Kind of the output: classes, multilabel, value or bits; empty when it is not known."""

    kind: str = ""


@dataclass(frozen=True)
class DataResult:
    """The data of a run; only what a reader of results asks for."""

    output: OutputResult = field(default_factory=OutputResult)


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on the validation split while a model was trained; an estimator has no steps and no training loss."""

    valid: Scores
    step: Count | None = None
    train_loss: float | None = None


@dataclass(frozen=True)
class Arguments:
    """The arguments of a run; its command line is made of all of them."""

    dataset: str
    seed: Seed
    options: dict[str, Any] | None = None
    model_options: dict[str, Any] | None = None


@dataclass
class RunResults:
    """What ``results.json`` of a run says; see `read_results`.

    Attributes:
        metrics: split -> metric -> value; valid and test have the primary metric.
        chosen: what an estimator was fitted with.
        values: all that the file says, as JSON values.
    """

    task: str
    metrics: dict[str, Scores]
    primary_metric: str
    seed: Seed
    split: SplitResult
    core: BackboneResult
    arguments: Arguments
    steps: Count
    wall_seconds: Seconds
    history: list[Evaluation]
    model: str = "fpt"
    data: DataResult = field(default_factory=DataResult)
    chosen: dict[str, Any] = field(default_factory=dict)
    trainable_parameters: Count | None = None
    values: dict[str, Any] = field(default_factory=dict)


def read_results(folder: Path) -> RunResults:
    """Read ``results.json`` of a finished run. Every value has its declared type, so that it can be shown.

    Raises:
        FPTError: the file can't be read, or a value is missing, of another type or out of range.
    """
    path = folder / RESULTS_FILE
    values = read_json(path)
    try:
        if not isinstance(values, dict):
            raise FPTError("it is not a JSON object")
        results = as_type(RunResults, values, "")
        for split in ("valid", "test"):
            if results.primary_metric not in results.metrics.get(split, {}):
                raise FPTError(f"metrics.{split} has no {results.primary_metric!r}, which is the primary metric")
    except FPTError as error:
        raise FPTError(f"{path} can't be read: {error}; delete it and run it again") from error
    results.values = values
    return results

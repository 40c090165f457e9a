"""``results.json`` of a run as a typed record, which is what a run writes and what tables and reports read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, NotRequired, cast

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from fpt.errors import FPTError
from fpt.files.output_paths import RESULTS_FILE as RESULTS_FILE
from fpt.files.whole import write_json
from fpt.metrics import Scores
from fpt.untrusted.typed import as_type, read_json

Count = Annotated[int, Field(ge=0, lt=2**63)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Seconds = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(ge=0)]
# Objects of which only some keys are declared; the others stay in them as they are.
OPEN = ConfigDict(extra="allow")
# Figures of a network that are null where they could not be measured. Whatever else a run does not have is left out.
MAY_BE_NULL = ("evaluation_tokens_per_second", "flops_per_token", "mfu")


@dataclass(frozen=True)
class BackboneResult:
    """The backbone of a run; see `fpt.backbones.base.BackboneSpec`. A baseline has its own name here, and no weights."""

    name: str
    revision: str | None = None
    seed: Seed | None = None
    num_layers: Count | None = None
    dtype: str = "fp32"
    sha256: str | None = None
    hub_id: str | None = None


@dataclass(frozen=True)
class SplitResult:
    """How the data was split, and rows of each split."""

    method: str
    seed: Seed
    rows: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class DeviceResult:
    """What the run was computed on."""

    type: str
    strategy: str = ""
    threads: Count | None = None
    compiled: str | None = None


@dataclass(frozen=True)
class TuningResult:
    """Which parameters were trained; see `fpt.models.tuning.Tuning`."""

    parts: tuple[str, ...]
    lora_rank: Count = 8
    lora_alpha: float = 16.0
    input_layers: tuple[Count, ...] = ()
    readout_layers: tuple[Count, ...] = ()
    readout: str = "last"


@dataclass(frozen=True)
class CalibrationScores:
    """Log loss (nats) and expected calibration error on a split, before and after its probabilities were calibrated."""

    loss_before: float
    loss: float
    ece_before: float
    ece: float


@dataclass(frozen=True)
class Calibration:
    """The temperature that logits are divided by, fitted on the validation split; see `fpt.calibration`.

    Attributes:
        test: None where the test split was not scored.
    """

    temperature: float
    valid: CalibrationScores
    test: CalibrationScores | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature {self.temperature} is not above 0")


@with_config(OPEN)
class OutputValues(TypedDict):
    """The output in the manifest of the data, with whatever else its kind has."""

    kind: NotRequired[str]


@with_config(OPEN)
class DataValues(TypedDict):
    """The manifest of the prepared data, of which results only need the output."""

    output: NotRequired[OutputValues]


@with_config(OPEN)
class Arguments(TypedDict):
    """The arguments of a run by name, as `fpt.args.as_dict` gives them; an earlier version may have had others."""

    dataset: str
    seed: Seed
    options: NotRequired[dict[str, Any] | None]
    model_options: NotRequired[dict[str, Any] | None]
    output_dir: NotRequired[str | None]
    learning_rate: NotRequired[float]
    global_batch_size: NotRequired[int]


@with_config(OPEN)
class Evaluation(TypedDict):
    """One evaluation on the validation split; of an estimator the setting that was tried, and neither step nor loss."""

    step: NotRequired[Count | None]
    train_loss: NotRequired[float | None]
    valid: Scores


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What was run on which data, and its scores.

    Attributes:
        metrics: split -> metric -> value; valid and test have the primary metric. A run that was not picked has no test.
        versions: of the libraries that computed it.
    """

    task: str
    model: str = "fpt"
    metrics: dict[str, Scores]
    primary_metric: str
    seed: Seed
    split: SplitResult
    data: DataValues = field(default_factory=lambda: DataValues())
    versions: dict[str, str] = field(default_factory=dict)
    arguments: Arguments


@dataclass(frozen=True, kw_only=True)
class RunResults(RunFacts):
    """The content of ``results.json``, its keys in this order; see `read_results` and `write_results`.

    Attributes:
        best_step: of the model that is scored; 0 of an estimator, which has no steps.
        chosen: what an estimator was fitted with.
        calibration: of the probabilities, None where they are as the model gives them.
        mfu: share of the matmul peak that training reached; where it makes no sense, `mfu_left_out` is the reason.
        padding: share of positions that is padding, in the batches of the run (``grouped``) and in random ones.
    """

    best_step: Count = 0
    steps: Count
    stopped_early: bool = False
    core: BackboneResult
    tuning: TuningResult | None = None
    input_start: str | None = None
    chosen: dict[str, Any] | None = None
    calibration: Calibration | None = None
    trainable_parameters: Count | None = None
    total_parameters: Count | None = None
    wall_seconds: Seconds
    train_seconds: Seconds = 0.0
    tokens_per_second: Rate = 0.0
    evaluation_tokens_per_second: Rate | None = None
    runs_side_by_side: Count | None = None
    flops_per_token: Rate | None = None
    mfu: float | None = None
    mfu_left_out: str | None = None
    padding: dict[str, float] | None = None
    device: DeviceResult | None = None
    mixed_precision: str | None = None
    gradient_accumulation_steps: Count | None = None
    history: list[Evaluation]

    def score(self, split: str) -> float | None:
        """The primary metric on a split."""
        return self.metrics[split][self.primary_metric]

    @property
    def output_kind(self) -> str:
        """The kind of the output: classes, multilabel, value or bits; empty when it is not known."""
        return self.data.get("output", {}).get("kind", "")

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values, which `read_results` reads."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        null = MAY_BE_NULL if self.trainable_parameters is not None else ()
        plain = {name: asdict(value) if isinstance(value, RECORDS) else value for name, value in values.items()}
        return {name: value for name, value in plain.items() if value is not None or name in null}


RECORDS = (BackboneResult, SplitResult, DeviceResult, TuningResult, Calibration)


def read_results(folder: Path) -> RunResults:
    """Read ``results.json`` of a finished run. Every declared value has its type, so that it can be shown.

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
    # With their keys in the order of the file, which is that of the flags in a command.
    return replace(results, arguments=cast(Arguments, values["arguments"]), data=cast(DataValues, values.get("data", {})))


def write_results(folder: Path, results: RunResults) -> Path:
    """Write ``results.json`` into `folder` in one step; a number that is not finite becomes null."""
    path = folder / RESULTS_FILE
    write_json(path, _finite(results.to_dict()))
    return path


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

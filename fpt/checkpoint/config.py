"""``config.json`` of a checkpoint as a typed record. It is checked as a whole before it is written, and before it is used."""

from __future__ import annotations

import re
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NotRequired, cast, get_type_hints

from pydantic import with_config
from typing_extensions import TypedDict

from fpt.args import DataArguments, as_dict
from fpt.backbones.base import DTYPES, MOST_LAYERS, BackboneSpec
from fpt.data.schema import Schema
from fpt.errors import FPTError
from fpt.files.whole import sha256_file
from fpt.flags.checks import DROPOUT
from fpt.inputs import INPUTS, Input, Tokens
from fpt.metrics import RESOLUTIONS, Scores
from fpt.models.base import MODELS, NetworkModel, NetworkRecord
from fpt.models.tuning import PARTS, Tuning
from fpt.outputs import OUTPUTS, Output, Value
from fpt.results import OPEN, Calibration
from fpt.tasks.row_vectors import check_columns
from fpt.tasks.sides import check_agree
from fpt.untrusted.typed import as_type, read_json

WEIGHTS, CONFIG, CARD, TOKENIZER = "model.safetensors", "config.json", "README.md", "tokenizer.json"
SHA256 = re.compile("[0-9a-f]{64}")
PRECISIONS = ("no", *(name for name in RESOLUTIONS if name != "fp32"))
# Longer names of tasks, backbones and files are not those of anything.
LONGEST_NAME = 4_096
LARGEST_BATCH = 2**20
# Arguments of the data that are of one machine or of one run.
LOCAL = ("data_dir", "cache_dir", "num_proc", "split_seed")
# Keys that are not there, rather than null, where they have no value.
LEFT_OUT = ("core_config", "test_metrics", "calibration")
# Order of the keys of `core` in the file of a baseline.
BASELINE_KEYS = ("name", "seed", "dtype", "revision", "num_layers", "sha256", "hub_id")


@with_config(OPEN)
class Request(TypedDict):
    """What the data was asked for, as far as it is needed here; the rest of it is the Arrow cache's own."""

    split_seed: int


@with_config(OPEN)
class Manifest(TypedDict):
    """What the prepared data was made from, as far as it is needed here; `data_sha256` is the hash of its rows."""

    request: Request
    data_sha256: str
    origin: NotRequired[str]


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """The data that a model was trained on.

    Attributes:
        arguments: of the command line, with the options of the task. A checkpoint is published, so there are no folders in them.
        manifest: what the prepared data was made from.
        schema: of a user's own table.
    """

    source: str = ""
    licence: str = ""
    arguments: DataArguments
    manifest: Manifest
    schema: Schema | None = None

    @property
    def split_seed(self) -> int:
        """The seed of the split."""
        return self.manifest["request"]["split_seed"]

    @property
    def data_sha256(self) -> str:
        """The hash of the rows."""
        return self.manifest["data_sha256"]

    @property
    def origin(self) -> str:
        """Where the raw data came from, in words."""
        return self.manifest.get("origin", "")

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        arguments = {name: value for name, value in as_dict(self.arguments).items() if name not in LOCAL}
        return {"source": self.source, "licence": self.licence, "arguments": arguments, **self.manifest}


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """How a model was trained."""

    seed: int
    max_steps: int | None = None
    global_batch_size: int | None = None
    learning_rate: float | None = None
    lr_scheduler: str | None = None
    license: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """What all checkpoints of a run have in common.

    Attributes:
        core: the backbone; of a baseline its name and seed.
        network: of a baseline, None of a frozen transformer.
        tokenizer: as ``--tokenizer`` names it.
        command: runs it again.
    """

    task: str
    model: str = "fpt"
    input: Input
    output: Output
    core: BackboneSpec
    tuning: Tuning = field(default_factory=Tuning)
    network: NetworkRecord | None = None
    tokenizer: str | None = None
    trainable_parameters: int = 0
    total_parameters: int = 0
    mixed_precision: str = "no"
    eval_batch_size: int
    data: DataRecord
    training: TrainingRecord
    command: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        core = self.core.to_dict()
        built = {"tuning": self.tuning.to_dict()} if self.network is None else {"network": asdict(self.network)}
        return {
            "task": self.task,
            "model": self.model,
            "input": self.input.to_dict(),
            "output": self.output.to_dict(),
            "core": core if self.network is None else {name: core[name] for name in BASELINE_KEYS},
            **built,
            "tokenizer": self.tokenizer,
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "mixed_precision": self.mixed_precision,
            "eval_batch_size": self.eval_batch_size,
            "data": self.data.to_dict(),
            "training": self.training.to_dict(),
            "command": self.command,
        }


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(ModelRecord):
    """The content of ``config.json``.

    Attributes:
        fpt_version: of this package, that wrote it.
        step: of the model, with its `valid_metrics`.
        calibration: of its probabilities, None where they are as the model gives them.
        full: whether the file of weights has those of the backbone as well; `core_config` is then its architecture.

    Raises:
        FPTError: two values contradict each other.
    """

    fpt_version: str = ""
    step: int
    valid_metrics: Scores
    core_config: dict[str, Any] | None = None
    full: bool
    model_sha256: str
    tokenizer_sha256: str | None = None
    test_metrics: Scores | None = None
    calibration: Calibration | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values, which `parse_config` reads."""
        values = {
            "fpt_version": self.fpt_version,
            **super().to_dict(),
            "step": self.step,
            "valid_metrics": self.valid_metrics,
            "core_config": self.core_config,
            "full": self.full,
            "model_sha256": self.model_sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
            "test_metrics": self.test_metrics,
            "calibration": None if self.calibration is None else asdict(self.calibration),
        }
        return {name: value for name, value in values.items() if value is not None or name not in LEFT_OUT}

    def __post_init__(self) -> None:
        self._check_names()
        if not 1 <= self.eval_batch_size <= LARGEST_BATCH:
            raise FPTError(f"eval_batch_size {self.eval_batch_size} is not between 1 and {LARGEST_BATCH:,}")
        for name, number in (("step", self.step), ("training.seed", self.training.seed)):
            if not 0 <= number < 2**63:
                raise FPTError(f"{name} {number} is not between 0 and 2**63 - 1")
        if not 0 <= self.data.split_seed < 2**63:
            raise FPTError(f"data.request.split_seed {self.data.split_seed} is not between 0 and 2**63 - 1")
        if isinstance(self.input, Tokens) != (self.tokenizer_sha256 is not None):
            raise FPTError("a model on tokens needs a tokenizer_sha256, and no other model has one")
        check_agree(self.input, self.data.arguments, self.task)
        check_columns(self.input.vector, self.data.arguments, self.data.schema)
        kind = MODELS[self.model]
        if (self.network is not None) != isinstance(kind, NetworkModel):
            raise FPTError(f"model {self.model!r} and the presence of network contradict each other")
        if self.network is not None and (self.network.name != self.model or self.full):
            raise FPTError("network.name, model and full contradict each other")
        if self.network is not None and isinstance(kind, NetworkModel):
            _check_network(self.network, kind)
        if self.full and self.core_config is None:
            raise FPTError("full is true, and core_config is missing")
        if self.calibration is not None and isinstance(self.output, Value):
            raise FPTError("output and calibration contradict each other: a number has no probability")
        self._check_backbone()

    def _check_names(self) -> None:
        for name, text in (("task", self.task), ("core.name", self.core.name), ("core.revision", self.core.revision or "")):
            if len(text) > LONGEST_NAME or not text.isprintable() or (name != "core.revision" and not text):
                raise FPTError(f"{name} is not a name")
        if self.model not in MODELS:
            raise FPTError(f"model {self.model[:50]!r} is not known; known: {', '.join(MODELS)}")
        if self.mixed_precision not in PRECISIONS:
            raise FPTError(f"mixed_precision {self.mixed_precision[:50]!r} is not one of {', '.join(PRECISIONS)}")
        hashes = (self.model_sha256, self.tokenizer_sha256, self.core.sha256, self.data.data_sha256)
        if not all(text is None or SHA256.fullmatch(text) for text in hashes):
            raise FPTError("a sha256 is not 64 hexadecimal digits")

    def _check_backbone(self) -> None:
        if self.core.dtype not in DTYPES:
            raise FPTError(f"core.dtype {self.core.dtype[:50]!r} is not one of {', '.join(DTYPES)}")
        if self.core.num_layers is not None and not 1 <= self.core.num_layers <= MOST_LAYERS:
            raise FPTError(f"core.num_layers {self.core.num_layers} is not between 1 and {MOST_LAYERS:,}")
        if self.core.seed is not None and not 0 <= self.core.seed < 2**63:
            raise FPTError(f"core.seed {self.core.seed} is not between 0 and 2**63 - 1")
        if self.network is None and self.core.sha256 is None:
            raise FPTError("core.sha256 is missing: without it nobody knows whether a backbone is the one of the training")
        if unknown := set(self.tuning.parts) - {*PARTS, "other"}:
            raise FPTError(f"tuning.parts has the unknown part {sorted(unknown)[0][:50]!r}")


def _check_network(about: NetworkRecord, kind: NetworkModel) -> None:
    """Refuse options and a shape that the model of a baseline does not have, or of other types.

    Raises:
        FPTError: a value is missing, has another type, or is out of range.
    """
    names = [one.name for one in fields(kind.options)] if kind.options else []
    if missing := [name for name in (*names, "dropout") if name not in about.options]:
        raise FPTError(f"network.options.{missing[0]} is missing")
    if kind.options:
        as_type(kind.options, {name: about.options[name] for name in names}, "network.options")
    dropout = as_type(float, about.options["dropout"], "network.options.dropout")
    if dropout not in DROPOUT:
        raise FPTError(f"network.options.dropout {dropout} must be {DROPOUT}")
    if kind.shape_type is not None:
        as_type(kind.shape_type, about.shape, "network.shape")


def read_config(folder: Path) -> CheckpointConfig:
    """Read and validate ``config.json``, and check the hashes that it gives of the other files.

    Raises:
        FPTError: a file is missing, truncated or changed, or a value of the configuration is missing or makes no sense.
    """
    path = folder / CONFIG
    config = parse_config(read_json(path), str(path))
    for name, expected in ((WEIGHTS, config.model_sha256), (TOKENIZER, config.tokenizer_sha256)):
        if expected is None:
            continue  # a task on numbers has no tokenizer
        try:
            found = sha256_file(folder / name)
        except FileNotFoundError as error:
            raise FPTError(f"{folder} has no {name}; copy the checkpoint again") from error
        except OSError as error:
            raise FPTError(f"{folder / name} can't be read: {error.strerror or error}; copy the checkpoint again") from error
        if found != expected:
            raise FPTError(f"{folder / name} is truncated or was changed: its sha256 is not the one in {CONFIG}")
    return config


def parse_config(values: Any, where: str) -> CheckpointConfig:
    """The record of JSON values.

    Raises:
        FPTError: a value is missing, has a wrong type or contradicts another one.
    """
    try:
        return _parse(values)
    except FPTError as error:
        raise FPTError(f"{where}: {error}; copy the checkpoint again") from error


def _parse(values: Any) -> CheckpointConfig:
    if not isinstance(values, dict):
        raise FPTError("it is not a JSON object; it was not written by train.py")
    needed = [f for f in ("task", "input", "output", "core", "data", "training", "model_sha256") if f not in values]
    if needed:
        raise FPTError(f"it lacks {', '.join(needed)}; it was not written by train.py")
    list(MODELS)  # a model may bring its own kind of input
    read: dict[str, Any] = {
        "input": _one_of(INPUTS, values["input"], "input"),
        "output": _one_of(OUTPUTS, values["output"], "output"),
        "data": _data(values["data"]),
    }
    kinds = get_type_hints(CheckpointConfig)
    for one in fields(CheckpointConfig):
        if one.name in values and one.name not in read:
            read[one.name] = as_type(kinds[one.name], values[one.name], one.name)
        elif one.name not in read and one.default is MISSING and one.default_factory is MISSING:
            raise FPTError(f"{one.name} is missing")
    return CheckpointConfig(**read)


def _one_of(kinds: dict[str, Any], values: Any, where: str) -> Any:
    """The record of a kind that ``kind`` names."""
    kind = values.get("kind") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise FPTError(f"{where}.kind is {str(kind)[:50]!r}; known: {', '.join(kinds)}")
    return as_type(kinds[kind], {k: v for k, v in values.items() if k != "kind"}, where)


def _data(values: Any) -> DataRecord:
    if not isinstance(values, dict) or not isinstance(values.get("arguments"), dict):
        raise FPTError("data or data.arguments is not an object")
    # Checkpoints from before inputs were brought into one notation keep the user's own.
    given = {"keep_notation": True, **values["arguments"]}
    options = as_type(dict[str, Any], given.pop("options", {}), "data.arguments.options")
    arguments = as_type(DataArguments, given, "data.arguments")
    arguments.given_options = options
    manifest = {name: value for name, value in values.items() if name not in ("source", "licence", "arguments")}
    as_type(Manifest, manifest, "data")
    schema = values.get("schema")
    return DataRecord(
        source=as_type(str, values.get("source", ""), "data.source"),
        licence=as_type(str, values.get("licence", ""), "data.licence"),
        arguments=arguments,
        manifest=cast(Manifest, manifest),
        schema=None if schema is None else as_type(Schema, schema, "data.schema"),
    )

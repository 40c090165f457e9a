"""``config.json`` of a checkpoint as a typed record. It is validated as a whole before anything in it is used."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fpt.args import DataArguments
from fpt.backbones.base import DTYPES, MOST_LAYERS, BackboneSpec
from fpt.data.schema import Schema
from fpt.errors import FPTError
from fpt.files.whole import sha256_file
from fpt.inputs import INPUTS, Input, Tokens
from fpt.models.base import MODELS, NetworkModel
from fpt.models.tuning import PARTS, Tuning
from fpt.outputs import OUTPUTS, Output
from fpt.results import RESOLUTIONS
from fpt.side_tokens import SideTokens
from fpt.tasks.sides import check_sides, count_sides
from fpt.untrusted.typed import as_type, read_json

WEIGHTS, CONFIG, CARD, TOKENIZER = "model.safetensors", "config.json", "README.md", "tokenizer.json"
SHA256 = re.compile("[0-9a-f]{64}")
PRECISIONS = ("no", *(name for name in RESOLUTIONS if name != "fp32"))
# Longer names of tasks, backbones and files are not those of anything.
LONGEST_NAME = 4_096
LARGEST_BATCH = 2**20


@dataclass(frozen=True)
class Request:
    """What the data was asked for; the rest of it is the Arrow cache's own."""

    split_seed: int


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What is told of the data in plain values; `data_sha256` is the hash of its rows."""

    request: Request
    data_sha256: str
    origin: str = ""
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class DataRecord(DataFacts):
    """The data that a model was trained on.

    Attributes:
        arguments: of the command line, with the options of the task.
        schema: of a user's own table.
    """

    arguments: DataArguments
    schema: Schema | None = None


@dataclass(frozen=True)
class TrainingRecord:
    """How a model was trained; more is told in the model card."""

    seed: int
    license: str | None = None


@dataclass(frozen=True)
class NetworkRecord:
    """A baseline: its name, its own options, and what it must know of the data."""

    name: str
    options: dict[str, Any]
    shape: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What ``config.json`` says in plain values.

    Attributes:
        full: whether the file of weights has those of the backbone as well; `core_config` is then its architecture.
        step: of the model, with its `valid_metrics`.
    """

    task: str
    full: bool
    model_sha256: str
    eval_batch_size: int
    step: int
    valid_metrics: dict[str, float | None]
    tokenizer_sha256: str | None = None
    model: str = "fpt"
    core_config: dict[str, Any] | None = None
    mixed_precision: str = "no"
    test_metrics: dict[str, float | None] | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Facts):
    """What ``config.json`` says.

    Attributes:
        network: of a baseline, None of a frozen transformer.
        values: all that the file says, as JSON values; only to be shown.

    Raises:
        FPTError: two values contradict each other.
    """

    input: Input
    output: Output
    core: BackboneSpec
    data: DataRecord
    training: TrainingRecord
    tuning: Tuning = field(default_factory=Tuning)
    network: NetworkRecord | None = None
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_names()
        if not 1 <= self.eval_batch_size <= LARGEST_BATCH:
            raise FPTError(f"eval_batch_size {self.eval_batch_size} is not between 1 and {LARGEST_BATCH:,}")
        for name, number in (("step", self.step), ("training.seed", self.training.seed)):
            if not 0 <= number < 2**63:
                raise FPTError(f"{name} {number} is not between 0 and 2**63 - 1")
        if not 0 <= self.data.request.split_seed < 2**63:
            raise FPTError(f"data.request.split_seed {self.data.request.split_seed} is not between 0 and 2**63 - 1")
        if isinstance(self.input, Tokens) != (self.tokenizer_sha256 is not None):
            raise FPTError("a model on tokens needs a tokenizer_sha256, and no other model has one")
        self._check_sides()
        if (self.network is not None) != isinstance(MODELS[self.model], NetworkModel):
            raise FPTError(f"model {self.model!r} and the presence of network contradict each other")
        if self.network is not None and (self.network.name != self.model or self.full):
            raise FPTError("network.name, model and full contradict each other")
        if self.full and self.core_config is None:
            raise FPTError("full is true, and core_config is missing")
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

    def _check_sides(self) -> None:
        """Inputs are made as the arguments say, and embedded as the input says."""
        asked = count_sides(self.data.arguments), self.data.arguments.side_buckets
        found = (self.input.sides, self.input.buckets) if isinstance(self.input, SideTokens) else (0, asked[1])
        if found != asked and (found[0] or asked[0]):
            raise FPTError("input and data.arguments contradict each other about what a token carries besides its id")
        check_sides(self.data.arguments, self.task)

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
    facts = as_type(Facts, {f.name: values[f.name] for f in fields(Facts) if f.name in values}, "")
    network = values.get("network")
    return CheckpointConfig(
        **vars(facts),
        input=_one_of(INPUTS, values["input"], "input"),
        output=_one_of(OUTPUTS, values["output"], "output"),
        core=as_type(BackboneSpec, values["core"], "core"),
        tuning=as_type(Tuning, values.get("tuning", {}), "tuning"),
        network=None if network is None else as_type(NetworkRecord, network, "network"),
        data=_data(values["data"]),
        training=as_type(TrainingRecord, values["training"], "training"),
        values=values,
    )


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
    arguments.options = options
    facts = as_type(DataFacts, {f.name: values[f.name] for f in fields(DataFacts) if f.name in values}, "data")
    schema = values.get("schema")
    read = None if schema is None else as_type(Schema, schema, "data.schema")
    return DataRecord(**vars(facts), arguments=arguments, schema=read)

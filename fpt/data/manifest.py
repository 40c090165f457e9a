"""What an entry of the Arrow cache was made from and holds: one record, written to ``manifest.json`` and read from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict

from fpt.data.schema import Schema, schema_from_dict
from fpt.errors import FPTError
from fpt.inputs import Input, input_from_dict
from fpt.outputs import Output, output_from_dict
from fpt.untrusted.typed import as_type, read_json


@dataclass(frozen=True)
class SidesAsked:
    """What tokens carry besides their ids; see `fpt.tasks.sides`."""

    environments: int | None
    kmers: int | None
    side_buckets: int
    tokens: str


@dataclass(frozen=True)
class Request:
    """All that changes the Arrow files besides the raw data; its JSON is a part of the entry's key.

    Attributes:
        options: of the task, JSON values.
        split_seed: None where the splits are the same for every seed.
        code: versions of the code that makes the entry.
        max_length, keep_notation, libraries: None for generated data, which has no entry.
        features: what a view of a task makes of a row, None for the task's own.
        sides: of tokens; None where they have none.
        sample_vector, vector_columns: what a sample carries as its first token; None for nothing.
        tokenizer: its name where it is trained on the texts, else its hash; None for numbers.
    """

    # An entry with a setting that is not known here was made by another version, and answers no request of this one.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    task: str
    options: dict[str, Any]
    split: str
    split_seed: int | None
    code: tuple[int, ...]
    max_length: int | None = None
    keep_notation: bool | None = None
    libraries: dict[str, str] | None = None
    features: str | None = None
    tokenizer: str | None = None
    vocab_size: int | None = None
    augment: int | None = None
    sides: SidesAsked | None = None
    sample_vector: str | None = None
    vector_columns: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values. What does not apply is left out: a new field must not change the key of an entry without it."""
        written = {"task", "options", "split", "split_seed", "code"} | ({"vocab_size"} if self.tokenizer is not None else set())
        return {name: value for name, value in asdict(self).items() if name in written or value is not None}


@dataclass(frozen=True)
class Made:
    """What an entry was made from: enough to tell whether it answers a request.

    Attributes:
        origin: where the raw data came from.
        users_own: whether that was a file of the user's own.
        data_sha256: hash of the raw data.
    """

    request: Request
    origin: str
    users_own: bool
    data_sha256: str


@dataclass(frozen=True, kw_only=True)
class Facts(Made):
    """The part of a manifest that is plain values.

    Attributes:
        primary_metric: picks the model on the validation split.
        rows: of each split.
        rejected: rows that could not be used.
        unused: rows that were left out on purpose.
        cut_to_max_length, with_unknown_tokens: rows of each split that lost their end, or have unknown tokens.
        split_method: how the splits were made, None where ``--split`` says it.
        notes: lines for the user.
    """

    primary_metric: str
    rows: dict[str, int]
    rejected: int
    unused: int = 0
    cut_to_max_length: dict[str, int] = field(default_factory=dict)
    with_unknown_tokens: dict[str, int] = field(default_factory=dict)
    split_method: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest(Facts):
    """An entry, or generated data, which has no files.

    Attributes:
        input: what goes into the backbone; None for generated data.
        output: what the labels are.
        schema: of a user's own data, what its columns are.
    """

    input: Input | None = None
    output: Output
    schema: Schema | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values that `read_manifest` reads; of generated data only what it has."""
        of_files = ("input", "unused", "with_unknown_tokens", "split_method", "schema", "notes")
        values = {f.name: getattr(self, f.name) for f in fields(self) if self.input is not None or f.name not in of_files}
        described = {name: value.to_dict() for name, value in values.items() if hasattr(value, "to_dict")}
        return json.loads(json.dumps(values | described))  # lists instead of tuples


def read_made(path: Path) -> Made | None:
    """What an entry was made from; None where its manifest is missing, damaged or of another version."""
    try:
        return as_type(Made, read_json(path), "manifest")
    except FPTError:
        return None


def read_manifest(path: Path) -> Manifest:
    """The manifest of an entry.

    Raises:
        FPTError: it is missing or damaged.
    """
    values = read_json(path)
    facts = as_type(Facts, values, "manifest")
    try:
        inputs, output = input_from_dict(values["input"]), output_from_dict(values["output"])
    except (KeyError, TypeError, ValueError) as error:
        raise FPTError(f"{path} does not describe its inputs and labels: {error}") from error
    schema = None if values.get("schema") is None else schema_from_dict(values["schema"])
    return Manifest(**vars(facts), input=inputs, output=output, schema=schema)

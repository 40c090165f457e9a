"""What tasks on a user's own data share: a table is read, its schema inferred, rows sorted, splits kept or cut.

`fpt.tasks.rows` has a task for each type of input; `table` and `folder` register what ``--dataset`` takes.
"""

from __future__ import annotations

import copy
import hashlib
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from fpt.args import DataArguments
from fpt.data import duplicates
from fpt.data.labels import Labels
from fpt.data.numerals import MISSING, is_missing
from fpt.data.own_options import OwnOptions
from fpt.data.roles import Roles, assign_roles
from fpt.data.schema import POLICIES as MISSING_POLICIES
from fpt.data.schema import STANDARDISE, Schema
from fpt.data.sorting import SHA, Raw, Sorter, missing_values
from fpt.data.splits import AUTO, GIVEN, NAMES, Parts
from fpt.data.table import printable
from fpt.errors import FPTError, did_you_mean
from fpt.metrics import constant
from fpt.optional import missing_of
from fpt.options import options_of
from fpt.outputs import Classes, MultiLabel, Output, Value
from fpt.tasks.audio import sound_suffixes
from fpt.tasks.base import Examples, Source, Task
from fpt.tasks.images import picture_suffixes
from fpt.tasks.own_schema import InputOptions, Reader, count_missing, start_schema
from fpt.tasks.row_vectors import fit_numbers, read_numbers
from fpt.text.log import Log

NONE = "none"


def _classes_without_training(labels: Labels, parts: Parts) -> list[str]:
    """Lines about classes that are scored and can't be learnt."""
    if labels.schema.kind != "classes":
        return []
    train = {labels.values[i] for i in parts.rows["train"]}
    names = labels.schema.names
    found = {name: Counter(labels.values[i] for i in parts.rows[name]) for name in ("valid", "test")}
    return [
        f"the class {printable(names[number], 30)!r} has {count:,} rows in {split} and none in train"
        for split, counts in found.items()
        for number, count in sorted(counts.items())
        if number not in train
    ]


class OwnTask(Task):
    """Rows of a user's own data; a subclass for each type of input says how one is read and encoded.

    Args:
        reader: where the data is.
    """

    licence = "the user's own"
    splits: tuple[str, ...] = (AUTO, GIVEN, "stratified", "random")
    saves_split = True
    input_type: str
    schema: Schema | None = None

    def __init__(self, reader: Reader[Any], options: type[OwnOptions]) -> None:
        self.reader, self.options = reader, options
        self.name = self.source = reader.name

    def completed(self, options: OwnOptions) -> OwnOptions:
        """The options with the type of the input and what depends on it; a checkpoint keeps them."""
        return self.reader.completed(options)

    def configured(self, options: OwnOptions) -> OwnTask:
        """The task for the type of input that the options name."""
        kinds = {kind: task for task in _subclasses(OwnTask) for kind in task.__dict__.get("input_types", ())}
        kind = self.reader.input_type(options)
        if kind not in kinds:
            raise FPTError(f"unknown --input_type {kind!r}{did_you_mean(kind, kinds)}; known: {', '.join(kinds)}")
        _check(options)
        task = kinds[kind](self.reader, self.options)
        task.input_type = kind
        task.set_up()
        if reason := missing_of(task.packages):
            raise FPTError(f"dataset {self.name!r} with {kind} as input needs {reason}")
        return task

    def set_up(self) -> None:
        """Adapt to the type of the input; a subclass overrides it."""

    def with_schema(self, schema: Schema) -> OwnTask:
        """The task that reads rows as a checkpoint's training data was read."""
        task = copy.copy(self)
        task.schema = schema
        return task

    def locate(self, args: DataArguments, log: Log) -> Source:
        """Read the table and decide what its columns are for."""
        table = self.reader.read(args, log)
        o = options_of(args, OwnOptions)
        row_id, split = ("" if name == NONE and NONE not in table.rows else name for name in (o.id_column, o.split_column))
        known = table.named  # by the reader itself: nothing is guessed
        roles = Roles(
            (o.input_column if isinstance(o, InputOptions) else None) or known.get("input"),
            o.label_column or known.get("label"),
            row_id if row_id is not None else known.get("id"),
            split,
            o.group_column,
            args.vector_columns,
        )
        columns = assign_roles(table, roles, self.input_type, self.text_columns, self.name, missing_values(args) or MISSING)
        raw = Raw(table, columns)
        self.check_cells(raw)
        self.hash_files(raw, log)
        seen = (json.dumps(table.format, sort_keys=True), *(f"{count} {what}" for what, count in sorted(table.odd.items())))
        return Source(raw, self.name, raw.sha256(), users_own=True, notes=seen)

    def check_cells(self, raw: Raw) -> None:
        """Refuse input columns that are of another type altogether.

        Raises:
            FPTError: the cells name files, or are files, and --input_type says something else.
        """
        label = raw.column("label") or ""
        values = {cell.strip() for cell in raw.cells("label") if isinstance(cell, str)}
        if label in values and "delimiter" in raw.table.format:
            raise FPTError(
                f"the name of the label column {label!r} of {self.name} is also one of its values: the file seems to have no"
                " header line; put one above"
            )
        for column in raw.columns:
            is_text = column.role == "input" and self.input_type == "text"
            names = _kind_of_files(raw.table.rows[column.name]) if is_text else None
            if names:
                raise FPTError(f"column {column.name!r} of {self.name} holds names of {names} files; pass --input_type {names}")
            kind = raw.table.kinds.get(column.name)
            if column.role == "input" and kind in ("image", "audio") and kind != self.input_type:
                raise FPTError(f"column {column.name!r} of {self.name} holds {kind} files; pass --input_type {kind}")

    def hash_files(self, raw: Raw, log: Log) -> None:
        """Note the content of files that cells name; only tasks on files have any."""

    @abstractmethod
    def samples(self, raw: Raw, schema: Schema, args: DataArguments) -> tuple[Schema, list[Any], list[str]]:
        """Read the inputs of all rows.

        Returns:
            The schema with what was found, the inputs (None where one can't be used), and the reason why or an empty text.
        """

    @abstractmethod
    def raw_columns(self, samples: Sequence[Any], schema: Schema) -> dict[str, list[Any]]:
        """Columns of good samples, for `encode`."""

    def fitted(self, schema: Schema, train: Sequence[Any]) -> Schema:
        """The schema with what is learnt from the training samples alone."""
        return schema

    def keys(self, raw: Raw, samples: Sequence[Any]) -> list[Hashable]:
        """What two equal inputs share."""
        shas = list(raw.table.rows[SHA]) if SHA in raw.table.rows else None
        return [_key(sample) for sample in samples] if shas is None else list(shas)

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """Read inputs and labels, set aside what can't be used, then keep or cut the splits."""
        raw: Raw = source.rows
        sorted_rows = Sorter(raw, args, self.name)
        schema = start_schema(raw, args, self.input_type)
        schema, samples, reasons = self.samples(raw, schema, args)
        sorted_rows.reject(reasons)
        numbers = read_numbers(raw, schema, self.name)
        sorted_rows.reject(numbers.reasons)
        sorted_rows.set_aside_hidden()
        labels = sorted_rows.labels(schema)
        keys = numbers.with_keys(self.keys(raw, samples))
        sorted_rows.deduplicate(keys, labels)
        parts = sorted_rows.parts(args, seed, labels, samples if self.input_type == "smiles" else None)
        output = _output(labels, parts, self.name)
        found = [samples[i] for i in parts.rows["train"]]
        schema = replace(self.fitted(schema, found), label=labels.schema)
        schema = count_missing(fit_numbers(schema, numbers.values[parts.rows["train"]]), raw, labels)
        splits = {}
        for name in NAMES:
            part = parts.rows[name]
            ids = [sorted_rows.ids[i] for i in part]
            columns = {"id": ids, **self.raw_columns([samples[i] for i in part], schema), **numbers.column(part, schema)}
            splits[name] = Dataset.from_dict({**columns, "label": [labels.values[i] for i in part]})
        if odd := self._odd_texts(samples, parts):
            sorted_rows.notes.append(odd)
        sorted_rows.notes += [*_classes_without_training(labels, parts), *numbers.remarks(schema, parts.rows)]
        line = duplicates.describe(keys, labels.values, parts.rows)
        notes = [*sorted_rows.notes, *labels.notes, *parts.notes, *([f"{line} (--deduplicate leaves them out)"] if line else [])]
        return Examples(
            splits,
            output,
            sorted_rows.rejected(),
            schema=schema,
            unused=sorted_rows.unused(),
            notes=notes,
            method=parts.method,
            seeded=parts.method != GIVEN,
        )

    def _odd_texts(self, samples: Sequence[Any], parts: Parts) -> str | None:
        """A line about texts that are usually written where there is none."""
        marks = set(MISSING) - {""}
        found = [samples[i] for part in parts.rows.values() for i in part if isinstance(samples[i], str)]
        found = [text for text in found if len(text) < 10 and is_missing(text, marks)]
        if not found or self.input_type != "text":
            return None
        return f"{len(found):,} inputs are texts such as {found[0]!r}, read as they are (--missing_values if they mean no value)"


def _check(options: OwnOptions) -> None:
    """Refuse names that are not known."""
    known: list[tuple[str, str | None, tuple[str, ...]]] = [("missing", options.missing, MISSING_POLICIES)]
    if isinstance(options, InputOptions):
        known.append(("standardise", options.standardise, STANDARDISE))
    for name, value, names in known:
        if value is not None and value not in names:
            raise FPTError(f"--{name} {value!r} must be {', '.join(names[:-1])} or {names[-1]}")


def _kind_of_files(cells: Sequence[Any]) -> str | None:
    """Whether cells are names of pictures or sounds."""
    endings = [Path(cell).suffix.lower() for cell in list(cells)[:200] if isinstance(cell, str) and cell and len(cell) < 500]
    for kind, known in (("image", picture_suffixes), ("audio", sound_suffixes)):
        if endings and sum(ending in known() for ending in endings) > 0.9 * len(endings):
            return kind
    return None


def _subclasses(kind: type) -> list[type]:
    direct: list[type] = kind.__subclasses__()
    return [one for sub in direct for one in (sub, *_subclasses(sub))]


def _key(sample: Any) -> Hashable:
    if isinstance(sample, np.ndarray):
        return sample.tobytes()
    return hashlib.sha256(sample).digest() if isinstance(sample, bytes) else sample


def _output(labels: Labels, parts: Parts, name: str) -> Output:
    schema = labels.schema
    train = [labels.values[i] for i in parts.rows["train"]]
    if schema.kind == "multilabel":
        if not len(train) or len({tuple(label) for label in train}) < 2:
            raise FPTError(f"{name}: all training rows have the same labels; there is nothing to learn")
        return MultiLabel(schema.names)
    if schema.kind == "number":
        values = np.array(train, dtype=np.float64)
        if constant(values):
            raise FPTError(f"{name}: all {len(values):,} training labels are {values[0]:.8g}; there is nothing to learn")
        return Value(float(values.mean()), float(values.std()))
    present = set(train)
    if len(present) < 2:
        only = ", ".join(repr(schema.names[i]) for i in present)
        raise FPTError(
            f"{name}: the train split has one class only ({only}); there is nothing to tell apart. Use more data, another"
            " --split_seed or another --split"
        )
    return Classes(schema.names)

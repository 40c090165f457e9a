"""Tasks: one file a dataset, from raw data to Arrow features with labels.

A new task is one new file here that registers an instance of a `Task` in `TASKS`. What tasks of a modality share is in
`text`, `images` and `audio`; a task whose samples are made on the fly is a `GeneratedTask`.

Two kinds of names: a plain one (``mnist``), and a family that is registered as ``tdc/NAME`` or ``csv:FILE`` and called with
what a user writes in place of the word in capitals.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments, changed
from fpt.data.files import read_table
from fpt.data.rejected import rejected_rows
from fpt.data.schema import Schema
from fpt.data.table import Table, TableOptions, cell_text
from fpt.errors import FPTError
from fpt.inputs import Input
from fpt.options import own_options
from fpt.outputs import Output
from fpt.registry import Registry
from fpt.text.log import Log

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Source:
    """Raw data that was found: its rows, where they came from, and a hash of what they say.

    `rows` is the task's own, and has a length. `sha256` is over the parsed content, so the same data in two file formats
    has one hash and one Arrow cache. `users_own` is true for a file that the user pointed at: a later run that points
    at none must not take it for the published data. `notes` are what was seen on the way to the rows: the file's format, what was
    passed over.
    """

    rows: Any
    origin: str
    sha256: str
    users_own: bool = False
    notes: tuple[str, ...] = ()


@dataclass
class Examples:
    """What a task's `split` gives: which raw rows are in which split, and what their labels are.

    Attributes:
        splits: raw rows of "train", "valid" and "test"; columns ``id`` (str), ``label`` and those that `Task.encode` reads.
        output: what the labels are.
        rejected: rows that could not be used; columns ``row``, ``id``, ``text`` and ``reason``.
        unused: rows that are left out on purpose; the same columns.
        schema: of a user's own data, what its columns are.
        notes: lines for the user: what was ignored or looks odd, with counts.
        method: how the splits were made, where ``--split`` alone does not say it.
        seeded: whether the seed has a part in the splits; the published or given ones are the same for every seed.
    """

    splits: dict[str, Dataset]
    output: Output
    rejected: pd.DataFrame = field(default_factory=lambda: rejected_rows([]))
    unused: pd.DataFrame = field(default_factory=lambda: rejected_rows([]))
    schema: Schema | None = None
    notes: list[str] = field(default_factory=list)
    method: str | None = None
    seeded: bool = True

    @property
    def total(self) -> int:
        """Rows there were, rejected ones included and those that are left out on purpose not."""
        return sum(len(rows) for rows in self.splits.values()) + len(self.rejected)


class Task(ABC):
    """One dataset: where it comes from, how it is split, what a sample and a label are.

    Attributes:
        name: what ``--dataset`` takes.
        source: the page that describes the data.
        licence: the data's licence.
        primary_metric: the metric that picks the model on the validation split; the output's default when it is None.
        splits: the ways to split that ``--split`` takes; the first one is the default.
        tokenizer: the default of ``--tokenizer``; None for patches of numbers.
        standardise: for patches: "all" (one mean and deviation for all numbers of the train split) or "each" (one for
            each number of a token); `period` may say otherwise.
        text_columns: names that a user's own file may give its input column.
        options: a dataclass of the task's own arguments (with `fpt.args.arg`), or None.
        max_length: the default of --max_length.
        saves_split: whether a run writes down which row is in which split; published splits need not be.
        slow: whether a row takes long enough to encode that several processes pay.
        libraries: packages whose release may change the Arrow files.
        packages: optional packages that it can't work without; keys of `fpt.optional.EXTRAS`.
        code_version: raised whenever the same raw data would give other Arrow files.
        keep_notation: ``--keep_notation``: inputs stay as they are written.
        cut_flag: the argument that says how long a sample may be.
        features: of a `view` of a task, what it makes of a row.
    """

    name: str
    source: str
    licence: str
    features: str | None = None
    primary_metric: str | None = None
    splits: tuple[str, ...] = ("official",)
    tokenizer: str | None = None
    standardise: str = "all"
    text_columns: tuple[str, ...] = ()
    options: type | None = None
    max_length: int = 512
    saves_split: bool = False
    slow: bool = True
    libraries: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    cut_flag: str = "--max_length"
    keep_notation: bool = False
    code_version: int = 1

    def completed(self, options: Any) -> Any:
        """The options with what only the data says where nothing was given."""
        return options

    def measured(self, options: Any, args: DataArguments) -> Any:
        """The options with what must be measured on the raw data, which is where `args` say; those of a checkpoint have it."""
        return options

    def configured(self, options: Any) -> Task:
        """The task as `options` want it: a task whose tokenizer or splits depend on them overrides this."""
        return self

    @abstractmethod
    def locate(self, args: DataArguments, log: Log) -> Source:
        """Find and read the raw data, telling `log` of each place that was tried.

        Raises:
            FPTError: it is nowhere to be had, or a file that was found is malformed.
        """

    @abstractmethod
    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """Check the rows and cut them into train, valid and test."""

    @abstractmethod
    def encode(
        self, rows: dict[str, list[Any]], args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
    ) -> dict[str, list[Any]]:
        """Make features of raw rows; runs in several processes.

        Returns:
            Columns ``input_ids`` (lists of token ids) or ``values`` (arrays of tokens * dim numbers), ``length`` (tokens),
            and ``reason``: empty, or why a row can't be used.
        """

    def read(self, text: str) -> dict[str, Any]:
        """Raw columns, for `encode`, of one input in a user's own file.

        Raises:
            ValueError: `text` is no usable input, and why.
        """
        raise FPTError(f"--predict: inputs of {self.name} can't be written in a CSV file")

    def read_row(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        """Raw columns, for `encode`, of one row of a user's own file: its input columns by name.

        Raises:
            ValueError: it is no usable input, and why.
        """
        (cell,) = cells.values()
        return self.read(cell_text(cell))

    def with_schema(self, schema: Schema) -> Task:
        """The task that reads rows as the schema of a checkpoint says; only tasks on a user's own data have one."""
        return self

    def dim(self, args: DataArguments) -> int:
        """Numbers in a token, for patches."""
        raise NotImplementedError

    def period(self, args: DataArguments) -> int:
        """Numbers of a token that have a mean and a deviation of their own; a token repeats them. It divides `dim`."""
        return self.dim(args) if self.standardise == "each" else 1

    def read_inputs(self, path: Path, options: TableOptions) -> Table:
        """A user's own file of inputs for ``--predict``.

        Raises:
            FPTError: it is not there, malformed or empty.
        """
        return read_table(path, options)

    def cut_reason(self, args: DataArguments) -> str:
        """What happened to a sample that is counted as cut."""
        return f"cut to {args.longest} tokens"

    def input(self, args: DataArguments) -> Input | None:
        """What goes into the model, where it is neither token ids nor patches."""
        return None


class GeneratedTask(ABC):
    """A task whose samples are drawn on the fly from the seed: no file, and no sample twice in training.

    Attributes: as those of `Task`, and
        sizes: samples in each split; in train, of an epoch.
    """

    name: str
    source: str
    licence: str = "none: generated"
    primary_metric: str | None = None
    splits: tuple[str, ...] = ("generated",)
    tokenizer: str | None = None
    text_columns: tuple[str, ...] = ()
    options: type | None = None
    max_length: int = 512
    saves_split: bool = False
    packages: tuple[str, ...] = ()
    keep_notation: bool = False
    code_version: int = 1
    sizes: Mapping[str, int] = MappingProxyType({"train": 100_000, "valid": 1_000, "test": 2_000})

    def completed(self, options: Any) -> Any:
        """As `Task.completed`."""
        return options

    def configured(self, options: Any) -> GeneratedTask:
        """As `Task.configured`."""
        return self

    @abstractmethod
    def dim(self, args: DataArguments) -> int:
        """Numbers in a token."""

    @abstractmethod
    def output(self, args: DataArguments) -> Output:
        """What the labels are."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, args: DataArguments) -> tuple[np.ndarray, Any]:
        """Draw one sample: values (tokens * dim,) and its label."""


class TaskRegistry(Registry["Task | GeneratedTask"]):
    """Tasks by name; ``tdc/NAME`` and ``csv:FILE`` are found by what they start with."""

    def find(self, name: str) -> Task | GeneratedTask:
        """As `Registry.find`."""
        for known in self:
            for mark in "/:":
                family, is_family, _ = known.partition(mark)
                start = family + mark
                if is_family and name.startswith(start) and len(name) > len(start):
                    return super().find(known)(name.removeprefix(start))  # type: ignore[operator]
        return super().find(name)


TASKS = TaskRegistry("dataset", "fpt.tasks")


def resolve(
    task: Task | GeneratedTask, args: DataArguments, view: Callable[[Any], Any] = lambda task: task
) -> tuple[Any, DataArguments]:
    """The task as its options want it, and `args` with the task's own defaults where nothing was given.

    Args:
        view: makes the task that gives a model the features it reads; see `fpt.models.base.Model.view`.

    Raises:
        FPTError: something was given that the task does not have.
        TypeError: `args.options` holds something else than the task's own record.
    """
    is_read = args.options is not None
    if is_read and not isinstance(args.options, task.options or ()):
        raise TypeError(f"args.options is {type(args.options).__name__}: arguments by name belong in args.given_options")
    options = task.completed(args.options if is_read else own_options(task.options, args.given_options, task.name))
    if isinstance(task, Task):
        options = task.measured(options, args)
    task = task.configured(options)
    if args.keep_notation:
        task = copy.copy(task)
        task.keep_notation = True
    task = view(task)
    split = args.split or task.splits[0]
    if split not in task.splits:
        raise FPTError(f"unknown --split {split!r} for {task.name}; known: {', '.join(sorted(task.splits))}")
    if task.tokenizer is None and args.tokenizer is not None:
        raise FPTError(f"--tokenizer {args.tokenizer}: {task.name} is made of numbers, not of text; leave it out")
    if not 0 <= args.max_bad_fraction <= 1:
        raise FPTError(f"--max_bad_fraction {args.max_bad_fraction} must be in [0, 1]")
    return task, changed(
        args,
        split=split,
        tokenizer=args.tokenizer or task.tokenizer,
        max_length=args.max_length if args.max_length is not None else task.max_length,
        options=options,
    )

"""Tasks: one file a modality, from raw data to token sequences with labels.

A new task is one new file here that registers an instance of a `Task` subclass in `TASKS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
from datasets import Dataset

from fpt.args import DataArguments
from fpt.registry import Registry


@dataclass(frozen=True)
class Source:
    """Raw data that was found: its rows, where they came from, and a hash of what they say.

    `rows` has the task's own columns. `sha256` is over the parsed content, so the same data in two file formats
    has one hash and one Arrow cache. `users_own` is true for a file that the user pointed at: a later run that points
    at none must not take it for the published data.
    """

    rows: pd.DataFrame
    origin: str
    sha256: str
    users_own: bool = False


@dataclass
class Examples:
    """The output of a task, still in memory: what goes into Arrow.

    Attributes:
        splits: rows of "train", "valid" and "test"; columns ``id``, ``text`` and ``label``.
        rejected: rows that could not be used; columns ``row``, ``id``, ``text`` and ``reason``.
    """

    splits: dict[str, Dataset]
    rejected: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["row", "id", "text", "reason"]))


class Task(ABC):
    """One dataset: where it comes from, how it is split, what a sample and a label are.

    Attributes:
        name: what ``--dataset`` takes.
        source: the page that describes the data.
        licence: the data's licence.
        label_names: names of the classes, in the order of the logits.
        primary_metric: the metric that picks the model on the validation split.
        text_columns: names that a user's own file may give its input column.
        code_version: raised whenever the same raw data would give other Arrow files.
    """

    name: str
    source: str
    licence: str
    label_names: tuple[str, ...]
    primary_metric: str
    text_columns: tuple[str, ...]
    code_version: int = 1

    @abstractmethod
    def locate(self, args: DataArguments, log: Callable[[str], None]) -> Source:
        """Find and read the raw data, telling `log` of each place that was tried.

        Raises:
            FPTError: it is nowhere to be had, or a file that was found is malformed.
        """

    @abstractmethod
    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """Check the rows and cut them into train, valid and test."""

    @abstractmethod
    def check(self, text: str) -> str | None:
        """Return why `text` is no usable input, or None when it is one."""

    def variants(self, text: str, count: int, seed: int) -> list[str]:
        """Return `count` other ways to write the same input, for augmentation; empty when there are none."""
        return []


TASKS: Registry[Task] = Registry("dataset", "fpt.tasks")

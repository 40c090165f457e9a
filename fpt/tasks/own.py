"""Your own data: a table, a folder of pictures or sounds, or a dataset of the Hub.

* ``csv:FILE`` (or .tsv): ``--input_column``, ``--label_column`` and ``--input_type text|smiles|protein|numbers``,
* ``hub:NAME``: the same of a dataset that `datasets.load_dataset` loads,
* ``imagefolder:DIR`` and ``audiofolder:DIR``: one folder of files a class, ``DIR/CLASS/FILE``, or with splits
  ``DIR/{train,valid,test}/CLASS/FILE``.

Labels that are all numbers, with a fraction or more than 20 different ones, are a regression; anything else is a
classification. What was found is said. Splits are made by the seed (stratified, random, or by scaffold for SMILES) and kept in
``split.csv`` of the run.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, load_dataset
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments, arg
from fpt.data.splits import cut_valid, random_split, scaffold_split
from fpt.errors import FPTError, did_you_mean
from fpt.files import sha256_file
from fpt.outputs import Classes, Output, Value
from fpt.tasks import SPLITS, TASKS, Examples, Source, Task, rejected_rows
from fpt.tasks.audio import AudioOptions, AudioTask
from fpt.tasks.images import OVERLAP_HELP, ImageTask, encode_each
from fpt.tasks.text import Letters, Smiles, Text, TextTask

VALID_NAMES = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "test": "test"}
VALID_FRACTION = 0.1
MANY = 20  # more different numbers than this are quantities


def infer_output(labels: Sequence[str]) -> Output:
    """Whether labels are classes or numbers; see the head of this file.

    Returns:
        `Classes`, sorted (numbers by size), or a `Value` whose mean and deviation are still to be set.
    """
    names = sorted(set(labels))
    numbers = pd.to_numeric(pd.Series(names, dtype=object), errors="coerce")
    if numbers.notna().all() and np.isfinite(numbers).all():
        if (numbers % 1 != 0).any() or len(names) > MANY:
            return Value(0.0, 1.0)
        names = [names[i] for i in np.argsort(numbers.to_numpy(), kind="stable")]
    return Classes(tuple(names))


class OwnTask(Task):
    """What all of them share: labels are looked at, and splits are made when there are none."""

    licence = "the user's own"
    splits: tuple[str, ...] = ("stratified", "random")
    saves_split = True

    def __init__(self, where: str) -> None:
        self.where = where
        # Names and sources go into checkpoints that are published: no folder of this machine.
        self.name = f"{self.kind}:{Path(where).expanduser().name}"
        self.source = self.name

    kind: str

    def examples(self, rows: pd.DataFrame, column: str, args: DataArguments, seed: int) -> Examples:
        """Make splits of `rows` with the columns id, label (text), split (may be empty) and `column`."""
        missing = rows.label.map(lambda y: not isinstance(y, str) or not y.strip())
        rejected = [{"row": i + 1, "id": r.id, "text": "", "reason": "no label"} for i, r in rows[missing].iterrows()]
        rows = rows[~missing].reset_index(drop=True)
        if rows.empty:
            raise FPTError(f"{self.name} has no row with a label")
        output = infer_output(rows.label)
        if isinstance(output, Value):
            labels = rows.label.astype(float).to_numpy()
        else:
            if output.size < 2:
                raise FPTError(f"{self.name} has one class only, {output.columns()[1][12:]!r}; there is nothing to tell apart")
            number = {name: i for i, name in enumerate(output.label_names)}  # type: ignore[attr-defined]
            labels = rows.label.map(number).to_numpy()
        parts = self._parts(rows, column, labels, isinstance(output, Value), args, seed)
        if isinstance(output, Value):
            train = labels[parts["train"]]
            output = Value(float(train.mean()), float(train.std()) or 1.0)
        splits = {}
        for name in SPLITS:
            part = rows.iloc[parts[name]]
            columns = {"id": list(part.id), column: list(part[column]), "label": labels[parts[name]].tolist()}
            splits[name] = Dataset.from_dict(columns)
        return Examples(splits, output, rejected_rows(rejected))

    def _parts(
        self, rows: pd.DataFrame, column: str, labels: np.ndarray, numbers: bool, args: DataArguments, seed: int
    ) -> dict[str, np.ndarray]:
        given = {name: np.flatnonzero(rows.split == name) for name in SPLITS}
        if len(given["train"]) and len(given["test"]):
            if not len(given["valid"]):
                train, valid = cut_valid(len(given["train"]), VALID_FRACTION, seed)
                given = {**given, "train": given["train"][train], "valid": given["train"][valid]}
            return given
        if args.split == "scaffold":
            return scaffold_split(list(rows[column]), seed)
        if args.split == "random":
            return random_split(len(rows), seed)
        if numbers:  # strata of like size
            labels = pd.qcut(pd.Series(labels).rank(method="first"), min(10, max(2, len(rows) // 20)), labels=False).to_numpy()
        return random_split(len(rows), seed, labels)


@dataclass
class TableOptions:
    """Where a table has inputs and labels."""

    _argument_group_name = "table"
    input_column: str | None = arg(None, "Column with the input; for --input_type numbers several, separated by commas.")
    label_column: str | None = arg(None, "Column with the label.")
    input_type: str = arg("text", "text, smiles, protein or numbers.")
    numbers_per_token: int = arg(1, "For --input_type numbers: how many make one token.")


TEXTS = {"text": Text(), "smiles": Smiles(), "protein": Letters()}
NUMBERS = "numbers"


class TableTask(OwnTask, TextTask):
    """Rows of a table: text, molecules, proteins or numbers."""

    kind = "csv"
    options = TableOptions

    def configured(self, options: dict[str, Any]) -> TableTask:
        """With the tokenizer and the splits of the input type."""
        kind = options["input_type"]
        if kind not in (*TEXTS, NUMBERS):
            raise FPTError(f"unknown --input_type {kind!r}{did_you_mean(kind, TEXTS)}; known: {', '.join((*TEXTS, NUMBERS))}")
        task = copy.copy(self)
        task.modality = TEXTS.get(kind)
        if kind == "smiles":
            task.splits = ("scaffold", *self.splits)
        return task

    def read_rows(self, args: DataArguments, log: Callable[[str], None]) -> pd.DataFrame:
        """All cells of the table as text."""
        path = Path(self.where).expanduser()
        if not path.is_file() and args.data_dir:
            path = Path(args.data_dir).expanduser() / path.name
        if not path.is_file():
            raise FPTError(f"--dataset {self.kind}:{self.where}: there is no such file")
        log(f"{self.kind}:{path}")
        try:
            separator = "\t" if path.suffix in (".tsv", ".tab") else ","
            return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except (ValueError, OSError) as error:
            raise FPTError(f"{path} can't be read as a table: {error}; expected a header line and one sample a row") from None

    def locate(self, args: DataArguments, log: Callable[[str], None]) -> Source:
        """Read the columns that the options name."""
        rows = self.read_rows(args, log)
        inputs = args.options["input_column"]
        inputs = inputs.split(",") if inputs and args.options["input_type"] == NUMBERS else [inputs]
        label = args.options["label_column"]
        for option, column in (*(("--input_column", c) for c in inputs), ("--label_column", label)):
            if column not in rows:
                near = did_you_mean(column, rows) if column else ""
                raise FPTError(f"{self.name} has no column {column!r}{near}; give {option}, one of {', '.join(rows)}")
        if rows.empty:
            raise FPTError(f"{self.name} has a header line and no rows")
        text = rows[inputs[0]] if len(inputs) == 1 else rows[inputs].agg(" ".join, axis=1)
        ids = [f"row-{i + 1}" for i in range(len(rows))]
        split = rows.get("__split__", "")
        table = pd.DataFrame({"id": ids, "text": text, "label": rows[label], "split": split})
        digest = hashlib.sha256(table[["text", "label"]].to_csv(index=False).encode()).hexdigest()
        return Source(table, self.name, digest, users_own=True)

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """Set aside what can't be read, then cut."""
        rows: pd.DataFrame = source.rows
        reasons = rows.text.map(self.check)
        examples = self.examples(rows[reasons.isna()].reset_index(drop=True), "text", args, seed)
        bad = rows[reasons.notna()]
        found = zip(bad.index + 1, bad.id, bad.text, reasons[reasons.notna()], strict=True)
        more = rejected_rows([{"row": row, "id": i, "text": text, "reason": reason} for row, i, text, reason in found])
        examples.rejected = pd.concat([part for part in (examples.rejected, more) if len(part)] or [more], ignore_index=True)
        return examples

    def check(self, text: str) -> str | None:
        """Why a cell is no usable input, or None when it is one."""
        try:
            self.read(text)
        except ValueError as error:
            return str(error)
        return None

    def read(self, text: str) -> dict[str, Any]:
        """One input of a user's own file.

        Raises:
            ValueError: it can't be read, and why.
        """
        if self.modality is not None:
            return super().read(text)
        _numbers(text)
        return {"text": text}

    def dim(self, args: DataArguments) -> int:
        """Numbers in a token."""
        if args.options["numbers_per_token"] < 1:
            raise FPTError("--numbers_per_token must be at least 1")
        return args.options["numbers_per_token"]

    def encode(
        self, rows: dict[str, list[Any]], args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
    ) -> dict[str, list[Any]]:
        """Tokenize, or cut numbers into tokens; the last token is filled with zeros."""
        if self.modality is not None:
            return super().encode(rows, args, tokenizer)
        dim = self.dim(args)

        def one(text: str) -> np.ndarray:
            numbers = _numbers(text)[: args.longest * dim]
            return np.pad(numbers, (0, -len(numbers) % dim))

        return encode_each(rows["text"], one, dim, np.float32)


class HubTask(TableTask):
    """A dataset of the Hub, or a folder that `datasets` loads, as a table of text, molecules, proteins or numbers."""

    kind = "hub"

    def __init__(self, where: str) -> None:
        super().__init__(where)
        if not Path(where).exists():
            self.name = self.source = f"hub:{where}"

    def read_rows(self, args: DataArguments, log: Callable[[str], None]) -> pd.DataFrame:
        """All splits of the dataset; its own split is kept in the column ``__split__``."""
        log(f"{self.where} with datasets")
        try:
            parts = load_dataset(self.where)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise FPTError(f"--dataset hub:{self.where} can't be loaded: {reason}") from None
        tables = []
        for name, rows in parts.items():
            table = rows.to_pandas()
            for column, feature in rows.features.items():
                if hasattr(feature, "int2str"):
                    table[column] = [feature.int2str(v) if v is not None and v >= 0 else "" for v in rows[column]]
            tables.append(table.assign(__split__=VALID_NAMES.get(name, "")))
        table = pd.concat(tables, ignore_index=True)
        return table.map(lambda v: "" if v is None else " ".join(map(str, v)) if isinstance(v, (list, np.ndarray)) else str(v))


class FolderTask(OwnTask):
    """Files in one folder a class."""

    suffixes: tuple[str, ...]
    column: str

    def locate(self, args: DataArguments, log: Callable[[str], None]) -> Source:
        """List and hash the files."""
        root = Path(self.where).expanduser()
        if not root.is_dir() and args.data_dir:
            root = Path(args.data_dir).expanduser() / root.name
        if not root.is_dir():
            raise FPTError(f"--dataset {self.kind}:{self.where}: there is no such folder")
        files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix.lower() in self.suffixes)
        log(f"{self.kind}:{root}: hashing {len(files):,} files")
        rows = []
        with ThreadPoolExecutor(8) as pool:
            for path, sha in zip(files, pool.map(sha256_file, files), strict=True):
                parts = path.relative_to(root).parts
                split = VALID_NAMES.get(parts[0], "") if len(parts) > 2 else ""
                label = parts[1] if split else parts[0] if len(parts) > 1 else ""
                rows.append({"id": "/".join(parts), self.column: str(path), "label": label, "split": split, "sha": sha})
        if not rows:
            raise FPTError(f"{root} holds no files {', '.join(f'*{s}' for s in self.suffixes)} in folders of their class")
        table = pd.DataFrame(rows)
        digest = hashlib.sha256(table[["id", "sha"]].to_csv(index=False).encode()).hexdigest()
        return Source(table.drop(columns="sha"), self.name, digest, users_own=True)

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """The folder's own splits, or by the seed."""
        return self.examples(source.rows, self.column, args, seed)


@dataclass
class ImageFolderOptions:
    """How pictures become tokens."""

    _argument_group_name = "imagefolder"
    image_size: int = arg(32, "Pictures are resized to this height and width in pixels.")
    patch_size: int = arg(4, "Side of a patch in pixels; divides --image_size.")
    patch_overlap: int = arg(0, OVERLAP_HELP)
    gray: bool = arg(False, "One gray channel instead of three colors.")


class ImageFolder(FolderTask, ImageTask):
    """Pictures of the user's own."""

    kind, column = "imagefolder", "image"
    suffixes = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
    options = ImageFolderOptions

    def shape(self, args: DataArguments) -> tuple[int, int, int]:
        """As the options say."""
        size = args.options["image_size"]
        if not 1 <= size <= 1024:
            raise FPTError(f"--image_size {size} must be between 1 and 1024")
        return size, size, 1 if args.options["gray"] else 3


class AudioFolder(FolderTask, AudioTask):
    """Sounds of the user's own."""

    kind, column = "audiofolder", "sound"
    suffixes = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
    options = AudioOptions


def _numbers(text: str) -> np.ndarray:
    """The numbers of a cell, separated by spaces, commas or semicolons.

    Raises:
        ValueError: there is none, or something that is no finite number.
    """
    words = text.strip("[] ").replace(",", " ").replace(";", " ").split()
    if not words:
        raise ValueError("no numbers")
    try:
        numbers = np.array([float(w) for w in words], dtype=np.float32)
    except ValueError:
        raise ValueError("not all are numbers") from None
    if not np.isfinite(numbers).all():
        raise ValueError("a number that is not finite")
    return numbers


TASKS.register("csv:FILE")(TableTask)  # type: ignore[arg-type]
TASKS.register("hub:NAME")(HubTask)  # type: ignore[arg-type]
TASKS.register("imagefolder:DIR")(ImageFolder)  # type: ignore[arg-type]
TASKS.register("audiofolder:DIR")(AudioFolder)  # type: ignore[arg-type]

"""Sets of the UCR and UEA archives, ``ucr/NAME``: classify a time series, https://www.timeseriesclassification.com.

About 160 sets; UCR has one channel (Dau et al., https://arxiv.org/abs/1810.07758), UEA several (Bagnall et al.,
https://arxiv.org/abs/1811.00075). Sets of the regression archive in the same format have a number as their label. Train and test
are the published ones; validation is cut from train by the seed, with every class's share. Accuracy.

Raw files are ``DIR/NAME/NAME_TRAIN.ts`` and ``NAME_TEST.ts``, or ``.tsv`` as the archive of 2018 has them. The package `aeon`
has eight sets among its files; without those, `aeon` downloads.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from fpt.args import DataArguments, arg
from fpt.data.rejected import check_rejected, rejected_rows
from fpt.data.series import SERIES, Series, count_missing
from fpt.data.splits import cut_valid
from fpt.data.table import printable
from fpt.data.ts_files import ENDINGS, SeriesFile, read_series
from fpt.errors import FPTError
from fpt.files.whole import alone, cache_home
from fpt.flags.checks import Range, check_known, check_ranges
from fpt.metrics import constant
from fpt.options import options_of
from fpt.outputs import Classes, Output, Value
from fpt.tasks.base import TASKS, Examples, Source
from fpt.tasks.series import SeriesFacts, SeriesOptions, SeriesTask, check_channels, facts_of, raw_series
from fpt.tasks.sources import Download, Ladder, Package
from fpt.text.log import Log, silent

PACKAGE = "aeon"
PACKAGED = ("ACSF1", "ArrowHead", "BasicMotions", "GunPoint", "ItalyPowerDemand", "JapaneseVowels", "OSULeaf")
PAGE = "https://www.timeseriesclassification.com"
KINDS = ("classes", "number")
# A validation split of fewer rows is worth a line.
SMALL = 50


@dataclass
class UcrOptions(SeriesOptions):
    """How a set of the archive is read."""

    _argument_group_name = "ucr"
    valid_fraction: float = arg(0.2, "Share of the published training series that is the validation split.")
    label_type: str | None = arg(None, "classes or number; as the file says when not given.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, valid_fraction=Range(0, 1, above=True, below=True))
        check_known(self, label_type=KINDS)


@dataclass(frozen=True)
class Published:
    """The two files of a set; its length counts the series."""

    train: SeriesFile
    test: SeriesFile

    def __len__(self) -> int:
        return len(self.train.series) + len(self.test.series)


class UcrLadder(Ladder):
    """A ladder that advises the package only where it has the set."""

    @property
    def advice(self) -> str:
        """How to get the data by hand."""
        return super().advice if self.task.removeprefix("ucr/") in PACKAGED else f"put {self.put} and give --data_dir DIR"


class UcrTask(SeriesTask):
    """One set.

    Args:
        name: as the archive writes it.

    Raises:
        FPTError: it can't be the name of a set.
    """

    options = UcrOptions
    licence = "as the archive's page of the set says"

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise FPTError(f"--dataset ucr/{printable(name)}: a set has a name such as GunPoint; {PAGE}/dataset.php lists all")
        self.set_name, self.name = name, f"ucr/{name}"
        self.source = f"{PAGE}/description.php?Dataset={name}"
        train, test = f"{name}_TRAIN.ts", f"{name}_TEST.ts"
        put = f"{train} and {test} (from {self.source}) into DIR/{name}/"
        package = Package(PACKAGE, lambda folder: self._files(folder / "datasets" / "data"))
        self.ladder = UcrLadder(self.name, self._files, self._read, put, downloads="ucr", package=package, users_own=True)

    def configured(self, options: UcrOptions) -> UcrTask:
        """With accuracy to pick the model, unless labels are numbers."""
        task = copy.copy(self)
        task.primary_metric = None if options.label_type == "number" else "accuracy"
        return task

    def labelled(self, options: UcrOptions, facts: SeriesFacts) -> UcrOptions:
        """With the kind of the labels that the file says."""
        return replace(options, label_type=options.label_type or ("number" if facts.numeric else "classes"))

    def facts(self, args: DataArguments) -> SeriesFacts:
        """Of the training file; a set that is not there is downloaded."""
        if not self.ladder.files(args):
            self.locate(args, print if os.environ.get("RANK", "0") == "0" else silent)
        return facts_of((self.ladder.files(args) or [Path(self.set_name)])[0])

    def locate(self, args: DataArguments, log: Log) -> Source:
        """--data_dir, an earlier download, the files of the package aeon, the download with aeon."""
        return self.ladder.locate(args, log, Download(f"download with {PACKAGE}", self._fetch))

    def _fetch(self) -> Source:
        folder = self.ladder.download_folder
        with alone(cache_home() / "locks" / f"ucr-{self.set_name}", lambda: None):
            if not self._files(folder):
                download(self.set_name, folder)
        return self.ladder.downloaded(f"{PACKAGE} {metadata.version(PACKAGE)}")

    def _files(self, root: Path) -> list[Path]:
        """Both files of the set: in `root`, in a folder of its own, or that in one of the archive's (Univariate_ts/)."""
        for ending in ENDINGS:
            name = f"{self.set_name}_TRAIN{ending}"
            own = root / self.set_name / name
            folders = [path.parent for path in (own, root / name, *sorted(root.glob(f"*/{name}"))) if path.is_file()]
            folders += [path.parent for path in sorted(root.glob(f"*/{self.set_name}/{name}"))]
            for folder in folders:
                if (test := folder / f"{self.set_name}_TEST{ending}").is_file():
                    return [folder / name, test]
        return []

    def _read(self, files: Sequence[Path], origin: str) -> Source:
        train, test = (read_series(path) for path in files)
        digest = hashlib.sha256()
        for file in (train, test):
            for series, label in zip(file.series, file.labels or [""] * len(file.series), strict=True):
                digest.update(f"{Series(series).sha256()} {label}\n".encode())
        return Source(Published(train, test), f"{origin}, {files[0].name}", digest.hexdigest())

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """The published train and test, a share of train as validation."""
        o = options_of(args, UcrOptions)
        parts = {"train": source.rows.train, "test": source.rows.test}
        check_channels(list(parts.values()), self.sizes(args)[2], self.name)
        names, labels = read_labels(parts, o.label_type or "classes", self.name)
        rows: dict[str, list[dict[str, Any]]] = {}
        rejected = []
        for part, file in parts.items():
            found, reasons = raw_series(file.series)
            each = zip(found, labels[part], reasons, file.lines, strict=True)
            rows[part] = []
            for number, (series, label, reason, line) in enumerate(each, 1):
                name = f"{part}-{number}"
                why = reason or ("no label" if label is None else "")
                if why:
                    rejected.append({"row": f"{part}:{line}", "id": name, "text": "", "reason": why})
                else:
                    rows[part].append({"id": name, SERIES: series, "label": label})
        check_rejected(rejected_rows(rejected), len(source.rows), args.max_bad_fraction, source.origin)
        train = [row["label"] for row in rows["train"]]
        kept, valid = cut_published(train, o.valid_fraction, seed, bool(names))
        splits = {"train": [rows["train"][i] for i in kept], "valid": [rows["train"][i] for i in valid], "test": rows["test"]}
        output = _output(names, [row["label"] for row in splits["train"]], self.name)
        notes = [*_notes(source.rows), *notes_on_labels(names, splits), *self.told(args, _all_lengths(parts.values()))]
        made = {name: Dataset.from_dict(_columns(part)) for name, part in splits.items()}
        how = f"official; valid cut from train ({'stratified' if names else 'random'})"
        return Examples(made, output, rejected_rows(rejected), notes=notes, method=how)


def download(name: str, folder: Path) -> None:
    """Fetch a set with aeon's own loader.

    Raises:
        FPTError: aeon is missing or can't be imported, or it can't fetch the set.
    """
    try:
        # No extra installs it: the releases of pandas and numba that it asks for are not those of this project.
        load_classification = importlib.import_module(f"{PACKAGE}.datasets").load_classification
    except Exception as error:  # whatever a package raises that lacks what it needs
        why = "is not installed" if getattr(error, "name", "") == PACKAGE else f"can't be imported here ({printable(str(error))})"
        raise FPTError(f"the package {PACKAGE}, which downloads, {why}") from error
    folder.mkdir(parents=True, exist_ok=True)
    try:
        load_classification(name, extract_path=str(folder))
    except Exception as error:  # a name that is not known is a ValueError, a server that fails anything else
        raise FPTError(f"{PACKAGE} can't download {name} ({printable(str(error), 120)})") from error


def read_labels(parts: dict[str, SeriesFile], kind: str, whose: str) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
    """The classes, none for numbers, and the label of each series of each part: a class number, a number, or None.

    Raises:
        FPTError: a part has no labels, or they are no numbers.
    """
    for part, file in parts.items():
        if not file.kind:
            raise FPTError(f"{whose}: the {part} file has no labels (@classLabel true, or @targetLabel true)")
    if kind == "number":
        try:
            return (), {part: [float(label) if label else None for label in file.labels] for part, file in parts.items()}
        except ValueError as error:
            raise FPTError(f"{whose}: --label_type number, but a label is not a number ({error})") from error
    if any(file.kind == "number" for file in parts.values()):
        raise FPTError(f"{whose}: the labels are numbers (@targetLabel true); leave --label_type classes out")
    names = tuple(dict.fromkeys(name for file in parts.values() for name in file.classes))
    numbers = {name: number for number, name in enumerate(names)}
    return names, {part: [numbers[label] if label else None for label in file.labels] for part, file in parts.items()}


def cut_published(labels: Sequence[Any], fraction: float, seed: int, classes: bool) -> tuple[np.ndarray, np.ndarray]:
    """Cut a validation split from published training rows; of each class its share, and at least one row stays in train.

    Returns:
        Sorted row numbers of train and of valid.

    Raises:
        FPTError: no class has a second row.
    """
    if not classes:
        return cut_valid(len(labels), fraction, seed)
    rng, wanted = np.random.default_rng(seed), max(1, round(len(labels) * fraction))
    rows = {label: rng.permutation(np.flatnonzero(np.asarray(labels) == label)) for label in sorted(set(labels))}
    counts = {label: min(len(own) - 1, int(len(own) * fraction)) for label, own in rows.items()}
    # The rows that rounding down left go to the classes that lost most by it.
    lost = sorted(rows, key=lambda label: (counts[label] - len(rows[label]) * fraction, label))
    for label in [label for label in lost if counts[label] < len(rows[label]) - 1][: wanted - sum(counts.values())]:
        counts[label] += 1
    valid = np.sort(np.concatenate([rows[label][:count] for label, count in counts.items()] or [np.zeros(0, dtype=np.int64)]))
    if not len(valid):
        raise FPTError("no class has more than one training series: none can be spared for a validation split")
    return np.setdiff1d(np.arange(len(labels)), valid), valid.astype(np.int64)


def notes_on_labels(names: tuple[str, ...], splits: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines about a small validation split and about classes that can't be learnt or are not validated."""
    there = {split: {row["label"] for row in rows} for split, rows in splits.items()}
    notes = []
    if len(splits["valid"]) < SMALL:
        missing = len(there["train"] - there["valid"]) if names else 0
        without = f", {missing} of {len(there['train'])} classes have none" if missing else ""
        share = 100 / len(splits["valid"])
        notes.append(
            f"valid has {len(splits['valid'])} series only{without}: one is {share:.1f} % of its accuracy (--valid_fraction)"
        )
    for number in sorted(there["test"] - there["train"]) if names else ():
        count = sum(row["label"] == number for row in splits["test"])
        notes.append(f"the class {printable(names[number], 30)!r} has {count:,} series in test and none in train")
    return notes


def _notes(rows: Published) -> list[str]:
    """Lines about missing values and what is odd in the files."""
    notes = []
    for part, file in (("train", rows.train), ("test", rows.test)):
        values, series = count_missing(file.series)
        if values:
            notes.append(f"{part}: {values:,} missing values in {series:,} series, interpolated")
        notes += [f"{part}: {count:,} {what}" for what, count in file.odd.items()]
    return notes


def _output(names: tuple[str, ...], train: Sequence[Any], whose: str) -> Output:
    if names:
        if len(set(train)) < 2:
            raise FPTError(f"{whose}: the train split has one class only; there is nothing to tell apart")
        return Classes(names)
    values = np.array(train, dtype=np.float64)
    if constant(values):
        raise FPTError(f"{whose}: all training targets are {values[0]:.8g}; there is nothing to learn")
    return Value(float(values.mean()), float(values.std()))


def _all_lengths(files: Any) -> np.ndarray:
    return np.concatenate([file.lengths for file in files])


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in ("id", SERIES, "label")}


TASKS.register("ucr/NAME")(UcrTask)  # type: ignore[arg-type]

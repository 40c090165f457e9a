"""Your own time series: ``ts:DIR`` with ``X_TRAIN.ts`` and ``X_TEST.ts``, ``ts:X_TRAIN.ts``, or one file, which is split.

Files are those of the UCR and UEA archives (`fpt.data.ts_files`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from fpt.args import DataArguments
from fpt.data.own_options import OwnOptions
from fpt.data.schema import SHA, Schema
from fpt.data.series import SERIES, series_table
from fpt.data.sorting import Raw
from fpt.data.table import Table
from fpt.data.ts_files import ENDINGS, read_series
from fpt.errors import FPTError
from fpt.files.whole import user_path
from fpt.tasks.base import TASKS
from fpt.tasks.own import OwnTask
from fpt.tasks.own_schema import Reader
from fpt.tasks.series import SeriesFacts, SeriesOptions, SeriesTask, check_channels, facts_of, raw_series
from fpt.text.log import Log

TRAIN, TEST = "_TRAIN", "_TEST"


@dataclass
class TsOptions(SeriesOptions, OwnOptions):
    """How series become tokens, and what their labels are."""

    _argument_group_name = "ts"


class SeriesReader(Reader[TsOptions]):
    """One file of series, or a pair of train and test."""

    kind = "ts"

    @property
    def name(self) -> str:
        """Of the file or folder, without ``_TRAIN``."""
        path = user_path(self.where)
        return f"ts:{path.resolve().name if path.is_dir() else path.stem.removesuffix(TRAIN)}"

    def input_type(self, options: TsOptions) -> str:
        return SERIES

    def files(self, args: DataArguments) -> list[tuple[str, Path]]:
        """Files with the names of their splits, the training file first; no name for one that is not split.

        Raises:
            FPTError: there is none, or it is not clear which.
        """
        path = self._found(args)
        if path.is_dir():
            path = _in_folder(path)
        if not path.stem.endswith(TRAIN):
            return [("", path)]
        test = path.with_name(path.stem.removesuffix(TRAIN) + TEST + path.suffix)
        if not test.is_file():
            raise FPTError(
                f"--dataset ts:{self.where}: there is no {test.name} beside {path.name}; put it there, or rename {path.name}"
            )
        return [("train", path), ("test", test)]

    def _found(self, args: DataArguments) -> Path:
        """The file or folder; in --data_dir also by the name that a checkpoint has, without ending and ``_TRAIN``."""
        path = user_path(self.where)
        given = user_path(args.data_dir) if args.data_dir else None
        names = (path.name, *(f"{path.name}{part}{ending}" for ending in ENDINGS for part in (TRAIN, "")))
        places = [path, *(given / name for name in names if given is not None)]
        if found := next((place for place in places if place.exists()), None):
            return found
        raise FPTError(f"--dataset ts:{self.where}: there is no such file or folder")

    def read(self, args: DataArguments, log: Log) -> Table:
        """All series; the names of their splits are in the column ``__split__``."""
        files = self.files(args)
        for _, path in files:
            log(f"ts:{path}")
        parts = [(split, read_series(path)) for split, path in files]
        for (_, path), (_, file) in zip(files, parts, strict=True):
            if not file.kind:
                raise FPTError(f"{path} has no labels; its header needs @classLabel true, or @targetLabel true for numbers")
        check_channels([file for _, file in parts], parts[0][1].channels, self.name)
        if len({file.kind for _, file in parts}) > 1:
            raise FPTError(f"{self.name}: the labels of train and test are of two kinds (@classLabel and @targetLabel)")
        return series_table(parts, files[0][1].absolute().parent)


class SeriesRows(OwnTask, SeriesTask):
    """Series of a user's own."""

    input_types = (SERIES,)
    reader: SeriesReader

    def configured(self, options: OwnOptions) -> SeriesRows:
        """The task for the options; a view of whole series stays one."""
        task = super().configured(options)
        assert isinstance(task, SeriesRows)
        task.whole, task.features = self.whole, self.features
        return task

    def facts(self, args: DataArguments) -> SeriesFacts:
        """Of the training file, or the only one."""
        return facts_of(self.reader.files(args)[0][1])

    def labelled(self, options: TsOptions, facts: SeriesFacts) -> TsOptions:
        """With numbers as labels where the file says so."""
        return replace(options, label_type=options.label_type or ("number" if facts.numeric else None))

    def hash_files(self, raw: Raw, log: Log) -> None:
        """Series are the same that have the same numbers."""
        rows = raw.table.rows
        rows[SHA] = pd.Series([cell.sha256() for cell in rows[SERIES]], index=rows.index, dtype=object)

    def samples(self, raw: Raw, schema: Schema, args: DataArguments) -> tuple[Schema, list[Any], list[str]]:
        """Series without missing values, (time * channels,) float32."""
        cells = [cell.values for cell in raw.table.rows[SERIES]]
        channels = self.sizes(args)[2]
        if channels != len(cells[0]):
            raise FPTError(f"--channels {channels}: the series of {self.name} have {len(cells[0])}; leave it out")
        found, reasons = raw_series(cells)
        return schema, found, reasons

    def raw_columns(self, samples: Sequence[Any], schema: Schema) -> dict[str, list[Any]]:
        """The series."""
        return {SERIES: list(samples)}


def _in_folder(folder: Path) -> Path:
    """The training file of a folder, or its only file of series."""
    for ending in ENDINGS:
        there = sorted(path for path in folder.iterdir() if path.suffix.lower() == ending and path.is_file())
        train = [path for path in there if path.stem.endswith(TRAIN)]
        found = train or there
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(path.name for path in found[:5])
            raise FPTError(f"--dataset ts:{folder}: which of {shown}? Name the file: --dataset ts:{folder / found[0].name}")
    raise FPTError(f"--dataset ts:{folder}: the folder holds no file of time series ({', '.join(ENDINGS)})")


def own_series(where: str) -> OwnTask:
    """The task of a user's own series."""
    return SeriesRows(SeriesReader(where), TsOptions)


TASKS.register("ts:DIR")(own_series)  # type: ignore[arg-type]

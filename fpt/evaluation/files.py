"""Predictions for a user's own file: it is read by the same reader as training data, and by the schema that training left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import Accelerator

from fpt.args import DataArguments
from fpt.calibration import of_each
from fpt.data.numerals import decimal_of
from fpt.data.schema import Schema
from fpt.data.table import Table, TableOptions, cell_text, printable
from fpt.ensemble import SPREAD, mean_prediction, spread_of
from fpt.errors import FPTError, did_you_mean
from fpt.evaluation.members import Members
from fpt.evaluation.predict import check_finite, predict
from fpt.evaluation.row_reader import RowReader
from fpt.outputs import Output
from fpt.tasks.audio import AudioTask, sound_suffixes
from fpt.tasks.base import Task
from fpt.tasks.images import ImageTask, picture_suffixes
from fpt.tasks.text import Smiles
from fpt.text.log import Log, silent

REASON = "reason"


@dataclass
class Inputs:
    """Rows to predict.

    Attributes:
        rows: the file's columns as they are, one row per record, also of records that can't be read.
        columns: the column of the file for each input column of the model, by the model's name.
        bad: row number -> why its record can't be read.
        folder: that relative names of files are in.
        decimal: separator of the numbers in its cells; None where the model reads none.
    """

    rows: pd.DataFrame
    columns: dict[str, str]
    bad: Mapping[int, str]
    folder: Path | None = None
    decimal: str | None = None


class _Listed(list):
    """Samples of a user's own file, with the length of each."""

    @property
    def lengths(self) -> list[int]:
        return [sample["length"] for sample in self]

    def restored(self, predictions: np.ndarray) -> np.ndarray:
        """They are in the unit of the labels."""
        return predictions


def read_inputs(
    path: Path,
    column: str | None,
    task: Task,
    schema: Schema | None = None,
    options: TableOptions | None = None,
    decimal: str | None = None,
    log: Log = silent,
) -> Inputs:
    """Read a user's file; its columns are found by the names of the training data.

    Args:
        decimal: what ``--decimal`` says.
        column: what ``--column`` says: columns of the file, separated by commas, in the order of the model's input columns.

    Raises:
        FPTError: the file is empty or malformed, or a column is not there.
    """
    table = task.read_inputs(path, options or TableOptions())
    columns = {**input_columns(table, column, task, schema, str(path)), **vector_columns(table, schema, str(path))}
    bad = {record.row: record.reason for record in table.rejected}
    short = {record.row: dict(zip(table.rows.columns, record.cells, strict=False)) for record in table.rejected}
    lost = pd.DataFrame.from_dict(short, orient="index", columns=table.rows.columns, dtype=object)
    rows = pd.concat([table.rows, lost]).sort_index() if bad else table.rows
    places = {row: place for place, row in enumerate(rows.index)}
    rows = rows.reset_index(drop=True).map(_plain_cell)
    separator = decimal_in(rows, columns, schema, decimal)
    shown = ", ".join(f"{printable(name)!r}" for name in columns.values())
    about = ", ".join(f"{k} {v}" for k, v in table.format.items() if v) + (f"; decimal {separator!r}" if separator else "")
    log(f"{path}: {about}; input: {shown}")
    for what, count in table.odd.items():
        log(f"{path}: {count:,} {what}")
    return Inputs(rows, columns, {places[row]: reason for row, reason in bad.items()}, path.absolute().parent, separator)


def _plain_cell(cell: Any) -> Any:
    # Numbers keep their type: as text they would be read in the file's own way to write them.
    return cell if isinstance(cell, (list, np.ndarray)) or cell_text(cell) else ""


def input_columns(table: Table, column: str | None, task: Task, schema: Schema | None, whose: str) -> dict[str, str]:
    """The file's column for each input column of the model.

    Raises:
        FPTError: one is missing, or it is not clear which one it is.
    """
    names = [str(name) for name in table.rows.columns]
    wanted = schema.inputs if schema is not None else []
    if column is not None:
        given = [column] if column in names else [name.strip() for name in column.split(",")]
        for name in given:
            if name not in names:
                raise FPTError(f"{whose} has no column {name!r}{did_you_mean(name, names)}; it has {', '.join(names)}")
        if len(set(given)) < len(given):
            raise FPTError(f"--column {column!r} names a column twice")
        if len(given) != max(1, len(wanted)):
            raise FPTError(f"--column {column!r} names {len(given)} columns; the model reads {len(wanted)}: {', '.join(wanted)}")
        return dict(zip(wanted or given, given, strict=True))
    if wanted and all(name in names for name in wanted):
        return {name: name for name in wanted}
    if len(wanted) > 1:
        missing = [name for name in wanted if name not in names]
        raise FPTError(
            f"{whose} has no column {', '.join(map(repr, missing[:5]))}; the model reads {', '.join(wanted)}: name the file's own"
            f" columns in that order with --column, from {', '.join(names)}"
        )
    if len(names) == 1 and not any(name in names for name in (*wanted, *task.text_columns)):
        _check_header(names[0], table, task, whose)
    # The label of the training data is not an input, even where it is the only column.
    labels = [c.name for c in schema.of("label")] if schema is not None else []
    known = [c for c in task.text_columns if c in names] or [c for c in names if len(names) == 1 and c not in labels]
    if not known:
        raise FPTError(f"which column of {whose} holds the input? Give --column, one of {', '.join(names)}")
    return {wanted[0] if wanted else known[0]: known[0]}


def vector_columns(table: Table, schema: Schema | None, whose: str) -> dict[str, str]:
    """The file's columns of numbers beside the input, which have the names of the training data.

    Raises:
        FPTError: one is missing.
    """
    wanted = schema.vectors if schema is not None else []
    names = [str(name) for name in table.rows.columns]
    if missing := [name for name in wanted if name not in names]:
        raise FPTError(
            f"{whose} has no column {', '.join(map(repr, missing[:5]))}{did_you_mean(missing[0], names)}; the model was trained"
            f" with --vector_columns {','.join(wanted)} and reads them by these names"
        )
    return {name: name for name in wanted}


def _check_header(name: str, table: Table, task: Task, whose: str) -> None:
    """Refuse a list without a header, whose first input would be taken for one.

    Raises:
        FPTError: the only column's name is an input itself.
    """
    try:
        if isinstance(task, (ImageTask, AudioTask)):
            found = Path(name).suffix.lower() in (picture_suffixes() | sound_suffixes())
        else:
            found = isinstance(getattr(task, "modality", None), Smiles) and len(name) > 2 and bool(task.read(name))
    except ValueError:
        return
    if found:
        raise FPTError(f"{whose} has no header: its first line {printable(name, 40)!r} is an input; put a column name above it")


def output_columns(output: Output, models: int = 1) -> list[str]:
    """The columns that `predict_file` adds."""
    return [*output.columns(), *([SPREAD] if models > 1 else []), REASON]


def predict_file(
    inputs: Inputs,
    task: Task,
    args: DataArguments,
    members: Members,
    batch_size: int,
    accelerator: Accelerator,
    writings: int = 0,
) -> pd.DataFrame:
    """Predict each row by one model, or by the mean of several; the result has the rows as they were, in their order.

    Args:
        writings: random SMILES of each molecule whose predictions are averaged with that of the given one.

    Returns:
        The rows with the columns of the output (``prediction``, for classes ``probability_NAME`` of each; of several models
        ``spread``, see `fpt.ensemble`) and ``reason``: why a row has an empty prediction, that its input was cut, or that it
        has unknown tokens.
    """
    config, models, rows = members.config, members.models, inputs.rows
    output = config.output
    reader = RowReader(_reading_task(task, inputs, config.data.schema), args, members.tokenizer, config.input, writings)
    samples = _Listed()
    cells: dict[str, list[str]] = {name: [""] * len(rows) for name in output_columns(output, len(models))}
    found = {name: list(rows[column]) for name, column in inputs.columns.items()}
    for row in range(len(rows)):
        try:
            if row in inputs.bad:
                raise ValueError(inputs.bad[row])
            own, cells[REASON][row] = reader.read({name: column[row] for name, column in found.items()}, inputs.folder)
        except ValueError as error:
            cells[REASON][row] = str(error)
            continue
        samples += [{"row": row, **sample} for sample in own]
    if samples:
        each = [predict(accelerator.prepare(m), samples, config.input, output, batch_size, accelerator)[0] for m in models]
        for predictions in each:
            check_finite(predictions)
        places, each = _by_row(samples, of_each(output, each, members.temperatures))
        spreads = spread_of(each, output)
        for row, prediction, spread in zip(places, mean_prediction(each), spreads, strict=True):
            for name, cell in zip(output.columns(), output.cells(prediction), strict=True):
                cells[name][row] = cell
            if SPREAD in cells:
                cells[SPREAD][row] = f"{spread:.6g}"
    # Objects: texts of pandas can't hold half a character, and a list in Python may.
    texts = {name: pd.Series(list(map(cell_text, column)), column.index, object) for name, column in rows.items()}
    return pd.DataFrame(texts, columns=rows.columns).assign(**cells)


def _by_row(samples: _Listed, each: list[np.ndarray]) -> tuple[list[int], list[np.ndarray]]:
    """The rows of the file that samples are of, and the mean prediction of each row by each model."""
    rows, first = np.unique([sample["row"] for sample in samples], return_index=True)
    if len(rows) == len(samples):
        return [sample["row"] for sample in samples], each
    return rows.tolist(), [np.add.reduceat(p, first) / np.diff([*first, len(samples)])[:, None] for p in each]


def _reading_task(task: Task, inputs: Inputs, schema: Schema | None) -> Task:
    """The task that reads the file's rows as the training rows were read; its numbers may have another decimal separator."""
    if schema is None:
        return task
    return task.with_schema(schema if inputs.decimal is None else replace(schema, decimal=inputs.decimal))


def decimal_in(rows: pd.DataFrame, columns: Mapping[str, str], schema: Schema | None, given: str | None) -> str | None:
    """The decimal separator of a file: as its cells show, else that of the training data; None where no numbers are read.

    Raises:
        FPTError: a cell may be two numbers, and training does not decide.
    """
    numeric = {c.name for role in ("input", "vector") for c in schema.of(role) if c.type == "number"} if schema else set()
    if schema is None or not numeric:
        return None
    cells = {column: list(rows[column]) for name, column in columns.items() if name in numeric}
    return schema.decimal if schema.lists else decimal_of(cells, given, "the file", schema.decimal)


def as_rows(inputs: Sequence[Any] | pd.DataFrame, schema: Schema | None) -> Inputs:
    """Inputs in Python as rows: texts or names of files, mappings or sequences of numbers for several input columns.

    Raises:
        FPTError: a row does not have the model's columns.
    """
    names = ((schema.inputs if schema is not None else []) or ["input"]) + (schema.vectors if schema is not None else [])
    if isinstance(inputs, pd.DataFrame):
        inputs = inputs.to_dict("records")
    if isinstance(inputs, (str, bytes, Mapping)) or not isinstance(inputs, (Iterable, pd.DataFrame)):
        raise FPTError("predict takes a list of inputs, also of one")
    numbers = schema is not None and any(c.type == "number" for c in schema.of("input"))
    rows = []
    for number, row in enumerate(inputs, 1):
        if isinstance(row, Mapping):
            if missing := [name for name in names if name not in row]:
                raise FPTError(f"input {number} has no {missing[0]!r}; the model reads {', '.join(names)}")
            rows.append({name: row[name] for name in names})
        elif len(names) > 1:
            cells = list(row) if isinstance(row, (list, tuple, np.ndarray)) else [row]
            if len(cells) != len(names):
                raise FPTError(f"input {number} has {len(cells)} values; the model reads {len(names)}: {', '.join(names)}")
            rows.append(dict(zip(names, cells, strict=True)))
        else:
            rows.append({names[0]: row if numbers or isinstance(row, (bytes, list, tuple, dict, np.ndarray)) else cell_text(row)})
    frame = pd.DataFrame(rows, columns=names, dtype=object)
    same = {name: name for name in names}
    return Inputs(frame, same, {}, decimal=decimal_in(frame, same, schema, None))

"""Numbers that stand in the same row as an input (``--vector_columns``): a part of the sample's first token.

They are standardised on the training rows, in float64; a missing one stays nan, which `fpt.sample_vectors` reads as the mean.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fpt.args import DataArguments
from fpt.data.numerals import is_missing
from fpt.data.roles import NUMERIC
from fpt.data.schema import ColumnSchema, Schema
from fpt.data.sorting import Raw
from fpt.data.table import cell_text, printable
from fpt.errors import FPTError
from fpt.metrics import constant
from fpt.sample_vectors import SampleVector

# Column of raw rows that has them, for `fpt.tasks.text.TextTask.encode`.
ROW_NUMBERS = "row_numbers"


@dataclass(frozen=True)
class RowNumbers:
    """The numbers of all rows of a table.

    Attributes:
        values: (rows, columns) float64, nan where there is none.
        reasons: why a row can't be used, or an empty text.
    """

    values: np.ndarray
    reasons: list[str]

    def with_keys(self, keys: Sequence[Hashable]) -> Sequence[Hashable]:
        """What two equal samples share, by row: the same input and the same numbers."""
        if not self.values.shape[1]:
            return keys
        return [(key, own.tobytes()) for key, own in zip(keys, self.values, strict=True)]

    def column(self, rows: np.ndarray, schema: Schema) -> dict[str, list[np.ndarray]]:
        """The column of raw rows that has the standardised numbers; none where there are no numbers."""
        return {ROW_NUMBERS: list(standardised(self.values[rows], schema))} if self.values.shape[1] else {}

    def remarks(self, schema: Schema, parts: Mapping[str, np.ndarray]) -> list[str]:
        """Lines about columns that say nothing, and about missing numbers of the rows in use."""
        lines = []
        train, used = self.values[parts["train"]], self.values[np.concatenate(list(parts.values()))]
        for place, column in enumerate(schema.of("vector")):
            known, name = train[~np.isnan(train[:, place]), place], printable(column.name, 30)
            if not len(known):
                lines.append(f"the column {name!r} has no value in the training rows: it says nothing to the model")
            elif constant(known):
                lines.append(f"the column {name!r} is {known[0]:.6g} in all training rows: it says nothing to the model")
            if missing := int(np.isnan(used[:, place]).sum()):
                lines.append(f"{missing:,} rows have no number in {name!r}: it counts as the training mean (--missing)")
        return lines


def read_numbers(raw: Raw, schema: Schema, whose: str) -> RowNumbers:
    """Read the columns of ``--vector_columns``.

    Raises:
        FPTError: a column is made of text, or has no value at all.
    """
    columns, count = schema.of("vector"), len(raw.table.rows)
    values, reasons = np.full((count, len(columns)), np.nan), [""] * count
    for place, column in enumerate(columns):
        cells, wrong = list(raw.table.rows[column.name]), []
        for row, cell in enumerate(cells):
            try:
                values[row, place] = number_in(cell, column, schema)
            except ValueError as error:
                reasons[row] = reasons[row] or str(error)
                wrong += [] if _empty(cell, schema) else [cell]
        known = sum(not _empty(cell, schema) for cell in cells)
        where = f"column {column.name!r} of {whose}"
        if not known:
            raise FPTError(f"{where} has no value in any row; leave it out of --vector_columns")
        if len(wrong) > (1 - NUMERIC) * known:
            shown = printable(cell_text(wrong[0]), 30)
            raise FPTError(
                f"{where} is not made of numbers: {len(wrong):,} of {known:,} cells are none, such as {shown!r}; leave it out of"
                " --vector_columns"
            )
    return RowNumbers(values, reasons)


def number_in(cell: Any, column: ColumnSchema, schema: Schema) -> float:
    """The number of a cell; nan where it is missing and the mean takes its place.

    Raises:
        ValueError: it is not a number, or missing where --missing allows none.
    """
    number = schema.number(cell, column.name)
    if np.isnan(number) and schema.missing in ("drop", "error"):
        raise ValueError(f"no value in {printable(column.name, 30)!r}")
    return number


def _empty(cell: Any, schema: Schema) -> bool:
    return is_missing(cell_text(cell), schema.marks)


def fit_numbers(schema: Schema, train: np.ndarray) -> Schema:
    """The schema with mean and deviation of each column over the training rows (rows, columns)."""
    columns = schema.of("vector")
    if not columns:
        return schema
    from sklearn.preprocessing import StandardScaler

    with np.errstate(invalid="ignore", divide="ignore"):
        scaler = StandardScaler().fit(train)
    mean, std = np.nan_to_num(scaler.mean_), np.sqrt(np.nan_to_num(scaler.var_))
    # A number that never changes says nothing, whatever it is divided by; how small it is does not matter.
    std = np.where(std > 1e-12 * np.abs(mean), std, 1.0)
    made = iter([replace(c, mean=(float(m),), std=(float(s),)) for c, m, s in zip(columns, mean, std, strict=True)])
    return replace(schema, columns=tuple(next(made) if c.role == "vector" else c for c in schema.columns))


def standardised(values: np.ndarray, schema: Schema) -> np.ndarray:
    """Numbers (rows, columns) in units of the training deviation around the mean, fp32; nan where one is missing."""
    columns = schema.of("vector")
    mean, std = (np.array([getattr(c, name)[0] for c in columns], dtype=np.float64) for name in ("mean", "std"))
    with np.errstate(over="ignore"):
        return ((values - mean) / std).astype(np.float32)


def numbers_of_row(cells: Mapping[str, Any], schema: Schema) -> np.ndarray:
    """The standardised numbers (columns,) fp32 of a row by column, as the training rows were read.

    Raises:
        ValueError: a cell is not a number, or empty where none may be.
    """
    values = np.array([number_in(cells[column.name], column, schema) for column in schema.of("vector")])
    return standardised(values[None], schema)[0]


def check_vector_columns(args: DataArguments, task: Any) -> None:
    """Refuse ``--vector_columns`` of a task that has no rows of text with columns beside it.

    Raises:
        FPTError: it is given, and the data is not a table of the user's own, or its inputs are not texts.
    """
    if args.vector_columns is None:
        return
    if not hasattr(task, "input_type"):
        raise FPTError(f"--vector_columns is for columns of your own table (csv:FILE, hub:NAME); {task.name} has none")
    if args.tokenizer is None:
        raise FPTError(f"--vector_columns is for texts, SMILES and proteins; {task.name} is read as {task.input_type}")


def check_columns(vector: SampleVector | None, args: DataArguments, schema: Schema | None) -> None:
    """Refuse a vector whose columns the schema of a checkpoint does not describe as training left them.

    Raises:
        FPTError: they contradict each other.
    """
    columns = schema.of("vector") if schema is not None else []
    if (args.vector_columns is not None) != bool(columns) or any(len(column.mean) != 1 for column in columns):
        raise FPTError("data.schema and data.arguments contradict each other about the columns of a sample's vector")
    alone = args.sample_vector is None
    if columns and (vector is None or len(columns) > len(vector.mean) or (alone and len(columns) != vector.dim)):
        raise FPTError("input.vector and data.schema contradict each other about the numbers of a sample")

"""The columns of a user's own data, and what reads a cell of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

from fpt.args import DataArguments
from fpt.data.labels import Labels
from fpt.data.numerals import decimal_of, is_missing
from fpt.data.schema import NUMBERS, ColumnSchema, Schema
from fpt.data.sorting import Raw, missing_values
from fpt.data.table import Table, cell_text
from fpt.text.log import Log


class Reader(ABC):
    """Where a user's data is.

    Attributes:
        kind: what ``--dataset`` begins with.
        where: what follows it.
    """

    kind: str

    def __init__(self, where: str) -> None:
        self.where = where

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the data, without folders of this machine: it goes into checkpoints that are published."""

    @abstractmethod
    def read(self, args: DataArguments, log: Log) -> Table:
        """The whole table.

        Raises:
            FPTError: it is not there, or can't be read.
        """

    def input_type(self, options: dict[str, Any]) -> str:
        """What the input is, from the options or from the data."""
        return options["input_type"]


def start_schema(raw: Raw, args: DataArguments, input_type: str) -> Schema:
    """The schema before any cell is read: the decimal separator is one for the whole file."""
    o = args.options
    numeric = [c.name for c in raw.columns if c.role == "label" or (c.role == "input" and input_type == NUMBERS)]
    if o["label_type"] in ("classes", "multilabel") or raw.table.kinds.get(raw.column("label") or "") == "classes":
        numeric = [name for name in numeric if name != raw.column("label")]
    # Commas between unquoted cells leave the point to be the decimal separator.
    points = raw.table.format.get("delimiter") != "comma"
    cells = {name: list(raw.table.rows[name]) for name in numeric}
    decimal = decimal_of(cells, o.get("decimal"), raw_name(raw), doubt_points=points)
    return Schema(
        raw.columns,
        raw.table.format,
        decimal=decimal,
        missing=o["missing"],
        missing_values=missing_values(args),
        standardise=o.get("standardise") or "each",
    )


def raw_name(raw: Raw) -> str:
    """The table in a message."""
    return f"the {raw.table.format.get('kind', '')} table"


def count_missing(schema: Schema, raw: Raw, labels: Labels) -> Schema:
    """The schema with the number of cells without a value, of inputs and label."""

    def count(column: ColumnSchema) -> int:
        if column.role == "label":
            return sum(reason.startswith("no label") for reason in labels.reasons)
        if column.role == "input" and column.type in ("number", "text", "smiles", "protein"):
            marks = schema.marks if column.type == "number" else ("",)
            return sum(is_missing(cell_text(cell), marks) for cell in raw.table.rows[column.name])
        return 0

    return replace(schema, columns=tuple(replace(c, missing=count(c)) for c in schema.columns))

"""The columns of a user's own data, what their cells hold, and what reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from fpt.args import DataArguments, arg
from fpt.data.labels import Labels
from fpt.data.numerals import decimal_of, is_missing
from fpt.data.own_options import OwnOptions
from fpt.data.schema import NUMBERS, ColumnSchema, Schema
from fpt.data.sorting import Raw, missing_values
from fpt.data.table import Table, cell_text
from fpt.options import options_of
from fpt.tasks.audio import AudioOptions
from fpt.tasks.images import BACKGROUND_HELP, OVERLAP_HELP, ResizeOptions
from fpt.text.log import Log

Own = TypeVar("Own", bound=OwnOptions)


@dataclass
class InputOptions(AudioOptions, ResizeOptions):
    """What the input columns hold, and how pictures and sounds become tokens."""

    _argument_group_name = "input of a table"
    input_column: str | None = arg(
        None, "Column with the input, for --input_type numbers several separated by commas; a usual name when not given."
    )
    numbers_per_token: int = arg(1, "For --input_type numbers: how many make one token.")
    standardise: str | None = arg(
        None, "For numbers: each number by its own mean and deviation, or all by one; each where rows are equally long."
    )
    decimal: str | None = arg(None, "Decimal separator of numbers written as text, . or , ; what the cells show when not given.")
    image_size: int = arg(32, "For images: they are resized to this height and width in pixels.")
    patch_size: int | None = arg(  # type: ignore[assignment]
        None, "For images: side of a patch in pixels (4); for audio with --features raw: samples (80)."
    )
    patch_overlap: int = arg(0, f"For images: {OVERLAP_HELP}")
    gray: bool = arg(False, "For images: one gray channel instead of three colors.")
    background: str = arg("white", f"For images: {BACKGROUND_HELP}")


class Reader(ABC, Generic[Own]):
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

    def completed(self, options: Own) -> Own:
        """The options with what depends on the type of the input, or only the data says."""
        return options

    @abstractmethod
    def input_type(self, options: Own) -> str:
        """What the input is, from the options or from the data."""


def start_schema(raw: Raw, args: DataArguments, input_type: str) -> Schema:
    """The schema before any cell is read: the decimal separator is one for the whole file."""
    o = options_of(args, OwnOptions)
    decimal, standardise = (o.decimal, o.standardise) if isinstance(o, InputOptions) else (None, None)
    numeric = [c.name for c in raw.columns if c.role in ("label", "vector") or (c.role == "input" and input_type == NUMBERS)]
    if o.label_type in ("classes", "multilabel") or raw.table.kinds.get(raw.column("label") or "") == "classes":
        numeric = [name for name in numeric if name != raw.column("label")]
    # Commas between unquoted cells leave the point to be the decimal separator.
    points = raw.table.format.get("delimiter") != "comma"
    cells = {name: list(raw.table.rows[name]) for name in numeric}
    return Schema(
        raw.columns,
        raw.table.format,
        decimal=decimal_of(cells, decimal, raw_name(raw), doubt_points=points),
        missing=o.missing,
        missing_values=missing_values(args),
        standardise=standardise or "each",
    )


def raw_name(raw: Raw) -> str:
    """The table in a message."""
    return f"the {raw.table.format.get('kind', '')} table"


def count_missing(schema: Schema, raw: Raw, labels: Labels) -> Schema:
    """The schema with the number of cells without a value, of inputs and label."""

    def count(column: ColumnSchema) -> int:
        if column.role == "label":
            return sum(reason.startswith("no label") for reason in labels.reasons)
        if column.role in ("input", "vector") and column.type in ("number", "text", "smiles", "protein"):
            marks = schema.marks if column.type == "number" else ("",)
            return sum(is_missing(cell_text(cell), marks) for cell in raw.table.rows[column.name])
        return 0

    return replace(schema, columns=tuple(replace(c, missing=count(c)) for c in schema.columns))

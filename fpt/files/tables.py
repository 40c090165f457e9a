"""CSV files that we write and read again: whole, readable by anything, and without formulas that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fpt.errors import FPTError
from fpt.files.whole import write_text
from fpt.text.escape import csv_cell, csv_plain, terminal
from fpt.text.log import Log

# Readers end a cell or a file at NUL, and UTF-8 has no halves of characters.
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")


@dataclass
class _Cells:
    """Makes texts cells, and counts those that are not the texts as they were.

    Attributes:
        raw: leave formulas as they are.
    """

    raw: bool
    formulas: int = 0
    unwritable: int = 0

    def of(self, value: Any) -> Any:
        """The cell of a value; only texts are changed."""
        if not isinstance(value, str):
            return value
        text = _UNWRITABLE.sub(lambda found: terminal(found[0]), value)
        self.unwritable += text != value
        cell = csv_cell(text)
        self.formulas += cell != text
        return text if self.raw else cell


class _Lines(io.StringIO):
    """Ends lines with a line feed. A writer that is told so itself does not quote cells with a carriage return."""

    def write(self, line: str) -> int:
        return super().write(f"{line.removesuffix(chr(13) + chr(10))}\n")


def write_csv(rows: pd.DataFrame, path: Path, raw: bool = False, log: Log = print) -> None:
    """Write `rows` as CSV in one step. Texts that a spreadsheet would run as formulas get an apostrophe before them.

    Args:
        raw: leave those texts as they are.
        log: hears how many cells were changed, a line for each kind of change.

    Raises:
        OSError: the file can't be written.
    """
    cells = _Cells(raw)
    columns = [
        column if pd.api.types.is_numeric_dtype(column.dtype) else pd.Series([cells.of(v) for v in column], column.index, object)
        for _, column in rows.items()
    ]
    header = [cells.of(name) for name in rows.columns]
    out = _Lines(newline="")
    pd.concat(columns, axis=1).to_csv(out, index=False, header=header, lineterminator="\r\n")
    write_text(path, out.getvalue())
    if cells.formulas:
        done = "they were left as they are" if raw else "an apostrophe was put before each"
        log(f"{path}: cells that a spreadsheet would run as formulas: {cells.formulas:,}; {done}")
    if cells.unwritable:
        log(f"{path}: cells with characters that a text file can't hold: {cells.unwritable:,}; these are written out, as \\x00")


def read_csv(path: Path) -> pd.DataFrame:
    """Read what `write_csv` wrote: all cells and names are texts, as they were before they were written.

    Raises:
        FPTError: the file can't be read, is not UTF-8, has no header, a name twice, or a row of another length than the header.
    """
    csv.field_size_limit(sys.maxsize)
    try:
        records = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        header, *rows = ([csv_plain(cell) for cell in record] for record in records)
        if len(set(header)) < len(header):
            raise ValueError("a column is there twice")
        for number, row in enumerate(rows, 1):
            if len(row) != len(header):
                raise ValueError(f"row {number:,} has {len(row):,} cells, the header {len(header):,}")
    except (OSError, ValueError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FPTError(f"{path} can't be read as CSV: {why or 'it is empty'}") from error
    return pd.DataFrame(rows, columns=pd.Index(header, dtype=object), dtype=str)

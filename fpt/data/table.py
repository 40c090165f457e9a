"""A user's own table as a data frame, and what its cells are as text.

Cells of text formats are text as it is in the file; cells of typed formats (JSON, Parquet, Excel, a Hub dataset) keep their type.
What a cell means is decided by `fpt.data.schema`; `fpt.data.files` reads tables of all formats.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class TableOptions:
    """How a file is to be read; None leaves it to the file.

    Attributes:
        delimiter: of a text table: a character, or comma, tab, semicolon, bar, space.
        encoding: of a text file: utf-8, utf-16, latin-1, cp1252, ...
        sheet: of an Excel file.
    """

    delimiter: str | None = None
    encoding: str | None = None
    sheet: str | None = None


@dataclass(frozen=True)
class Bad:
    """A record or a row that can't be used."""

    row: int
    id: str
    text: str
    reason: str
    cells: tuple[Any, ...] = ()


@dataclass
class Table:
    """What a file holds.

    Attributes:
        rows: a column for each name of the header; the index is the number of the record in the file, from 1.
        format: kind, delimiter, encoding and sheet, as they were found; JSON values.
        rejected: records that do not fit the header.
        odd: what was left out or looks odd, by kind, with the number of times.
        kinds: of columns whose type the format itself names: "classes", "image" or "audio".
        folder: that relative names of files are in.
        named: columns by role (input, label, id) where the format itself says what they are for.
    """

    rows: pd.DataFrame
    format: dict[str, Any]
    rejected: list[Bad] = field(default_factory=list)
    odd: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None
    named: dict[str, str] = field(default_factory=dict)


def cell_text(value: Any) -> str:
    """A cell as text; empty where there is no value. Booleans are True and False, whole numbers have no fraction."""
    if value is None or value is pd.NaT or value is pd.NA:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (float, np.floating)):
        # The shortest text that gives the number back in its own precision: 0.1 of float32 is 0.1.
        return "" if math.isnan(value) else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (list, tuple, np.ndarray)):
        return " ".join(cell_text(item) for item in value)
    return str(value)


def printable(text: str, longest: int = 60) -> str:
    """A cell for a message or a file: without characters that a terminal acts on, surrogates escaped, shortened."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def flat_record(record: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """An object without objects inside: their fields are named ``outer.inner``."""
    out: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping) and value and len(start) < 200:
            out |= flat_record(value, f"{start}{name}.")
        else:
            out[f"{start}{name}"] = value
    return out


def frame_of(records: Iterable[Mapping[str, Any]], names: Sequence[str] = ()) -> pd.DataFrame:
    """Records as rows of objects, numbered from 1; nested objects as columns ``outer.inner``."""
    flat = [flat_record(record) for record in records]
    columns = list(dict.fromkeys([*(n for r in flat for n in r)])) or list(names)
    data = {name: pd.Series([record.get(name) for record in flat], dtype=object) for name in columns}
    return pd.DataFrame(data, columns=columns).set_axis(range(1, len(flat) + 1), axis=0)

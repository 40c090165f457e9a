"""Text tables: their delimiter, and records that do not fit the header: they are rejected one by one, never shifted."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from fpt.data.table import Bad, Table, cell_text, printable
from fpt.errors import FPTError

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
NAMED_DELIMITERS = {"comma": ",", "tab": "\t", "\\t": "\t", "semicolon": ";", "bar": "|", "pipe": "|", "space": " "}
# Records that decide which delimiter a file has.
PROBED = 200
# So many lines within a cell that look like records are records.
MANY_LINES = 6


def named_delimiter(delimiter: str | None) -> str | None:
    """The character that ``--delimiter`` names.

    Raises:
        FPTError: it is not one character.
    """
    if delimiter is None:
        return None
    found = NAMED_DELIMITERS.get(delimiter, delimiter)
    if len(found) != 1 or found in '"\r\n':
        raise FPTError(f"--delimiter {delimiter!r} must be one character, or one of {', '.join(NAMED_DELIMITERS)}")
    return found


def read_delimited(found: tuple[str, str], path: Path, delimiter: str | None, by_ending: str | None) -> Table:
    text, encoding = found
    csv.field_size_limit(sys.maxsize)
    told = re.match(r"sep=(.)\r?\n", text)  # what Excel writes and reads
    if told:
        text, delimiter = text[told.end() :], delimiter or told[1]
    delimiter = delimiter or _delimiter_of(text, by_ending, path)
    about = {"kind": "text", "delimiter": DELIMITERS.get(delimiter, delimiter), "encoding": encoding}
    try:
        records = _records(text, delimiter)
    except csv.Error as error:
        escaped = _escaped(text, delimiter) if '\\"' in text else None
        if escaped is not None:
            records, about["quotes"] = escaped, "escaped by backslashes"
        elif delimiter == "\t":
            # Tab-separated files often know no quoting at all.
            records, about["quotes"] = _records(text, delimiter, quoting=csv.QUOTE_NONE), "read as they are"
        else:
            raise FPTError(
                f"{path} can't be read as a table: {error}; a cell that begins with a quote must end with one, and quotes in it"
                " are doubled"
            ) from error
    return fit_records(records, about, path)


def _delimiter_of(text: str, by_ending: str | None, path: Path) -> str:
    """The delimiter that gives the same number of columns in all of the first records.

    Raises:
        FPTError: several do, and the file's ending does not say which.
    """
    sample = text[:200_000]
    fits, in_header = [], []
    for delimiter in DELIMITERS:
        widths = _widths(sample, delimiter)
        if widths and widths[0] > 1:
            in_header.append(delimiter)
            # Commas at the end of rows, and rows that are too short, are another matter than a wrong delimiter.
            if sum(width == widths[0] for width in widths) > len(widths) / 2:
                fits.append(delimiter)
    if by_ending in in_header and (by_ending in fits or not fits):
        return by_ending or ","
    if len(fits) == 1:
        return fits[0]
    if not fits and not in_header:
        return by_ending or ","  # one column
    names = " or ".join(DELIMITERS[d] for d in fits or in_header)
    raise FPTError(
        f"{path} may be separated by {names}; pass --delimiter, for example --delimiter {DELIMITERS[(fits or in_header)[0]]}"
    )


def _widths(sample: str, delimiter: str) -> list[int]:
    widths: list[int] = []
    try:
        for record in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
            if record:
                widths.append(len(record))
            if len(widths) > PROBED:
                break
    except csv.Error:
        pass
    return widths[:-1] if len(widths) > 2 and len(sample) == 200_000 else widths


def _records(text: str, delimiter: str, **how: Any) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, **how)
    try:
        return list(reader)
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num:,}: {error}") from error


def _escaped(text: str, delimiter: str) -> list[list[str]] | None:
    """Records of a file that writes a quote within a cell with a backslash; None where that does not fit either."""
    try:
        return _records(text, delimiter, escapechar="\\", doublequote=False)
    except csv.Error:
        return None


def _blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def fit_records(records: list[list[Any]], about: dict[str, Any], path: Path) -> Table:
    """Records as rows of the header's columns; one that has more or fewer cells is rejected."""
    odd: Counter[str] = Counter()
    full = [record for record in records if not all(map(_blank, record))]
    if not full:
        raise FPTError(f"{path} can't be read as a table: it is empty; expected a header line and one sample per row")
    blank = len(records) - len(full)
    header, rows, numbers, rejected = [cell_text(cell) for cell in full[0]], [], [], []
    width = len(header)
    while not header[width - 1].strip():
        width -= 1
    # A comma after the last name: the column is there, and counts where a row has something in it.
    unnamed = len(header) - width
    for number, record in enumerate(full[1:], 1):
        while len(record) > width and _blank(record[-1]):
            record = record[:-1]
            odd["empty cells beyond the last column"] += not unnamed
        if len(record) == width:
            rows.append(record)
            numbers.append(number)
        else:
            shown = printable(" | ".join(map(cell_text, record)), 200)
            reason = f"{len(record)} cells where the header has {width}"
            rejected.append(Bad(number, f"row-{number}", shown, reason, tuple(record[:width])))
    header = header[:width]
    _check_row_names(full, width, path)
    _check_quotes(rows, numbers, about.get("delimiter", ""), path)
    breaks = sum("\n" in cell for row in rows for cell in row if isinstance(cell, str))
    odd.update({"blank rows": blank, "cells with line breaks": breaks})
    frame = pd.DataFrame(rows, columns=header, index=numbers, dtype=object)
    return Table(frame, about, rejected, +odd)


def _check_row_names(records: list[list[Any]], width: int, path: Path) -> None:
    """Refuse rows that begin with their number where the header does not: one cell more is not one at the end.

    Raises:
        FPTError: rows have one cell more than the header, and it is their number.
    """
    body = records[1:]
    longer = len(body) > 2 and all(len(record) == width + 1 for record in body)
    numbered = [str(record[0]) for record in body] == [str(i + 1) for i in range(len(body))]
    if longer and numbered and len(records[0]) == width:
        raise FPTError(
            f"{path}: rows have {width + 1} cells and begin with their number, the header has {width} names; name the first"
            " column, or remove it"
        )


def _check_quotes(rows: list[list[Any]], numbers: list[int], delimiter: str, path: Path) -> None:
    """Refuse a quote that has swallowed records: lines within one cell that look like records themselves.

    Raises:
        FPTError: a cell holds lines that look like records.
    """
    sign = {name: sign for sign, name in DELIMITERS.items()}.get(delimiter, delimiter)
    ends = {row[-1].strip() for row in rows if isinstance(row[-1], str) and "\n" not in row[-1]}
    for number, row in zip(numbers, rows, strict=True):
        for cell in row:
            if not isinstance(cell, str) or cell.count("\n") < 2 or not sign or len(row) < 2:
                continue
            lines = cell.split("\n")[1:-1]
            alike = [line for line in lines if line.count(sign) == len(row) - 1]
            # In prose too a line may have as many commas; few lines must end as records do.
            known = [line for line in alike if line.rsplit(sign, 1)[1].strip() in ends]
            if len(alike) > 0.8 * len(lines) and (len(lines) >= MANY_LINES or len(known) == len(lines)):
                raise FPTError(
                    f"{path}: a cell of record {number} holds {len(lines):,} lines that look like records: a quote that opens"
                    " there is closed far below. Close it, or double it where it is part of the text"
                )

"""A user's own table, from any usual file format to one data frame. Nothing is converted here but bytes to text.

Cells of text formats are text as it is in the file; cells of typed formats (JSON, Parquet, Excel, a Hub dataset) keep their type.
What a cell means is decided by `fpt.data.schema`. Records that do not fit the header are rejected one by one, never shifted.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import re
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fpt.errors import FPTError

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
NAMED_DELIMITERS = {"comma": ",", "tab": "\t", "\\t": "\t", "semicolon": ";", "bar": "|", "pipe": "|", "space": " "}
BY_ENDING = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": None}
OPENERS: dict[str, Any] = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
# Records that decide which delimiter a file has.
PROBED = 200
KNOWN = ".csv, .tsv, .tab, .txt (also .gz, .bz2, .xz), .jsonl, .json, .parquet or .xlsx"


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


def read_table(path: Path, options: TableOptions = TableOptions()) -> Table:
    """Read a table by its file's ending.

    Raises:
        FPTError: it is not there, of an unknown ending, damaged, empty, or needs an option that the line names.
    """
    if not path.is_file():
        raise FPTError(f"Not a file: {path}. Pass the table's path; known formats: {KNOWN}.")
    compression = path.suffix.lower() if path.suffix.lower() in OPENERS else ""
    ending = Path(path.stem).suffix.lower() if compression else path.suffix.lower()
    try:
        if ending == ".parquet":
            table = _parquet(path)
        elif ending in (".xlsx", ".xlsm"):
            table = _excel(path, options.sheet)
        elif ending in (".jsonl", ".ndjson", ".json"):
            table = _json(_decode(_bytes(path, compression), path, options.encoding), ending == ".json", path)
        elif ending in BY_ENDING:
            text = _decode(_bytes(path, compression), path, options.encoding)
            table = _delimited(text, path, named_delimiter(options.delimiter), BY_ENDING[ending])
        else:
            raise FPTError(f"{path} can't be read as a table: its ending {ending!r} is not one of {KNOWN}")
    except OSError as error:
        raise FPTError(f"{path} can't be read: {error.strerror or error}") from error
    table.rows.columns = pd.Index(_names([str(name) for name in table.rows.columns], path), dtype=object)
    if table.rows.empty and not table.rejected:
        raise FPTError(f"{path} has a header line and no rows; add one sample per row")
    if len(table.rejected) > len(table.rows):
        bad, count = table.rejected[0], len(table.rejected)
        raise FPTError(
            f"{path}: {count:,} of {count + len(table.rows):,} records can't be read, the first one is record {bad.row}"
            f" ({bad.reason}); is the first line the header, and is --delimiter right?"
        )
    return table


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


def _bytes(path: Path, compression: str) -> bytes:
    data = path.read_bytes()
    if not compression:
        return data
    try:
        return OPENERS[compression](data)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise FPTError(f"{path} can't be decompressed ({printable(str(error))}); is it whole?") from error


def _decode(data: bytes, path: Path, encoding: str | None) -> tuple[str, str]:
    """Text and the encoding it was in; never a guess among 8-bit encodings, which all fit."""
    marked = next((name for mark, name in MARKS if data.startswith(mark)), None)
    chosen = encoding or marked or "utf-8"
    try:
        if encoding is None and marked is None and data[:4096].count(0) > len(data[:4096]) / 8:
            raise FPTError(
                f"{path} can't be read as a table: it holds zero bytes; pass --encoding utf-16 if it is text of that kind"
            )
        return data.decode("utf-8-sig" if chosen.lower() in ("utf-8", "utf8") else chosen), chosen
    except LookupError as error:
        raise FPTError(f"unknown --encoding {encoding!r}; for example utf-8, utf-16, latin-1, cp1252") from error
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        line = data.count(b"\n", 0, start) + 1
        guess = _likely_encoding(data) if encoding is None else None
        hint = f" (it looks like {guess})" if guess else ""
        raise FPTError(
            f"{path} can't be read as a table: byte {start:,} (line {line:,}) is not {chosen};"
            f" pass --encoding, for example cp1252 or latin-1{hint}"
        ) from error


def _likely_encoding(data: bytes) -> str | None:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:100_000]).best()
    return best.encoding if best else None


def _delimited(found: tuple[str, str], path: Path, delimiter: str | None, by_ending: str | None) -> Table:
    text, encoding = found
    csv.field_size_limit(sys.maxsize)
    told = re.match(r"sep=(.)\r?\n", text)  # what Excel writes and reads
    if told:
        text, delimiter = text[told.end() :], delimiter or told[1]
    delimiter = delimiter or _delimiter_of(text, by_ending, path)
    about = {"kind": "text", "delimiter": DELIMITERS.get(delimiter, delimiter), "encoding": encoding}
    try:
        records = _records(text, delimiter, csv.QUOTE_MINIMAL)
    except csv.Error as error:
        if delimiter != "\t":
            raise FPTError(
                f"{path} can't be read as a table: {error}; a cell that begins with a quote must end with one, and quotes in it"
                " are doubled"
            ) from error
        # Tab-separated files often know no quoting at all.
        records = _records(text, delimiter, csv.QUOTE_NONE)
        about["quotes"] = "read as they are"
    return _fit(records, about, path)


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


def _records(text: str, delimiter: str, quoting: Any) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True))


def _blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _fit(records: list[list[Any]], about: dict[str, Any], path: Path) -> Table:
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
            rejected.append(Bad(number, f"row-{number}", shown, f"{len(record)} cells where the header has {width}"))
    header = header[:width]
    breaks = sum("\n" in cell for row in rows for cell in row if isinstance(cell, str))
    odd.update({"blank rows": blank, "cells with line breaks": breaks})
    frame = pd.DataFrame(rows, columns=header, index=numbers, dtype=object)
    return Table(frame, about, rejected, +odd)


def _json(found: tuple[str, str], whole: bool, path: Path) -> Table:
    text, encoding = found
    rejected: list[Bad] = []
    if whole:
        try:
            records = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FPTError(f"{path} can't be read as JSON: {error}; one object per line belongs in a .jsonl file") from error
        if isinstance(records, Mapping):
            lists = [value for value in records.values() if isinstance(value, list)]
            if len(lists) == 1 and all(isinstance(item, Mapping) for item in lists[0]):
                records = lists[0]  # {"data": [...]}
            else:
                raise FPTError(f"{path} can't be read as a table: expected a JSON list of objects, one per sample")
        numbered = list(enumerate(records if isinstance(records, list) else [], 1))
    else:
        numbered = []
        for number, line in enumerate((line for line in text.split("\n") if line.strip()), 1):
            try:
                numbered.append((number, json.loads(line)))
            except (ValueError, RecursionError) as error:
                rejected.append(Bad(number, f"row-{number}", printable(line, 200), f"not JSON ({printable(str(error))})"))
    good = []
    for number, record in numbered:
        if isinstance(record, Mapping):
            good.append((number, flat_record(record)))
        else:
            rejected.append(Bad(number, f"row-{number}", printable(str(record), 200), "not a JSON object"))
    names = list(dict.fromkeys(name for _, record in good for name in record))
    if not names:
        raise FPTError(f"{path} can't be read as a table: expected JSON objects, one per sample")
    rows = pd.DataFrame(
        {name: pd.Series([record.get(name) for _, record in good], dtype=object) for name in names}, columns=names
    ).set_axis([number for number, _ in good], axis=0)
    return Table(rows, {"kind": "json" if whole else "jsonl", "encoding": encoding}, rejected)


def flat_record(record: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """An object without objects inside: their fields are named ``outer.inner``."""
    out: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping) and value and len(start) < 200:
            out |= flat_record(value, f"{start}{name}.")
        else:
            out[f"{start}{name}"] = value
    return out


def _parquet(path: Path) -> Table:
    import pyarrow
    from datasets import ClassLabel, Features
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        features = Features.from_arrow_schema(table.schema)
    except (pyarrow.ArrowException, ValueError, TypeError, KeyError) as error:
        raise FPTError(f"{path} can't be read as Parquet: {printable(str(error), 120)}") from error
    records = table.to_pylist()
    kinds = {}
    for name, feature in features.items():
        if isinstance(feature, ClassLabel):
            kinds[name] = "classes"
            for record in records:
                record[name] = class_name(feature, record[name])
    return Table(frame_of(records, list(features)), {"kind": "parquet"}, kinds=kinds)


def class_name(feature: Any, value: Any) -> str | None:
    """The name of a `datasets.ClassLabel`'s number; None for no label, which it writes as -1."""
    return None if value is None or value < 0 else feature.int2str(int(value))


def frame_of(records: Iterable[Mapping[str, Any]], names: Sequence[str] = ()) -> pd.DataFrame:
    """Records as rows of objects, numbered from 1; nested objects as columns ``outer.inner``."""
    flat = [flat_record(record) for record in records]
    columns = list(dict.fromkeys([*(n for r in flat for n in r)])) or list(names)
    data = {name: pd.Series([record.get(name) for record in flat], dtype=object) for name in columns}
    return pd.DataFrame(data, columns=columns).set_axis(range(1, len(flat) + 1), axis=0)


def _excel(path: Path, sheet: str | None) -> Table:
    import openpyxl

    try:
        # Values as they were computed; formulas and links of the file are not followed.
        book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        names = book.sheetnames
        if sheet is not None and sheet not in names:
            raise FPTError(f"{path} has no sheet {sheet!r}; it has {', '.join(names)}")
        chosen = sheet or names[0]
        records = [[_excel_cell(cell) for cell in row] for row in book[chosen].iter_rows(values_only=True)]
    except FPTError:
        raise
    except Exception as error:  # of many kinds: zip, XML and openpyxl's own
        raise FPTError(f"{path} can't be read as an Excel file ({printable(str(error))}); save it as CSV") from error
    table = _fit([["" if cell is None else cell for cell in row] for row in records], {"kind": "excel", "delimiter": ""}, path)
    others = len(names) - 1
    table.format = {"kind": "excel", "sheet": chosen}
    if others and sheet is None:
        table.odd[f"other sheets, not read (--sheet; read is {chosen!r})"] = others
    return table


def _excel_cell(value: Any) -> Any:
    # "" and text stay; numbers of Excel are floats, also whole ones.
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _names(header: list[str], path: Path) -> list[str]:
    """Names of columns without white space around them; columns without a name are numbered.

    Raises:
        FPTError: a name occurs twice.
    """
    names = [unicodedata.normalize("NFC", name).strip().strip("\ufeff") or f"column_{i + 1}" for i, name in enumerate(header)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FPTError(f"{path} has the column {twice[0]!r} {names.count(twice[0])} times; rename all but one")
    return names

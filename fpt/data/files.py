"""Tables of any usual file format, by the file's ending. Nothing is converted but bytes to text."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fpt.data.delimited import fit_records, named_delimiter, read_delimited
from fpt.data.table import Bad, Table, TableOptions, flat_record, frame_of, printable
from fpt.errors import FPTError
from fpt.files.whole import user_path
from fpt.text.log import Log

BY_ENDING = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": None}
OPENERS: dict[str, Any] = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
KNOWN = ".csv, .tsv, .tab, .txt (also .gz, .bz2, .xz), .jsonl, .json, .parquet or .xlsx"


AS_IT_IS = TableOptions()


def read_table(path: Path, options: TableOptions = AS_IT_IS) -> Table:
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
            table = read_delimited(text, path, named_delimiter(options.delimiter), BY_ENDING[ending])
        else:
            raise FPTError(f"{path} can't be read as a table: its ending {ending!r} is not one of {KNOWN}")
    except OSError as error:
        raise FPTError(f"{path} can't be read: {error.strerror or error}") from error
    table.rows.columns = pd.Index(_names([str(name) for name in table.rows.columns], path), dtype=object)
    if table.rows.empty and not table.rejected:
        raise FPTError(f"{path} has a header line and no rows; add one sample per row")
    if len(table.rejected) > len(table.rows):
        bad, count = table.rejected[0], len(table.rejected)
        more = ", and is --delimiter right" if table.format["kind"] == "text" else ""
        raise FPTError(
            f"{path}: {count:,} of {count + len(table.rows):,} records can't be read, the first one is record {bad.row}"
            f" ({bad.reason}); is the first line the header{more}?"
        )
    return table


def read_own_table(kind: str, where: str, data_dir: str | None, options: TableOptions, log: Log) -> Table:
    """A user's own table, by its path or by its name in ``--data_dir``; relative names of files are beside it.

    Args:
        kind: what ``--dataset`` has before the path.

    Raises:
        FPTError: there is none, or as `read_table`.
    """
    path = user_path(where)
    if not path.is_file() and data_dir:
        path = user_path(data_dir) / path.name
    if not path.is_file():
        raise FPTError(f"--dataset {kind}:{where}: there is no such file")
    log(f"{kind}:{path}")
    table = read_table(path, options)
    table.folder = path.absolute().parent
    return table


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
                raise FPTError(
                    f"{path} can't be read as a table: expected a JSON list of objects, one per sample (pandas: orient='records')"
                )
        numbered = list(enumerate(records if isinstance(records, list) else [], 1))
    else:
        numbered = []
        for number, line in enumerate((line for line in text.split("\n") if line.strip()), 1):
            try:
                numbered.append((number, json.loads(line)))
            except (ValueError, RecursionError) as error:
                rejected.append(Bad(number, f"row-{number}", printable(line, 200), f"not JSON ({printable(str(error))})"))
    good = []
    halves = re.search(r"\\u[dD][89a-fA-F]", text)
    for number, record in numbered:
        why = "" if isinstance(record, Mapping) else "not a JSON object"
        if not why and halves and _has_half_characters(record):
            why = r"half a character, as \ud800 without its other half: no file can hold it"
        if why:
            rejected.append(Bad(number, f"row-{number}", printable(str(record), 200), why))
        else:
            good.append((number, flat_record(record)))
    names = list(dict.fromkeys(name for _, record in good for name in record))
    if not names:
        why = f"; {rejected[0].id} is refused: {rejected[0].reason}" if rejected else ""
        raise FPTError(f"{path} can't be read as a table: expected JSON objects, one per sample{why}")
    rows = pd.DataFrame(
        {name: pd.Series([record.get(name) for _, record in good], dtype=object) for name in names}, columns=names
    ).set_axis([number for number, _ in good], axis=0)
    return Table(rows, {"kind": "json" if whole else "jsonl", "encoding": encoding}, rejected)


def _has_half_characters(record: Mapping[str, Any]) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return True
    return False


def _parquet(path: Path) -> Table:
    import pyarrow
    from datasets import ClassLabel, Features
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        odd = [field.name for field in table.schema if pyarrow.types.is_map(field.type)]
        table = table.drop_columns(odd)
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
    seen = Counter({"columns of maps, which are not read": len(odd)}) if odd else Counter()
    return Table(frame_of(records, list(features)), {"kind": "parquet"}, odd=seen, kinds=kinds)


def class_name(feature: Any, value: Any) -> str | None:
    """The name of a `datasets.ClassLabel`'s number; None for no label, which it writes as -1."""
    return None if value is None or value < 0 else feature.int2str(int(value))


def _excel(path: Path, sheet: str | None) -> Table:
    import openpyxl

    try:
        # Values as they were computed; formulas and links of the file are not followed.
        book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        names = book.sheetnames
        if sheet is not None and sheet not in names:
            raise FPTError(f"{path} has no sheet {sheet!r}; it has {', '.join(names)}")
        chosen = sheet or names[0]
        # What the file says of the sheet's size may be less than there is.
        book[chosen].reset_dimensions()
        cells = list(book[chosen].iter_rows(values_only=True))
    except FPTError:
        raise
    except Exception as error:  # on damaged files of many kinds: those of zip and XML, and whatever openpyxl runs into
        raise FPTError(f"{path} can't be read as an Excel file ({printable(str(error))}); save it as CSV") from error
    records = [[_excel_cell(cell) for cell in row] for row in cells]
    width = max(map(len, records), default=0)  # empty cells at the end of a row need not be in the file
    padded = [["" if cell is None else cell for cell in row] + [""] * (width - len(row)) for row in records]
    table = fit_records(padded, {"kind": "excel"}, path)
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
    for name in ("__split__", "__sha__"):
        if name in names:
            raise FPTError(f"{path} has a column {name!r}, a name that is used here; rename it")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FPTError(f"{path} has the column {twice[0]!r} {names.count(twice[0])} times; rename all but one")
    return names

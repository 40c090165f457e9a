"""A user's own rows by type of input: texts, molecules and proteins, numbers, pictures, sounds."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments
from fpt.data.numerals import MISSING, is_missing
from fpt.data.schema import NUMBERS, SHA, Schema
from fpt.data.sorting import Raw
from fpt.data.table import cell_text, printable
from fpt.errors import FPTError
from fpt.files.whole import fs_name
from fpt.inputs import Patches
from fpt.options import options_of
from fpt.tasks.audio import AudioTask
from fpt.tasks.images import ImageTask, ResizeOptions, encode_each, read_file
from fpt.tasks.own import OwnTask
from fpt.tasks.own_schema import InputOptions
from fpt.tasks.row_vectors import ROW_NUMBERS, numbers_of_row
from fpt.tasks.text import Letters, Smiles, Text, TextTask
from fpt.text.log import Log

TEXTS = {"text": Text(), "smiles": Smiles(), "protein": Letters()}

# Of a token; a row that is shorter is filled up to it.
MOST_NUMBERS = 1 << 20


class TextRows(OwnTask, TextTask):
    """Texts, SMILES, proteins or nucleotides."""

    input_types = tuple(TEXTS)

    def set_up(self) -> None:
        """With the tokenizer and the splits of the type."""
        self.modality = TEXTS[self.input_type]
        if self.input_type == "smiles":
            self.splits = (*self.splits, "scaffold")
            self.packages = ("rdkit",)

    def samples(self, raw: Raw, schema: Schema, args: DataArguments) -> tuple[Schema, list[Any], list[str]]:
        """Texts as they are tokenized."""
        (column,) = schema.inputs
        found: list[Any] = []
        reasons = []
        marks = MISSING if schema.missing_values is None else schema.marks
        # A residue may be called N or A; NA in a column of sequences is a gap all the same. Of texts it may be the word.
        strict = self.input_type == "protein" or schema.missing_values is not None
        for cell in raw.table.rows[column]:
            try:
                if isinstance(cell, (dict, list)):
                    raise ValueError("not a text")
                if strict and cell_text(cell).strip() and is_missing(cell_text(cell), marks):
                    raise ValueError(f"no value in {printable(column, 30)!r}")
                found.append(self.read(cell_text(cell))["text"])
                reasons.append("")
            except ValueError as error:
                found.append(None)
                reasons.append(str(error))
        return schema, found, reasons

    def keys(self, raw: Raw, samples: Sequence[Any]) -> list[Hashable]:
        """Molecules are the same in any notation."""
        if not (self.keep_notation and self.modality is not None):
            return super().keys(raw, samples)
        return [None if sample is None else self.modality.read(sample) for sample in samples]

    def read_row(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        """The text, and the numbers beside it where there are some, as the training rows were read."""
        beside_it = self.schema.vectors if self.schema is not None else []
        read = super().read_row({name: cell for name, cell in cells.items() if name not in beside_it})
        if self.schema is None or not beside_it:
            return read
        return {**read, ROW_NUMBERS: numbers_of_row(cells, self.schema)}

    def raw_columns(self, samples: Sequence[Any], schema: Schema) -> dict[str, list[Any]]:
        """The texts."""
        return {"text": list(samples)}


class NumberRows(OwnTask):
    """Numbers of several columns, or lists of numbers in one."""

    input_types = (NUMBERS,)
    libraries = ("scikit-learn",)
    slow = False

    def samples(self, raw: Raw, schema: Schema, args: DataArguments) -> tuple[Schema, list[Any], list[str]]:
        """Arrays of numbers, float64, with nan for a missing one under --missing mean."""
        found: list[Any] = []
        reasons = []
        if len(schema.inputs) == 1:
            schema = schema.with_lists(list(raw.table.rows[schema.inputs[0]]), options_of(args, InputOptions).decimal is not None)
        for record in raw.table.rows[schema.inputs].to_dict("records"):
            try:
                found.append(_complete(schema.numbers(record), schema))
                reasons.append("")
            except ValueError as error:
                found.append(None)
                reasons.append(str(error))
        widths = {len(sample) for sample in found if sample is not None}
        schema = replace(schema, width=widths.pop() if len(widths) == 1 else None)
        if schema.width is None and options_of(args, InputOptions).standardise is None:
            schema = replace(schema, standardise="all")
        elif schema.width is None and schema.standardise == "each":
            raise FPTError("--standardise each needs rows of equally many numbers; pass --standardise all")
        return schema, found, reasons

    def fitted(self, schema: Schema, train: Sequence[Any]) -> Schema:
        """Mean and deviation of each number, or of all, over the training rows."""
        return schema.fit(train)

    def raw_columns(self, samples: Sequence[Any], schema: Schema) -> dict[str, list[Any]]:
        """Standardised numbers."""
        return {"numbers": [schema.standardised(sample) for sample in samples]}

    def read_row(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        """As the training rows were read."""
        if self.schema is None:
            return super().read_row(cells)
        return {"numbers": self.schema.standardised(_complete(self.schema.numbers(cells), self.schema))}

    def read(self, text: str) -> dict[str, Any]:
        """Of a checkpoint from before there were schemas: all numbers of one cell, standardised by the input."""
        words = text.strip("[] ").replace(",", " ").replace(";", " ").split()
        try:
            numbers = np.array([float(word) for word in words], dtype=np.float32)
        except ValueError as error:
            raise ValueError("not all are numbers") from error
        if not len(numbers) or not np.isfinite(numbers).all():
            raise ValueError("no numbers, or one that is not finite")
        return {"numbers": numbers}

    def dim(self, args: DataArguments) -> int:
        """Numbers in a token."""
        numbers = options_of(args, InputOptions).numbers_per_token
        if not 1 <= numbers <= MOST_NUMBERS:
            raise FPTError(f"--numbers_per_token {numbers} must be between 1 and {MOST_NUMBERS:,}")
        if args.longest < 1:
            raise FPTError(f"--max_length {args.longest} leaves no token")
        return numbers

    def input(self, args: DataArguments) -> Patches:
        """Numbers that are standardised already."""
        return Patches(self.dim(args))

    def encode(
        self, rows: dict[str, list[Any]], args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
    ) -> dict[str, list[Any]]:
        """Cut numbers into tokens; the last token is filled with zeros. ``cut``: there were more than --max_length tokens."""
        dim = self.dim(args)

        def one(numbers: Any) -> np.ndarray:
            kept = np.asarray(numbers, dtype=np.float32)[: args.longest * dim]
            return np.pad(kept, (0, -len(kept) % dim))

        return {
            **encode_each(rows["numbers"], one, dim, np.float32),
            "cut": [len(numbers) > args.longest * dim for numbers in rows["numbers"]],
        }


def _complete(numbers: np.ndarray, schema: Schema) -> np.ndarray:
    """Numbers of a row; missing ones are allowed where the mean takes their place.

    Raises:
        ValueError: a number is missing and the mean does not take its place, or all are.
    """
    missing = np.isnan(numbers)
    if not missing.any():
        return numbers
    if missing.all():
        raise ValueError("no value in any column")
    if schema.missing != "mean":
        inputs = schema.inputs
        names = [inputs[i] for i in np.flatnonzero(missing)] if len(inputs) == len(numbers) else []
        raise ValueError(f"no value in {', '.join(repr(printable(n, 30)) for n in names[:3]) or 'a place of the list'}")
    return numbers


class FileRows(OwnTask):
    """Rows that name files, or hold their bytes."""

    raw_column: str

    def hash_files(self, raw: Raw, log: Log) -> None:
        """Another picture under the same name is another sample, and the same picture under two names is one."""
        if SHA in raw.table.rows:
            return
        files = [beside(cell, raw.table.folder) for cell in raw.table.rows[raw.column("input") or ""]]
        log(f"hashing {len(files):,} files")
        with ThreadPoolExecutor(8) as pool:
            raw.table.rows[SHA] = pd.Series(list(pool.map(_sha, files)), index=raw.table.rows.index, dtype=object)

    def samples(self, raw: Raw, schema: Schema, args: DataArguments) -> tuple[Schema, list[Any], list[str]]:
        """Names of files; they are opened by `encode`."""
        (column,) = schema.inputs
        found = [beside(cell, raw.table.folder) for cell in raw.table.rows[column]]
        if any(isinstance(cell, bytes) for cell in found) and any(isinstance(cell, str) for cell in found):
            raise FPTError(f"column {column!r} holds both files' names and their bytes; write all rows in one way")
        return schema, found, ["" if cell is not None else "no file is named" for cell in found]

    def raw_columns(self, samples: Sequence[Any], schema: Schema) -> dict[str, list[Any]]:
        """Names of files, or their bytes."""
        return {self.raw_column: list(samples)}


def beside(cell: Any, folder: Path | None) -> Any:
    """A file's name or bytes; a relative name is looked for in `folder` first. None where there is neither."""
    if isinstance(cell, bytes):
        return cell
    name = fs_name(cell_text(cell).strip())
    if name and folder and not name.startswith("file://"):
        try:
            near = folder / Path(name).expanduser()
            return near.absolute().as_uri() if near.exists() else name
        except (OSError, RuntimeError, ValueError):  # too long, of a user that there is not, or with a NUL
            return name
    return name or None


def _sha(cell: Any) -> str:
    """Hash of a file's content; of its name where it can't be read."""
    try:
        data = cell if isinstance(cell, bytes) else read_file(cell) if cell else b""
    except ValueError:
        data = b"unreadable " + cell.encode("utf-8", "surrogateescape")
    return hashlib.sha256(data).hexdigest()


class PictureRows(FileRows, ImageTask):
    """Pictures."""

    input_types = ("image",)
    raw_column = "image"

    def shape(self, args: DataArguments) -> tuple[int, int, int]:
        """As the options say."""
        o = options_of(args, ResizeOptions)
        size = o.image_size
        if not 1 <= size <= 1024:
            raise FPTError(f"--image_size {size} must be between 1 and 1024")
        return size, size, 1 if o.gray else 3


class SoundRows(FileRows, AudioTask):
    """Sounds."""

    input_types = ("audio",)
    raw_column = "sound"

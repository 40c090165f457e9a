"""What each column of a user's table is for: inferred once, reported at the start of every run, kept in the checkpoint, obeyed by
predictions. Every guess has a flag that overrides it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from fpt.data.labels import LabelSchema
from fpt.data.numerals import MISSING, POINT, is_missing, is_number, number_of, numbers_of
from fpt.data.table import cell_text, printable
from fpt.errors import FPTError
from fpt.untrusted.typed import as_type

NUMBERS = "numbers"
# Column that a Hub dataset's or a folder's own splits are kept in.
SPLIT = "__split__"
# A list of numbers: brackets, semicolons, or white space between digits.
LIST = re.compile(r"^[\[({]|;|\d\s+[+\-\u2212]?[\d.]")
# How missing numbers of inputs are handled.
POLICIES = ("drop", "error", "mean")
STANDARDISE = ("each", "all")
# Truth values as text, as typed files have them as 1 and 0.
TRUTH = {"true": 1.0, "false": 0.0}
# Column with the hash of a file's content.
SHA = "__sha__"


@dataclass(frozen=True)
class ColumnSchema:
    """One column.

    Attributes:
        role: input, vector (a number beside the input), label, id, split, group or ignored.
        type: text, smiles, protein, number, image, audio, classes or multilabel; empty where it does not matter.
        guessed: whether no flag named it.
        missing: cells without a value.
        mean, std: of numbers, over the rows of the train split; of each place of a list where there are several.
    """

    name: str
    role: str
    type: str = ""
    guessed: bool = False
    missing: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if (
            len(self.mean) != len(self.std)
            or not all(map(math.isfinite, (*self.mean, *self.std)))
            or min(self.std, default=1) <= 0
        ):
            raise ValueError(f"mean and std of column {self.name[:50]!r} are not as many finite numbers, std above 0")


@dataclass(frozen=True)
class Schema:
    """A table as it is read.

    Attributes:
        format: of the file; JSON values.
        decimal: the decimal separator of its numbers.
        missing: what happens to rows with a missing number: one of `POLICIES`, or None: as drop, within --max_bad_fraction.
        missing_values: texts that mean no value; None: the usual ones.
        width: numbers of a sample; None for texts, pictures and sounds, and where samples have different lengths.
        standardise: "each" number of a sample by its own mean and deviation, or "all" by one.
        lists: whether the only input column of numbers holds lists.
    """

    columns: tuple[ColumnSchema, ...]
    format: dict[str, Any] = field(default_factory=dict)
    label: LabelSchema | None = None
    decimal: str = POINT
    missing: str | None = None
    missing_values: tuple[str, ...] | None = None
    width: int | None = None
    standardise: str = "each"
    lists: bool = False

    def __post_init__(self) -> None:
        if self.decimal not in (POINT, ",") or self.missing not in (None, *POLICIES) or self.standardise not in STANDARDISE:
            raise ValueError("a decimal separator, a rule for missing values or a way to standardise that is not known")
        if self.width is not None and self.width < 1:
            raise ValueError(f"a width of {self.width}")
        moments = sum(len(column.mean) for column in self.of("input"))
        if moments not in (0, 1) and moments != self.width:
            raise ValueError(f"{moments} means for samples of {self.width} numbers")
        if any(len(column.mean) > 1 for column in self.of("vector")):
            raise ValueError("a column of one number has several means")

    def with_lists(self, cells: Sequence[Any], decimal_given: bool) -> Schema:
        """Decide whether the only input column holds lists or numbers.

        Raises:
            FPTError: a cell may be either.
        """
        (column,) = self.of("input")
        texts = [cell.strip() for cell in cells if isinstance(cell, str) and not is_missing(cell, self.marks)]
        typed = any(isinstance(cell, (list, tuple, np.ndarray)) for cell in cells)
        if typed or any(LIST.search(text) or ("," in text and not is_number(text, self.decimal)) for text in texts):
            return replace(self, lists=True)
        pair = next((text for text in texts if "," in text), None)
        if pair and not decimal_given:
            raise FPTError(
                f"column {column.name!r}: {printable(pair)!r} may be one number or a list of them; pass --decimal . or"
                " --decimal , for numbers, or put lists in brackets"
            )
        return self

    def of(self, role: str) -> list[ColumnSchema]:
        """Columns of a role, in their order."""
        return [column for column in self.columns if column.role == role]

    @property
    def inputs(self) -> list[str]:
        """Names of the input columns, in the order the model reads them."""
        return [column.name for column in self.of("input")]

    @property
    def vectors(self) -> list[str]:
        """Names of the columns whose numbers are a part of the sample's first token, in the order the model reads them."""
        return [column.name for column in self.of("vector")]

    @property
    def marks(self) -> tuple[str, ...]:
        """Lower-case texts that mean no value."""
        return MISSING if self.missing_values is None else ("", *self.missing_values)

    def numbers(self, cells: Mapping[str, Any]) -> np.ndarray:
        """The numbers of a sample's input columns, float64; nan where a value is missing.

        Raises:
            ValueError: a cell does not hold a number, with the column's name, or there are not as many as the model needs.
        """
        columns = self.of("input")
        values: list[float] = []
        for column in columns:
            values += self._cell(cells[column.name], column.name)
        if self.width is not None and len(values) != self.width:
            raise ValueError(f"{len(values)} numbers where the other samples have {self.width}")
        return np.array(values, dtype=np.float64)

    def number(self, cell: Any, name: str) -> float:
        """The number of a cell of the column `name`; nan where it is missing.

        Raises:
            ValueError: it does not hold a number, with the column's name.
        """
        (number,) = replace(self, lists=False)._cell(cell, name)
        return number

    def _cell(self, cell: Any, name: str) -> list[float]:
        try:
            if isinstance(cell, (list, tuple, np.ndarray)):
                if not self.lists:
                    raise ValueError("a list where one number belongs")
                parts = np.asarray(cell, dtype=object).ravel()
                if not len(parts):
                    raise ValueError("no numbers")
                return [np.nan if is_missing(cell_text(part), self.marks) else number_of(part, self.decimal) for part in parts]
            text = cell_text(cell)
            if is_missing(text, self.marks):
                return [np.nan]
            if self.lists and isinstance(cell, str):
                return numbers_of(text, self.decimal, self.marks)
            return [TRUTH[text.strip().lower()] if text.strip().lower() in TRUTH else number_of(cell, self.decimal)]
        except ValueError as error:
            raise ValueError(f"{error} (column {name!r})") from error

    def fit(self, samples: Sequence[np.ndarray]) -> Schema:
        """With mean and deviation of the training samples, each an array of its numbers."""
        from sklearn.preprocessing import StandardScaler

        columns = self.of("input")
        each = self.width is not None and self.standardise == "each"
        scaler, rows = StandardScaler(), 1024
        for start in range(0, len(samples), rows):
            part = samples[start : start + rows]
            scaler.partial_fit(np.stack(part) if each else np.concatenate(part)[:, None])
        # sklearn keeps 1 for a number that never changes; a tiny deviation is a deviation all the same.
        mean, std = (np.nan_to_num(found).tolist() for found in (scaler.mean_, np.sqrt(scaler.var_)))
        floor = [abs(m) * 1e-12 for m in mean]
        std = [s if s > f else 1.0 for s, f in zip(std, floor, strict=True)]
        per = 1 if each and len(columns) > 1 else len(mean)
        fitted = [
            replace(column, mean=tuple(mean[i * per : (i + 1) * per]), std=tuple(std[i * per : (i + 1) * per]))
            for i, column in enumerate(columns if each else columns[:1])
        ]
        kept = fitted + (columns[1:] if not each else [])
        inputs = iter(kept)
        return replace(self, columns=tuple(next(inputs) if c.role == "input" else c for c in self.columns))

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """Numbers of a sample in units of the training deviation around the mean, fp32; a missing one becomes the mean."""
        columns = self.of("input")
        mean, std = (np.array([v for c in columns for v in getattr(c, name)], dtype=np.float64) for name in ("mean", "std"))
        return np.nan_to_num((values - mean) / std, nan=0.0).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """JSON values that `schema_from_dict` reads."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A short table for people."""
        out = [
            f"file      {', '.join(f'{k} {v}' for k, v in self.format.items() if v)}" + (self.decimal == ",") * ", decimal comma"
        ]
        inputs = self.of("input")
        for column in inputs[:12]:
            out.append(f"input     `{printable(column.name)}`: {_number_text(column)}{_guessed(column, '--input_column')}")
        if len(inputs) > 12:
            out.append(f"input     … and {len(inputs) - 12} more")
        out += [f"vector    `{printable(column.name)}`: {_number_text(column)}" for column in self.of("vector")[:12]]
        if (more := len(self.of("vector")) - 12) > 0:
            out.append(f"vector    … and {more} more")
        for column in self.of("label"):
            what = self.label.describe() if self.label else ""
            missing = f"; {column.missing:,} rows without a label" if column.missing else ""
            out.append(f"label     `{printable(column.name)}`: {what}{missing}{_guessed(column, '--label_column')}")
        for role in ("id", "split", "group"):
            out += [f"{role:<10}`{printable(c.name)}`{_guessed(c, f'--{role}_column')}" for c in self.of(role) if c.name != SPLIT]
        ignored = [printable(column.name, 30) for column in self.of("ignored")]
        if ignored:
            out.append(f"ignored   {', '.join(ignored[:12])}{f', … ({len(ignored) - 12} more)' if len(ignored) > 12 else ''}")
        return out


def _guessed(column: ColumnSchema, flag: str) -> str:
    return f" (guessed; {flag})" if column.guessed else ""


def _number_text(column: ColumnSchema) -> str:
    missing = f", {column.missing:,} missing" if column.missing else ""
    if not column.mean:
        return column.type + missing
    if len(column.mean) == 1:
        return f"{column.type}, mean {column.mean[0]:.6g}, deviation {column.std[0]:.6g}{missing}"
    return f"{len(column.mean)} numbers, each with its mean and deviation{missing}"


def schema_from_dict(values: Mapping[str, Any]) -> Schema:
    """The schema that `Schema.to_dict` described.

    Raises:
        FPTError: the values are not those of a schema.
    """
    return as_type(Schema, dict(values), "schema")

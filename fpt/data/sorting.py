"""Rows of a user's table, sorted into those that are used, those that can't be, and those that are left out on purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from fpt.args import DataArguments
from fpt.data import duplicates
from fpt.data.labels import LabelOptions, Labels, read_labels
from fpt.data.numerals import is_missing
from fpt.data.rejected import check_rejected, count_reasons, rejected_rows
from fpt.data.schema import ColumnSchema, Schema
from fpt.data.splits import AUTO, GIVEN, Parts, Rows, make_parts, split_name
from fpt.data.table import Bad, Table, cell_text, printable
from fpt.errors import FPTError, RejectedRows

# Column with the hash of a file's content.
SHA = "__sha__"


@dataclass
class Raw:
    """A table and what its columns are for; what `OwnTask.locate` finds."""

    table: Table
    columns: tuple[ColumnSchema, ...]

    def __len__(self) -> int:
        return len(self.table.rows) + len(self.table.rejected)

    def column(self, role: str) -> str | None:
        """Name of the only column of a role."""
        return next((column.name for column in self.columns if column.role == role), None)

    def cells(self, role: str) -> list[Any]:
        """Its cells; empty texts where there is no such column."""
        name = self.column(role)
        return [""] * len(self.table.rows) if name is None else list(self.table.rows[name])

    def texts(self, role: str) -> list[str]:
        """Its cells as text."""
        return [cell_text(cell).strip() for cell in self.cells(role)]

    def sha256(self) -> str:
        """Hash of all that is read, whatever the file format."""
        digest = hashlib.sha256()
        used = [c.name for c in self.columns if c.role != "ignored"]
        # Files by their content: where they are does not matter.
        used = [SHA if SHA in self.table.rows and c == self.column("input") else c for c in used]
        digest.update("\x1e".join(used).encode("utf-8", "backslashreplace"))
        for record in self.table.rows[used].itertuples(index=False, name=None):
            digest.update(("\x1e" + "\x1f".join(_digest_text(cell) for cell in record)).encode("utf-8", "backslashreplace"))
        return digest.hexdigest()


def _digest_text(cell: Any) -> str:
    return hashlib.sha256(cell).hexdigest() if isinstance(cell, bytes) else cell_text(cell)


def missing_values(args: DataArguments) -> tuple[str, ...] | None:
    """Lower-case texts that mean no value, when the user names them."""
    given = args.options["missing_values"]
    return None if given is None else tuple(word.strip().lower() for word in given.split(","))


class Sorter:
    """Sorts rows into those that are used, those that can't be (with the reason), and those that are left out on purpose."""

    def __init__(self, raw: Raw, args: DataArguments, name: str) -> None:
        self.raw, self.args, self.name = raw, args, name
        names = raw.texts("id")
        # Ids of rows count from 1 as people do; those of a user's own column are theirs.
        own = raw.column("id") is not None
        self.ids = [printable(t, 500) if own else f"row-{n}" for t, n in zip(names, raw.table.rows.index, strict=True)]
        self.given = raw.texts("split")
        self.has_given = raw.column("split") is not None
        self.bad: dict[int, str] = {}
        self.out: dict[int, str] = {}
        self.notes = [f"{count:,} {what}" for what, count in raw.table.odd.items()]
        self.fresh_labels: dict[int, float] = {}

    @property
    def open(self) -> list[int]:
        """Rows that are still in use."""
        return [i for i in range(len(self.ids)) if i not in self.bad and i not in self.out]

    def reject(self, reasons: Sequence[str]) -> None:
        """Note rows that can't be used; those with missing values go as --missing says."""
        policy = self.args.options["missing"]
        for row, reason in enumerate(reasons):
            if not reason or row in self.out:
                continue
            is_missing_value = reason.startswith(("no value", "no label"))
            if is_missing_value and policy == "error":
                raise FPTError(f"row {self.ids[row]}: {reason}; --missing error allows none")
            (self.out if is_missing_value and policy == "drop" else self.bad).setdefault(row, reason)

    def set_aside_hidden(self) -> None:
        """Splits whose labels are all withheld (empty, or -1 as benchmarks write it) have nothing to score."""
        if not self.has_given or self.args.split not in (AUTO, GIVEN):
            return
        marks = missing_values(self.args)
        texts = [
            text if not is_missing(text, marks or ("", "na", "nan", "none", "null")) else "" for text in self.raw.texts("label")
        ]
        by_split: dict[str, list[int]] = {}
        for row, name in enumerate(self.given):
            by_split.setdefault(name, []).append(row)
        train = {texts[row] for name, rows in by_split.items() if split_name(name) == "train" for row in rows}
        for name, rows in by_split.items():
            found = {texts[row] for row in rows}
            if split_name(name) != "train" and (found <= {""} or (found <= {"", "-1", "-1.0"} and not train & {"-1", "-1.0"})):
                self.out |= {row: f"no label in the whole split {name!r}" for row in rows if row not in self.bad}
                self.notes.append(f"the split {name!r} has {len(rows):,} rows and no labels: it is not used")

    def labels(self, schema: Schema) -> Labels:
        """Labels of all rows; rows that are not in use have none."""
        o, name = self.args.options, self.raw.column("label") or ""
        cells = self.raw.cells("label")
        used = set(self.open)
        options = LabelOptions(
            o["label_type"],
            o["positive_label"],
            o["label_delimiter"],
            o["label_case"],
            missing_values(self.args),
            named=self.raw.table.kinds.get(name) == "classes",
        )
        if not used:
            raise self.nothing_left()
        known = read_labels([cells[i] for i in sorted(used)], options, name, schema.decimal)
        values: list[Any] = [None] * len(cells)
        reasons = [""] * len(cells)
        for row, value, reason in zip(sorted(used), known.values, known.reasons, strict=True):
            values[row], reasons[row] = value, reason
        self.reject(reasons)
        return Labels(known.schema, values, reasons, known.notes)

    def deduplicate(self, keys: Sequence[Hashable], labels: Labels) -> None:
        """Leave repetitions out, when that is asked for."""
        if not self.args.options["deduplicate"]:
            return
        rows = self.open
        given = [split_name(self.given[i]) for i in rows] if self.args.split in (AUTO, GIVEN) else [""] * len(rows)
        cleaned = duplicates.deduplicate(
            [keys[i] for i in rows],
            [labels.values[i] for i in rows],
            given,
            labels.schema.kind == "number",
            [self.ids[i] for i in rows],
        )
        self.out |= {rows[i]: reason for i, reason in cleaned.dropped.items()}
        for i, value in cleaned.labels.items():
            labels.values[rows[i]] = value

    def parts(self, args: DataArguments, seed: int, labels: Labels, smiles: Sequence[str] | None) -> Parts:
        """Splits of the rows in use, as row numbers of the table."""
        rows = np.array(self.open, dtype=np.int64)
        if not len(rows):
            raise self.nothing_left()
        rejected = self.rejected()
        check_rejected(rejected, len(rows) + len(rejected), args.max_bad_fraction, self.name)
        values = [labels.values[i] for i in rows]
        strata, names = _strata(values, labels)
        groups = None
        if self.raw.column("group") is not None:
            texts = self.raw.texts("group")
            groups = [texts[i] or f"row {i} alone" for i in rows]
        info = Rows([self.given[i] for i in rows], strata, names, None if smiles is None else [smiles[i] for i in rows], groups)
        parts = make_parts(info, args.split or AUTO, seed, self.has_given)
        self.out |= {int(rows[i]): reason for i, reason in parts.unused.items()}
        return replace(parts, rows={name: rows[part] for name, part in parts.rows.items()}, unused={})

    def nothing_left(self) -> RejectedRows:
        """The error that tells why no row can be used."""
        rows = pd.concat([self.rejected(), self.unused()], ignore_index=True)
        kinds = "; ".join(count_reasons(rows)[:4])
        return RejectedRows(f"none of {len(rows):,} rows of {self.name} can be used: {kinds}. Correct them.", rows)

    def rejected(self) -> pd.DataFrame:
        """Rows that can't be used."""
        return _listed([*self.raw.table.rejected, *self._bad(self.bad)])

    def unused(self) -> pd.DataFrame:
        """Rows that are left out on purpose."""
        return _listed(self._bad(self.out))

    def _bad(self, which: Mapping[int, str]) -> list[Bad]:
        numbers, inputs = list(self.raw.table.rows.index), [c.name for c in self.raw.columns if c.role == "input"]
        shown = self.raw.table.rows[inputs]
        out = []
        for row, reason in sorted(which.items()):
            text = " | ".join("" if isinstance(cell, bytes) else cell_text(cell) for cell in shown.iloc[row])
            out.append(Bad(int(numbers[row]), self.ids[row], printable(text, 200), reason))
        return out


def _strata(values: Sequence[Any], labels: Labels) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """What a stratified split keeps the shares of: classes, or groups of numbers of like size; sets of labels have none."""
    if labels.schema.kind == "multilabel":
        return None, ()
    if labels.schema.kind == "classes":
        return np.array(values, dtype=np.int64), labels.schema.names
    ranks = pd.Series(values, dtype=float).rank(method="first")
    return pd.qcut(ranks, min(10, max(2, len(values) // 20)), labels=False, duplicates="drop").to_numpy(), ()


def _listed(bad: Sequence[Bad]) -> pd.DataFrame:
    return rejected_rows([{"row": b.row, "id": b.id, "text": b.text, "reason": b.reason} for b in bad])

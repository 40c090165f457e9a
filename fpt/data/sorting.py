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
from fpt.data.classes import LabelOptions
from fpt.data.labels import Labels, read_labels
from fpt.data.numerals import MISSING, is_missing, is_number, number_of, plain
from fpt.data.own_options import OwnOptions
from fpt.data.rejected import check_rejected, count_reasons, rejected_rows
from fpt.data.schema import SHA, ColumnSchema, Schema
from fpt.data.splits import AUTO, GIVEN, Parts, Rows, make_parts, split_name
from fpt.data.table import Bad, Table, cell_text, printable
from fpt.errors import FPTError, RejectedRows
from fpt.options import options_of

# How benchmarks write a label that is withheld.
HIDDEN = ("-1", "-1.0")
# Reasons of rows that lack a value, which --missing decides on.
NO_VALUE = ("no value", "no label", "empty ", "no file is named")


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
    given = options_of(args, OwnOptions).missing_values
    if given is None:
        return None
    words = [word.strip().lower() for word in given.split(",")]
    # -999 is also written -999.0.
    numbers = [float(word) for word in words if is_number(word)]
    return (*words, *(text for n in numbers for text in (plain(n), repr(n), *(f"{n:.{digits}f}" for digits in (1, 2, 3, 4)))))


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
        policy = options_of(self.args, OwnOptions).missing
        for row, reason in enumerate(reasons):
            if not reason or row in self.out:
                continue
            is_missing_value = reason.startswith(NO_VALUE)
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
        whole = all(text in ("", *HIDDEN) or (is_number(text) and number_of(text) >= 0) for text in texts)
        named = self.raw.table.kinds.get(self.raw.column("label") or "") == "classes"
        for name, rows in by_split.items():
            if split_name(name) == "train":
                continue
            found = {texts[row] for row in rows} - {""}
            hidden = set(HIDDEN) if not train & set(HIDDEN) else set()
            if found <= hidden:
                self._leave_out(rows, f"no label in the whole split {name!r}")
                self.notes.append(f"the split {name!r} has {len(rows):,} rows and no labels: it is not used")
            elif whole and found & hidden:
                self._leave_out([row for row in rows if texts[row] in HIDDEN], "no label (-1)")
            elif named and train and not found & train:
                self._leave_out(rows, f"in the split {name!r}, none of whose classes is in train")
                shown = ", ".join(printable(text, 30) for text in sorted(found)[:3])
                self.notes.append(f"the split {name!r} has no class of train, only {shown}: it is not used")

    def _leave_out(self, rows: Sequence[int], reason: str) -> None:
        self.out |= {row: reason for row in rows if row not in self.bad}

    def labels(self, schema: Schema) -> Labels:
        """Labels of all rows; rows that are not in use have none."""
        o, name = options_of(self.args, OwnOptions), self.raw.column("label") or ""
        cells = self.raw.cells("label")
        used = set(self.open)
        options = LabelOptions(
            o.label_type,
            o.positive_label,
            o.label_delimiter,
            o.label_case,
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
        if not options_of(self.args, OwnOptions).deduplicate:
            return
        kept = self.has_given and self.args.split in (AUTO, GIVEN)
        # Rows of splits that are not used say nothing of the others.
        rows = [i for i in self.open if not kept or split_name(self.given[i])]
        given = [split_name(self.given[i]) if kept else "" for i in rows]
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
            groups = self.groups(rows)
        info = Rows([self.given[i] for i in rows], strata, names, None if smiles is None else [smiles[i] for i in rows], groups)
        parts = make_parts(info, args.split or AUTO, seed, self.has_given)
        self.out |= {int(rows[i]): reason for i, reason in parts.unused.items()}
        return replace(parts, rows={name: rows[part] for name, part in parts.rows.items()}, unused={})

    def groups(self, rows: np.ndarray) -> list[str]:
        """The group of each row; 7 and 7.0 are one, and a row without one is a group of its own."""
        marks = missing_values(self.args) or MISSING
        texts = ["" if is_missing(text, marks) else text for text in self.raw.texts("group")]
        if alone := sum(not texts[i] for i in rows):
            self.notes.append(f"{alone:,} rows have no group: each is one by itself")
        return [(plain(number_of(texts[i])) if is_number(texts[i]) else texts[i]) or f"row {i} alone" for i in rows]

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

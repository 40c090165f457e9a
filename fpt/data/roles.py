"""What each column of a table is for: as flags say, or as names and cells show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from fpt.data.numerals import MISSING, is_missing, is_number, number_of
from fpt.data.schema import NUMBERS, SHA, SPLIT, TRUTH, ColumnSchema
from fpt.data.splits import split_name
from fpt.data.table import Table, cell_text
from fpt.errors import FPTError, did_you_mean

LABEL_NAMES = ("label", "labels", "target", "y", "class", "outcome")
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "fold")
# An index of refraction is a measurement, a column that is called index is not.
ID_NAME = re.compile(
    r"(?:.*[_ .-])?(?:id|ids|uid|uuid)|idx|index|row|row[_ ]?(?:number|index)|number|no\.?|unnamed: \d+.*|column_\d+"
    r"|__index_level_\d+__|name|file_name|.*(?<=[a-z])(?:ID|Id)"
)
HEADER = " (the first line must name the columns)"
# Share of numbers in a column that is taken for one of them.
NUMERIC = 0.9


@dataclass(frozen=True)
class Roles:
    """Columns as the flags name them; None where a flag is not given. An empty `id`, `split` or `group` means: no such column."""

    inputs: str | None = None
    label: str | None = None
    id: str | None = None
    split: str | None = None
    group: str | None = None
    vector: str | None = None


def assign_roles(
    table: Table, roles: Roles, input_type: str, known_inputs: Sequence[str], whose: str, marks: Sequence[str] = MISSING
) -> tuple[ColumnSchema, ...]:
    """Decide what each column is for.

    Args:
        known_inputs: usual names of an input of this type.
        whose: the data's name, for messages.
        marks: lower-case texts that mean no value.

    Raises:
        FPTError: a flag names a column that is not there, or one is needed.
    """
    names = [str(name) for name in table.rows.columns]
    label = _named(names, roles.label, "--label_column", whose) or _one_of(names, LABEL_NAMES)
    vectors = _several(names, roles.vector, "--vector_columns", whose)
    group = _named(names, roles.group, "--group_column", whose)
    split = _named(names, roles.split, "--split_column", whose) if roles.split is not None else _split_column(table)
    inputs = _inputs(names, roles.inputs, input_type, whose)
    if roles.id is None:
        taken = {*inputs, *vectors, label, group, split}
        row_id = next((name for name in names if name not in taken and _is_id(table.rows[name], name)), None)
    else:
        row_id = _named(names, roles.id, "--id_column", whose)
    left = [
        name for name in names if name not in {label, split, row_id, SPLIT, SHA, *vectors} and (name != group or roles.inputs)
    ]
    guessed = not inputs
    inputs = inputs or _guess_inputs(table, left, input_type, known_inputs, whose, marks)
    if label is None:
        raise FPTError(
            f"{whose} has no column that is surely the label; give --label_column, one of {_listed(names, inputs)}{HEADER}"
        )
    if label in inputs:
        raise FPTError(f"column {label!r} is both --input_column and --label_column of {whose}; give two different ones")
    kind = "number" if input_type == NUMBERS else input_type
    found = [ColumnSchema(name, "input", kind, guessed) for name in inputs]
    for role, name, given in (
        ("label", label, roles.label),
        ("group", group, roles.group),
        ("split", split, roles.split),
        ("id", row_id, roles.id),
    ):
        if name is not None and role != "label" and name == label:
            raise FPTError(f"column {name!r} of {whose} is both the label and --{role}_column; give two different ones")
        if name is not None and name in vectors:
            flag = f"--{role}_column" if given else f"the {role}"
            raise FPTError(f"column {name!r} of {whose} is both {flag} and one of --vector_columns; leave it out of these")
        if name is not None:
            found.append(ColumnSchema(name, role, guessed=given is None and name != SPLIT))
    if both := [name for name in vectors if name in inputs]:
        raise FPTError(f"column {both[0]!r} of {whose} is both the input and one of --vector_columns; leave it out of these")
    found += [ColumnSchema(name, "vector", "number") for name in vectors]
    used = {column.name for column in found}
    return (*found, *(ColumnSchema(name, "ignored") for name in names if name not in used and name != SHA))


def _listed(names: Sequence[str], taken: Sequence[str] = ()) -> str:
    return ", ".join(name for name in names if not name.startswith("__") and name not in taken) or "none is left"


def _named(names: Sequence[str], name: str | None, flag: str, whose: str) -> str | None:
    if not name:
        return None
    if flag == "--label_column" and "," in name and all(part.strip() in names for part in name.split(",")):
        raise FPTError(f"{flag} {name!r}: name one column; several labels of a row belong in one cell, as a|b")
    if name.strip() not in names:
        mixed = "; is --delimiter right?" if any(name in one and name != one for one in names) else ""
        raise FPTError(
            f"{whose} has no column {name!r}{did_you_mean(name, names)}; give {flag}, one of {', '.join(names)}{mixed}"
        )
    return name.strip()


def _one_of(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    found = [name for name in names if name.casefold() in wanted]
    return found[0] if len(found) == 1 else None


def _split_column(table: Table) -> str | None:
    """The column of the data's own splits: named so, with nothing in it but names of splits."""
    if SPLIT in table.rows:
        return SPLIT
    for name in table.rows.columns:
        if str(name).casefold() in SPLIT_COLUMNS:
            values = {cell_text(cell).strip() for cell in table.rows[name]} - {""}
            named = {split_name(value) for value in values} - {""}
            # Rows of other names ("exclude") are not used, and counted.
            if len(named) > 1 or (named and all(split_name(value) for value in values)):
                return str(name)
    return None


def _id_like(cells: pd.Series, name: str) -> bool:
    """Whether a column is named as an id; numbers with a fraction are measurements all the same."""
    if not ID_NAME.fullmatch(name) and not ID_NAME.fullmatch(name.casefold()):
        return False
    return not any(is_number(cell) and number_of(cell) % 1 for cell in cells)


def _is_id(cells: pd.Series, name: str) -> bool:
    if not _id_like(cells, name):
        return False
    texts = [cell_text(cell).strip() for cell in cells]
    return all(texts) and len(set(texts)) == len(texts)


def _inputs(names: Sequence[str], given: str | None, input_type: str, whose: str) -> list[str]:
    if given and input_type != NUMBERS:
        return [name for name in [_named(names, given, "--input_column", whose)] if name]
    return _several(names, given, "--input_column", whose)


def _several(names: Sequence[str], given: str | None, flag: str, whose: str) -> list[str]:
    """The columns that a flag names, separated by commas."""
    if not given:
        return []
    if given.strip() in names:
        return [given.strip()]
    wanted = [name.strip() for name in given.split(",")]
    if len(set(wanted)) < len(wanted):
        raise FPTError(f"{flag} {given!r} names a column twice")
    return [name for one in wanted if (name := _named(names, one, flag, whose))]


def _guess_inputs(
    table: Table, left: Sequence[str], input_type: str, known: Sequence[str], whose: str, marks: Sequence[str]
) -> list[str]:
    typed = [name for name in left if table.kinds.get(name) == input_type]
    if len(typed) == 1:
        return typed
    if input_type == NUMBERS:
        # Row numbers, folds and copies of the label are no measurements.
        odd = {*LABEL_NAMES, *SPLIT_COLUMNS}
        names = [n for n in left if n.casefold() not in odd and not _id_like(table.rows[n], n)]
        found = [name for name in names if _mostly_numbers(table.rows[name], marks)] or (names if len(names) == 1 else [])
    else:
        found = [n for n in left if n.casefold() in {name.casefold() for name in known}][:1] or (
            list(left) if len(left) == 1 else []
        )
    if not found:
        raise FPTError(f"{whose}: which column holds the input? Give --input_column, one of {_listed(left)}")
    return found


def _mostly_numbers(cells: pd.Series, marks: Sequence[str]) -> bool:
    """Whether a column holds numbers; a few cells may be anything: their rows are rejected one by one."""
    known = [cell for cell in cells if not is_missing(cell_text(cell), marks)]
    truth = (cell_text(cell).strip().lower() in TRUTH for cell in known)
    numeric = sum(yes or is_number(cell, ".") or is_number(cell, ",") for yes, cell in zip(truth, known, strict=True))
    return bool(known) and numeric >= NUMERIC * len(known)

"""What the cells of a label column are: classes, numbers, or sets of classes. Inferred once on all rows, reported and kept."""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fpt.data.classes import LEADING_ZERO, LabelOptions, as_label, in_order, one_name_each
from fpt.data.numerals import COMMA, MISSING, POINT, is_missing, is_number, number_of
from fpt.data.table import cell_text, printable
from fpt.errors import FPTError, did_you_mean

KINDS = ("classes", "number", "multilabel")
# More different whole numbers than this are quantities, unless they number classes from 0 or 1 on.
MANY = 20
# Numbers of classes that a table numbers from 0 or 1 have so many rows each, and none has so many times the rows of another.
ROWS_PER_CLASS, UNEVEN = 3, 20
# Texts of labels that mean no label only in a column of numbers: + and - are classes elsewhere.
MARKS = ("-", "?", ".")
SEPARATORS = ("|", ";", ",")
# A number of which only a bound is known, and one with a unit or a sign that is not one.
CENSORED = re.compile(r"[<>≤≥~]=?\s*[+-]?\d[\d.,]*")
UNIT = re.compile(r"[$€£]?\s*[+-]?\d[\d.,]*\s*(?:%|[a-zA-Zµ][a-zA-Z/]{0,5})?")


@dataclass(frozen=True)
class LabelSchema:
    """The label column as it was understood; JSON values.

    Attributes:
        kind: one of `KINDS`.
        names: classes in the order of the model's output; of two the second is the positive one.
        counts: rows of each.
        given: whether --label_type named the kind.
        positive: of two classes.
        delimiter: of several labels in one cell.
        low, high: of numbers.
    """

    kind: str
    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    given: bool = False
    positive: str | None = None
    delimiter: str | None = None
    low: float | None = None
    high: float | None = None

    def describe(self) -> str:
        """A line for people."""
        if self.kind == "number":
            span = "" if self.low is None else f" from {self.low:.10g} to {self.high:.10g}"
            return f"number{span}" + ("" if self.given else " (--label_type classes to read each value as a class)")
        order = sorted(zip(self.names, self.counts, strict=True), key=lambda pair: (pair[0] != self.positive, 0))
        shown = ", ".join(f"{printable(name, 30)} ({count:,})" for name, count in order[:12])
        more = f", … ({len(order) - 12} more)" if len(order) > 12 else ""
        if self.kind == "multilabel":
            return f"sets of {len(self.names)} labels, separated by {self.delimiter!r}: {shown}{more}"
        positive = f"; positive: {printable(self.positive, 30)}" if self.positive is not None else ""
        quantities = (
            not self.given and len(self.names) > 2 and all(is_number(n) and not LEADING_ZERO.match(n) for n in self.names)
        )
        hint = " (--label_type number if they are quantities)" if quantities else ""
        return f"{len(self.names)} classes {shown}{more}{positive}{hint}"


@dataclass
class Labels:
    """Labels of all rows: the class number, the number, or a list of 0 and 1; None where a row has none, and why."""

    schema: LabelSchema
    values: list[Any]
    reasons: list[str]
    notes: list[str] = field(default_factory=list)


def read_labels(cells: Sequence[Any], options: LabelOptions, column: str, decimal: str = POINT) -> Labels:
    """Read a label column.

    Raises:
        FPTError: options that make no sense, or cells that may mean several things; the line names the flag that decides.
    """
    if options.type is not None and options.type not in KINDS:
        raise FPTError(f"unknown --label_type {options.type!r}{did_you_mean(options.type, KINDS)}; known: {', '.join(KINDS)}")
    if options.case not in (None, "keep", "ignore"):
        raise FPTError(f"--label_case {options.case!r} must be keep or ignore")
    lists = [isinstance(cell, (list, tuple, np.ndarray)) for cell in cells]
    if any(lists) and options.type != "multilabel" and all(len(cell) == 1 for cell in itertools.compress(cells, lists)):
        cells, lists = [c[0] if is_list else c for c, is_list in zip(cells, lists, strict=True)], [False]
    if any(lists):
        return _sets(cells, options, column, lists)
    texts = [as_label(cell, decimal) for cell in cells]
    known = _known(texts, options, decimal)
    counts = Counter(text for text, has in zip(texts, known, strict=True) if has)
    if not counts:
        raise FPTError(f"column {column!r} has no row with a label")
    if not options.named and options.type in (None, "multilabel") and all(text[0] == "[" and text[-1] == "]" for text in counts):
        parsed = [_literal(text, column) if has else None for text, has in zip(texts, known, strict=True)]
        return _sets(parsed, options, column, [one is not None for one in parsed])
    guess = "multilabel" if options.delimiter is not None else None
    kind = options.type or guess or ("classes" if options.named else _guess(counts, column, decimal))
    if kind == "multilabel":
        return _texts_of_sets(texts, known, options, column)
    if kind == "number":
        return _numbers(texts, known, options, decimal)
    labels = _classes(texts, known, counts, options, column, decimal)
    merged = len({cell_text(cell) for cell in cells}) - len(set(texts)) if options.named else 0
    if merged:
        labels.notes.append(f"label {column!r}: {merged} names differ from others in white space or Unicode form only: one class")
    return labels


def _literal(text: str, column: str) -> list[Any]:
    """A list as Python or JSON writes it.

    Raises:
        FPTError: it is none.
    """
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise FPTError(
            f"column {column!r}: the list {printable(text, 30)!r} can't be read; write a|b, or pass --label_type classes"
        ) from error
    return list(found)


def _known(texts: Sequence[str], options: LabelOptions, decimal: str) -> list[bool]:
    """Which cells hold a label."""
    if options.named:
        return [bool(text) for text in texts]
    if options.missing is not None:
        return [not is_missing(text, ("", *options.missing)) for text in texts]
    marks = set(MISSING) - set(MARKS)
    words = {text for text in texts if not is_missing(text, marks)}
    # + and - are classes; - beside words or numbers is a gap.
    if any(any(c.isalnum() for c in word) for word in words):
        marks |= set(MARKS)
    return [not is_missing(text, marks) for text in texts]


def _no_label(text: str) -> str:
    return f"no label ({printable(text, 20)!r})" if text else "no label"


def _guess(counts: Counter[str], column: str, decimal: str) -> str:
    """The kind of a column whose user did not say it.

    Raises:
        FPTError: most labels are numbers and some are not, or nearly all texts differ.
    """
    rows, numeric = sum(counts.values()), {text for text in counts if is_number(text, decimal)}
    if any(LEADING_ZERO.match(text) for text in numeric):
        numeric = set()  # 00042 is a name
    if len(numeric) == len(counts):
        _check_sets(counts, column, decimal)
        return _numbers_or_classes(counts, decimal)
    odd = [text for text in counts if text not in numeric]
    censored = [text for text in odd if CENSORED.fullmatch(text)]
    with_units = sum(bool(UNIT.fullmatch(text)) and not is_number(text, decimal) for text in odd)
    if with_units > MANY and with_units > len(numeric):
        raise FPTError(
            f"labels of column {column!r} such as {printable(odd[0], 20)!r} are numbers with signs or units; write bare numbers,"
            " or pass --label_type classes"
        )
    if len(numeric) > MANY or (censored and numeric):
        shown = ", ".join(f"{printable(text, 20)!r}" for text in odd[:3])
        raise FPTError(
            f"column {column!r} has {sum(counts[t] for t in numeric):,} labels that are numbers and"
            f" {sum(counts[t] for t in odd):,} that are not ({shown}); correct them, or pass --label_type number with"
            " --max_bad_fraction to leave them out, or --label_type classes"
        )
    if any(_parts(counts, separator) for separator in SEPARATORS):
        return "multilabel"
    if len(counts) > max(MANY, rows / 2):
        raise FPTError(
            f"column {column!r} has {len(counts):,} texts in {rows:,} rows; pass --label_type classes if they are labels"
        )
    return "classes"


def _check_sets(counts: Counter[str], column: str, decimal: str) -> None:
    """Refuse 1,3 where it may be 1.3 or the labels 1 and 3.

    Raises:
        FPTError: labels may be numbers or sets; the line names the flag that decides.
    """
    parts = {part for text in counts for part in text.split(",")}
    single = any("," not in text for text in counts)
    if decimal == COMMA and single and len(parts) <= MANY and not any(LEADING_ZERO.match(part) for part in parts):
        if not any("," in text for text in counts):
            return
        example = next(text for text in counts if "," in text)
        raise FPTError(
            f"labels of column {column!r} such as {example!r} may be numbers or sets of labels; pass --label_type number or"
            " --label_type multilabel"
        )


def _numbers_or_classes(counts: Counter[str], decimal: str) -> str:
    values: Counter[float] = Counter()
    for text, count in counts.items():
        values[number_of(text, decimal)] += count
    ordered = sorted(values)
    if any(value % 1 for value in ordered):
        return "number"
    if len(ordered) <= 2:
        return "classes"
    rows = sum(values.values())
    if len(ordered) <= MANY:
        return "classes" if rows >= ROWS_PER_CLASS * len(ordered) else "number"
    # 0 to K - 1 or 1 to K, each of them there, none much rarer than another: numbers of classes, not counts or ages.
    numbered = ordered[0] in (0, 1) and ordered[-1] - ordered[0] == len(ordered) - 1
    even = min(values.values()) >= ROWS_PER_CLASS and max(values.values()) <= UNEVEN * min(values.values())
    return "classes" if numbered and even else "number"


def _parts(texts: Mapping[str, int], separator: str) -> Counter[str] | None:
    """Rows of each label when cells are sets joined by `separator`; None when they are not: sets reuse labels."""
    if not any(separator in text for text in texts):
        return None
    parts: Counter[str] = Counter()
    for text, count in texts.items():
        for part in {part.strip() for part in text.split(separator)} - {""}:
            parts[part] += count
    return parts if len(parts) < len(texts) and all(count > 1 for count in parts.values()) else None


def _numbers(texts: Sequence[str], known: Sequence[bool], options: LabelOptions, decimal: str) -> Labels:
    values: list[Any] = []
    reasons: list[str] = []
    for text, has in zip(texts, known, strict=True):
        try:
            values.append(number_of(text, decimal) if has else None)
            reasons.append("" if has else _no_label(text))
        except ValueError as error:
            values.append(None)
            reasons.append(f"the label {error}")
    known_values = [value for value in values if value is not None]
    low, high = (min(known_values), max(known_values)) if known_values else (None, None)
    return Labels(LabelSchema("number", given=options.type is not None, low=low, high=high), values, reasons)


def _classes(
    texts: Sequence[str], known: Sequence[bool], counts: Counter[str], options: LabelOptions, column: str, decimal: str
) -> Labels:
    name_of = one_name_each(counts, options, column, decimal)
    merged: Counter[str] = Counter()
    for text, count in counts.items():
        merged[name_of[text]] += count
    names, positive = in_order(merged, name_of, options, column, decimal)
    numbers = {name: number for number, name in enumerate(names)}
    values = [numbers[name_of[text]] if has else None for text, has in zip(texts, known, strict=True)]
    other = [f"{printable(t, 20)!r} ({n:,}) as {name_of[t]!r}" for t, n in counts.items() if name_of[t] != t]
    notes = [f"label {column!r}: read {', '.join(other[:6])}{', …' if len(other) > 6 else ''}"] if other else []
    schema = LabelSchema("classes", names, tuple(merged[name] for name in names), options.type is not None, positive)
    return Labels(schema, values, ["" if has else _no_label(text) for text, has in zip(texts, known, strict=True)], notes)


def _texts_of_sets(texts: Sequence[str], known: Sequence[bool], options: LabelOptions, column: str) -> Labels:
    counts = Counter(text for text, has in zip(texts, known, strict=True) if has)
    separator = options.delimiter or next((s for s in SEPARATORS if _parts(counts, s)), None)
    separator = separator or next((s for s in SEPARATORS if any(s in text for text in counts)), SEPARATORS[0])
    sets = [[part.strip() for part in text.split(separator) if part.strip()] if has else None for text, has in zip(texts, known)]  # noqa: B905
    return _from_sets(sets, options, separator)


def _sets(cells: Sequence[Any], options: LabelOptions, column: str, lists: Sequence[bool]) -> Labels:
    """Typed lists: of names, of numbers of classes, or of 0 and 1 for each class."""
    if options.type not in (None, "multilabel"):
        raise FPTError(f"column {column!r} holds lists; --label_type {options.type} needs one label per row")
    odd = [cell for cell, is_list in zip(cells, lists, strict=True) if not is_list and cell_text(cell).strip()]
    if odd:
        raise FPTError(
            f"column {column!r} holds lists and single values ({printable(cell_text(odd[0]), 20)!r}); write all as lists"
        )
    sets = [[cell_text(part).strip() for part in cell] if is_list else None for cell, is_list in zip(cells, lists, strict=True)]
    known = [one for one in sets if one is not None]
    width = len(known[0])
    hot = width > 1 and all(len(one) == width and set(one) <= {"0", "1", "0.0", "1.0", "True", "False"} for one in known)
    if hot and any(len(set(one)) < width for one in known):
        sets = [
            None if one is None else [f"label_{i}" for i, bit in enumerate(one) if bit in ("1", "1.0", "True")] for one in sets
        ]
    return _from_sets(sets, options, "a list")


def _from_sets(sets: Sequence[list[str] | None], options: LabelOptions, separator: str) -> Labels:
    counts = Counter(name for one in sets if one for name in set(one))
    names = sorted(counts, key=lambda name: (number_of(name) if is_number(name) else 0.0, name))
    if options.positive is not None:
        raise FPTError("--positive_label is for two classes; each label of a set has its own")
    rows = sum(one is not None for one in sets)
    if options.type is None and len(names) > max(MANY, rows / 2):
        raise FPTError(f"{len(names):,} different labels in {rows:,} sets; pass --label_type multilabel if they are labels")
    values = [None if one is None else [int(name in one) for name in names] for one in sets]
    schema = LabelSchema("multilabel", tuple(names), tuple(counts[n] for n in names), options.type is not None, None, separator)
    return Labels(schema, values, ["no label" if one is None else "" for one in sets])

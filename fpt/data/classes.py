"""Names of classes: one for each class however its cells are written, in which order, and which one is positive."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fpt.data.numerals import is_number, number_of, plain, written
from fpt.data.table import printable
from fpt.errors import FPTError, did_you_mean

POSITIVE = {
    *("1", "true", "yes", "y", "t", "+", "positive", "pos", "active", "inhibitor", "toxic", "sick", "ill", "case", "present"),
    *("hit", "binder", "spam", "malignant", "abnormal", "disease", "defect", "fail", "failed", "fraud", "dead", "mutagenic"),
}
NEGATIVE = {
    *("0", "-1", "false", "no", "n", "f", "-", "negative", "neg", "inactive", "healthy", "control", "absent", "ham", "benign"),
    *("normal", "ok", "good", "pass", "passed", "alive", "none", "nonbinder", "other"),
}
WITHOUT = re.compile(r"(?:no|non|not|without)[ _-]")
NOT = re.compile(r"(?:non|not|no|in|un)[ _-]?")
SHORT: tuple[dict[str, str], ...] = (
    {"t": "true", "true": "true", "f": "false", "false": "false"},
    {"y": "yes", "yes": "yes", "n": "no", "no": "no"},
)
TRUTH = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})
LEADING_ZERO = re.compile(r"[+-]?0\d")


@dataclass(frozen=True)
class LabelOptions:
    """What a user says of the label column; None leaves it to the cells.

    Attributes:
        type: one of `KINDS`.
        positive: the class that AUROC and AUPRC are of.
        delimiter: between the labels of a cell of several.
        case: "keep" or "ignore" differences in case.
        missing: lower-case texts that mean no label.
        named: the classes are names already (folders, a Hub ClassLabel): nothing is converted, only empty means none.
    """

    type: str | None = None
    positive: str | None = None
    delimiter: str | None = None
    case: str | None = None
    missing: tuple[str, ...] | None = None
    named: bool = False


def as_label(cell: Any, decimal: str) -> str:
    """A label as text: in Unicode's composed form, without white space and marks of no width around it."""
    text = unicodedata.normalize("NFC", written(cell, decimal))
    while text and (text[0].isspace() or unicodedata.category(text[0]) == "Cf"):
        text = text[1:]
    while text and (text[-1].isspace() or unicodedata.category(text[-1]) == "Cf"):
        text = text[:-1]
    wide = unicodedata.normalize("NFKC", text)
    return wide if is_number(wide, decimal) else text


def one_name_each(counts: Counter[str], options: LabelOptions, column: str, decimal: str) -> dict[str, str]:
    """One name for each class, however its cells are written: 1 and 1.0, True and TRUE.

    Raises:
        FPTError: names differ in case only, and it is not said whether that matters.
    """
    if options.named:
        return _one_case({text: text for text in counts}, counts, options, column)
    words = {text.lower() for text in counts}
    if words & {"true", "false"} and all(_bit(word, decimal) for word in words) and not words <= {"true", "false"}:
        return {text: "1" if _bit(text.lower(), decimal) == "1" else "0" for text in counts}
    for short in SHORT:
        if words <= short.keys() and len(words & set(short.values())) and words & (short.keys() - set(short.values())):
            return {text: short[text.lower()].capitalize() for text in counts}
    if all(is_number(text, decimal) and not LEADING_ZERO.match(text) for text in counts):
        return {text: plain(number_of(text, decimal)) for text in counts}
    return _one_case({text: text for text in counts}, counts, options, column)


def _one_case(name_of: dict[str, str], counts: Counter[str], options: LabelOptions, column: str) -> dict[str, str]:
    words = {text.lower() for text in counts}
    by_case: dict[str, list[str]] = {}
    for text in counts:
        by_case.setdefault(text.casefold(), []).append(text)
    alike = [group for group in by_case.values() if len(group) > 1]
    truth = not options.named and any(words <= pair for pair in TRUTH)
    if alike and options.case is None and not truth:
        shown = " and ".join(f"{printable(text, 30)!r} ({counts[text]:,} rows)" for text in alike[0][:3])
        raise FPTError(f"labels of column {column!r} differ in case only: {shown}; pass --label_case ignore or --label_case keep")
    if alike and options.case != "keep" and truth:
        return {text: text.capitalize() for text in counts}
    if options.case != "keep":
        for group in alike:
            name_of |= dict.fromkeys(group, max(group, key=lambda text: counts[text]))
    return name_of


def _bit(word: str, decimal: str) -> str:
    """0 or 1 of a truth value in any spelling; empty for anything else."""
    if word in ("true", "false"):
        return "1" if word == "true" else "0"
    return plain(number_of(word, decimal)) if is_number(word, decimal) and number_of(word, decimal) in (0, 1) else ""


def _same_class(given: str, names: Sequence[str], name_of: Mapping[str, str], decimal: str) -> str | None:
    """The class that a user's spelling of it means."""
    text = as_label(given, decimal)
    if text in names or text in name_of:
        return name_of.get(text, text)
    alike = [name for name in names if name.casefold() == text.casefold()]
    alike += [
        name for name in names if is_number(name) and is_number(text, decimal) and number_of(name) == number_of(text, decimal)
    ]
    return alike[0] if len(alike) == 1 else None


def in_order(
    counts: Counter[str], name_of: Mapping[str, str], options: LabelOptions, column: str, decimal: str
) -> tuple[tuple[str, ...], str | None]:
    """Classes in the order of the output, and of two the positive one, which comes last."""
    if all(is_number(name, decimal) for name in counts):
        names = sorted(counts, key=lambda name: (number_of(name, decimal), name))
    else:
        names = sorted(counts)
    if len(names) != 2:
        if options.positive is not None:
            raise FPTError(f"--positive_label is for two classes; column {column!r} has {len(names)}: {_shown(names)}")
        return tuple(names), None
    if options.positive is None:
        positive = _positive(names, counts)
    elif found := _same_class(options.positive, names, name_of, decimal):
        positive = found
    else:
        near = did_you_mean(options.positive, names)
        raise FPTError(f"--positive_label {options.positive!r} is not a class of column {column!r}{near}; it has {_shown(names)}")
    return (next(name for name in names if name != positive), positive), positive


def _positive(names: Sequence[str], counts: Counter[str]) -> str:
    """The class that is looked for: the larger number, the one named so or negated by the other, the rarer one, or the last."""
    if all(is_number(name) for name in names):
        return names[1]
    first, second = (name.casefold() for name in names)
    for one, other, name in ((first, second, names[0]), (second, first, names[1])):
        if one in POSITIVE and other not in POSITIVE:
            return name
        if other in NEGATIVE and one not in NEGATIVE:
            return name
        prefix = NOT.match(other)
        if prefix and (other[prefix.end() :] == one or WITHOUT.match(other)) and not WITHOUT.match(one):
            return name
    return names[1] if counts[names[0]] == counts[names[1]] else min(names, key=lambda name: counts[name])


def _shown(names: Sequence[str]) -> str:
    return ", ".join(printable(name, 30) for name in names[:10]) + (", …" if len(names) > 10 else "")

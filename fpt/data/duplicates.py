"""Samples that occur more than once: counted always, left out on request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Of a sample that is in several given splits, the copy in the first of these stays: what is scored is not changed.
KEPT_FIRST = ("test", "valid", "train", "")


@dataclass
class Cleaned:
    """Rows without repetitions.

    Attributes:
        kept: row numbers that stay, in their order.
        dropped: row number -> why it goes.
        labels: labels that change, by row number: the mean, where numbers differ.
    """

    kept: np.ndarray
    dropped: dict[int, str] = field(default_factory=dict)
    labels: dict[int, float] = field(default_factory=dict)


def groups_of(keys: Sequence[Hashable]) -> list[list[int]]:
    """Row numbers of each sample that occurs more than once."""
    by_key: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        by_key[key].append(row)
    return [rows for rows in by_key.values() if len(rows) > 1]


def describe(keys: Sequence[Hashable], labels: Sequence[Any], parts: Mapping[str, np.ndarray]) -> str | None:
    """A line that counts repetitions within and across splits and those with different labels; None where there are none."""
    home = {int(row): name for name, part in parts.items() for row in part}
    repeated = crossing = conflicting = 0
    for rows in groups_of(keys):
        rows = [row for row in rows if row in home]
        if len(rows) < 2:
            continue
        repeated += len(rows) - 1
        splits = {home[row] for row in rows}
        if len(splits) > 1:
            crossing += sum(home[row] != "train" for row in rows) if "train" in splits else len(rows) - 1
        conflicting += len({_label_key(labels[row]) for row in rows}) > 1
    if not repeated:
        return None
    more = [f"{crossing:,} samples of valid or test are in another split too"] if crossing else []
    more += [f"{conflicting:,} inputs have different labels"] if conflicting else []
    return "; ".join([f"{repeated:,} samples repeat the input of another one", *more])


def deduplicate(
    keys: Sequence[Hashable], labels: Sequence[Any], given: Sequence[str], numbers: bool, ids: Sequence[str]
) -> Cleaned:
    """Keep one row of each input.

    Args:
        given: the split that each row is in, empty where it is still to be made. The copy of the test split stays.
        numbers: labels are numbers: the mean of those in the kept row's split is taken. Inputs with different classes go.
    """
    cleaned = Cleaned(np.zeros(0, dtype=np.int64))
    for rows in groups_of(keys):
        rows = sorted(rows, key=lambda row: (KEPT_FIRST.index(given[row]), row))
        kept = rows[0]
        if len({_label_key(labels[row]) for row in rows}) > 1:
            if not numbers:
                cleaned.dropped |= dict.fromkeys(rows, "the same input has different labels")
                continue
            own = [float(labels[row]) for row in rows if given[row] == given[kept]]
            cleaned.labels[kept] = float(np.mean(own))
        cleaned.dropped |= {row: f"the same input as {ids[kept]}" for row in rows[1:]}
    cleaned.kept = np.array([row for row in range(len(keys)) if row not in cleaned.dropped], dtype=np.int64)
    return cleaned


def _label_key(label: Any) -> Hashable:
    return tuple(label) if isinstance(label, (list, np.ndarray)) else label

"""Rows that are not used: a table of them, and lines that count them by kind."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd

from fpt.errors import RejectedRows


def rejected_rows(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The list of rows that could not be used."""
    return pd.DataFrame(rows, columns=["row", "id", "text", "reason"])


def count_reasons(rejected: pd.DataFrame) -> list[str]:
    """A line for each kind of reason: how many rows, and the first of them."""
    kinds: dict[str, list[int]] = {}
    for place, reason in enumerate(rejected.reason):
        kinds.setdefault(_kind(reason), []).append(place)
    order = sorted(kinds.values(), key=len, reverse=True)
    firsts = [(f"{len(rows):,} {'row' if len(rows) == 1 else 'rows'}", rejected.iloc[rows[0]]) for rows in order]
    return [f"{count}: {row.reason} (first: {row.id})" for count, row in firsts]


def _kind(reason: str) -> str:
    """A reason without what differs from row to row."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|row-\d+|\d+", "…", reason)


def check_rejected(rejected: pd.DataFrame, total: int, allowed: float, origin: str) -> None:
    """Refuse data too much of which can't be used.

    Args:
        total: rows there are, those that can't be used included.
        allowed: the share of ``--max_bad_fraction``.

    Raises:
        RejectedRows: more than that can't be used.
    """
    if len(rejected) <= allowed * total:
        return
    kinds = "; ".join(count_reasons(rejected)[:4])
    share = min(1.0, math.ceil(len(rejected) / total * 100) / 100)
    policy = " or --missing drop" if rejected.reason.str.startswith(("no value", "no label", "empty ")).any() else ""
    policy += "; --missing_values says which texts mean no label" if rejected.reason.str.startswith("no label (").any() else ""
    raise RejectedRows(
        f"{len(rejected):,} of {total:,} rows of {origin} can't be used: {kinds}. Correct them, or leave them out with"
        f" --max_bad_fraction {share:g}{policy}",
        rejected,
    )

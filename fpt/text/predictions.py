"""Labels and predictions as text: how many of each, and numbers of as many digits as mean something."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fpt.data.table import printable

# So many classes or labels are described one by one.
DESCRIBED = 10


def probability_text(value: float) -> str:
    """Eight digits, of a small one as well: of a confident model 1e-12 and 1e-13 must not become the same."""
    return f"{value:.8f}" if value == 0 or value >= 0.1 else f"{value:.8g}"


def number_text(number: Any) -> str:
    """The shortest text that gives the number back, a whole one without ``.0``."""
    return str(number).removesuffix(".0")


def decimals(scale: float, digits: int) -> int:
    """Decimals to round to, so that `digits` significant digits of `scale` are kept."""
    return digits - 1 - math.floor(math.log10(scale)) if scale > 0 and math.isfinite(scale) else 16


def counts_text(names: Sequence[str], counts: np.ndarray, what: str) -> str:
    """How many samples have each class or label."""
    if len(names) <= DESCRIBED:
        return ", ".join(f"{printable(name, 30)} {count:,}" for name, count in zip(names, counts, strict=True))
    empty = int((counts == 0).sum())
    return f"{len(names):,} {what} of {counts.min():,} to {counts.max():,} samples{f', {empty:,} of none' if empty else ''}"


def only_text(present: Sequence[str], count: int) -> str:
    return f"all {count:,} labels are {present[0]!r}" if present else "there are no labels"

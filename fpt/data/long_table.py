"""Tables that hold several series below one another, told apart by a column: ``unique_id, ds, y``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fpt.data.table import cell_text, printable
from fpt.data.timeline import single_rows
from fpt.errors import FPTError

# Values of all series side by side: 2 GiB of them.
MOST_VALUES = 1 << 28


def side_by_side(
    times: np.ndarray,
    values: np.ndarray,
    steps: bool,
    ids: Sequence[Any],
    targets: Sequence[str],
    duplicates: str,
    whose: str,
    notes: list[str],
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Series below one another as columns.

    Args:
        times: (rows,) int64; `steps` says what they are.
        values: (rows, targets) float64.
        ids: the series of each row.
        duplicates: as `fpt.data.timeline.even_grid`, of two rows of one series and one time.

    Returns:
        Times (all,) int64, values (all, series * targets) float64 with nan where a series has no row, and the names: the series',
        followed by the target's where there are several.

    Raises:
        FPTError: a row has no series, two rows of one time differ, or all together are too many.
    """
    texts = [cell_text(cell).strip() for cell in ids]
    if "" in texts:
        raise FPTError(f"{whose} has no series in row {texts.index('') + 1}; complete the column of --series_column")
    names = list(dict.fromkeys(texts))
    places = {name: number for number, name in enumerate(names)}
    own = np.array([places[text] for text in texts])
    all_times = np.unique(times)
    if len(all_times) * len(names) * len(targets) > MOST_VALUES:
        raise FPTError(f"{whose}: {len(names):,} series of up to {len(all_times):,} times are more than {MOST_VALUES:,} values")
    whole = np.full((len(all_times), len(names), len(targets)), np.nan)
    told: list[str] = []
    for number, name in enumerate(names):
        rows = np.flatnonzero(own == number)
        rows = rows[np.argsort(times[rows], kind="stable")]
        of = f"series {printable(name, 30)!r} of {whose}"
        when, found = single_rows(times[rows], values[rows], steps, duplicates, of, told)
        whole[np.searchsorted(all_times, when), number] = found
    notes += [*told[:3], *([f"and likewise in {len(told) - 3:,} more series"] if len(told) > 3 else [])]
    labels = [name if len(targets) == 1 else f"{name} {target}" for name in names for target in targets]
    return all_times, whole.reshape(len(all_times), -1), labels


def check_one_row_a_time(times: np.ndarray, others: Mapping[str, Sequence[Any]], whose: str) -> None:
    """Refuse rows of one time that another column tells apart: they are of different series.

    Args:
        others: columns that are neither time nor target.

    Raises:
        FPTError: there are some.
    """
    count = len(np.unique(times))
    if count == len(times):
        return
    for name, cells in others.items():
        if len(set(zip(times.tolist(), map(cell_text, cells), strict=True))) > count:
            raise FPTError(
                f"{whose} has several rows of one time, which column {printable(name, 30)!r} tells apart; pass --series_column"
                f" {printable(name, 30)} where it names the series, or leave the column out of the file"
            )

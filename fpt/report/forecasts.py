"""Pictures of forecasts: beside the truth, and how errors grow with the steps ahead."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fpt.errors import FPTError
from fpt.files.tables import read_csv
from fpt.report.figures import Block, Paragraph, Pictures, colors, figure
from fpt.report.runs import Row
from fpt.text.escape import picture_text
from fpt.training.run_dir import PREDICTIONS

COLUMNS = ("series", "time", "step", "label", "prediction")
# Pictures of series, and windows of each.
SERIES, WINDOWS = 8, 3


def forecast_pictures(rows: Sequence[Row]) -> list[Block]:
    """The last windows of each series with the forecasts of each row's first run, and the mean error of each step ahead.

    Raises:
        FPTError: a file of predictions can't be read.
    """
    found = {row.key: read_values(row.runs[0][0] / PREDICTIONS) for row in rows if (row.runs[0][0] / PREDICTIONS).is_file()}
    shown = [row for row in rows if row.key in found]
    if not shown:
        return []
    names = list(dict.fromkeys(found[shown[0].key]["series"]))
    pictures = [figure(partial(_beside, rows=shown, found=found, name=name), 6, 3) for name in names[:SERIES]]
    said = f"The last {WINDOWS} forecasts of each series on test that do not overlap, by the first seed of each row."
    more = f" {SERIES} of {len(names):,} series are drawn." if len(names) > SERIES else ""
    growth = figure(lambda axis: _growth(axis, shown, found), 6, 3.4)
    return [Paragraph(said + more), Pictures(list(pictures)), growth]


def read_values(path: Path) -> pd.DataFrame:
    """The values of a file of forecasts, with ``step``, ``label`` and ``prediction`` as numbers.

    Raises:
        FPTError: a column is missing, or a cell is not a number.
    """
    table = read_csv(path)
    if missing := [name for name in COLUMNS if name not in table]:
        raise FPTError(f"{path} has no column {missing[0]}; run it again")
    try:
        table = table.assign(**{name: table[name].to_numpy(dtype=object).astype(np.float64) for name in COLUMNS[2:]})
    except ValueError as error:
        raise FPTError(f"{path}: {error}; run it again") from error
    if not np.isfinite(table[list(COLUMNS[2:])].to_numpy()).all():
        raise FPTError(f"{path} has a number that is not finite; run it again")
    return table


def _beside(axis: Any, rows: Sequence[Row], found: dict[str, pd.DataFrame], name: str) -> None:
    """Truth and forecasts of one series."""
    for color, row in zip(colors(len(rows)), rows, strict=True):
        table = found[row.key]
        last = table[table["series"] == name].tail(WINDOWS * int(table["step"].max()))
        if row is rows[0]:
            axis.plot(np.arange(len(last)), last["label"], color="black", linewidth=1, label="truth")
            axis.set(title=picture_text(name), xlabel=picture_text(f"{last['time'].iloc[0]} to {last['time'].iloc[-1]}"))
        axis.plot(np.arange(len(last)), last["prediction"], color=color, linewidth=0.9, label=picture_text(row.name))
    axis.legend(fontsize=6, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.12), ncols=3)


def _growth(axis: Any, rows: Sequence[Row], found: dict[str, pd.DataFrame]) -> None:
    """Mean absolute error of each step ahead, each series in its standard deviations on test."""
    for color, row in zip(colors(len(rows)), rows, strict=True):
        table = found[row.key]
        scale = table.groupby("series")["label"].transform(lambda values: values.std(ddof=0) or 1.0)
        errors = ((table["prediction"] - table["label"]).abs() / scale).groupby(table["step"]).mean()
        axis.plot(errors.index, errors, color=color, label=picture_text(row.name))
    axis.set(xlabel="steps ahead", ylabel="mean error (deviations of each series on test)")
    axis.legend(fontsize=6, frameon=False)

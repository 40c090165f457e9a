"""What the runs of a task say: the table of their scores, and sentences about the differences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fpt.metrics import LOWER_IS_BETTER, shown_metric, shown_spread
from fpt.report.predictions import resample
from fpt.report.runs import Row
from fpt.text.table import markdown_table


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """Metrics of a task, the one that picks the model first."""
    primary = rows[0].first.primary_metric
    # Calibrated models alone have a calibration error.
    others = dict.fromkeys(m for row in rows for m in row.first.metrics["test"] if m not in (primary, "loss"))
    return [primary, *others]


def table_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the table of a task."""
    metrics = metrics_of(rows)
    published = [m for m in metrics if any(m in row.published for row in rows)]
    head = ["model", "backbone", "seeds", "steps", f"valid {metrics[0]}", *(f"test {m}" for m in metrics)]
    head += [*(f"published {m}" for m in published), "trainable", "s"]
    cells = []
    for row in rows:
        trainable = row.first.trainable_parameters
        with np.errstate(over="ignore"):
            seconds = np.mean([r.wall_seconds for r in row.results])
        backbone = row.first.core
        weights = f" {backbone.sha256[:8]}" if backbone.sha256 and backbone.seed is None else ""
        cells.append(
            [
                row.name,
                f"{backbone.name}{weights}",
                ", ".join(str(r.seed) for r in row.results),
                ", ".join(f"{s:,}" for s in sorted({r.steps for r in row.results})),
                _shown(row.score("valid", metrics[0]), len(row.runs)),
                *(_shown(row.score("test", m), len(row.runs)) for m in metrics),
                *(shown_metric(row.published[m]) if m in row.published else "" for m in published),
                f"{trainable:,}" if trainable else "",
                f"{seconds:,.0f}",
            ]
        )
    return head, cells


def _shown(score: tuple[float, float] | None, runs: int) -> str:
    if score is None:
        return "-"
    return shown_spread(*score) if runs > 1 else shown_metric(score[0])


def tdc_rows(task: str, rows: Sequence[Row]) -> list[str]:
    """Rows of a set of TDC in the form of its leaderboard: model, parameters, mean ± standard deviation with three digits."""
    if not (task.startswith("tdc/") or task == "cyp3a4"):
        return []
    metric, cells = rows[0].first.primary_metric, []
    for row in rows:
        trainable, score = row.first.trainable_parameters, row.score("test", metric)
        if score is not None:
            cells.append([row.name, f"{trainable:,}" if trainable else "N/A", f"{score[0]:.3f} ± {score[1]:.3f}"])
    return markdown_table(["Model", "#Params", metric.upper()], cells)


def findings(rows: Sequence[Row]) -> list[str]:
    """What the table says, in sentences that say as well when nothing can be said.

    The uncertainty of a difference is that of the seeds (standard deviation of both rows) and of the test samples (bootstrap,
    the same samples for both).
    """
    metric = metrics_of(rows)[0]
    scored = [(row, score) for row in rows if (score := row.score("test", metric)) is not None]
    if len(scored) < 2:
        return []
    sign = -1 if metric in LOWER_IS_BETTER else 1
    scored.sort(key=lambda pair: -sign * pair[1][0])
    best, *others = scored
    out = [f"Best on test {metric}: {best[0].name}, {_shown(best[1], len(best[0].runs))}."]
    resampled = {row.key: resample(row, metric) for row, _ in scored}
    for row, score in others:
        gap = abs(best[1][0] - score[0])
        one, two = resampled[best[0].key], resampled[row.key]
        noise = math.hypot(best[1][1], score[1], 0.0 if one is None or two is None else _deviation(one - two))
        if min(len(best[0].runs), len(row.runs)) < 2:
            said = "one seed, so little is said of the difference"
        else:
            more = "more than" if gap > 2 * noise else "within"
            said = f"{more} twice the uncertainty of seeds and test samples ({shown_metric(noise)})"
        out.append(f"{row.name} is {shown_metric(gap)} behind it: {said}.")
    return out


def _deviation(differences: np.ndarray) -> float:
    """Standard deviation over the draws on which both are defined."""
    known = differences[~np.isnan(differences)]
    return float(np.std(known)) if len(known) else 0.0

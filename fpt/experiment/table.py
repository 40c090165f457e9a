"""The table of an experiment: what its cells came to, over seeds, and which of them have no results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpt.experiment.runner import Cell, Row
from fpt.experiment.spec import Experiment
from fpt.metrics import Spread, shown_metric, shown_spread, spread
from fpt.results import RunResults
from fpt.text.escape import markdown, markdown_block, markdown_code
from fpt.text.table import markdown_table


@dataclass(frozen=True)
class FailedCell:
    """A cell without results, and why."""

    seed: int
    reason: str


@dataclass(frozen=True)
class TableRow:
    """A row of the table, as ``experiment.json`` has it.

    Attributes:
        steps, core: of its runs, each once.
        metrics: split -> metric -> score over the runs; empty where no run has ended.
        wall_seconds: mean over the runs.
        command: runs a cell again; DIR and SEED stand for its folder and seed.
        runs: folders of all cells.
    """

    name: str
    published: Mapping[str, float]
    source: str
    seeds: list[int]
    steps: list[int]
    core: list[str]
    primary_metric: str | None
    metrics: dict[str, dict[str, Spread]]
    wall_seconds: float | None
    command: str
    runs: list[str]
    failed: list[FailedCell]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values; the deviation of a single run is written as 0."""
        metrics = {
            split: {name: {"mean": one.mean, "std": one.std or 0.0, "n": one.count} for name, one in scores.items()}
            for split, scores in self.metrics.items()
        }
        return {**vars(self), "metrics": metrics, "failed": [asdict(one) for one in self.failed]}


def table(
    experiment: Experiment, cells: Sequence[Cell], launcher: Sequence[str], reasons: Mapping[Path, str] | None = None
) -> tuple[str, list[TableRow]]:
    """Return the table as Markdown, and its rows.

    Args:
        reasons: why a cell has no results, by its folder.
    """
    rows = []
    for row in experiment.rows:
        if own := [cell for cell in cells if cell.row.name == row.name]:
            rows.append(_row(row, own, launcher, reasons or {}))
    return _markdown(experiment, rows, len(cells)), rows


def _row(row: Row, own: Sequence[Cell], launcher: Sequence[str], reasons: Mapping[Path, str]) -> TableRow:
    found = [results for cell in own if (results := cell.results)]
    command = shlex.join(Cell(row, 0, Path("DIR"), own[0].arguments).command(launcher)).replace("--seed 0", "--seed SEED")
    return TableRow(
        name=row.name,
        published=row.published,
        source=row.source,
        seeds=[results.seed for results in found],
        steps=sorted({results.steps for results in found}),
        core=sorted({results.core.name for results in found}),
        primary_metric=found[0].primary_metric if found else None,
        metrics={split: _spread(found, split) for split in ("valid", "test")} if found else {},
        wall_seconds=round(float(np.mean([results.wall_seconds for results in found])), 1) if found else None,
        command=command,
        runs=[str(cell.folder) for cell in own],
        failed=[
            FailedCell(cell.seed, cell.damage or reasons.get(cell.folder, "not finished")) for cell in own if cell.results is None
        ],
    )


def _markdown(experiment: Experiment, rows: Sequence[TableRow], cells: int) -> str:
    primary = next((row.primary_metric for row in rows if row.primary_metric), None)
    metrics = experiment.metrics or ((primary,) if primary else ())
    head = ["row", "backbone", "seeds", "steps", *(f"test {m}" for m in metrics), *(f"published {m}" for m in metrics), "seconds"]
    about = f"Budget {markdown_code(experiment.budget)}; mean ± standard deviation over seeds, on the test split."
    texts = []
    for row in rows:
        scores = [_cell_text(row.metrics.get("test", {}).get(m)) for m in metrics]
        published = [shown_metric(row.published[m]) if m in row.published else "" for m in metrics]
        steps = ", ".join(f"{s:,}" for s in row.steps)
        seconds = f"{row.wall_seconds or 0:,.0f}"
        texts.append([row.name, ", ".join(row.core), _count_text(row), steps, *scores, *published, seconds])
    lines = [f"# {markdown(experiment.title)}", "", about, "", *markdown_table(head, texts)]
    if sources := {row.source for row in rows if row.source}:
        lines += ["", f"Published values: {markdown('; '.join(sorted(sources)))}."]
    if failed := [(row.name, one) for row in rows for one in row.failed]:
        lines += ["", f"Without results ({len(failed)} of {cells} cells):", ""]
        lines += [f"- {markdown(name)}, seed {one.seed}: {markdown(one.reason)}" for name, one in failed]
    lines += ["", "Each row again:", "", markdown_block("\n".join(row.command for row in rows)), ""]
    return "\n".join(lines)


def _spread(runs: Sequence[RunResults], split: str) -> dict[str, Spread]:
    """Mean and sample standard deviation over runs of each metric that all of them have."""
    found = {name: spread([one.metrics[split].get(name) for one in runs]) for name in runs[0].metrics[split]}
    return {name: one for name, one in found.items() if one is not None}


def _count_text(row: TableRow) -> str:
    """How many seeds the scores of a row are of."""
    count, failed = len(row.seeds), len(row.failed)
    return f"{count} of {count + failed}" if failed else str(count)


def _cell_text(score: Spread | None) -> str:
    if score is None:
        return "-"
    return shown_spread(score.mean, score.std) if score.count > 1 else shown_metric(score.mean)

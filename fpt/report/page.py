"""The page about runs, and its tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from fpt.errors import FPTError
from fpt.forecasts import Forecast
from fpt.report.figures import (
    MOST_POINTS,
    Block,
    Heading,
    Paragraph,
    Picture,
    Pictures,
    confusion,
    curves,
    learning_curves,
    scatter,
)
from fpt.report.findings import findings, table_cells, tdc_rows
from fpt.report.forecasts import forecast_pictures
from fpt.report.predictions import Predictions, joined
from fpt.report.runs import Row, read_rows
from fpt.text.escape import html_templates, markdown, markdown_block
from fpt.text.log import Log
from fpt.text.table import markdown_table

AGAIN = "Each row again, with any of its seeds ({}: the folder with raw data):"
SAID = (
    "Mean ± standard deviation over seeds; the model is picked on valid, test is scored once."
    " Seconds (s) are of the whole run; the first one that needs the data also prepares it, so they do not compare speeds."
)


@dataclass
class Task:
    """What the page says of one task; plain texts, each format escapes them on its own.

    Attributes:
        leaderboard: lines of Markdown, to be copied.
        blocks: pictures, and what is said of them; in the page only.
    """

    name: str
    said: str
    head: list[str]
    cells: list[list[str]]
    sources: str
    findings: list[str]
    leaderboard_about: str
    leaderboard: list[str]
    commands: str
    again: str = AGAIN.format("RAW")
    blocks: list[Block] = field(default_factory=list)


def build(folders: Sequence[Path], title: str, samples: int, data_dir: str | None, log: Log) -> tuple[str, str]:
    """Return the page (HTML), and its tables as Markdown.

    Args:
        folders: of finished runs.
        samples: of the test split to show the attention of.
        data_dir: folder with raw downloads, to look into the models.

    Raises:
        FPTError: a run can't be read; see `fpt.report.runs.read_rows`.
    """
    tasks = []
    for name, rows in read_rows(folders).items():
        log(f"{name}: {len(rows)} rows, {sum(len(r.runs) for r in rows)} runs")
        task = task_of(name, rows)
        task.blocks = [learning_curves(rows), *_curve_notes(rows), *_score_pictures(rows)]
        task.blocks += _insights(rows, samples, data_dir, log) if samples else []
        tasks.append(task)
    return _templates().get_template("page.html.j2").render(title=title, tasks=tasks), markdown_of(title, tasks)


def fragment(blocks: Sequence[Block]) -> str:
    """Return blocks as HTML with the style of the page, to be shown in a notebook."""
    parts: Any = _templates().get_template("blocks.html.j2").module
    return str(parts.style()) + "".join(str(parts.block(block)) for block in blocks)


def _templates() -> jinja2.Environment:
    found = html_templates(Path(__file__).parent)
    kinds = {"picture": Picture, "pictures": Pictures, "heading": Heading}
    found.tests |= {name: lambda it, kind=kind: isinstance(it, kind) for name, kind in kinds.items()}
    return found


def task_of(name: str, rows: Sequence[Row]) -> Task:
    """The texts of a task, without pictures."""
    head, cells = table_cells(rows)
    splits = sorted({f"{r.split.method} (seed {r.split.seed})" for row in rows for r in row.results})
    sources = sorted({row.source for row in rows if row.source})
    return Task(
        name=name,
        said=f"Split: {', '.join(splits)}. {SAID}",
        head=head,
        cells=cells,
        sources=f"Published values: {'; '.join(sources)}." if sources else "",
        findings=findings(rows),
        leaderboard_about=f"As rows of TDC's leaderboard ({len(rows[0].runs)} seeds):",
        leaderboard=tdc_rows(name, rows),
        commands="\n".join(row.command for row in rows),
    )


def markdown_of(title: str, tasks: Sequence[Task]) -> str:
    """The tables as Markdown."""
    text = [f"# {markdown(title)}", ""]
    for task in tasks:
        text += [f"## {markdown(task.name)}", "", markdown(task.said), "", *markdown_table(task.head, task.cells), ""]
        text += [markdown(task.sources), ""] if task.sources else []
        text += [*(f"- {markdown(line)}" for line in task.findings), ""] if task.findings else []
        text += [task.leaderboard_about, "", *task.leaderboard, ""] if task.leaderboard else []
        text += [AGAIN.format("`RAW`"), "", markdown_block(task.commands), ""]
    return "\n".join(text)


def _curve_notes(rows: Sequence[Row]) -> list[Block]:
    """Evaluations that the learning curves leave out."""
    lines = []
    for row in rows:
        lengths = [len(results.history) for results in row.results if results.steps]
        if len(set(lengths)) > 1:
            lines.append(f"{row.name}: curves end with the shortest run, after {min(lengths):,} of {max(lengths):,} evaluations.")
        lines += _thinned(row, min(lengths, default=0), "evaluations")
    return [Paragraph(line) for line in lines]


def _thinned(row: Row, count: int, what: str) -> list[str]:
    return [f"{row.name}: {MOST_POINTS:,} of {count:,} {what} are drawn."] if count > MOST_POINTS else []


def _score_pictures(rows: Sequence[Row]) -> list[Block]:
    if rows[0].first.output_kind == Forecast.kind:
        return forecast_pictures(rows)
    found: dict[str, Predictions] = {row.key: table for row in rows if (table := joined(row)) is not None and len(table.labels)}
    shown = [row for row in rows if row.key in found]
    if not shown:
        return []
    if any(len(found[row.key].names) != len(found[shown[0].key].names) for row in shown):
        raise FPTError(
            f"the runs {shown[0].runs[0][0]} and others of task {shown[0].first.task} have predictions of different classes; give"
            " runs on the same data"
        )
    if len(found[shown[0].key].names) == 2:
        both = [row for row in shown if len(np.unique(found[row.key].positive)) == 2]
        single = [f"{row.name}: all test samples are of one class, so it has no curves." for row in shown if row not in both]
        single += [line for row in both for line in _thinned(row, len(found[row.key].labels), "points of a curve")]
        return [*([curves(both, found)] if both else []), *map(Paragraph, single)]
    if found[shown[0].key].names:
        return [Pictures([confusion(row, found[row.key]) for row in shown])]
    if found[shown[0].key].labels.dtype != object:
        lines = [line for row in shown for line in _thinned(row, len(found[row.key].labels), "test samples")]
        return [Pictures([scatter(row, found[row.key]) for row in shown]), *map(Paragraph, lines)]
    return []


def _insights(rows: Sequence[Row], samples: int, data_dir: str | None, log: Log) -> list[Block]:
    """Of the first run of each frozen transformer."""
    from fpt.report.explain import insight

    blocks: list[Block] = []
    for row in rows:
        if row.first.model != "fpt":
            continue
        folder, results = row.runs[0]
        log(f"looking into {folder}")
        try:
            blocks += [Heading(f"{row.name}, seed {results.seed}"), *insight(folder, samples, data_dir)]
        except FPTError as error:
            blocks.append(Paragraph(str(error)))
    return blocks

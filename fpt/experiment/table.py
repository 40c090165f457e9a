"""The table of an experiment: what its cells came to, over seeds, and which of them have no results."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpt.experiment.runner import Cell
from fpt.experiment.spec import Experiment
from fpt.results import shown_metric, shown_spread, spread
from fpt.text.escape import markdown, markdown_block, markdown_code, markdown_table


def table(
    experiment: Experiment, cells: Sequence[Cell], launcher: Sequence[str], reasons: Mapping[Path, str] | None = None
) -> tuple[str, list[dict[str, Any]]]:
    """The table as Markdown, and its rows as JSON values.

    Args:
        reasons: why a cell has no results, by its folder.
    """
    rows: list[dict[str, Any]] = []
    for row in experiment.rows:
        own = [cell for cell in cells if cell.row.name == row.name]
        found = [results for cell in own if (results := cell.results)]
        if not own:
            continue
        command = shlex.join(Cell(row, 0, Path("DIR"), own[0].arguments).command(launcher)).replace("--seed 0", "--seed SEED")
        rows.append(
            {
                "name": row.name,
                "published": row.published,
                "source": row.source,
                "seeds": [results["seed"] for results in found],
                "steps": sorted({results["steps"] for results in found}),
                "core": sorted({str(results["core"]["name"]) for results in found}),
                "primary_metric": found[0]["primary_metric"] if found else None,
                "metrics": {split: _spread([r["metrics"][split] for r in found]) for split in ("valid", "test")} if found else {},
                "wall_seconds": round(float(np.mean([r["wall_seconds"] for r in found])), 1) if found else None,
                "command": command,
                "runs": [str(cell.folder) for cell in own],
                "failed": [
                    {"seed": cell.seed, "reason": cell.damage or (reasons or {}).get(cell.folder, "not finished")}
                    for cell in own
                    if cell.results is None
                ],
            }
        )
    primary = next((row["primary_metric"] for row in rows if row["primary_metric"]), None)
    metrics = experiment.metrics or ((primary,) if primary else ())
    head = ["row", "backbone", "seeds", "steps", *(f"test {m}" for m in metrics), *(f"published {m}" for m in metrics), "seconds"]
    about = f"Budget {markdown_code(experiment.budget)}; mean ± standard deviation over seeds, on the test split."
    texts = []
    for made in rows:
        scores = [_cell_text(made["metrics"].get("test", {}).get(m)) for m in metrics]
        published = [shown_metric(made["published"][m]) if m in made["published"] else "" for m in metrics]
        steps = ", ".join(f"{s:,}" for s in made["steps"])
        seconds = f"{made['wall_seconds'] or 0:,.0f}"
        texts.append([made["name"], ", ".join(made["core"]), _count_text(made), steps, *scores, *published, seconds])
    lines = [f"# {markdown(experiment.title)}", "", about, "", *markdown_table(head, texts)]
    if sources := {row["source"] for row in rows if row["source"]}:
        lines += ["", f"Published values: {markdown('; '.join(sorted(sources)))}."]
    failed = [(made["name"], one["seed"], one["reason"]) for made in rows for one in made["failed"]]
    if failed:
        lines += ["", f"Without results ({len(failed)} of {len(cells)} cells):", ""]
        lines += [f"- {markdown(name)}, seed {seed}: {markdown(reason)}" for name, seed, reason in failed]
    lines += ["", "Each row again:", "", markdown_block("\n".join(row["command"] for row in rows)), ""]
    return "\n".join(lines), rows


def _spread(metrics: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float | int]]:
    """Mean and sample standard deviation of each metric over runs."""
    found = {name: spread([one.get(name) for one in metrics]) for name in metrics[0]}
    return {name: {"mean": one.mean, "std": one.std or 0.0, "n": one.count} for name, one in found.items() if one is not None}


def _count_text(row: Mapping[str, Any]) -> str:
    """How many seeds the scores of a row are of."""
    count, failed = len(row["seeds"]), len(row["failed"])
    return f"{count} of {count + failed}" if failed else str(count)


def _cell_text(value: Mapping[str, float | int] | None) -> str:
    if value is None:
        return "-"
    return shown_spread(value["mean"], value["std"]) if value["n"] > 1 else shown_metric(value["mean"])

"""What is said of runs that went side by side: the learning rate that was picked, and ``summary.json``."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fpt.files.whole import write_json
from fpt.results import is_better, shown_metric, shown_spread, spread
from fpt.text.log import Log
from fpt.training.records import Failure

SUMMARY_FILE = "summary.json"


def best_rate(scores: Sequence[tuple[float, float | None]], metric: str) -> float:
    """The learning rate of the best mean score on the validation split.

    Args:
        scores: learning rate and score of each run.
    """
    by_rate: dict[float, list[float | None]] = defaultdict(list)
    for rate, score in scores:
        by_rate[rate].append(score)
    best: tuple[float, float | None] | None = None
    for rate, values in by_rate.items():
        mean = None if None in values else statistics.fmean(v for v in values if v is not None)
        if best is None or is_better(metric, mean, best[1]):
            best = rate, mean
    assert best is not None
    return best[0]


def pick_rate(runs: Sequence[tuple[float, float | None]], failures: Sequence[Failure], metric: str, log: Log) -> float:
    """The learning rate that is scored on test, of the best mean validation score over its seeds.

    A mean over fewer seeds is of other runs: rates of which a seed failed are only picked when that is so of all. Then it is
    one of those with the most seeds left.

    Args:
        runs: learning rate and best validation score of each run that ended well; at least one.
        failures: of the others.
    """
    left, lost = Counter(rate for rate, _ in runs), Counter(failure.learning_rate for failure in failures)
    whole = [rate for rate in left if not lost[rate]]
    most = whole or [rate for rate, count in left.items() if count == max(left.values())]
    if lost and len({*left, *lost}) > 1:
        without = ", ".join(f"{rate:g}" for rate in {**left, **lost} if rate not in most)
        why = "whose seeds all ended well" if whole else "with the most seeds left, since each lost some"
        log(f"the learning rate is picked among those {why}{f'; not {without}' if without else ''}")
    return best_rate([(rate, score) for rate, score in runs if rate in most], metric)


def write_summary(output: Path, done: Sequence[dict[str, Any]], failures: Sequence[Failure], log: Log) -> dict[str, Any]:
    """Write ``summary.json`` about runs that went side by side, and print what is in it.

    Args:
        done: results of each run that ended well; those that were not picked have no test scores.
        failures: the runs that were left out.

    Returns:
        What the file contains: the runs, the failures, and for each learning rate mean and standard deviation over the seeds.
    """
    first = done[0]
    metric, runs = first["primary_metric"], [_run(one) for one in done]
    summary: dict[str, Any] = {
        "task": first["task"],
        "core": first["core"],
        "split": first["split"],
        "primary_metric": metric,
        "learning_rates": [_rate(rate, runs, failures, metric) for rate in dict.fromkeys(run["learning_rate"] for run in runs)],
        "runs": runs,
        "failed": [asdict(failure) for failure in failures],
        "tokens_per_second": round(sum(one["tokens_per_second"] for one in done), 1),
        **{name: first[name] for name in ("mfu", "mfu_left_out") if name in first},
    }
    write_json(output / SUMMARY_FILE, summary)
    for line in _lines(summary):
        log(line)
    log(f"{summary['tokens_per_second']:,.0f} tokens/s; {output / SUMMARY_FILE}")
    return summary


def _run(results: dict[str, Any]) -> dict[str, Any]:
    return {
        "folder": Path(results["arguments"]["output_dir"]).name,
        "seed": results["seed"],
        "learning_rate": results["arguments"]["learning_rate"],
        "best_step": results["best_step"],
        "steps": results["steps"],
        **results["metrics"],
    }


def _rate(rate: float, runs: Sequence[dict[str, Any]], failures: Sequence[Failure], metric: str) -> dict[str, Any]:
    """A learning rate over its seeds."""
    own = [run for run in runs if run["learning_rate"] == rate]
    scored = {split: [run for run in own if split in run] for split in ("valid", "test")}
    spreads = {split: _spread([run[split][metric] for run in some]) for split, some in scored.items() if some}
    failed = [failure.seed for failure in failures if failure.learning_rate == rate]
    out: dict[str, Any] = {"learning_rate": rate, "seeds": [run["seed"] for run in own]}
    return {**out, **({"failed_seeds": failed} if failed else {}), **spreads}


def _lines(summary: dict[str, Any]) -> list[str]:
    """The summary as it is printed."""
    runs, failed, metric = summary["runs"], summary["failed"], summary["primary_metric"]
    count = f"{len(runs)} runs" if not failed else f"{len(runs)} of {len(runs) + len(failed)} runs"
    backbone, split = summary["core"]["name"], summary["split"]["method"]
    out = [f"\n{summary['task']}: backbone {backbone}, {split} split, {count} side by side; {metric}:"]
    for run in runs:
        shown = "  ".join(f"{split} {shown_metric(run[split][metric])}" for split in ("valid", "test") if split in run)
        out.append(f"  {run['folder']}: step {run['best_step']} of {run['steps']}, {shown}")
    out += [f"  {one['folder']}: left out at step {one['step']}: {one['reason']}" for one in failed]
    for rate in summary["learning_rates"]:
        shown = "  ".join(f"{s} {shown_spread(rate[s]['mean'], rate[s]['std'])}" for s in ("valid", "test") if s in rate)
        lost = rate.get("failed_seeds", [])
        seeds = f"{len(rate['seeds'])} of {len(rate['seeds']) + len(lost)} seeds" if lost else f"{len(rate['seeds'])} seeds"
        out.append(f"  learning rate {rate['learning_rate']:g}, {seeds}: {shown}")
    return out


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """As JSON values; None where a value is not defined, or the deviation of a single one."""
    found = spread(values)
    return {"mean": None, "std": None} if found is None else {"mean": found.mean, "std": found.std}

"""What is said of runs that went side by side: the learning rate that was picked, and ``summary.json``."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fpt.files.whole import write_json
from fpt.metrics import Scores, Spread, is_better, shown_metric, shown_spread, spread
from fpt.results import BackboneResult, RunResults, SplitResult
from fpt.text.log import Log
from fpt.training.ensemble import EnsembleSummary
from fpt.training.records import Failure

SUMMARY_FILE = "summary.json"
SCORED = ("valid", "test")


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


@dataclass(frozen=True)
class RunSummary:
    """One run among several; its `metrics` are split -> metric -> value, without test where it was not picked."""

    folder: str
    seed: int
    learning_rate: float
    best_step: int
    steps: int
    metrics: dict[str, Scores]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {"folder": self.folder, **{name: getattr(self, name) for name in RUN_KEYS}, **self.metrics}


RUN_KEYS = ("seed", "learning_rate", "best_step", "steps")


@dataclass(frozen=True)
class RateSummary:
    """A learning rate over its seeds.

    Attributes:
        spreads: split -> the primary metric over the seeds, None where one has no score; without test where it was not picked.
    """

    learning_rate: float
    seeds: list[int]
    failed_seeds: list[int]
    spreads: dict[str, Spread | None]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        failed = {"failed_seeds": self.failed_seeds} if self.failed_seeds else {}
        spreads = {split: {"mean": mean_of(one), "std": std_of(one)} for split, one in self.spreads.items()}
        return {"learning_rate": self.learning_rate, "seeds": self.seeds, **failed, **spreads}


@dataclass(frozen=True)
class Trained:
    """What runs that went side by side, or one alone, came to; no results when they were told to stop."""

    results: list[RunResults]
    failures: list[Failure] = field(default_factory=list)
    ensemble: EnsembleSummary | None = None


@dataclass(frozen=True)
class Summary:
    """The content of ``summary.json``: runs that went side by side on one backbone and one split."""

    task: str
    core: BackboneResult
    split: SplitResult
    primary_metric: str
    learning_rates: list[RateSummary]
    runs: list[RunSummary]
    failed: list[Failure]
    tokens_per_second: float
    mfu: float | None
    mfu_left_out: str | None
    ensemble: EnsembleSummary | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {
            "task": self.task,
            "core": asdict(self.core),
            "split": asdict(self.split),
            "primary_metric": self.primary_metric,
            "learning_rates": [rate.to_dict() for rate in self.learning_rates],
            "runs": [run.to_dict() for run in self.runs],
            **({"ensemble": self.ensemble.to_dict()} if self.ensemble else {}),
            "failed": [asdict(failure) for failure in self.failed],
            "tokens_per_second": self.tokens_per_second,
            "mfu": self.mfu,
            **({"mfu_left_out": self.mfu_left_out} if self.mfu_left_out else {}),
        }


def write_summary(output: Path, trained: Trained, log: Log) -> Summary:
    """Write ``summary.json`` about runs that went side by side, and print what is in it.

    Args:
        trained: the runs that ended well, of which those that were not picked have no test scores, and those left out.

    Returns:
        What the file contains: the runs, the failures, and for each learning rate mean and standard deviation over the seeds.
    """
    done, failures = trained.results, trained.failures
    first = done[0]
    metric, runs = first.primary_metric, [_run(one) for one in done]
    summary = Summary(
        task=first.task,
        core=first.core,
        split=first.split,
        primary_metric=metric,
        learning_rates=[_rate(rate, runs, failures, metric) for rate in dict.fromkeys(run.learning_rate for run in runs)],
        runs=runs,
        failed=list(failures),
        tokens_per_second=round(sum(one.tokens_per_second for one in done), 1),
        mfu=first.mfu,
        mfu_left_out=first.mfu_left_out,
        ensemble=trained.ensemble,
    )
    write_json(output / SUMMARY_FILE, summary.to_dict())
    for line in _lines(summary):
        log(line)
    log(f"{summary.tokens_per_second:,.0f} tokens/s; {output / SUMMARY_FILE}")
    return summary


def _run(results: RunResults) -> RunSummary:
    folder, rate = Path(results.arguments["output_dir"] or "").name, results.arguments["learning_rate"]
    return RunSummary(folder, results.seed, rate, results.best_step, results.steps, results.metrics)


def _rate(rate: float, runs: Sequence[RunSummary], failures: Sequence[Failure], metric: str) -> RateSummary:
    """A learning rate over its seeds."""
    own = [run for run in runs if run.learning_rate == rate]
    scores = {split: [run.metrics[split][metric] for run in own if split in run.metrics] for split in SCORED}
    failed = [failure.seed for failure in failures if failure.learning_rate == rate]
    spreads = {split: spread(values) for split, values in scores.items() if values}
    return RateSummary(rate, [run.seed for run in own], failed, spreads)


def _lines(summary: Summary) -> list[str]:
    """The summary as it is printed."""
    runs, failed, metric = summary.runs, summary.failed, summary.primary_metric
    count = f"{len(runs)} runs" if not failed else f"{len(runs)} of {len(runs) + len(failed)} runs"
    backbone, split = summary.core.name, summary.split.method
    out = [f"\n{summary.task}: backbone {backbone}, {split} split, {count} side by side; {metric}:"]
    for run in runs:
        shown = "  ".join(f"{split} {shown_metric(run.metrics[split][metric])}" for split in SCORED if split in run.metrics)
        out.append(f"  {run.folder}: step {run.best_step} of {run.steps}, {shown}")
    out += [f"  {one.folder}: left out at step {one.step}: {one.reason}" for one in failed]
    for rate in summary.learning_rates:
        shown = "  ".join(f"{split} {shown_spread(mean_of(one), std_of(one))}" for split, one in rate.spreads.items())
        lost = rate.failed_seeds
        seeds = f"{len(rate.seeds)} of {len(rate.seeds) + len(lost)} seeds" if lost else f"{len(rate.seeds)} seeds"
        out.append(f"  learning rate {rate.learning_rate:g}, {seeds}: {shown}")
    if summary.ensemble:
        one = summary.ensemble
        shown = "  ".join(f"{split} {shown_metric(scores[metric])}" for split, scores in one.metrics.items())
        out.append(f"  ensemble (mean prediction of the {len(one.seeds)} seeds of {one.learning_rate:g}): {shown}")
    return out


def mean_of(found: Spread | None) -> float | None:
    """The mean, None where a value of the runs is not defined."""
    return None if found is None else found.mean


def std_of(found: Spread | None) -> float | None:
    """The standard deviation, None where a value of the runs is not defined, and of a single one."""
    return None if found is None else found.std

"""The ensemble of runs that went side by side on several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fpt.calibration import mean_metrics, temperature_of
from fpt.evaluation.predict import prediction_table, resolution_of
from fpt.files.tables import write_csv
from fpt.metrics import Scores
from fpt.training.run_dir import PREDICTIONS
from fpt.training.running import Run


@dataclass(frozen=True)
class EnsembleSummary:
    """The mean prediction of several seeds; its `metrics` are split -> metric -> value."""

    learning_rate: float
    seeds: list[int]
    metrics: dict[str, Scores]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {"learning_rate": self.learning_rate, "seeds": self.seeds, **self.metrics}


def ensemble_of(runs: Sequence[Run]) -> EnsembleSummary | None:
    """Score the mean prediction of the runs whose test split was scored, and write it; None where there are not several."""
    members = [run for run in runs if not run.failure and "test" in run.predictions]
    if len(members) < 2:
        return None
    first = members[0]
    prepared, output, resolution = first.prepared, first.prepared.output, resolution_of(first.model, first.accelerator)
    temperatures = [temperature_of(run.calibration) for run in members]
    metrics = {}
    for split in ("valid", "test"):
        each = [run.predictions[split] for run in members]
        metrics[split] = mean_metrics(output, first.labels[split], each, temperatures, resolution)
    if first.accelerator.is_main_process:
        each = [run.predictions["test"] for run in members]
        write_csv(prediction_table(prepared, "test", each, first.labels["test"]), first.output.parent / PREDICTIONS)
    return EnsembleSummary(first.args.learning_rate, [run.args.seed for run in members], metrics)

"""Scores of predictions, the results file, and the table on the terminal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score, log_loss, roc_auc_score

from fpt.files import write_json

RESULTS_FILE = "results.json"


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    """Score class probabilities.

    Args:
        labels: (samples,) int.
        probabilities: (samples, classes), rows sum to 1.

    Returns:
        accuracy and loss (mean negative log likelihood, nats); for two classes also auroc and auprc (average precision
        of class 1), None where only one class is present.
    """
    classes = probabilities.shape[1]
    metrics: dict[str, float | None] = {
        "accuracy": float(accuracy_score(labels, probabilities.argmax(axis=1))),
        "loss": float(log_loss(labels, probabilities.astype(np.float64), labels=range(classes))),
    }
    if classes == 2:
        both = len(np.unique(labels)) == 2
        metrics["auroc"] = float(roc_auc_score(labels, probabilities[:, 1])) if both else None
        metrics["auprc"] = float(average_precision_score(labels, probabilities[:, 1])) if both else None
    return metrics


def write_results(folder: Path, results: dict[str, Any]) -> Path:
    """Write ``results.json`` into `folder` in one step; a number that is not finite becomes null."""
    path = folder / RESULTS_FILE
    write_json(path, _finite(results))
    return path


def table(metrics: dict[str, dict[str, float | None]]) -> str:
    """One line a split, one column a metric.

    Args:
        metrics: split -> metric -> value.
    """
    names = list(next(iter(metrics.values())))
    lines = ["split   " + "".join(f"{n:>10}" for n in names)]
    for split, values in metrics.items():
        cells = "".join(f"{'-' if values[n] is None else format(values[n], '.4f'):>10}" for n in names)
        lines.append(f"{split:<8}{cells}")
    return "\n".join(lines)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

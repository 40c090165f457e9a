"""Scores of predictions, the results file, and the table on the terminal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from fpt.files import write_json

RESULTS_FILE = "results.json"
LOWER_IS_BETTER = {"loss", "mae", "rmse"}


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    """Score class probabilities.

    Args:
        labels: (samples,) int.
        probabilities: (samples, classes), rows sum to 1.

    Returns:
        accuracy and loss (mean negative log likelihood, nats); for two classes also auroc and auprc (average precision
        of class 1), None where only one class is present.
    """
    # Imported late here and below: half a second that the first step of a run need not wait for.
    from sklearn.metrics import accuracy_score, average_precision_score, log_loss, roc_auc_score

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


def regression_metrics(labels: np.ndarray, values: np.ndarray) -> dict[str, float | None]:
    """Score predicted numbers.

    Args:
        labels: (samples,) float.
        values: (samples,) float, in the labels' unit.

    Returns:
        mae and rmse (in the labels' unit), r2, spearman and pearson; the correlations are None where one side is constant,
        r2 where the labels are.
    """
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    varied = len(labels) > 1 and np.ptp(labels) > 0
    both = varied and np.ptp(values) > 0
    return {
        "mae": float(mean_absolute_error(labels, values)),
        "rmse": float(root_mean_squared_error(labels, values)),
        "r2": float(r2_score(labels, values)) if varied else None,
        "spearman": float(spearmanr(labels, values).statistic) if both else None,
        "pearson": float(pearsonr(labels, values).statistic) if both else None,
    }


def bit_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    """Score predicted bits.

    Args:
        labels: (samples, bits), 0 or 1.
        probabilities: (samples, bits), of a 1.

    Returns:
        accuracy (share of right bits, the paper's measure), exact (share of samples with all bits right) and loss (mean
        negative log likelihood of a bit, nats).
    """
    right = (probabilities > 0.5) == (labels > 0.5)
    likelihood = np.where(labels > 0.5, probabilities, 1 - probabilities)
    return {
        "accuracy": float(right.mean()),
        "loss": float(-np.log(np.clip(likelihood, 1e-15, 1)).mean()),
        "exact": float(right.all(axis=1).mean()),
    }


def is_better(metric: str, new: float | None, old: float | None) -> bool:
    """Whether `new` is a better value of `metric` than `old`; a value that is not defined is worse than any."""
    if new is None or old is None:
        return new is not None
    return new < old if metric in LOWER_IS_BETTER else new > old


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

"""Scores of predictions: how they are computed, compared, averaged over runs, and printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fpt.text.table import plain_table

# Values by metric, None where one is not defined.
Scores = dict[str, float | None]
LOWER_IS_BETTER = {"loss", "mae", "rmse", "mse", "mae_units", "ece"}
# Bins of equal width of the expected calibration error.
BINS = 15

# How far apart log-odds, or numbers in standard deviations, of one input may be: absolute near 0, relative beyond 1. The same
# samples in batches of other sizes and paddings through a GPT-2 of 6 layers of width 256 were up to 4e-6 (fp32) and 1e-2 (bf16,
# log-odds near 1) apart; fp16 and tf32 have 3 bits more than bf16, fp8 has 4 less.
RESOLUTIONS = {"fp32": 1e-5, "tf32": 2.5e-3, "fp16": 2.5e-3, "bf16": 2e-2, "fp8": 2e-1}
RESOLUTION = RESOLUTIONS["fp32"]
# float64 holds a probability up to 1 - 1e-16: log-odds of one that stands alone are as good as RESOLUTION up to here.
LARGEST_LOG_ODDS = 27.0


def tied(scores: np.ndarray, resolution: float = RESOLUTION) -> np.ndarray:
    """Rank scores, with ties for those that the precision can't tell apart.

    Rounding to a grid would part two scores on both sides of a border, however near they are; here a group of ties starts at its
    lowest score, and takes all that are within the resolution of it.

    Args:
        scores: (samples,) float.
        resolution: differences up to ``resolution * sqrt(1 + score**2)`` are noise.

    Returns:
        Ranks (samples,) int64 from 0 up, equal for ties.

    Raises:
        ValueError: a score is nan.
    """
    # Its slope is 1 / sqrt(1 + score**2): the resolution is the same everywhere on it.
    even = np.arcsinh(np.asarray(scores, dtype=np.float64))
    if np.isnan(even).any():
        raise ValueError("scores to rank are not numbers (nan)")
    order = np.argsort(even, kind="stable")
    ordered = even[order]
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = np.diff(ordered) > resolution
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(ordered))[: len(starts)]
    wide = ordered[ends - 1] > ordered[starts] + resolution
    for start, end in zip(starts[wide], ends[wide], strict=True):
        while ordered[end - 1] > ordered[start] + resolution:
            start += np.searchsorted(ordered[start:end], ordered[start] + resolution, side="right")
            first[start] = True
    ranks = np.empty(len(ordered), dtype=np.int64)
    ranks[order] = np.cumsum(first) - 1
    return ranks


def log_odds(yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    """Log-odds of probabilities that may be exactly 0 or 1; finite, for float64 has no probability between 0 and 5e-324."""
    with np.errstate(divide="ignore"):
        return np.clip(np.log(yes) - np.log(no), -750.0, 750.0)


def constant(values: np.ndarray) -> bool:
    """Whether all are the same number, but for the last digits of float64."""
    values = np.asarray(values, dtype=np.float64)
    return len(values) < 2 or bool(np.ptp(values) <= 4 * np.finfo(np.float64).eps * np.abs(values).max())


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray, resolution: float = RESOLUTION) -> Scores:
    """Score class probabilities.

    Args:
        labels: (samples,) int.
        probabilities: (samples, classes), rows sum to 1.
        resolution: of log-odds; see `tied`.

    Returns:
        accuracy and loss (mean negative log likelihood, nats); for two classes also auroc and auprc (average precision
        of class 1), None where only one class is present.

    Raises:
        ValueError: a probability is not finite.
    """
    # Imported late here and below: half a second that the first step of a run need not wait for.
    from sklearn.metrics import accuracy_score, average_precision_score, log_loss, roc_auc_score

    classes = probabilities.shape[1]
    metrics: Scores = {
        "accuracy": float(accuracy_score(labels, probabilities.argmax(axis=1))),
        "loss": float(log_loss(labels, probabilities.astype(np.float64), labels=range(classes))),
    }
    if classes == 2:
        both = len(np.unique(labels)) == 2
        # Not the probabilities: of a confident model they are 1e-12 and 1e-13, or 1 but for as little.
        ranks = tied(log_odds(probabilities[:, 1], probabilities[:, 0]), resolution)
        metrics["auroc"] = float(roc_auc_score(labels, ranks)) if both else None
        metrics["auprc"] = float(average_precision_score(labels, ranks)) if both else None
    return metrics


def regression_metrics(
    labels: np.ndarray, values: np.ndarray, resolution: float = RESOLUTION, mean: float | None = None, std: float | None = None
) -> Scores:
    """Score predicted numbers.

    Args:
        labels: (samples,) float.
        values: (samples,) float, in the labels' unit.
        resolution: of the values in standard deviations; see `tied`.
        mean, std: the resolution refers to; those of `labels` when not given.

    Returns:
        mae and rmse (in the labels' unit), r2, spearman and pearson; the correlations are None where one side is constant,
        r2 where the labels are.

    Raises:
        ValueError: a number is not finite.
    """
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    labels, values = np.asarray(labels, dtype=np.float64), np.asarray(values, dtype=np.float64)
    errors = {"mae": float(mean_absolute_error(labels, values)), "rmse": float(root_mean_squared_error(labels, values))}
    varied = not constant(labels)
    center = float(labels.mean()) if mean is None else mean
    scale = (float(labels.std()) if std is None else std) or 1.0
    ranks = tied((values - center) / scale, resolution)
    both = varied and ranks.max(initial=0) > 0
    return {
        **errors,
        "r2": float(r2_score(labels, values)) if varied else None,
        "spearman": float(spearmanr(labels, ranks).statistic) if both else None,
        "pearson": float(pearsonr(labels, values).statistic) if both else None,
    }


def bit_metrics(labels: np.ndarray, probabilities: np.ndarray) -> Scores:
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


def multilabel_metrics(labels: np.ndarray, probabilities: np.ndarray, resolution: float = RESOLUTION) -> Scores:
    """Score which of several labels a sample has.

    Args:
        labels: (samples, labels), 0 or 1.
        probabilities: (samples, labels), of a 1.
        resolution: of log-odds; see `tied`.

    Returns:
        accuracy (share of right decisions at a probability of 0.5), loss (mean negative log likelihood of a decision, nats) and
        exact (share of samples with all decisions right), as `bit_metrics`; f1 over all decisions (micro), None where no sample
        has a label; auroc and auprc, the mean over labels that some samples have and some do not, None where
        there is none.

    Raises:
        ValueError: a probability is not finite.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities are not finite")
    true, said = labels > 0.5, probabilities > 0.5
    both = np.flatnonzero(true.any(axis=0) & ~true.all(axis=0))
    scores = np.minimum(log_odds(probabilities, 1 - probabilities), LARGEST_LOG_ODDS)
    ranks = [tied(scores[:, n], resolution) for n in both]
    return {
        **bit_metrics(labels, probabilities),
        "f1": float(2 * (true & said).sum() / (true.sum() + said.sum())) if true.any() else None,
        "auroc": _mean([roc_auc_score(true[:, n], r) for n, r in zip(both, ranks, strict=True)]),
        "auprc": _mean([average_precision_score(true[:, n], r) for n, r in zip(both, ranks, strict=True)]),
    }


def expected_calibration_error(confidences: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Mean distance between how often predictions are right and how confident they are, over bins of equal width.

    Guo et al. 2017, arXiv 1706.04599, equation 3.

    Args:
        confidences: (predictions,) from 0 to 1, the probability of what is predicted.
        right: (predictions,) bool.
    """
    numbers = np.clip(np.ceil(confidences * bins) - 1, 0, bins - 1).astype(np.int64)
    gaps = np.bincount(numbers, weights=right.astype(np.float64) - confidences, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))


def is_better(metric: str, new: float | None, old: float | None) -> bool:
    """Whether `new` is a better value of `metric` than `old`; a value that is not defined (None, nan) is worse than any."""
    new, old = (None if value is None or math.isnan(value) else value for value in (new, old))
    if new is None or old is None:
        return new is not None
    return new < old if metric in LOWER_IS_BETTER else new > old


def shown_metric(value: float | None) -> str:
    """A score as it is printed: with four decimals, or four significant digits where it is tiny or huge."""
    if value is None:
        return "-"
    ordinary = value == 0 or 1e-3 <= abs(value) < 1e6 or not math.isfinite(value)
    return f"{value:.4f}" if ordinary else f"{value:.4g}"


@dataclass(frozen=True)
class Spread:
    """A score over runs.

    Attributes:
        mean: over the runs.
        std: sample standard deviation, None for a single run.
        count: of runs.
    """

    mean: float
    std: float | None
    count: int


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean and sample standard deviation; None where a run has no score, for a mean over the others would be of other runs."""
    known = [float(value) for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        return Spread(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None, len(known))


def shown_spread(mean: float | None, std: float | None) -> str:
    """A mean score and its standard deviation as they are printed: the deviation with the decimals of the mean where they do."""
    text = shown_metric(mean)
    if std is None or mean is None:
        return f"{text} ± -"
    ordinary = std == 0 or (1e-3 <= abs(mean) < 1e6 and 5e-5 <= std < 1e6)
    return f"{text} ± {std:.4f}" if ordinary else f"{text} ± {std:.2g}"


def score_table(scores: Mapping[str, Scores]) -> str:
    """Return a table of scores in plain text: one line per split, one column per metric.

    Args:
        scores: split -> metric -> value.
    """
    names = list(next(iter(scores.values())))
    rows = [[split, *(shown_metric(values[name]) for name in names)] for split, values in scores.items()]
    return plain_table(["split", *names], rows, [8, *[10] * len(names)])


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None

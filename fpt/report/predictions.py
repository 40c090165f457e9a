"""Predictions on the test split of the runs of a row, checked against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fpt.data.table import printable
from fpt.errors import FPTError
from fpt.files.tables import read_csv
from fpt.forecasts import Forecast
from fpt.report.runs import Row
from fpt.results import RunResults
from fpt.training.run_dir import PREDICTIONS

PROBABILITY = "probability_"
# Of the bootstrap over test samples.
DRAWS = 200
SEED = 0


@dataclass(frozen=True)
class Predictions:
    """Predictions of one run, or of several one after the other.

    Attributes:
        labels, predictions: (samples,), texts as they were written, or float64 of a task on numbers.
        probabilities: (samples, classes) float64; no columns where there are no classes.
        names: of the classes.
    """

    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray
    names: tuple[str, ...]

    @property
    def positive(self) -> np.ndarray:
        """Of two classes: whether a sample is of the second, (samples,) bool."""
        return self.labels == self.names[1]


def _read(path: Path, kind: str, samples: int | None) -> Predictions:
    table = read_csv(path)
    if missing := [name for name in ("label", "prediction") if name not in table]:
        raise FPTError(f"{path} has no column {missing[0]}; run it again")
    if samples is not None and len(table) != samples:
        raise FPTError(f"{path} has {len(table):,} rows, and the test split of the run {samples:,}; run it again")
    shares = [str(name) for name in table if str(name).startswith(PROBABILITY)]
    numbers = kind == "value" and not shares
    try:
        texts = (table["label"].to_numpy(dtype=object), table["prediction"].to_numpy(dtype=object))
        labels, predictions = (column.astype(np.float64) for column in texts) if numbers else texts
        probabilities = table[shares].to_numpy(dtype=object).astype(np.float64)
    except ValueError as error:
        raise FPTError(f"{path}: {error}; run it again") from error
    if numbers and not (np.isfinite(labels).all() and np.isfinite(predictions).all()):
        raise FPTError(f"{path} has a number that is not finite; run it again")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise FPTError(f"{path} has a probability that is not between 0 and 1; run it again")
    names = tuple(name.removeprefix(PROBABILITY) for name in shares)
    if names and kind != "multilabel" and (other := {*labels, *predictions} - {*names}):
        raise FPTError(f"{path} has the class {printable(min(other))!r}, and no column of its probability; run it again")
    return Predictions(labels, predictions, probabilities, names)


def predictions_of(row: Row) -> list[Predictions]:
    """Predictions on the test split of each run that has them; names of classes stay text, also where they look like numbers.

    Raises:
        FPTError: a file can't be read, is not of its run, or has other classes than those of the other runs.
    """
    found: list[tuple[Path, Predictions]] = []
    for folder, results in row.runs:
        path = folder / PREDICTIONS
        if path.is_file():
            found.append((path, _read(path, results.output_kind, _samples(results))))
    for path, table in found[1:]:
        if table.names != found[0][1].names:
            raise FPTError(f"{path} and {found[0][0]} have different classes, and the runs the same arguments; run them again")
    return [table for _, table in found]


def _samples(results: RunResults) -> int | None:
    return results.split.rows.get("test")


def joined(row: Row) -> Predictions | None:
    """Predictions of all seeds, one after the other; None where there are none, or samples have several labels."""
    tables = predictions_of(row)
    if not tables or row.first.output_kind == "multilabel":
        return None
    labels, predictions, probabilities = (
        np.concatenate([getattr(table, name) for table in tables]) for name in ("labels", "predictions", "probabilities")
    )
    return Predictions(labels, predictions, probabilities, tables[0].names)


def resample(row: Row, metric: str) -> np.ndarray | None:
    """The metric, mean over seeds, on test samples drawn with replacement, (draws,); None where it is not known how.

    It is not where the seeds have different numbers of test samples, where there is one class, or for other metrics than these. A
    draw that happens to have one class only is nan.
    """
    if row.first.output_kind == Forecast.kind:  # the file has some of the windows
        return None
    tables = predictions_of(row)
    if len(tables) < len(row.runs) or row.first.output_kind == "multilabel":
        return None
    if len({len(table.labels) for table in tables}) > 1 or not len(tables[0].labels):
        return None
    scores = [_scorer(table, metric, row.first.output_kind) for table in tables]
    rng = np.random.default_rng(SEED)
    draws = [rng.integers(len(tables[0].labels), size=len(tables[0].labels)) for _ in range(DRAWS)]
    out = [[score(draw) for draw in draws] for score in scores if score is not None]
    return np.mean(out, axis=0) if len(out) == len(tables) else None


def _scorer(table: Predictions, metric: str, kind: str) -> Callable[[np.ndarray], float] | None:
    """What scores a draw of samples; None where it is not known how, or the labels do not allow it."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if metric == "accuracy":
        pairs = zip(table.labels, table.predictions, strict=True)
        right = np.array([_share(*pair) if kind == "bits" else float(pair[0] == pair[1]) for pair in pairs])
        return lambda draw: float(right[draw].mean())
    if metric == "mae" and table.labels.dtype != object:
        with np.errstate(over="ignore"):
            off = np.abs(table.labels - table.predictions)
        return lambda draw: float(off[draw].mean())
    if metric not in ("auprc", "auroc") or len(table.names) != 2 or len(np.unique(table.positive)) < 2:
        return None
    score = average_precision_score if metric == "auprc" else roc_auc_score
    true, shown = table.positive, table.probabilities[:, 1]

    def ranked(draw: np.ndarray) -> float:
        return float(score(true[draw], shown[draw])) if 0 < true[draw].sum() < len(draw) else float("nan")

    return ranked


def _share(label: str, prediction: str) -> float:
    """The share of bits that are right."""
    return sum(a == b for a, b in zip(label, prediction, strict=False)) / max(len(label), 1)

"""Probabilities that are as often right as they say: the logits of a finished model are divided by one number, a temperature.

Guo, Pleiss, Sun and Weinberger, arXiv 1706.04599, section 4.2. The temperature is the one of the lowest log loss on the
validation split. It changes neither the most likely class of a sample nor, of two classes, the order of samples: accuracy,
AUROC and AUPRC of a model stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fpt.ensemble import mean_prediction
from fpt.errors import FPTError
from fpt.metrics import Scores, expected_calibration_error
from fpt.outputs import Classes, Decisions, Output
from fpt.results import Calibration, CalibrationScores
from fpt.text.log import Log

# The log loss of a model that is right about all of valid falls without an end: where the search ends, nothing was found.
COOLEST, HOTTEST = 0.05, 20.0
# Of the logarithm of the temperature.
TOLERANCE = 1e-6
# The least probability that a log loss counts.
LEAST = 1e-15
ECE = "ece"


@dataclass(frozen=True)
class Calibrated:
    """Calibrated predictions (samples, columns) of a split, their scores with ``ece``, and what has changed."""

    predictions: np.ndarray
    metrics: Scores
    change: CalibrationScores


def check_calibrated(output: Output, task: str) -> None:
    """Refuse labels whose predictions are no probabilities.

    Raises:
        FPTError: they are numbers.
    """
    if not isinstance(output, Classes | Decisions):
        raise FPTError(f"--calibrate is for probabilities, and {task} is a regression, which predicts none: leave it out")


def tempered(output: Output, predictions: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (samples, columns) float64 as they are of logits that are divided by `temperature`.

    Args:
        predictions: (samples, columns) float64 as `Output.predict` gives them: shares of all classes, or each of a 1.
    """
    with np.errstate(divide="ignore"):
        yes, no = np.log(predictions), np.log1p(-predictions)
    if isinstance(output, Classes):
        logits = yes / temperature
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp((no - yes) / temperature))


def log_loss(output: Output, labels: np.ndarray, predictions: np.ndarray) -> float:
    """The mean negative log likelihood (nats) of labels, of each decision where a sample has several."""
    if isinstance(output, Classes):
        likelihood = predictions[np.arange(len(labels)), labels]
    else:
        likelihood = np.where(labels > 0.5, predictions, 1 - predictions)
    return float(-np.log(np.clip(likelihood, LEAST, 1)).mean())


def calibration_error(output: Output, labels: np.ndarray, predictions: np.ndarray) -> float:
    """The expected calibration error of the predicted class, or of all decisions where a sample has several."""
    if isinstance(output, Classes):
        return expected_calibration_error(predictions.max(axis=1), predictions.argmax(axis=1) == labels)
    right = (predictions > 0.5) == (labels > 0.5)
    return expected_calibration_error(np.maximum(predictions, 1 - predictions).ravel(), right.ravel())


def fit_temperature(output: Output, labels: np.ndarray, predictions: np.ndarray) -> float:
    """The temperature of the lowest log loss; 1 where none is better, or the loss only falls the lower it is.

    Args:
        labels: (samples, ...) as `Output.metrics` takes them.
        predictions: (samples, columns) float64 as `Output.predict` gives them.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return log_loss(output, labels, tempered(output, predictions, float(np.exp(log_temperature))))

    # The log loss is convex in 1 / temperature, so it has one minimum along the logarithm as well.
    bounds = float(np.log(COOLEST)), float(np.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": TOLERANCE})
    temperature = float(np.exp(found.x))
    better = found.fun < log_loss(output, labels, predictions) and temperature > 1.01 * COOLEST
    return temperature if better else 1.0


def calibrated(output: Output, labels: np.ndarray, predictions: np.ndarray, plain: Scores, temperature: float) -> Calibrated:
    """Calibrate the predictions of one model.

    Args:
        predictions: (samples, columns) float64 as `Output.predict` gives them.
        plain: their scores. Only the loss depends on the temperature; all others stay exactly as they are.
    """
    found = tempered(output, predictions, temperature)
    loss, ece = log_loss(output, labels, found), calibration_error(output, labels, found)
    before = plain["loss"]
    assert before is not None
    change = CalibrationScores(before, loss, calibration_error(output, labels, predictions), ece)
    return Calibrated(found, {**plain, "loss": loss, ECE: ece}, change)


def fitted(output: Output, labels: np.ndarray, predictions: np.ndarray, plain: Scores, log: Log) -> tuple[Calibration, Scores]:
    """The calibration that suits the validation split, and the scores there with it."""
    temperature = fit_temperature(output, labels, predictions)
    found = calibrated(output, labels, predictions, plain, temperature)
    if temperature == 1:
        log("calibration: no temperature is better on valid (a model that is right about all of it has none); it stays 1")
    if temperature > 0.99 * HOTTEST:
        log(f"calibration: the search ends at a temperature of {HOTTEST:g}: the model knows next to nothing about valid")
    log(f"calibration: temperature {temperature:.4f}, fitted on valid: {shown(found.change)}")
    return Calibration(temperature, found.change), found.metrics


def shown(change: CalibrationScores) -> str:
    """Losses and errors before and after as they are printed."""
    return (
        f"log loss {change.loss_before:.4f} before, {change.loss:.4f} after; expected calibration error"
        f" {change.ece_before:.4f} before, {change.ece:.4f} after"
    )


def temperature_of(calibration: Calibration | None) -> float | None:
    """The temperature of a model, None of one that is not calibrated."""
    return None if calibration is None else calibration.temperature


def of_each(output: Output, each: Sequence[np.ndarray], temperatures: Sequence[float | None]) -> list[np.ndarray]:
    """Predictions (samples, columns) of several models, each calibrated by its own temperature where it has one."""
    pairs = zip(each, temperatures, strict=True)
    return [own if temperature is None else tempered(output, own, temperature) for own, temperature in pairs]


def mean_metrics(
    output: Output, labels: np.ndarray, each: Sequence[np.ndarray], temperatures: Sequence[float | None], resolution: float
) -> Scores:
    """Scores of the mean prediction, with ``ece`` where a model is calibrated.

    Args:
        each: predictions (samples, columns) of each model, calibrated where `temperatures` has a number for it.
        resolution: as `Output.metrics` takes it.
    """
    mean = mean_prediction(each)
    metrics = output.metrics(labels, mean, resolution)
    return metrics if not any(temperatures) else {**metrics, ECE: calibration_error(output, labels, mean)}

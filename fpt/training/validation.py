"""Scores of a run on the way, and the best model kept."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from safetensors import SafetensorError

from fpt.calibration import calibrated, fitted, shown
from fpt.checkpoint import Scored, save_checkpoint
from fpt.errors import FPTError
from fpt.evaluation.predict import predict_split, resolution_of
from fpt.metrics import Scores, is_better, shown_metric
from fpt.parallel import whole
from fpt.training import best
from fpt.training.monitor import Report, defined, label
from fpt.training.running import Run


def predict(run: Run, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of the model as it is now on `split`, and the labels."""
    return predict_split(run.model, run.prepared, split, run.args.eval_batch_size, run.accelerator)


def metrics(run: Run, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Metrics of predictions of the model.

    Raises:
        FPTError: they are not finite.
    """
    if not np.isfinite(predictions).all():
        raise FPTError(
            f"the model of step {run.progress.step} predicts numbers that are not finite; start again with a lower"
            " --learning_rate, or with --mixed_precision no"
        )
    return run.prepared.output.metrics(labels, predictions, resolution_of(run.model, run.accelerator))


def score(run: Run, split: str) -> dict[str, float | None]:
    """Metrics of the model as it is now on `split`."""
    return metrics(run, *predict(run, split))


def calibrate(run: Run) -> Scores:
    """Collective: calibrate the model as it is now on the validation split; returns its scores there with that."""
    predictions, labels = predict(run, "valid")
    plain = metrics(run, predictions, labels)
    run.calibration, found = fitted(run.prepared.output, labels, predictions, plain, run.log)
    return found


def test_metrics(run: Run, predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, Scores]:
    """Predictions of the test split, calibrated where the run has a calibration, and their metrics."""
    plain = metrics(run, predictions, labels)
    if run.calibration is None:
        return predictions, plain
    found = calibrated(run.prepared.output, labels, predictions, plain, run.calibration.temperature)
    run.calibration = replace(run.calibration, test=found.change)
    run.log(f"calibration: on test: {shown(found.change)}")
    return found.predictions, found.metrics


def evaluate(run: Run) -> Report:
    """Collective: score the validation split, and save the model where it is the best so far."""
    progress = run.progress
    clock = time.perf_counter()
    train_loss = run.monitor.mean(progress)  # waits for the device
    progress.train_seconds += time.perf_counter() - clock
    with run.averaged():
        report = _score_and_keep(run, train_loss)
    run.monitor.losses.clear()
    return report


def _score_and_keep(run: Run, train_loss: float) -> Report:
    progress, primary = run.progress, run.prepared.primary_metric
    found = score(run, "valid")
    progress.history.append({"step": progress.step, "train_loss": train_loss, "valid": found})
    better = not progress.history[:-1] or is_better(primary, found[primary], progress.best_score)
    if better:
        progress.best_score, progress.best_step, progress.best_metrics = found[primary], progress.step, found
        progress.evaluations_without_gain = 0
        save_best(run, found)
    else:
        progress.evaluations_without_gain += 1
    shown = "  ".join(f"{k} {shown_metric(v)}" for k, v in found.items() if v is not None)
    start = f"{run.label}  " if run.label else ""
    line = f"{start}step {progress.step:>6}  train loss {train_loss:.4f}  valid {shown}{'  *' if better else ''}"
    report = Report([*label(run.label, run.monitor.remarks(progress)), line])
    report.values = {"train/loss": train_loss, "learning_rate": run.schedule.get_last_lr()[0], **defined(found, "valid/")}
    return report


def save_best(run: Run, found: dict[str, float | None]) -> None:
    """Collective: write the model as it is now, with its scores.

    Raises:
        FPTError: it can't be written; the one before is as it was.
    """
    own = whole(run.accelerator, run.network.own_parameters())
    if not run.accelerator.is_main_process:
        return
    try:
        save_checkpoint(run.output / best.FOLDER, own, run.config, Scored(run.progress.step, found), run.prepared.tokenizer)
    except (OSError, SafetensorError) as error:
        raise FPTError(
            f"the checkpoint of step {run.progress.step} can't be written to {run.output}: {error}; make room and go on"
            " with --resume"
        ) from error

"""Runs of estimators, which are fitted at once."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from accelerate.utils import set_seed

from fpt.calibration import calibrated, fitted, shown
from fpt.errors import FPTError
from fpt.metrics import Scores
from fpt.models.base import Estimator
from fpt.outputs import Output
from fpt.results import BackboneResult, Calibration, DeviceResult, RunResults
from fpt.text.log import Log
from fpt.training.outputs import start_outputs
from fpt.training.records import Job
from fpt.training.results import about, write

# An array by split.
Splits = dict[str, np.ndarray]


def fit(jobs: list[Job]) -> list[RunResults]:
    """Fit an estimator, in one process."""
    job = jobs[0]
    kind, prepared, args, accelerator, output = job.kind, job.prepared, job.args, job.accelerator, job.output
    assert isinstance(kind, Estimator)
    if accelerator.num_processes > 1:
        raise FPTError(f"--model {kind.name} is fitted by one process; start it without a launcher of several")
    if args.save_full or args.resume or args.push_to_hub:
        raise FPTError(f"--model {kind.name} is fitted at once; it has no checkpoint to --resume, --save_full or --push_to_hub")
    if len(jobs) > 1:
        raise FPTError(f"--model {kind.name} is fitted at once; give --seed, one run a seed")
    start_outputs(job)
    set_seed(args.seed)
    begun = time.perf_counter()
    found = kind.fit(prepared, kind.check(job.model_args), args.seed, accelerator.print)
    labels = {split: cast(np.ndarray, prepared.labels(split)) for split in found.predictions}
    metrics = {s: prepared.output.metrics(labels[s], p) for s, p in found.predictions.items()}
    predictions, calibration = found.predictions, None
    if args.calibrate:
        predictions, metrics, calibration = _calibrated(prepared.output, labels, predictions, metrics, accelerator.print)
    results = RunResults(
        **vars(about(job, metrics)),
        steps=0,
        core=BackboneResult(**kind.core(args.seed).to_dict()),
        chosen=found.chosen,
        calibration=calibration,
        wall_seconds=round(time.perf_counter() - job.started, 2),
        train_seconds=round(time.perf_counter() - begun, 2),
        device=DeviceResult("cpu", "one process", torch.get_num_threads()),
        history=found.history,
    )
    write(output, prepared, results, predictions["test"], labels["test"])
    return [results]


def _calibrated(
    output: Output, labels: Splits, predictions: Splits, plain: dict[str, Scores], log: Log
) -> tuple[Splits, dict[str, Scores], Calibration]:
    """Predictions and scores of valid and test, calibrated by the temperature that suits valid."""
    found, _ = fitted(output, labels["valid"], predictions["valid"], plain["valid"], log)
    each = {s: calibrated(output, labels[s], p, plain[s], found.temperature) for s, p in predictions.items()}
    log(f"calibration: on test: {shown(each['test'].change)}")
    scores = {split: one.metrics for split, one in each.items()}
    return {split: one.predictions for split, one in each.items()}, scores, replace(found, test=each["test"].change)

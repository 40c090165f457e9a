"""Runs of estimators, which are fitted at once."""

from __future__ import annotations

import time
from typing import cast

import numpy as np
import torch
from accelerate.utils import set_seed

from fpt.errors import FPTError
from fpt.models.base import Estimator
from fpt.results import BackboneResult, DeviceResult, RunResults
from fpt.training.outputs import start_outputs
from fpt.training.records import Job
from fpt.training.results import about, write


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
    fitted = kind.fit(prepared, kind.check(job.model_args), args.seed, accelerator.print)
    labels = {split: cast(np.ndarray, prepared.labels(split)) for split in fitted.predictions}
    metrics = {s: prepared.output.metrics(labels[s], p) for s, p in fitted.predictions.items()}
    results = RunResults(
        **vars(about(job, metrics)),
        steps=0,
        core=BackboneResult(**kind.core(args.seed).to_dict()),
        chosen=fitted.chosen,
        wall_seconds=round(time.perf_counter() - job.started, 2),
        train_seconds=round(time.perf_counter() - begun, 2),
        device=DeviceResult("cpu", "one process", torch.get_num_threads()),
        history=fitted.history,
    )
    write(output, prepared, results, fitted.predictions["test"], labels["test"])
    return [results]

"""Runs of estimators, which are fitted at once."""

from __future__ import annotations

import time
from typing import Any

import torch
from accelerate.utils import set_seed

from fpt.data.samples import numbers
from fpt.errors import FPTError
from fpt.training.outputs import start_outputs
from fpt.training.records import Job
from fpt.training.results import about, write


def fit(jobs: list[Job]) -> list[dict[str, Any]]:
    """Fit an estimator, in one process."""
    job = jobs[0]
    kind, prepared, args, accelerator, output = job.kind, job.prepared, job.args, job.accelerator, job.output
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
    labels = {split: numbers(prepared.splits[split], "label") for split in fitted.predictions}
    metrics = {s: prepared.output.metrics(labels[s], p) for s, p in fitted.predictions.items()}
    results = {
        **about(job, metrics),
        "best_step": 0,
        "steps": 0,
        "stopped_early": False,
        "core": kind.core(args.seed),
        "chosen": fitted.chosen,
        "wall_seconds": round(time.perf_counter() - job.started, 2),
        "train_seconds": round(time.perf_counter() - begun, 2),
        "tokens_per_second": 0.0,
        "device": {"type": "cpu", "strategy": "one process", "threads": torch.get_num_threads()},
        "history": fitted.history,
    }
    write(output, prepared, results, fitted.predictions["test"], labels["test"])
    return [results]

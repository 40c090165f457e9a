"""What a run writes down when it is over."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fpt.backbones import DTYPES
from fpt.checkpoint import add_test_metrics, save_checkpoint
from fpt.data.cache import Prepared
from fpt.evaluation.predict import prediction_table, resolution_of, write_csv
from fpt.flops import matmul_peak, step_flops
from fpt.parallel import precision, strategy, whole
from fpt.results import write_results
from fpt.run_dir import PREDICTIONS
from fpt.training.records import Job

if TYPE_CHECKING:
    from fpt.training.loop import Loop


def finish(loop: Loop, test: bool = True) -> dict[str, Any]:
    """Put the best model back, score it on test, and write everything down.

    Args:
        test: false for a run that was not picked: its test split stays untouched, and it has no results file.
    """
    progress, prepared, accelerator, output, args = loop.progress, loop.prepared, loop.accelerator, loop.output, loop.args
    loop.load_best()
    metrics = {"valid": progress.best_metrics}
    begun = time.perf_counter()
    predictions, labels = loop.predict("test") if test else (np.empty(0), np.empty(0))
    seconds, scored_per_second = time.perf_counter() - begun, None
    if test:
        metrics["test"] = prepared.output.metrics(labels, predictions, resolution_of(loop.model, accelerator))
        scored_per_second = round(float(np.sum(prepared.samples("test").lengths)) / seconds, 1)
    results = {
        **about(loop.job, metrics),
        "best_step": progress.best_step,
        "steps": progress.step,
        "stopped_early": progress.step < args.max_steps,
        "core": loop.made.core,
        **loop.made.results,
        "trainable_parameters": loop.config["trainable_parameters"],
        "total_parameters": loop.config["total_parameters"],
        "wall_seconds": round(progress.wall_seconds + time.perf_counter() - loop.job.started, 2),
        "train_seconds": round(progress.train_seconds, 2),
        "tokens_per_second": round(progress.tokens / max(progress.train_seconds, 1e-9), 1),
        "evaluation_tokens_per_second": scored_per_second,
        "runs_side_by_side": loop.count,
        **_flops(loop),
        "padding": loop.padding,
        "device": {"type": accelerator.device.type, "strategy": strategy(accelerator), "threads": torch.get_num_threads()},
        "mixed_precision": precision(accelerator),
        "history": progress.history,
    }
    best = {**loop.config, "step": progress.best_step, "valid_metrics": metrics["valid"]}
    tensors = whole(accelerator, dict(loop.raw_model.named_parameters())) if args.save_full else {}
    if accelerator.is_main_process:
        if args.save_full:
            save_checkpoint(output / "full", tensors, best, prepared.tokenizer, full_of=loop.raw_model)
        if test:
            add_test_metrics(output / "checkpoint", metrics["test"])
            write(output, prepared, results, predictions, labels)
    if loop.trackers and test:
        loop._track({f"test/{k}": v for k, v in metrics["test"].items() if v is not None})
    return results


def _flops(loop: Loop) -> dict[str, float | None]:
    """Model FLOPs of a real token, and the share of the device's matmul peak that training reached (MFU)."""
    progress, mean_length = loop.progress, round(float(np.mean(loop.samples.lengths)))
    try:
        per_token = sum(step_flops(loop.shell, loop.prepared.input, 1, mean_length)) / mean_length
    except (RuntimeError, TypeError, ValueError, NotImplementedError):  # a network that can't run without numbers
        return {"flops_per_token": None, "mfu": None}
    kind = precision(loop.accelerator)
    dtype = DTYPES[kind] if kind in DTYPES else getattr(loop.raw_model, "core_dtype", torch.float32)
    rows = loop.args.per_device_batch_size * mean_length * loop.count
    peak = matmul_peak(loop.accelerator.device, dtype, rows, getattr(loop.raw_model, "width", 1024))
    reached = per_token * progress.tokens * loop.count / max(progress.train_seconds, 1e-9)
    return {"flops_per_token": per_token, "mfu": round(reached / peak / loop.accelerator.num_processes, 4)}


def about(job: Job, metrics: dict[str, Any]) -> dict[str, Any]:
    """What every result says first."""
    prepared = job.prepared
    return {
        "task": prepared.task.name,
        "model": job.kind.name,
        "metrics": metrics,
        "primary_metric": prepared.primary_metric,
        "seed": job.args.seed,
        "split": {
            "method": prepared.split_method,
            "seed": prepared.manifest["request"]["split_seed"],
            "rows": prepared.manifest["rows"],
        },
        "data": prepared.manifest,
        "versions": {"torch": torch.__version__},
        "arguments": job.arguments,
    }


def write(output: Path, prepared: Prepared, results: dict[str, Any], predictions: np.ndarray, labels: np.ndarray) -> None:
    """Predictions of the test split, then the results: where these are, all is there."""
    write_csv(prediction_table(prepared, "test", predictions, labels), output / PREDICTIONS)
    write_results(output, results)

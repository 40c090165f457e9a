"""What a run writes down when it is over."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from fpt.args import as_dict
from fpt.backbones.base import DTYPES
from fpt.checkpoint import add_test_metrics, save_checkpoint
from fpt.data.prepared import Prepared
from fpt.errors import FPTError
from fpt.evaluation.predict import prediction_table
from fpt.files.tables import write_csv
from fpt.flags.command import command_of
from fpt.flops import matmul_peak, step_flops
from fpt.launching.launched import compiled_by
from fpt.models.base import Made
from fpt.parallel import precision, strategy, whole
from fpt.results import write_results
from fpt.training import best, validation
from fpt.training.monitor import defined
from fpt.training.records import Job
from fpt.training.run_dir import PREDICTIONS
from fpt.training.running import Run

# Arguments that a checkpoint tells.
TOLD = ("seed", "max_steps", "global_batch_size", "learning_rate", "lr_scheduler", "license")


def finish(run: Run, test: bool = True) -> dict[str, Any]:
    """Put the best model back, score it on test, and write everything down.

    Args:
        test: false for a run that was not picked: its test split stays untouched, and it has no results file.

    Raises:
        FPTError: the best checkpoint is not there any more, or the results can't be written.
    """
    progress, prepared, accelerator, output, args = run.progress, run.prepared, run.accelerator, run.output, run.args
    best.load(run)
    metrics = {"valid": progress.best_metrics}
    begun = time.perf_counter()
    predictions, labels = validation.predict(run, "test") if test else (np.empty(0), np.empty(0))
    seconds, scored_per_second = time.perf_counter() - begun, None
    if test:
        metrics["test"] = validation.metrics(run, predictions, labels)
        scored_per_second = round(float(np.sum(prepared.samples("test").lengths)) / seconds, 1)
    results = {
        **about(run.job, metrics),
        "best_step": progress.best_step,
        "steps": progress.step,
        "stopped_early": progress.step < args.max_steps,
        "core": run.made.core,
        **run.made.results,
        "trainable_parameters": run.config["trainable_parameters"],
        "total_parameters": run.config["total_parameters"],
        "wall_seconds": round(progress.wall_seconds + time.perf_counter() - run.job.started, 2),
        "train_seconds": round(progress.train_seconds, 2),
        "tokens_per_second": round(progress.tokens / max(progress.train_seconds, 1e-9), 1),
        "evaluation_tokens_per_second": scored_per_second,
        "runs_side_by_side": run.count,
        **_flops(run),
        "padding": run.padding,
        "device": {
            "type": accelerator.device.type,
            "strategy": strategy(accelerator),
            "threads": torch.get_num_threads(),
            "compiled": compiled_by(accelerator),
        },
        "mixed_precision": precision(accelerator),
        "gradient_accumulation_steps": accelerator.gradient_accumulation_steps,
        "history": progress.history,
    }
    tensors = whole(accelerator, dict(run.network.named_parameters())) if args.save_full else {}
    if accelerator.is_main_process:
        try:
            if args.save_full:
                described = {**run.config, "step": progress.best_step, "valid_metrics": metrics["valid"]}
                save_checkpoint(output / "full", tensors, described, prepared.tokenizer, full_of=run.network)
            if test:
                add_test_metrics(output / best.FOLDER, metrics["test"])
                write(output, prepared, results, predictions, labels)
        except (OSError, SafetensorError) as error:
            raise FPTError(f"the results can't be written to {output}: {error}; make room and go on with --resume") from error
    if run.tracker and test:
        run.track(defined(metrics["test"], "test/"))
    return results


def measure_peak(run: Run) -> float:
    """Operations per second of plain matrix products of this run's size and precision, on its device as it is now."""
    kind = precision(run.accelerator)
    dtype = DTYPES[kind] if kind in DTYPES else getattr(run.network, "core_dtype", torch.float32)
    rows = run.args.per_device_batch_size * _mean_length(run) * run.count
    return matmul_peak(run.accelerator.device, dtype, rows, getattr(run.network, "width", 1024))


def _mean_length(run: Run) -> int:
    return round(float(np.mean(run.samples.lengths)))


def _flops(run: Run) -> dict[str, Any]:
    """Model FLOPs of a real token, and the share of the device's matmul peak that training reached (MFU)."""
    progress, mean_length = run.progress, _mean_length(run)
    try:
        per_token = sum(step_flops(run.shell, run.prepared.input, 1, mean_length)) / mean_length
    except (RuntimeError, TypeError, ValueError, NotImplementedError):  # a network that can't run without numbers
        return {"flops_per_token": None, "mfu": None}
    reached = per_token * progress.tokens * run.count / max(progress.train_seconds, 1e-9)
    # Whatever else the machine did at the start, at the end, or both made the products slower than they can be.
    peak = max(run.peak_at_start, measure_peak(run)) * run.accelerator.num_processes
    return {"flops_per_token": per_token, **mfu(reached, peak)}


def mfu(reached: float, peak: float) -> dict[str, Any]:
    """The share of the matmul peak that training reached; a share above 1 is impossible, so it is left out with the reason.

    Args:
        reached, peak: operations per second.
    """
    if reached <= peak:
        return {"mfu": round(reached / peak, 4)}
    return {"mfu": None, "mfu_left_out": "training was faster than the matmul peak that was measured on a busy machine"}


def checkpoint_config(job: Job, made: Made) -> dict[str, Any]:
    """What a checkpoint of a run says of it, besides its step and scores."""
    prepared, arguments = job.prepared, job.arguments
    trainable, total = made.network.count()
    # A checkpoint is published: no folder of this machine goes into it.
    portable = {k: v for k, v in as_dict(prepared.args).items() if k not in ("data_dir", "cache_dir", "num_proc", "split_seed")}
    portable["dataset"] = prepared.task.name
    return {
        "task": prepared.task.name,
        "model": job.kind.name,
        "input": prepared.input.to_dict(),
        "output": prepared.output.to_dict(),
        "core": made.core,
        **made.config,
        "tokenizer": prepared.args.tokenizer,
        "trainable_parameters": trainable,
        "total_parameters": total,
        "mixed_precision": precision(job.accelerator),
        "eval_batch_size": job.args.eval_batch_size,
        "data": {
            "source": prepared.task.source,
            "licence": prepared.task.licence,
            "arguments": portable,
            **prepared.manifest.to_dict(),
        },
        "training": {k: arguments[k] for k in TOLD if arguments[k] is not None},
        "command": command_of({**arguments, "dataset": prepared.task.name}),
    }


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
            "seed": prepared.manifest.request.split_seed,
            "rows": prepared.manifest.rows,
        },
        "data": prepared.manifest.to_dict(),
        "versions": {"torch": torch.__version__},
        "arguments": job.arguments,
    }


def write(output: Path, prepared: Prepared, results: dict[str, Any], predictions: np.ndarray, labels: np.ndarray) -> None:
    """Predictions of the test split, then the results: where these are, all is there."""
    write_csv(prediction_table(prepared, "test", predictions, labels), output / PREDICTIONS)
    write_results(output, results)

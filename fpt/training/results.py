"""What a run writes down when it is over."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError

from fpt.args import changed
from fpt.backbones.base import DTYPES
from fpt.calibration import of_each, temperature_of
from fpt.checkpoint import Scored, add_calibration, add_test_metrics, save_checkpoint
from fpt.checkpoint.config import LOCAL, DataRecord, Manifest, ModelRecord, TrainingRecord
from fpt.data.prepared import Prepared
from fpt.errors import FPTError
from fpt.evaluation.predict import prediction_table
from fpt.files.tables import write_csv
from fpt.flags.command import command_of
from fpt.flops import matmul_peak, step_flops
from fpt.launching.launched import compiled_by
from fpt.metrics import Scores
from fpt.models.base import Made
from fpt.models.tuning import Tuning
from fpt.parallel import precision, strategy, whole
from fpt.results import (
    BackboneResult,
    DataValues,
    DeviceResult,
    Evaluation,
    RunFacts,
    RunResults,
    SplitResult,
    TuningResult,
    write_results,
)
from fpt.training import best, validation
from fpt.training.monitor import defined
from fpt.training.records import Job
from fpt.training.run_dir import PREDICTIONS
from fpt.training.running import Run


def finish(run: Run, test: bool = True) -> RunResults:
    """Put the best model back, score it on test, and write everything down.

    Args:
        test: false for a run that was not picked: its test split stays untouched, and it has no results file.

    Raises:
        FPTError: the best checkpoint is not there any more, or the results can't be written.
    """
    progress, prepared, accelerator, output, args = run.progress, run.prepared, run.accelerator, run.output, run.args
    best.load(run)
    metrics = {"valid": validation.calibrate(run) if args.calibrate else progress.best_metrics}
    begun = time.perf_counter()
    predictions, labels = validation.predict(run, "test") if test else (np.empty(0), np.empty(0))
    seconds, scored_per_second = time.perf_counter() - begun, None
    if test:
        predictions, metrics["test"] = validation.test_metrics(run, predictions, labels)
        _keep_predictions(run, predictions, labels)
        scored_per_second = round(float(np.sum(prepared.samples("test").lengths)) / seconds, 1)
    results = results_of(run, metrics, scored_per_second)
    tensors = whole(accelerator, dict(run.network.named_parameters())) if args.save_full else {}
    if accelerator.is_main_process:
        try:
            if args.save_full:
                scored = Scored(progress.best_step, metrics["valid"], run.calibration)
                save_checkpoint(output / "full", tensors, run.config, scored, prepared.tokenizer, full_of=run.network)
            if run.calibration:
                add_calibration(output / best.FOLDER, run.calibration, metrics["valid"])
            if test:
                add_test_metrics(output / best.FOLDER, metrics["test"])
                write(output, prepared, results, predictions, labels)
        except (OSError, SafetensorError) as error:
            raise FPTError(f"the results can't be written to {output}: {error}; make room and go on with --resume") from error
    if run.tracker and test:
        run.track(defined(metrics["test"], "test/"))
    return results


def _keep_predictions(run: Run, predictions: np.ndarray, labels: np.ndarray) -> None:
    """Keep what the ensemble of several runs is made of."""
    if run.count == 1:
        return
    run.predictions["test"], run.labels["test"] = predictions, labels
    found, run.labels["valid"] = validation.predict(run, "valid")
    (run.predictions["valid"],) = of_each(run.prepared.output, [found], [temperature_of(run.calibration)])


def results_of(run: Run, metrics: dict[str, Scores], scored_per_second: float | None) -> RunResults:
    """Return the record of a run that has taken its last step.

    Args:
        scored_per_second: tokens, on the test split.
    """
    progress, accelerator, made = run.progress, run.accelerator, run.made
    flops, device = _flops(run), accelerator.device.type
    return RunResults(
        **vars(about(run.job, metrics)),
        best_step=progress.best_step,
        steps=progress.step,
        stopped_early=progress.step < run.args.max_steps,
        core=BackboneResult(**made.core.to_dict()),
        tuning=TuningResult(**made.tuning.to_dict()) if made.tuning else None,
        input_start=made.input_start,
        calibration=run.calibration,
        trainable_parameters=run.config.trainable_parameters,
        total_parameters=run.config.total_parameters,
        wall_seconds=round(progress.wall_seconds + time.perf_counter() - run.job.started, 2),
        train_seconds=round(progress.train_seconds, 2),
        tokens_per_second=round(progress.tokens / max(progress.train_seconds, 1e-9), 1),
        evaluation_tokens_per_second=scored_per_second,
        runs_side_by_side=run.count,
        flops_per_token=flops.per_token,
        mfu=flops.mfu,
        mfu_left_out=flops.mfu_left_out,
        padding=run.padding,
        device=DeviceResult(device, strategy(accelerator), torch.get_num_threads(), compiled_by(accelerator)),
        mixed_precision=precision(accelerator),
        gradient_accumulation_steps=accelerator.gradient_accumulation_steps,
        history=[Evaluation(**one) for one in progress.history],
    )


def measure_peak(run: Run) -> float:
    """Operations per second of plain matrix products of this run's size and precision, on its device as it is now."""
    kind = precision(run.accelerator)
    dtype = DTYPES[kind] if kind in DTYPES else getattr(run.network, "core_dtype", torch.float32)
    rows = run.args.per_device_batch_size * _mean_length(run) * run.count
    return matmul_peak(run.accelerator.device, dtype, rows, getattr(run.network, "width", 1024))


def _mean_length(run: Run) -> int:
    return round(float(np.mean(run.samples.lengths)))


@dataclass(frozen=True)
class Flops:
    """Model FLOPs of a real token, and the share of the device's matmul peak that training reached (MFU).

    Attributes:
        mfu_left_out: why there is no share.
    """

    per_token: float | None = None
    mfu: float | None = None
    mfu_left_out: str | None = None


def _flops(run: Run) -> Flops:
    progress, mean_length = run.progress, _mean_length(run)
    try:
        per_token = sum(step_flops(run.shell, run.prepared.input, 1, mean_length)) / mean_length
    except (RuntimeError, TypeError, ValueError, NotImplementedError):  # a network that can't run without numbers
        return Flops()
    reached = per_token * progress.tokens * run.count / max(progress.train_seconds, 1e-9)
    # Whatever else the machine did at the start, at the end, or both made the products slower than they can be.
    peak = max(run.peak_at_start, measure_peak(run)) * run.accelerator.num_processes
    return mfu(per_token, reached, peak)


def mfu(per_token: float, reached: float, peak: float) -> Flops:
    """The share of the matmul peak that training reached; a share above 1 is impossible, so it is left out with the reason.

    Args:
        per_token: operations.
        reached, peak: operations per second.
    """
    if reached <= peak:
        return Flops(per_token, round(reached / peak, 4))
    return Flops(per_token, None, "training was faster than the matmul peak that was measured on a busy machine")


def model_record(job: Job, made: Made) -> ModelRecord:
    """Return what all checkpoints of a run have in common."""
    prepared, arguments, args = job.prepared, job.arguments, job.args
    trainable, total = made.network.count()
    task = prepared.task.name
    # A checkpoint is published: no folder of this machine goes into it.
    portable = changed(prepared.args, dataset=task, **dict.fromkeys(LOCAL))
    return ModelRecord(
        task=task,
        model=job.kind.name,
        input=prepared.input,
        output=prepared.output,
        core=made.core,
        tuning=made.tuning or Tuning(),
        network=made.baseline,
        tokenizer=prepared.args.tokenizer,
        trainable_parameters=trainable,
        total_parameters=total,
        mixed_precision=precision(job.accelerator),
        eval_batch_size=args.eval_batch_size,
        data=DataRecord(
            source=prepared.task.source,
            licence=prepared.task.licence,
            arguments=portable,
            manifest=cast(Manifest, prepared.manifest.to_dict()),
            schema=prepared.manifest.schema,
        ),
        training=TrainingRecord(
            seed=args.seed,
            max_steps=args.max_steps,
            global_batch_size=arguments["global_batch_size"],
            learning_rate=args.learning_rate,
            lr_scheduler=args.lr_scheduler,
            license=args.license,
        ),
        command=command_of({**arguments, "dataset": task}),
    )


def about(job: Job, metrics: dict[str, Scores]) -> RunFacts:
    """Return the part of the results that networks and estimators have in common."""
    prepared = job.prepared
    split = SplitResult(prepared.split_method, cast(int, prepared.manifest.request.split_seed), prepared.manifest.rows)
    return RunFacts(
        task=prepared.task.name,
        model=job.kind.name,
        metrics=metrics,
        primary_metric=prepared.primary_metric,
        seed=job.args.seed,
        split=split,
        data=cast(DataValues, prepared.manifest.to_dict()),
        versions={"torch": torch.__version__},
        arguments=job.arguments,
    )


def write(output: Path, prepared: Prepared, results: RunResults, predictions: np.ndarray, labels: np.ndarray) -> None:
    """Predictions of the test split, then the results: where these are, all is there."""
    write_csv(prediction_table(prepared, "test", [predictions], labels), output / PREDICTIONS)
    write_results(output, results)

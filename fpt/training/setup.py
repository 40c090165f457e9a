"""A run from its arguments to its results."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from fpt.args import DataArguments, ModelArguments, TrainArguments, as_dict
from fpt.calibration import check_calibrated
from fpt.checkpoint.remote import check_push, push
from fpt.data.cache import prepare
from fpt.data.describe import describe_data
from fpt.data.prepared import Prepared
from fpt.errors import FPTError, RejectedRows
from fpt.files.whole import slug
from fpt.launching.environment import check_launch
from fpt.launching.launched import check_launcher
from fpt.metrics import score_table
from fpt.models.base import MODELS, Estimator, TrainedModel
from fpt.models.fpt import FPT
from fpt.outputs import Classes
from fpt.parallel import training_accelerator
from fpt.results import RESULTS_FILE, Arguments, RunResults
from fpt.tasks.base import TASKS, resolve
from fpt.text.log import Log, silent
from fpt.training import best
from fpt.training.content import data_key
from fpt.training.ensemble import ensemble_of
from fpt.training.fit import fit
from fpt.training.loop import take_steps
from fpt.training.monitor import Tracker, say
from fpt.training.optimizer import check_schedule
from fpt.training.outputs import check_run_file, continue_outputs, start_outputs
from fpt.training.records import Job
from fpt.training.results import finish, measure_peak
from fpt.training.run_dir import claim_output_dir, list_rejected
from fpt.training.running import Run
from fpt.training.shared_backbone import Together, one_by_one
from fpt.training.start import start
from fpt.training.summary import Summary, Trained, pick_rate, write_summary
from fpt.training.variants import check_together, one_of_each, several, variants

T = TypeVar("T")


def run(data: DataArguments, model_args: ModelArguments, args: TrainArguments) -> RunResults | Summary | None:
    """Prepare the data, build the model, train, score once on test, and write everything into ``--output_dir``.

    Returns:
        What ``results.json`` holds; of several runs what ``summary.json`` holds, and None when the run was told to stop.

    Raises:
        FPTError: anything in the arguments or the data that the user can fix.
    """
    started = time.perf_counter()
    check_arguments(args)
    check_launch()  # first: it finds the DeepSpeed file that the arguments are held against
    check_launcher(args, model_args)
    kind = MODELS[model_args.model]
    kind.check(model_args)
    if args.push_to_hub:
        check_push(args.push_to_hub)
    data, model_args = one_of_each(data, model_args, args)
    task, resolved = resolve(TASKS[data.dataset], data, kind.view)
    output = Path(args.output_dir or default_output(task.name, kind.name))
    each = variants(args, output)
    accelerator = training_accelerator(args, output)
    log = partial(say, accelerator)
    check_together(args, accelerator)
    # The task's own options with their defaults, so that a continuation can be held against them.
    shared = {**as_dict(data), "options": resolved.stored_options(), **as_dict(model_args)}
    shared["global_batch_size"] = args.per_device_batch_size * accelerator.num_processes
    arguments = [cast(Arguments, {**shared, **as_dict(own)}) for own in each]
    for own, told in zip(each, arguments, strict=True):
        claim_output_dir(Path(own.output_dir or output), own, told)
    accelerator.wait_for_everyone()

    with accelerator.main_process_first():
        data_log = log if accelerator.is_main_process else silent
        try:
            prepared = prepare(task, resolved, each[0].seed, data_log)
        except RejectedRows as error:
            if not accelerator.is_main_process:
                raise
            raise FPTError(f"{error} The rows are listed in {list_rejected(error.rows, output)}") from error
    check_labels(args, prepared)
    describe_data(prepared, log)
    with contextlib.ExitStack() as held:
        # A model that is fitted at once never goes on.
        key = {} if isinstance(kind, Estimator) else data_key(prepared)
        jobs = [
            Job(kind, prepared, model_args, own, told, accelerator, Path(own.output_dir or output), started, held, key)
            for own, told in zip(each, arguments, strict=True)
        ]
        trained = Trained(fit(jobs)) if isinstance(kind, Estimator) else train(jobs, log)
    if not trained.results:
        return None
    if several(args):
        return write_summary(output, trained, log)
    results = trained.results[0]
    log(
        f"\n{task.name}: backbone {results.core.name}, seed {args.seed}, {prepared.split_method} split, model of step"
        f" {results.best_step} of {results.steps}\n{score_table(results.metrics)}\n{speed(results)}; {output / RESULTS_FILE}"
    )
    return results


def check_labels(args: TrainArguments, prepared: Prepared) -> None:
    """Refuse what the labels can't have.

    Raises:
        FPTError: labels are to be smoothed that are no classes, or predictions calibrated that are no probabilities.
    """
    if args.calibrate:
        check_calibrated(prepared.output, prepared.task.name)
    if args.label_smoothing and not isinstance(prepared.output, Classes):
        raise FPTError(f"--label_smoothing softens classes; the labels of {prepared.task.name} are of another kind: leave it out")


def speed(results: RunResults) -> str:
    """How fast a run was, in words."""
    mfu = f" (MFU {results.mfu:.0%} of the matmul peak)" if results.mfu else ""
    mfu = f" (MFU left out: {results.mfu_left_out})" if results.mfu_left_out else mfu
    scored = results.evaluation_tokens_per_second
    evaluation = f", {scored:,.0f} in evaluation" if scored else ""
    return f"{results.tokens_per_second:,.0f} tokens/s{mfu}{evaluation}, {results.wall_seconds:.0f} s in all"


def default_output(task: str, model: str) -> str:
    """Where a run goes when --output_dir is not given."""
    return str(Path("runs") / (slug(task) if model == "fpt" else f"{slug(task)}-{model}"))


def train(jobs: list[Job], log: Log) -> Trained:
    """Train a network step by step, or several side by side on one backbone.

    Returns:
        Results of each run, none when told to stop; the runs that failed while others went on; the ensemble of the rest.

    Raises:
        KeyboardInterrupt: it was stopped with Ctrl-C; the state is saved.
    """
    job, accelerator, several_runs = jobs[0], jobs[0].accelerator, len(jobs) > 1
    for own in jobs:
        if own.args.resume:
            continue_outputs(own, log)
    assert isinstance(job.kind, TrainedModel)
    made = job.kind.make_each(job.prepared, job.model_args, [own.args for own in jobs], log)
    for own in jobs:
        if own.args.resume:
            check_run_file(own)
        else:
            start_outputs(own)
    # Before they are spread over devices.
    together = Together([one.network for one in made if isinstance(one.network, FPT)], log) if several_runs else None
    tracker = Tracker(accelerator, job.args, job.arguments, job.output.parent if several_runs else job.output)
    runs = [start(own, one, tracker, len(jobs)) for own, one in zip(jobs, made, strict=True)]
    peak = measure_peak(runs[0])  # of all runs at once, which have one shape
    for run in runs:
        run.peak_at_start = peak
    stop = take_steps(runs, together.on(accelerator) if together else one_by_one)
    if stop.done:
        tracker.close()
        step = max(run.progress.step for run in runs if not run.failure)
        how = "Ctrl-C" if stop.by_hand else "a signal"
        log(f"stopped by {how} after step {step}; the state is saved, go on with --resume")
        if stop.by_hand and accelerator.num_processes == 1:
            raise KeyboardInterrupt
        return Trained([])
    results = finish_all(runs, log)
    ensemble = ensemble_of(runs)
    tracker.close()
    if job.args.push_to_hub and accelerator.is_main_process:
        push(job.output / "checkpoint", job.args.push_to_hub, job.args.hub_private, log)
    return Trained(results, [run.failure for run in runs if run.failure], ensemble)


def finish_all(runs: list[Run], log: Log) -> list[RunResults]:
    """Results of the runs that end well; those of the picked learning rate are scored on test.

    Raises:
        FPTError: none does.
    """
    results: list[RunResults] = []
    attempt(runs, best.settle)
    going = [run for run in runs if not run.failure]
    if going:
        scores = [(run.args.learning_rate, run.progress.best_score) for run in going]
        failures = [run.failure for run in runs if run.failure]
        picked = pick_rate(scores, failures, going[0].prepared.primary_metric, log)
        results = attempt(going, lambda run: finish(run, test=run.args.learning_rate == picked))
    if not results:
        reasons = "; ".join(f"{run.failure.folder}: {run.failure.reason}" for run in runs if run.failure)
        raise FPTError(f"all {len(runs)} runs failed: {reasons}")
    return results


def attempt(runs: list[Run], action: Callable[[Run], T]) -> list[T]:
    """What `action` gives for each run that it does not fail for."""
    out: list[T] = []
    for run in runs:
        if run.failure:
            continue
        try:
            out.append(action(run))
        except (FPTError, OSError) as error:
            run.fail(error)
    return out


def check_arguments(args: TrainArguments) -> None:
    """Refuse numbers out of range and unknown names.

    Raises:
        FPTError: an argument is out of range or unknown; the message names it.
    """
    batches = ("per_device_batch_size", "gradient_accumulation_steps", "eval_batch_size")
    for name in (*batches, "max_steps", "eval_steps", "keep_last"):
        if getattr(args, name) < 1:
            raise FPTError(f"--{name} {getattr(args, name)} must be at least 1")
    if args.save_steps is not None and args.save_steps < 1:
        raise FPTError(f"--save_steps {args.save_steps} must be at least 1")
    for name in ("learning_rate", "embedding_lr_scale"):
        if not 0 < getattr(args, name) < math.inf:
            raise FPTError(f"--{name} {getattr(args, name)} must be above 0")
    for name in ("weight_decay", "warmup_steps", "max_grad_norm", "early_stopping_patience"):
        if not 0 <= getattr(args, name) < math.inf:
            raise FPTError(f"--{name} {getattr(args, name)} must be at least 0")
    if not 0 <= args.dropout < 1:
        raise FPTError(f"--dropout {args.dropout} must be in [0, 1)")
    check_schedule(args)
    if args.report_to not in ("none", "wandb", "tensorboard"):
        raise FPTError(f"unknown --report_to {args.report_to!r}; known: none, tensorboard, wandb")

"""A run from its arguments to its results."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from transformers import SchedulerType

from fpt.args import DataArguments, ModelArguments, TrainArguments, as_dict
from fpt.baselines import MODELS, Estimator
from fpt.checkpoint.remote import check_push, push
from fpt.data.cache import prepare
from fpt.data.describe import describe_data
from fpt.errors import FPTError, RejectedRows
from fpt.files import slug
from fpt.parallel import training_accelerator
from fpt.results import RESULTS_FILE, table
from fpt.run_dir import claim_output_dir, list_rejected
from fpt.tasks import TASKS, resolve
from fpt.together import Together, best_rate, check_together, one_by_one, one_of_each, several, variants, write_summary
from fpt.training.fit import fit
from fpt.training.loop import Loop, take_steps
from fpt.training.monitor import start_trackers
from fpt.training.outputs import start_outputs
from fpt.training.records import Job
from fpt.training.results import finish


def run(data: DataArguments, model_args: ModelArguments, args: TrainArguments) -> dict[str, Any]:
    """Prepare the data, build the model, train, score once on test, and write everything into ``--output_dir``.

    Returns:
        What ``results.json`` holds.

    Raises:
        FPTError: anything in the arguments or the data that the user can mend.
    """
    started = time.perf_counter()
    _check(args)
    kind = MODELS[model_args.model]
    kind.check(model_args)
    if args.push_to_hub:
        check_push(args.push_to_hub)
    data, model_args = one_of_each(data, model_args, args)
    task, resolved = resolve(TASKS[data.dataset], data, kind.view)
    output = Path(args.output_dir or default_output(task.name, kind.name))
    each = variants(args, output)
    accelerator = training_accelerator(args, output)
    log = accelerator.print
    check_together(args, accelerator)
    # The task's own options with their defaults, so that a continuation can be held against them.
    shared = {**as_dict(data), "options": resolved.options, **as_dict(model_args)}
    shared["global_batch_size"] = args.per_device_batch_size * accelerator.num_processes
    arguments = [{**shared, **as_dict(own)} for own in each]
    for own, told in zip(each, arguments, strict=True):
        claim_output_dir(Path(own.output_dir or output), own, told)
    accelerator.wait_for_everyone()

    with accelerator.main_process_first():
        data_log = log if accelerator.is_main_process else (lambda line: None)
        try:
            prepared = prepare(task, resolved, each[0].seed, data_log)
        except RejectedRows as error:
            if not accelerator.is_main_process:
                raise
            raise FPTError(f"{error} The rows are listed in {list_rejected(error.rows, output)}") from error
    describe_data(prepared, log)
    with contextlib.ExitStack() as held:
        jobs = [
            Job(kind, prepared, model_args, own, told, accelerator, Path(own.output_dir or output), started, held)
            for own, told in zip(each, arguments, strict=True)
        ]
        done = fit(jobs) if isinstance(kind, Estimator) else _train(jobs)
    if not done:
        return {}
    if several(args):
        return write_summary(output, done, log)
    results = done[0]
    log(
        f"\n{task.name}: core {results['core']['name']}, seed {args.seed}, {prepared.split_method} split, model of step"
        f" {results['best_step']} of {results['steps']}\n{table(results['metrics'])}\n{speed(results)}; {output / RESULTS_FILE}"
    )
    return results


def speed(results: dict[str, Any]) -> str:
    """How fast a run was, in words."""
    mfu = f" (MFU {results['mfu']:.0%} of the matmul peak)" if results.get("mfu") else ""
    scored = results.get("evaluation_tokens_per_second")
    evaluation = f", {scored:,.0f} in evaluation" if scored else ""
    return f"{results['tokens_per_second']:,.0f} tokens/s{mfu}{evaluation}, {results['wall_seconds']:.0f} s in all"


def default_output(task: str, model: str) -> str:
    """Where a run goes when --output_dir is not given."""
    return str(Path("runs") / (slug(task) if model == "fpt" else f"{slug(task)}-{model}"))


def _train(jobs: list[Job]) -> list[dict[str, Any]]:
    """Train a network step by step, or several tunings of one core side by side; no results when told to stop."""
    job, accelerator, several_runs = jobs[0], jobs[0].accelerator, len(jobs) > 1
    log = accelerator.print
    made = job.kind.make_each(job.prepared, job.model_args, [own.args for own in jobs], log)
    for own in jobs:
        start_outputs(own)
    # Before they are spread over devices.
    together = Together([one.network for one in made], log) if several_runs else None
    trackers = start_trackers(accelerator, job.args, job.arguments, job.output.parent if several_runs else job.output)
    loops = [Loop(own, one, trackers, len(jobs)) for own, one in zip(jobs, made, strict=True)]
    take_steps(loops, together.on(accelerator) if together else one_by_one)
    if any(loop.stopped for loop in loops):
        accelerator.end_training()
        log(f"stopped by a signal after step {loops[0].progress.step}; the state is saved, go on with --resume")
        return []
    picked = best_rate([(loop.args.learning_rate, loop.progress.best_score) for loop in loops], job.prepared.primary_metric)
    results = [finish(loop, test=loop.args.learning_rate == picked) for loop in loops]
    accelerator.end_training()
    if job.args.push_to_hub and accelerator.is_main_process:
        push(job.output / "checkpoint", job.args.push_to_hub, job.args.hub_private, log)
    return results


def _check(args: TrainArguments) -> None:
    whole_numbers = (
        "max_steps",
        "per_device_batch_size",
        "gradient_accumulation_steps",
        "eval_steps",
        "eval_batch_size",
        "keep_last",
    )
    for name in whole_numbers:
        if getattr(args, name) < 1:
            raise FPTError(f"--{name} {getattr(args, name)} must be at least 1")
    if args.learning_rate <= 0:
        raise FPTError(f"--learning_rate {args.learning_rate} must be above 0")
    if not 0 <= args.dropout < 1:
        raise FPTError(f"--dropout {args.dropout} must be in [0, 1)")
    schedules = [s.value for s in SchedulerType]
    if args.lr_scheduler not in schedules:
        raise FPTError(f"unknown --lr_scheduler {args.lr_scheduler!r}; known: {', '.join(schedules)}")
    if args.report_to not in ("none", "wandb", "tensorboard"):
        raise FPTError(f"unknown --report_to {args.report_to!r}; known: none, tensorboard, wandb")

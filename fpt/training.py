"""The training loop, on Accelerate alone: it reads top to bottom and is the same on any hardware."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from safetensors.torch import load_file
from tqdm import tqdm
from transformers import SchedulerType, get_scheduler

from fpt import state
from fpt.args import DataArguments, ModelArguments, TrainArguments, as_dict, command_of, flat
from fpt.backbones import DTYPES
from fpt.baselines import MODELS, Estimator, Made, Network
from fpt.checkpoint import add_test_metrics, load_tuned, save_checkpoint
from fpt.checkpoint.remote import check_push, push
from fpt.csv_files import write_csv
from fpt.data.batches import LengthGroupedBatchSampler, make_loader, padding_waste, random_batches
from fpt.data.cache import Prepared, prepare
from fpt.data.describe import describe_data
from fpt.data.samples import numbers
from fpt.errors import FPTError, RejectedRows
from fpt.escape import short_text, visible
from fpt.evaluation.predict import predict_split, prediction_table, resolution_of
from fpt.files import alone, slug, write_json
from fpt.flops import matmul_peak, on_meta, step_flops
from fpt.parallel import (
    any_process,
    changing,
    gather,
    load_optimizer_state,
    mean,
    optimizer_state,
    precision,
    strategy,
    training_accelerator,
    whole,
    whole_tensor,
)
from fpt.parallel import prepare as prepare_for
from fpt.results import RESULTS_FILE, is_better, shown_metric, table, write_results
from fpt.run_dir import (
    DATA_KEY,
    LOCK,
    PREDICTIONS,
    REJECTED,
    RUN_FILE,
    check_same_data,
    claim_output_dir,
    data_key,
    list_rejected,
    remove_outputs,
    repair,
    split_table,
)
from fpt.tasks import TASKS, resolve
from fpt.together import (
    Part,
    Together,
    best_rate,
    check_together,
    one_by_one,
    one_of_each,
    several,
    variants,
    write_summary,
)

# So many losses in a row that are not finite end a run.
LOST_STEPS = 10
# A training loss of so many times the first one has exploded.
EXPLODED = 3.0
# Steps after which several processes ask each other whether one was told to stop.
AGREE_STEPS = 5
# Kinds of devices that AdamW has a fused operation for.
FUSED = ("cpu", "cuda", "mps", "xpu")
# Arguments that a checkpoint tells.
TOLD = ("seed", "max_steps", "global_batch_size", "learning_rate", "lr_scheduler", "license")


@dataclass
class Progress:
    """Where a run is; JSON values, saved with its state."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_score: float | None = None
    best_step: int = 0
    best_metrics: dict[str, Any] = field(default_factory=dict)
    evaluations_without_gain: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


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
        done = _fit(jobs) if isinstance(kind, Estimator) else _train(jobs)
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


@dataclass
class Job:
    """One run: what is trained on what, and where it goes. `held` is what is given back when it ends."""

    kind: Any
    prepared: Prepared
    model_args: ModelArguments
    args: TrainArguments
    arguments: dict[str, Any]
    accelerator: Accelerator
    output: Path
    started: float
    held: contextlib.ExitStack


def default_output(task: str, model: str) -> str:
    """Where a run goes when --output_dir is not given."""
    return str(Path("runs") / (slug(task) if model == "fpt" else f"{slug(task)}-{model}"))


def _train(jobs: list[Job]) -> list[dict[str, Any]]:
    """Train a network step by step, or several tunings of one core side by side; no results when told to stop."""
    job, accelerator, several_runs = jobs[0], jobs[0].accelerator, len(jobs) > 1
    log = accelerator.print
    made = job.kind.make_each(job.prepared, job.model_args, [own.args for own in jobs], log)
    for own in jobs:
        _start_outputs(own)
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
    results = [loop.finish(test=loop.args.learning_rate == picked) for loop in loops]
    accelerator.end_training()
    if job.args.push_to_hub and accelerator.is_main_process:
        push(job.output / "checkpoint", job.args.push_to_hub, job.args.hub_private, log)
    return results


def _fit(jobs: list[Job]) -> list[dict[str, Any]]:
    """Fit an estimator, in one process."""
    job = jobs[0]
    kind, prepared, args, accelerator, output = job.kind, job.prepared, job.args, job.accelerator, job.output
    if accelerator.num_processes > 1:
        raise FPTError(f"--model {kind.name} is fitted by one process; start it without a launcher of several")
    if args.save_full or args.resume or args.push_to_hub:
        raise FPTError(f"--model {kind.name} is fitted at once; it has no checkpoint to --resume, --save_full or --push_to_hub")
    if len(jobs) > 1:
        raise FPTError(f"--model {kind.name} is fitted at once; give --seed, one run a seed")
    _start_outputs(job)
    set_seed(args.seed)
    begun = time.perf_counter()
    fitted = kind.fit(prepared, kind.check(job.model_args), args.seed, accelerator.print)
    labels = {split: numbers(prepared.splits[split], "label") for split in fitted.predictions}
    metrics = {s: prepared.output.metrics(labels[s], p) for s, p in fitted.predictions.items()}
    results = {
        **_about(job, metrics),
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
    _write(output, prepared, results, fitted.predictions["test"], labels["test"])
    return [results]


def _about(job: Job, metrics: dict[str, Any]) -> dict[str, Any]:
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


def _start_outputs(job: Job) -> None:
    """Collective: take the folder of the run, and make it ready.

    Raises:
        FPTError: another run writes to it.
    """
    output = job.output

    def taken() -> None:
        raise FPTError(f"another run is writing to --output_dir {output}; wait for it, or give another folder")

    if job.accelerator.is_main_process:
        try:
            job.held.enter_context(alone(output / LOCK, taken, job.accelerator.print))
        except OSError as error:
            raise FPTError(f"--output_dir {output} can't be written: {error.strerror or error}") from error
        repair(output)
        # What another run may have left since this one began.
        claim_output_dir(output, job.args, job.arguments)
        if job.args.resume:
            check_same_data(output, job.prepared)
        else:
            remove_outputs(output)
            write_json(output / RUN_FILE, {**job.arguments, DATA_KEY: data_key(job.prepared)})
            write_csv(job.prepared.rejected, output / REJECTED)
            if job.prepared.task.saves_split:
                write_csv(split_table(job.prepared), output / "split.csv")
    job.accelerator.wait_for_everyone()


def _write(output: Path, prepared: Prepared, results: dict[str, Any], predictions: np.ndarray, labels: np.ndarray) -> None:
    """Predictions of the test split, then the results: where these are, all is there."""
    write_csv(prediction_table(prepared, "test", predictions, labels), output / PREDICTIONS)
    write_results(output, results)


class Loop:
    """The state of one run: model, optimizer, schedule, batches, and the progress through them.

    Args:
        count: runs that go side by side in this process.
    """

    def __init__(self, job: Job, made: Made, trackers: bool = False, count: int = 1) -> None:
        accelerator, args, prepared, model = job.accelerator, job.args, job.prepared, made.network
        self.job, self.made, self.trackers, self.count = job, made, trackers, count
        self.accelerator, self.args, self.prepared, self.output = accelerator, args, prepared, job.output
        self.label = job.output.name if count > 1 else ""
        self.config = self._config()
        self.raw_model = model
        # For its operations to be counted, once there is time.
        self.shell = on_meta(model)
        self.samples = prepared.samples("train", args.seed)
        batch_size = args.per_device_batch_size * accelerator.num_processes
        self.sampler = LengthGroupedBatchSampler(
            self.samples.lengths, batch_size, args.seed, accelerator.process_index, accelerator.num_processes
        )
        lengths, size = self.samples.lengths, args.per_device_batch_size
        self.padding = {
            "grouped": round(padding_waste(lengths, iter(self.sampler)), 4),
            "random": round(padding_waste(lengths, random_batches(len(lengths), size, args.seed)), 4),
        }
        self.log(
            f"padding: {self.padding['grouped']:.1%} of positions in batches of {size} grouped by length"
            f" (random batches: {self.padding['random']:.1%}); {strategy(accelerator)}"
        )
        self.progress = Progress()
        self.losses: list[torch.Tensor] = []  # since the last evaluation
        self.loader = make_loader(self.samples, self.sampler, prepared.input, prepared.output)
        found = self._load_state() if args.resume else None
        # Fused: one operation a tensor, and nothing is read back.
        fused = accelerator.device.type in FUSED
        optimizer = torch.optim.AdamW(parameter_groups(model, args), lr=args.learning_rate, fused=fused)
        # On the plain optimizer, so that it counts optimizer steps on any number of processes.
        self.schedule = get_scheduler(args.lr_scheduler, optimizer, args.warmup_steps, args.max_steps)
        self.plain_optimizer = optimizer
        self.model, self.optimizer = prepare_for(accelerator, model, optimizer, args)
        set_seed(args.seed, device_specific=True)
        if found:
            self._go_on(*found)
        self.signalled = self.stopped = False
        # Counted on the device: steps without finite gradients, and losses in a row that are not finite.
        self.left_out = torch.zeros((), dtype=torch.long, device=accelerator.device)
        self.lost = torch.zeros_like(self.left_out)

    def log(self, line: str) -> None:
        """Say something of this run."""
        self.accelerator.print(f"{self.label}: {line}" if self.label else line)

    def _config(self) -> dict[str, Any]:
        """What a checkpoint of this run says of it."""
        job, prepared, arguments = self.job, self.prepared, self.job.arguments
        trainable, total = self.made.network.count()
        # A checkpoint is published: no folder of this machine goes into it.
        portable = {
            k: v for k, v in as_dict(prepared.args).items() if k not in ("data_dir", "cache_dir", "num_proc", "split_seed")
        }
        portable["dataset"] = prepared.task.name
        return {
            "task": prepared.task.name,
            "model": job.kind.name,
            "input": prepared.input.to_dict(),
            "output": prepared.output.to_dict(),
            "core": self.made.core,
            **self.made.config,
            "tokenizer": prepared.args.tokenizer,
            "trainable_parameters": trainable,
            "total_parameters": total,
            "mixed_precision": precision(self.accelerator),
            "eval_batch_size": self.args.eval_batch_size,
            "data": {
                "source": prepared.task.source,
                "licence": prepared.task.licence,
                "arguments": portable,
                **prepared.manifest,
            },
            "training": {k: arguments[k] for k in TOLD if arguments[k] is not None},
            "command": command_of({**arguments, "dataset": prepared.task.name}),
        }

    def finish(self, test: bool = True) -> dict[str, Any]:
        """Put the best model back, score it on test, and write everything down.

        Args:
            test: false for a run that was not picked: its test split stays untouched, and it has no results file.
        """
        progress, prepared, accelerator, output, args = self.progress, self.prepared, self.accelerator, self.output, self.args
        self.load_best()
        metrics = {"valid": progress.best_metrics}
        begun = time.perf_counter()
        predictions, labels = self.predict("test") if test else (np.empty(0), np.empty(0))
        seconds, scored_per_second = time.perf_counter() - begun, None
        if test:
            metrics["test"] = prepared.output.metrics(labels, predictions, resolution_of(self.model, accelerator))
            scored_per_second = round(float(np.sum(prepared.samples("test").lengths)) / seconds, 1)
        results = {
            **_about(self.job, metrics),
            "best_step": progress.best_step,
            "steps": progress.step,
            "stopped_early": progress.step < args.max_steps,
            "core": self.made.core,
            **self.made.results,
            "trainable_parameters": self.config["trainable_parameters"],
            "total_parameters": self.config["total_parameters"],
            "wall_seconds": round(progress.wall_seconds + time.perf_counter() - self.job.started, 2),
            "train_seconds": round(progress.train_seconds, 2),
            "tokens_per_second": round(progress.tokens / max(progress.train_seconds, 1e-9), 1),
            "evaluation_tokens_per_second": scored_per_second,
            "runs_side_by_side": self.count,
            **self._flops(),
            "padding": self.padding,
            "device": {"type": accelerator.device.type, "strategy": strategy(accelerator), "threads": torch.get_num_threads()},
            "mixed_precision": precision(accelerator),
            "history": progress.history,
        }
        best = {**self.config, "step": progress.best_step, "valid_metrics": metrics["valid"]}
        tensors = whole(accelerator, dict(self.raw_model.named_parameters())) if args.save_full else {}
        if accelerator.is_main_process:
            if args.save_full:
                save_checkpoint(output / "full", tensors, best, prepared.tokenizer, full_of=self.raw_model)
            if test:
                add_test_metrics(output / "checkpoint", metrics["test"])
                _write(output, prepared, results, predictions, labels)
        if self.trackers and test:
            self._track({f"test/{k}": v for k, v in metrics["test"].items() if v is not None})
        return results

    def _flops(self) -> dict[str, float | None]:
        """Model FLOPs of a real token, and the share of the device's matmul peak that training reached (MFU)."""
        progress, mean_length = self.progress, round(float(np.mean(self.samples.lengths)))
        try:
            per_token = sum(step_flops(self.shell, self.prepared.input, 1, mean_length)) / mean_length
        except (RuntimeError, TypeError, ValueError, NotImplementedError):  # a network that can't run without numbers
            return {"flops_per_token": None, "mfu": None}
        kind = precision(self.accelerator)
        dtype = DTYPES[kind] if kind in DTYPES else getattr(self.raw_model, "core_dtype", torch.float32)
        rows = self.args.per_device_batch_size * mean_length * self.count
        peak = matmul_peak(self.accelerator.device, dtype, rows, getattr(self.raw_model, "width", 1024))
        reached = per_token * progress.tokens * self.count / max(progress.train_seconds, 1e-9)
        return {"flops_per_token": per_token, "mfu": round(reached / peak / self.accelerator.num_processes, 4)}

    def _track(self, values: dict[str, float]) -> None:
        """Tell the tracker."""
        start = f"{short_text(self.label)}/" if self.label else ""
        self.accelerator.log({start + name: value for name, value in values.items()}, step=self.progress.step)

    def after_step(self, bar: tqdm) -> None:
        """Evaluate and save where it is time to."""
        args, progress = self.args, self.progress
        last = progress.step == args.max_steps
        if progress.step % args.eval_steps == 0 or last:
            clock = time.perf_counter()
            train_loss = self.mean_loss()  # waits for the device
            progress.train_seconds += time.perf_counter() - clock
            self._evaluate(train_loss, bar)
            self.losses.clear()
        self.stopped = self._must_stop() and not last
        save_steps = args.save_steps or args.eval_steps
        if progress.step % save_steps == 0 or last or self._should_stop() or self.stopped:
            earlier, progress.wall_seconds = progress.wall_seconds, progress.wall_seconds + time.perf_counter() - self.job.started
            self._save_state()
            progress.wall_seconds = earlier

    def say_why_it_ended(self) -> None:
        """When it was before the last step."""
        if self._should_stop():
            self.log(
                f"stopped at step {self.progress.step}: no better {self.prepared.primary_metric} on the validation split for"
                f" {self.progress.evaluations_without_gain} evaluations"
            )

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """Batches of one epoch after the other, from where the run is until it is over."""
        progress = self.progress
        while True:
            self.sampler.start_epoch(progress.epoch, progress.batch)
            self.samples.start_epoch(progress.epoch)
            for batch in self.loader:
                if progress.step >= self.args.max_steps or self._should_stop():
                    return
                yield batch
            progress.epoch, progress.batch = progress.epoch + 1, 0

    def loss(self, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The loss of a batch, which is noted."""
        loss = self.prepared.output.loss(logits, batch["labels"]) * self.sampler.weight(self.progress.batch)
        self.losses.append(loss.detach())
        self.lost = (self.lost + 1) * ~torch.isfinite(loss.detach())
        return loss

    def update(self) -> None:
        """Move the tuned parameters along the gradients, when those of the last batch of a step are there."""
        progress, last = self.progress, self.accelerator.sync_gradients
        if last:
            self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad()
        progress.tokens += self.sampler.tokens(progress.batch)
        progress.batch += 1
        if last:
            self.schedule.step()
            progress.step += 1

    def predict(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Predictions of the model as it is now on `split`, and the labels."""
        return predict_split(self.model, self.prepared, split, self.args.eval_batch_size, self.accelerator)

    def score(self, split: str) -> dict[str, float | None]:
        """Metrics of the model as it is now on `split`."""
        predictions, labels = self.predict(split)
        if not np.isfinite(predictions).all():
            raise FPTError(
                f"the model of step {self.progress.step} predicts numbers that are not finite; start again with a lower"
                " --learning_rate, or with --mixed_precision no"
            )
        return self.prepared.output.metrics(labels, predictions, resolution_of(self.model, self.accelerator))

    def load_best(self) -> None:
        """Put the best checkpoint's tensors back into the model."""
        self.accelerator.wait_for_everyone()
        path = self.output / "checkpoint" / "model.safetensors"
        with changing(self.accelerator, self.raw_model.own_parameters()):
            load_tuned(self.raw_model, load_file(path), str(path))

    def _evaluate(self, train_loss: float, bar: tqdm) -> None:
        progress, primary = self.progress, self.prepared.primary_metric
        metrics = self.score("valid")
        progress.history.append({"step": progress.step, "train_loss": train_loss, "valid": metrics})
        self._say_what_went_wrong(train_loss)
        score = metrics[primary]
        better = not progress.history[:-1] or is_better(primary, score, progress.best_score)
        if better:
            progress.best_score, progress.best_step, progress.best_metrics = score, progress.step, metrics
            progress.evaluations_without_gain = 0
            own = whole(self.accelerator, self.raw_model.own_parameters())
            if self.accelerator.is_main_process:
                config = {**self.config, "step": progress.step, "valid_metrics": metrics}
                save_checkpoint(self.output / "checkpoint", own, config, self.prepared.tokenizer)
        else:
            progress.evaluations_without_gain += 1
        shown = "  ".join(f"{k} {shown_metric(v)}" for k, v in metrics.items() if v is not None)
        if self.accelerator.is_main_process:
            start = f"{self.label}  " if self.label else ""
            bar.write(f"{start}step {progress.step:>6}  train loss {train_loss:.4f}  valid {shown}{'  *' if better else ''}")
        if self.trackers:
            values = {f"valid/{k}": v for k, v in metrics.items() if v is not None}
            self._track({"train/loss": train_loss, "learning_rate": self.schedule.get_last_lr()[0], **values})

    def _should_stop(self) -> bool:
        patience = self.args.early_stopping_patience
        return bool(patience) and self.progress.evaluations_without_gain >= patience

    def _clip(self) -> None:
        """Clip the gradients, and leave them out where they are not finite: one bad batch must not end a run.

        Nothing is read back from the device here, so no step waits for it.
        """
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.args.max_grad_norm or math.inf)
        if not isinstance(norm, torch.Tensor):  # DeepSpeed clips on its own
            return
        bad = ~torch.isfinite(whole_tensor(norm))
        self.left_out = self.left_out + bad
        for parameter in self.raw_model.parameters():
            if parameter.grad is not None:
                parameter.grad.masked_fill_(bad, 0)

    def mean_loss(self, of_last: int = 0) -> float:
        """The mean over all processes of the losses since the last evaluation, or of the last few, that are finite.

        Raises:
            FPTError: none has been for some steps.
        """
        if any_process(self.accelerator, int(self.lost) >= LOST_STEPS):
            best = self.progress.best_step
            kept = (
                f"the best checkpoint so far, of step {best}, is whole" if self.progress.best_metrics else "nothing was saved yet"
            )
            raise FPTError(
                f"the loss is not finite at step {self.progress.step} and before; {kept}. Start again with a lower"
                " --learning_rate or more --warmup_steps, or with --mixed_precision no"
            )
        values = torch.stack(self.losses[-of_last:])
        return mean(self.accelerator, values[torch.isfinite(values)].mean())

    def _say_what_went_wrong(self, train_loss: float) -> None:
        """Gradients that were left out, and a loss that has grown."""
        if left_out := int(self.left_out):
            self.left_out = torch.zeros_like(self.left_out)
            self.log(f"step {self.progress.step}: the gradients of {left_out} steps were not finite and were left out")
        before = [h["train_loss"] for h in self.progress.history[:-1]]
        if before and train_loss > EXPLODED * max(before[0], 1e-3):
            self.log(
                f"step {self.progress.step}: the training loss has grown from {min(before):.4g} to {train_loss:.4g}; the best"
                f" checkpoint is of step {self.progress.best_step}. A lower --learning_rate or --max_grad_norm may help"
            )

    def _must_stop(self) -> bool:
        """Whether a process was told to stop. Several processes agree now and then: each time costs a message."""
        if self.accelerator.num_processes > 1 and self.progress.step % AGREE_STEPS:
            return False
        return any_process(self.accelerator, self.signalled)

    def _save_state(self) -> None:
        """Write what a continuation needs; see `fpt.state`."""
        own = self.raw_model.own_parameters()
        tensors = {f"model.{name}": tensor for name, tensor in whole(self.accelerator, own).items()}
        moments = optimizer_state(self.accelerator, self.optimizer, own)
        tensors |= {f"optimizer.{name}": tensor for name, tensor in moments.items()}
        mine = {"losses": torch.stack(self.losses).cpu() if self.losses else torch.empty(0), "random": torch.get_rng_state()}
        if torch.cuda.is_available():
            mine["cuda"] = torch.cuda.get_rng_state()
        for rank, theirs in enumerate(gather(self.accelerator, mine)):
            tensors |= {f"process.{rank}.{name}": tensor for name, tensor in theirs.items()}
        if self.accelerator.is_main_process:
            info = {
                "progress": vars(self.progress),
                "schedule": {k: v for k, v in self.schedule.state_dict().items() if k != "lr_lambdas"},
                "core": self.config["core"],
                "processes": self.accelerator.num_processes,
            }
            state.save(self.output / "state", self.progress.step, tensors, info, self.args.keep_last)

    def _load_state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The last state; tuned tensors go into the model before it is spread over processes."""
        found = state.latest(self.output / "state", self.log)
        if found is None:
            self.log("resume: no state was saved yet; starting from step 0")
            return None
        tensors, info = found
        if info["core"] != self.config["core"]:
            raise FPTError(
                f"{self.output} was trained on core {info['core']['name']} (sha256 {info['core']['sha256'][:12]}…), not on"
                f" {self.config['core']['name']} ({self.config['core']['sha256'][:12]}…); results of two cores are never mixed"
            )
        tuned = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
        load_tuned(self.raw_model, tuned, str(self.output / "state"))
        return found

    def _go_on(self, tensors: dict[str, torch.Tensor], info: dict[str, Any]) -> None:
        """Put back everything else of a state."""
        moments = {name.removeprefix("optimizer."): t for name, t in tensors.items() if name.startswith("optimizer.")}
        load_optimizer_state(self.accelerator, self.optimizer, self.raw_model.own_parameters(), moments)
        self.schedule.load_state_dict({**self.schedule.state_dict(), **info["schedule"]})
        for group, rate in zip(self.plain_optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate
        self.progress = Progress(**info["progress"])
        self.log(f"resume: going on from step {self.progress.step}")
        if info["processes"] != self.accelerator.num_processes:
            self.log(
                f"resume: {info['processes']} processes before, {self.accelerator.num_processes} now; the batches stay the same,"
                " dropout draws other numbers"
            )
            return
        mine = f"process.{self.accelerator.process_index}."
        self.losses = list(tensors[f"{mine}losses"].to(self.accelerator.device))
        torch.set_rng_state(tensors[f"{mine}random"])
        if torch.cuda.is_available() and f"{mine}cuda" in tensors:
            torch.cuda.set_rng_state(tensors[f"{mine}cuda"])


# The loops and their batches, with the logits, in parts to be learned from one after the other.
Forward = Callable[[list[Loop], list[dict[str, torch.Tensor]]], Iterator[Part]]


def take_steps(loops: list[Loop], forward: Forward) -> None:
    """Take the steps of one run, or of several side by side; they evaluate and save on the way."""
    accelerator = loops[0].accelerator
    bar = tqdm(
        total=max(loop.args.max_steps for loop in loops),
        initial=min(loop.progress.step for loop in loops),
        desc="training",
        unit="step",
        disable=not accelerator.is_main_process,
        dynamic_ncols=True,
    )
    streams = {loop: loop.batches() for loop in loops}
    for loop in loops:
        loop.model.train()
    with until_signal(loops), bar:
        while True:
            clock = time.perf_counter()
            found = {loop: batch for loop, stream in streams.items() if (batch := next(stream, None)) is not None}
            if not found:
                break
            streams = {loop: streams[loop] for loop in found}
            step_done = learn(list(found), [send_to_device(batch, accelerator.device) for batch in found.values()], forward)
            shown = next(iter(found))
            if step_done:
                bar.update()
                if shown.progress.step % 10 == 0:
                    loss, speed = shown.mean_loss(50), shown.progress.tokens / max(shown.progress.train_seconds, 1e-9)
                    bar.set_postfix(loss=f"{loss:.3f}", tokens_s=f"{speed * len(found):.0f}")
            for loop in found:
                loop.progress.train_seconds += time.perf_counter() - clock
            if step_done:
                for loop in found:
                    loop.after_step(bar)
            if any(loop.stopped for loop in loops):
                break
    for loop in loops:
        loop.say_why_it_ended()


def learn(loops: list[Loop], batches: list[dict[str, torch.Tensor]], forward: Forward) -> bool:
    """Learn from a batch each; returns whether these were the last of an optimizer step."""
    accelerator = loops[0].accelerator
    with accelerator.accumulate(*(loop.model for loop in loops)):
        for part in forward(loops, batches):
            losses = [loop.loss(logits, batch) for loop, batch, logits in zip(*part, strict=True)]
            # No run's loss knows another's parameters, so the gradients of the sum are those of each.
            accelerator.backward(sum(losses[1:], losses[0]))
        for loop in loops:
            loop.update()
    return accelerator.sync_gradients


@contextlib.contextmanager
def until_signal(loops: list[Loop]) -> Iterator[None]:
    """A scheduler that takes the machine away says so with SIGTERM: the step is finished and the state saved."""

    def note(number: int, frame: Any) -> None:
        for loop in loops:
            loop.signalled = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        # A signal may come twice, from the launcher and from the scheduler; the second must not undo the good end.
        stopped = any(loop.stopped for loop in loops)
        signal.signal(signal.SIGTERM, signal.SIG_IGN if stopped else before)


def parameter_groups(model: Network, args: TrainArguments) -> list[dict[str, Any]]:
    """AdamW groups: matrices decay, norms, biases and positions do not; the input layer has its own rate."""
    matrices, plain, embedding = [], [], []
    roles = model.roles()
    for name, parameter in model.tuned_parameters().items():
        if parameter.ndim < 2 or roles.get(name) == "position":
            plain.append(parameter)
        elif roles.get(name) == "input":
            embedding.append(parameter)
        else:
            matrices.append(parameter)
    groups = [
        {"params": matrices, "weight_decay": args.weight_decay},
        {"params": plain, "weight_decay": 0.0},
        {"params": embedding, "weight_decay": args.weight_decay, "lr": args.learning_rate * args.embedding_lr_scale},
    ]
    return [group for group in groups if group["params"]]


def start_trackers(accelerator: Accelerator, args: TrainArguments, arguments: dict[str, Any], output: Path) -> bool:
    """Open the tracker that ``--report_to`` names; returns whether there is one."""
    if args.report_to == "none":
        return False
    logs = output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    config = {k: visible(v) if isinstance(v, str) else v for k, v in flat(arguments).items() if v is not None}
    name = short_text(output.name)
    accelerator.init_trackers(args.project, config=config, init_kwargs={"wandb": {"dir": str(logs), "name": name}})
    return True


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

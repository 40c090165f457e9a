"""The training loop, on Accelerate alone: it reads top to bottom and is the same on any hardware."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from accelerate.utils import send_to_device, set_seed
from safetensors import SafetensorError
from transformers import get_scheduler

from fpt.baselines import Made
from fpt.checkpoint import save_checkpoint
from fpt.data.batches import LengthGroupedBatchSampler, make_loader, padding_waste, random_batches
from fpt.errors import FPTError
from fpt.evaluation.predict import predict_split, resolution_of
from fpt.flops import on_meta
from fpt.launched import check_done
from fpt.parallel import any_process, strategy, whole, whole_tensor
from fpt.parallel import prepare as prepare_for
from fpt.random_state import OwnRandom
from fpt.results import is_better, shown_metric
from fpt.together import Part
from fpt.training import best, resume
from fpt.training.monitor import Bar, Losses, Report, Tracker, defined, label, say
from fpt.training.optimizer import make_optimizer
from fpt.training.records import Failure, Job, Progress
from fpt.training.results import checkpoint_config
from fpt.training.stop import Stop

# Steps after which several processes ask each other whether one was told to stop.
AGREE_STEPS = 5


class Loop:
    """The state of one run: model, optimizer, schedule, batches, and the progress through them.

    Args:
        count: runs that go side by side in this process.
    """

    def __init__(self, job: Job, made: Made, tracker: Tracker | None = None, count: int = 1) -> None:
        accelerator, args, prepared, model = job.accelerator, job.args, job.prepared, made.network
        self.job, self.made, self.tracker, self.count = job, made, tracker, count
        self.accelerator, self.args, self.prepared, self.output = accelerator, args, prepared, job.output
        self.label = job.output.name if count > 1 else ""
        self.config = checkpoint_config(job, made)
        self.raw_model = model
        # For its operations to be counted, once there is time.
        self.shell = on_meta(model)
        self.peak_at_start = 0.0
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
        self.monitor = Losses(accelerator)
        self.loader = make_loader(self.samples, self.sampler, prepared.input, prepared.output)
        if job.state:
            resume.load_parameters(self, job.state)
        optimizer = make_optimizer(model, args, accelerator.device)
        # On the plain optimizer, so that it counts optimizer steps on any number of processes.
        self.schedule = get_scheduler(args.lr_scheduler, optimizer, args.warmup_steps, args.max_steps)
        self.plain_optimizer = optimizer
        self.model, self.optimizer = prepare_for(accelerator, model, optimizer, args)
        check_done(accelerator, args)
        set_seed(args.seed, device_specific=True)
        self.random = OwnRandom() if count > 1 else None
        if job.state:
            resume.go_on(self, job.state)
            job.state = None
        self.stop, self.stopped = Stop(), False
        self.failure: Failure | None = None

    def log(self, line: str) -> None:
        """Print a line about this run."""
        say(self.accelerator, f"{self.label}: {line}" if self.label else line)

    def after_step(self) -> Report:
        """Evaluate and save where it is time to; returns what there is to print of it."""
        args, progress, report = self.args, self.progress, Report()
        last = progress.step == args.max_steps
        if progress.step % args.eval_steps == 0 or last:
            clock = time.perf_counter()
            train_loss = self.monitor.mean(progress)  # waits for the device
            progress.train_seconds += time.perf_counter() - clock
            report = self._evaluate(train_loss)
            self.monitor.losses.clear()
        self.stopped = self._must_stop() and not last
        save_steps = args.save_steps or args.eval_steps
        if progress.step % save_steps == 0 or last or self._should_stop() or self.stopped:
            earlier, progress.wall_seconds = progress.wall_seconds, progress.wall_seconds + time.perf_counter() - self.job.started
            self._save_state()
            progress.wall_seconds = earlier
        return report

    def show(self, report: Report, bar: Bar) -> None:
        """Print and track an evaluation. By now it is saved: nothing that a console or a tracker does can lose it."""
        for line in report.lines:
            bar.write(line)
        self.track(report.values)

    def track(self, values: dict[str, float]) -> None:
        """Send numbers of the last step to the tracker."""
        if self.tracker:
            start = f"{self.label}/" if self.label else ""
            self.tracker.log({start + name: value for name, value in values.items()}, self.progress.step)

    def fail(self, error: Exception) -> None:
        """Leave this run out, among others that go on; its states stay.

        Raises:
            Exception: it is the only one.
        """
        if self.count == 1:
            raise error
        reason = " ".join(str(error).split())
        args = self.args
        self.failure = Failure(self.output.name, args.seed, args.learning_rate, self.progress.step, reason)
        self.log(f"left out at step {self.progress.step}, the other runs go on: {reason}")

    def say_why_it_ended(self) -> None:
        """When it was before the last step."""
        if self._should_stop() and not self.failure:
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
        self.monitor.note(loss)
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
        return self.metrics(*self.predict(split))

    def metrics(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
        """Metrics of predictions of the model.

        Raises:
            FPTError: they are not finite.
        """
        if not np.isfinite(predictions).all():
            raise FPTError(
                f"the model of step {self.progress.step} predicts numbers that are not finite; start again with a lower"
                " --learning_rate, or with --mixed_precision no"
            )
        return self.prepared.output.metrics(labels, predictions, resolution_of(self.model, self.accelerator))

    def load_best(self) -> None:
        """Put the best checkpoint's tensors back into the model."""
        best.load(self)

    def _evaluate(self, train_loss: float) -> Report:
        """Score the validation split, and keep the model where it is the best so far."""
        progress, primary = self.progress, self.prepared.primary_metric
        metrics = self.score("valid")
        progress.history.append({"step": progress.step, "train_loss": train_loss, "valid": metrics})
        score = metrics[primary]
        better = not progress.history[:-1] or is_better(primary, score, progress.best_score)
        if better:
            progress.best_score, progress.best_step, progress.best_metrics = score, progress.step, metrics
            progress.evaluations_without_gain = 0
            self._save_checkpoint(metrics)
        else:
            progress.evaluations_without_gain += 1
        shown = "  ".join(f"{k} {shown_metric(v)}" for k, v in metrics.items() if v is not None)
        start = f"{self.label}  " if self.label else ""
        line = f"{start}step {progress.step:>6}  train loss {train_loss:.4f}  valid {shown}{'  *' if better else ''}"
        values = {"train/loss": train_loss, "learning_rate": self.schedule.get_last_lr()[0]}
        return Report([*label(self.label, self.monitor.remarks(progress)), line], {**values, **defined(metrics, "valid/")})

    def _save_checkpoint(self, metrics: dict[str, float | None]) -> None:
        """Collective: write the model as it is now.

        Raises:
            FPTError: it can't be written; the one before is as it was.
        """
        own = whole(self.accelerator, self.raw_model.own_parameters())
        if not self.accelerator.is_main_process:
            return
        config = {**self.config, "step": self.progress.step, "valid_metrics": metrics}
        try:
            save_checkpoint(self.output / best.FOLDER, own, config, self.prepared.tokenizer)
        except (OSError, SafetensorError) as error:
            raise FPTError(
                f"the checkpoint of step {self.progress.step} can't be written to {self.output}: {error}; make room and go on"
                " with --resume"
            ) from error

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
        self.monitor.left_out = self.monitor.left_out + bad
        for parameter in self.raw_model.parameters():
            if parameter.grad is not None:
                parameter.grad.masked_fill_(bad, 0)

    def _must_stop(self) -> bool:
        """Whether a process was told to stop. Several processes agree now and then: each time costs a message."""
        if self.accelerator.num_processes > 1 and self.progress.step % AGREE_STEPS:
            return False
        return any_process(self.accelerator, self.stop.signal is not None)

    def _save_state(self) -> None:
        """Collective: write what a continuation needs; see `fpt.training.resume`."""
        resume.save_state(self)


# The loops and their batches, with the logits, in parts to be learned from one after the other.
Forward = Callable[[list[Loop], list[dict[str, torch.Tensor]]], Iterator[Part]]


def take_steps(loops: list[Loop], forward: Forward) -> Stop:
    """Take the steps of one run, or of several side by side; they evaluate and save on the way.

    A run among several that fails is left out, see `Loop.failure`.

    Returns:
        Whether a signal came.

    Raises:
        FPTError: a run that has the process to itself has failed.
    """
    accelerator = loops[0].accelerator
    stop = Stop(quiet=not accelerator.is_main_process)
    bar = Bar(accelerator, max(loop.args.max_steps for loop in loops), min(loop.progress.step for loop in loops))
    streams = {loop: loop.batches() for loop in loops}
    for loop in loops:
        loop.stop = stop
        loop.model.train()
    with stop.watching(), contextlib.closing(bar):
        while True:
            clock = time.perf_counter()
            found = {loop: batch for loop, stream in streams.items() if (batch := next(stream, None)) is not None}
            if not found:
                break
            step_done = learn(list(found), [send_to_device(batch, accelerator.device) for batch in found.values()], forward)
            if step_done:
                _show_step(bar, list(found))
            for loop in found:
                loop.progress.train_seconds += time.perf_counter() - clock
            if step_done:
                _after_step(list(found), bar)
            streams = {loop: streams[loop] for loop in found if not loop.failure}
            if any(loop.stopped for loop in streams):
                stop.done = True
                break
    for loop in loops:
        loop.say_why_it_ended()
    return stop


def _show_step(bar: Bar, loops: list[Loop]) -> None:
    """Move the bar, now and then with the loss of the first run."""
    first, figures = loops[0], {}
    if first.progress.step % 10 == 0:
        try:
            loss = first.monitor.mean(first.progress, 50)
            speed = first.progress.tokens / max(first.progress.train_seconds, 1e-9) * len(loops)
            figures = {"loss": f"{loss:.3f}", "tokens_s": f"{speed:.0f}"}
        except FPTError as error:
            first.fail(error)
    bar.update(**figures)


def _after_step(loops: list[Loop], bar: Bar) -> None:
    """Evaluate and save all runs; only then is anything said of it."""
    reports = []
    for loop in loops:
        try:
            reports.append((loop, loop.after_step() if not loop.failure else Report()))
        except (FPTError, OSError) as error:
            loop.fail(error)
    for loop, report in reports:
        loop.show(report, bar)


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

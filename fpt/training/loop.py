"""The training loop, on Accelerate alone: it reads top to bottom and is the same on any hardware.

`take_steps` is the loop over one run or several side by side, `learn` is a step's forward and backward pass, `update` its end.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import torch
from accelerate.utils import send_to_device

from fpt.errors import FPTError
from fpt.outputs import Classes
from fpt.parallel import any_process, whole_tensor
from fpt.training import resume, validation
from fpt.training.monitor import Bar, Report
from fpt.training.running import Run
from fpt.training.shared_backbone import Part
from fpt.training.stop import Stop

# Steps after which several processes ask each other whether one was told to stop.
AGREE_STEPS = 5
Batch = dict[str, torch.Tensor]
# The runs and their batches, with the logits, in parts to be learned from one after the other.
Forward = Callable[[list[Run], list[Batch]], Iterator[Part]]


def take_steps(runs: list[Run], forward: Forward) -> Stop:
    """Take the steps of one run, or of several side by side; they evaluate and save on the way.

    A run among several that fails is left out, see `Run.failure`.

    Returns:
        Whether a signal came.

    Raises:
        FPTError: a run that has the process to itself has failed.
    """
    accelerator = runs[0].accelerator
    stop = Stop(quiet=not accelerator.is_main_process)
    bar = Bar(accelerator, max(run.args.max_steps for run in runs), min(run.progress.step for run in runs))
    streams = {run: batches(run) for run in runs}
    for run in runs:
        run.stop = stop
        run.model.train()
    with stop.watching(), contextlib.closing(bar):
        while True:
            clock = time.perf_counter()
            found = {run: batch for run, stream in streams.items() if (batch := next(stream, None)) is not None}
            if not found:
                break
            step_done = learn(list(found), [send_to_device(batch, accelerator.device) for batch in found.values()], forward)
            if step_done:
                show_step(bar, list(found))
            for run in found:
                run.progress.train_seconds += time.perf_counter() - clock
            if step_done:
                after_step(list(found), bar)
            streams = {run: streams[run] for run in found if not run.failure}
            if any(run.stopped for run in streams):
                stop.done = True
                break
    for run in runs:
        say_why_it_ended(run)
    return stop


def batches(run: Run) -> Iterator[Batch]:
    """Batches of one epoch after the other, from where the run is until it is over."""
    progress = run.progress
    while True:
        run.sampler.start_epoch(progress.epoch, progress.batch)
        run.samples.start_epoch(progress.epoch)
        for batch in run.loader:
            if progress.step >= run.args.max_steps or run.out_of_patience:
                return
            yield batch
        progress.epoch, progress.batch = progress.epoch + 1, 0


def learn(runs: list[Run], found: list[Batch], forward: Forward) -> bool:
    """Learn from a batch each; returns whether these were the last of an optimizer step."""
    accelerator = runs[0].accelerator
    with accelerator.accumulate(*(run.model for run in runs)):
        for part in forward(runs, found):
            losses = [loss_of(run, logits, batch) for run, batch, logits in zip(*part, strict=True)]
            # No run's loss knows another's parameters, so the gradients of the sum are those of each.
            accelerator.backward(sum(losses[1:], losses[0]))
        for run in runs:
            update(run)
    return accelerator.sync_gradients


def loss_of(run: Run, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The loss of a batch, which is noted."""
    output, labels = run.prepared.output, batch["labels"]
    if run.args.label_smoothing and isinstance(output, Classes):
        loss = output.smoothed_loss(logits, labels, run.args.label_smoothing)
    else:
        loss = output.loss(logits, labels)
    loss = loss * run.sampler.weight(run.progress.batch)
    run.monitor.note(loss)
    return loss


def update(run: Run) -> None:
    """Move the trainable parameters along the gradients, when those of the last batch of a step are there."""
    progress, last = run.progress, run.accelerator.sync_gradients
    if last:
        clip(run)
    run.optimizer.step()
    run.optimizer.zero_grad()
    progress.tokens += run.sampler.tokens(progress.batch)
    progress.batch += 1
    if last:
        run.schedule.step()
        progress.step += 1
        if run.average:
            run.average.update(progress.step)


def clip(run: Run) -> None:
    """Clip the gradients, and leave them out where they are not finite: one bad batch must not end a run.

    Nothing is read back from the device here, so no step waits for it.
    """
    norm = run.accelerator.clip_grad_norm_(run.model.parameters(), run.args.max_grad_norm or math.inf)
    if not isinstance(norm, torch.Tensor):  # DeepSpeed clips on its own
        return
    bad = ~torch.isfinite(whole_tensor(norm))
    run.monitor.left_out = run.monitor.left_out + bad
    for parameter in run.network.parameters():
        if parameter.grad is not None:
            parameter.grad.masked_fill_(bad, 0)


def after_step(runs: list[Run], bar: Bar) -> None:
    """Evaluate and save all runs where it is time to; only then is anything printed or tracked: nothing of that can be lost."""
    reports = []
    for run in runs:
        try:
            reports.append((run, evaluate_and_save(run) if not run.failure else Report()))
        except (FPTError, OSError) as error:
            run.fail(error)
    for run, report in reports:
        for line in report.lines:
            bar.write(line)
        run.track(report.values)


def evaluate_and_save(run: Run) -> Report:
    """Evaluate and save where it is time to; returns what there is to print of it."""
    args, progress, report = run.args, run.progress, Report()
    last = progress.step == args.max_steps
    if progress.step % args.eval_steps == 0 or last:
        report = validation.evaluate(run)
    run.stopped = must_stop(run) and not last
    save_steps = args.save_steps or args.eval_steps
    if progress.step % save_steps == 0 or last or run.out_of_patience or run.stopped:
        earlier, progress.wall_seconds = progress.wall_seconds, progress.wall_seconds + time.perf_counter() - run.job.started
        resume.save_state(run)
        progress.wall_seconds = earlier
    return report


def must_stop(run: Run) -> bool:
    """Whether a process was told to stop. Several processes agree now and then: each time costs a message."""
    if run.accelerator.num_processes > 1 and run.progress.step % AGREE_STEPS:
        return False
    return any_process(run.accelerator, run.stop.signal is not None)


def show_step(bar: Bar, runs: list[Run]) -> None:
    """Move the bar, now and then with the loss of the first run."""
    first, figures = runs[0], {}
    if first.progress.step % 10 == 0:
        try:
            loss = first.monitor.mean(first.progress, 50)
            speed = first.progress.tokens / max(first.progress.train_seconds, 1e-9) * len(runs)
            figures = {"loss": f"{loss:.3f}", "tokens_s": f"{speed:.0f}"}
        except FPTError as error:
            first.fail(error)
    bar.update(**figures)


def say_why_it_ended(run: Run) -> None:
    """When it was before the last step."""
    if run.out_of_patience and not run.failure:
        run.log(
            f"stopped at step {run.progress.step}: no better {run.prepared.primary_metric} on the validation split for"
            f" {run.progress.evaluations_without_gain} evaluations"
        )

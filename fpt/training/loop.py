"""The training loop, on Accelerate alone: it reads top to bottom and is the same on any hardware."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device, set_seed
from safetensors.torch import load_file
from tqdm import tqdm
from transformers import get_scheduler

from fpt import state
from fpt.args import as_dict, command_of
from fpt.baselines import Made
from fpt.checkpoint import load_tuned, save_checkpoint
from fpt.data.batches import LengthGroupedBatchSampler, make_loader, padding_waste, random_batches
from fpt.errors import FPTError
from fpt.evaluation.predict import predict_split, resolution_of
from fpt.files import recover_folder
from fpt.flops import on_meta
from fpt.parallel import (
    any_process,
    changing,
    gather,
    load_optimizer_state,
    mean,
    optimizer_state,
    precision,
    strategy,
    whole,
    whole_tensor,
)
from fpt.parallel import prepare as prepare_for
from fpt.results import is_better, shown_metric
from fpt.together import Part
from fpt.training.optimizer import make_optimizer
from fpt.training.records import Job, Progress
from fpt.training.stop import until_signal

# So many losses in a row that are not finite end a run.
LOST_STEPS = 10
# A training loss of so many times the first one has exploded.
EXPLODED = 3.0
# Steps after which several processes ask each other whether one was told to stop.
AGREE_STEPS = 5
# Arguments that a checkpoint tells.
TOLD = ("seed", "max_steps", "global_batch_size", "learning_rate", "lr_scheduler", "license")


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
        optimizer = make_optimizer(model, args, accelerator.device)
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

    def _track(self, values: dict[str, float]) -> None:
        """Tell the tracker."""
        start = f"{self.label}/" if self.label else ""
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
        recover_folder(self.output / "checkpoint")
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

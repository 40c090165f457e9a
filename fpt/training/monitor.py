"""What is seen of a run: its losses, what it prints, and its tracker. Nothing here can end a run but the run itself."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from fpt.args import TrainArguments, flat
from fpt.errors import FPTError
from fpt.optional import missing
from fpt.parallel import any_process, mean
from fpt.text.escape import short_text, visible
from fpt.training.records import Progress

# So many losses in a row that are not finite end a run.
LOST_STEPS = 10
# A training loss of so many times the first one has exploded.
EXPLODED = 3.0


@dataclass
class Report:
    """What is printed and tracked of an evaluation, once everything is saved."""

    lines: list[str] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)


def say(accelerator: Accelerator, line: str) -> None:
    """Print a line once; a console that is gone is no reason to stop."""
    if not accelerator.is_local_main_process:
        return
    try:
        print(line)
    except (OSError, ValueError):  # a closed pipe, a full disk, a closed file
        return


class Bar:
    """A progress bar that a lost console only silences.

    Args:
        total, initial: steps.
    """

    def __init__(self, accelerator: Accelerator, total: int, initial: int) -> None:
        self.accelerator, self.bar = accelerator, None
        try:
            self.bar = tqdm(
                total=total,
                initial=initial,
                desc="training",
                unit="step",
                disable=not accelerator.is_main_process,
                dynamic_ncols=True,
            )
        except (OSError, ValueError):
            return

    def update(self, **figures: str) -> None:
        """Move by a step, with other figures beside it when there are any."""
        try:
            if self.bar is not None:
                self.bar.update()
                if figures:
                    self.bar.set_postfix(**figures)
        except (OSError, ValueError):
            self.bar = None

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        if not self.accelerator.is_main_process:
            return
        try:
            tqdm.write(line, file=sys.stdout)
        except (OSError, ValueError):
            say(self.accelerator, line)

    def close(self) -> None:
        """Leave the bar as it is."""
        try:
            if self.bar is not None:
                self.bar.close()
        except (OSError, ValueError):
            self.bar = None


class Losses:
    """The losses of a run since its last evaluation, and whether they are numbers.

    All of it is counted on the device: nothing is read back in a step.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.losses: list[torch.Tensor] = []
        # Steps without finite gradients, and losses in a row that are not finite.
        self.left_out = torch.zeros((), dtype=torch.long, device=accelerator.device)
        self.lost = torch.zeros_like(self.left_out)

    def note(self, loss: torch.Tensor) -> None:
        """Take note of the loss of a batch."""
        self.losses.append(loss.detach())
        self.lost = (self.lost + 1) * ~torch.isfinite(loss.detach())

    def mean(self, progress: Progress, of_last: int = 0) -> float:
        """Collective: the mean over all processes of the losses since the last evaluation, or of the last few, that are finite.

        Raises:
            FPTError: none has been for some steps.
        """
        if any_process(self.accelerator, int(self.lost) >= LOST_STEPS):
            best = progress.best_step
            kept = f"the best checkpoint so far, of step {best}, is whole" if progress.best_metrics else "nothing was saved yet"
            raise FPTError(
                f"the loss is not finite at step {progress.step} and before; {kept}. Start again with a lower"
                " --learning_rate or more --warmup_steps, or with --mixed_precision no"
            )
        values = torch.stack(self.losses[-of_last:])
        return mean(self.accelerator, values[torch.isfinite(values)].mean())

    def remarks(self, progress: Progress) -> list[str]:
        """What went wrong since the last evaluation: gradients that were left out, and a loss that has grown."""
        out = []
        if left_out := int(self.left_out):
            self.left_out = torch.zeros_like(self.left_out)
            out.append(f"step {progress.step}: the gradients of {left_out} steps were not finite and were left out")
        *before, last = [one["train_loss"] for one in progress.history]
        if before and last > EXPLODED * max(before[0], 1e-3):
            out.append(
                f"step {progress.step}: the training loss has grown from {min(before):.4g} to {last:.4g}; the best"
                f" checkpoint is of step {progress.best_step}. A lower --learning_rate or --max_grad_norm may help"
            )
        return out


class Tracker:
    """What ``--report_to`` names. Training goes on without it when it fails, which is said once.

    Args:
        arguments: of the run, shown by the tracker.
        output: folder that gets ``logs/``.
    """

    def __init__(self, accelerator: Accelerator, args: TrainArguments, arguments: Mapping[str, Any], output: Path) -> None:
        self.accelerator, self.name, self.on = accelerator, args.report_to, args.report_to != "none"
        if not self.on:
            return
        logs = output / "logs"
        config = {k: visible(v) if isinstance(v, str) else v for k, v in flat(arguments).items() if v is not None}
        try:
            logs.mkdir(parents=True, exist_ok=True)
            init = {"wandb": {"dir": str(logs), "name": short_text(output.name)}}
            accelerator.init_trackers(args.project, config=config, init_kwargs=init)
            if not accelerator.trackers:
                raise ImportError("the package is not installed")
        except Exception as error:  # whatever a tracker raises: training needs none of it
            self._lost(error)

    def log(self, values: dict[str, float], step: int) -> None:
        """Send numbers of a step."""
        if not self.on or not values:
            return
        try:
            self.accelerator.log({short_text(name): value for name, value in values.items()}, step=step)
        except Exception as error:  # as above
            self._lost(error)

    def close(self) -> None:
        """End the tracker and, with several processes, what connects them."""
        try:
            for tracker in self.accelerator.trackers:
                tracker.finish()
        except Exception as error:  # as above
            self._lost(error)
        self.accelerator.trackers = []
        self.accelerator.end_training()

    def _lost(self, error: BaseException) -> None:
        self.on, self.accelerator.trackers = False, []
        if self.name == "wandb":
            # Or it tries once more when Python ends, and prints a traceback.
            with contextlib.suppress(Exception):
                import wandb

                wandb.teardown(exit_code=1)
        why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if isinstance(error, ImportError | OSError) and (reason := missing(self.name)):
            why = f"it needs {reason}"
        say(self.accelerator, f"warning: --report_to {self.name} failed ({why}); training goes on without it")


def defined(values: dict[str, float | None], start: str) -> dict[str, float]:
    """The scores that are numbers, their names after `start`."""
    return {f"{start}{name}": value for name, value in values.items() if value is not None and math.isfinite(value)}


def label(name: str, lines: Sequence[str]) -> list[str]:
    """Lines of one run among several."""
    return [f"{name}: {line}" if name else line for line in lines]

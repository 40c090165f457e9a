"""The best checkpoint of a run: whether it is the one that the run means, and back into the model at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from fpt.backbones.base import BackboneSpec
from fpt.checkpoint import WEIGHTS, load_trainable, read_config
from fpt.errors import FPTError
from fpt.parallel import changing
from fpt.training.records import Job, Progress
from fpt.training.running import Run

FOLDER = "checkpoint"
# Parts of a backbone's description that say which weights it has; its name may be another path to the same.
WEIGHTS_OF = ("sha256", "num_layers", "dtype")


@dataclass(frozen=True)
class Best:
    """What a checkpoint says of the model in it."""

    step: int
    metrics: dict[str, float | None]
    core: BackboneSpec
    seed: int
    data_sha256: str


def read(output: Path) -> Best:
    """The checkpoint of the run in `output`, its files held against their hashes.

    Raises:
        FPTError: it is missing or damaged.
    """
    config = read_config(output / FOLDER)
    return Best(config.step, config.valid_metrics, config.core, config.training.seed, config.data.data_sha256)


def step_of(output: Path) -> int | None:
    """The step of the checkpoint in `output`, None where there is none that can be read."""
    try:
        return read(output).step
    except FPTError:
        return None


def check(job: Job, progress: Progress, backbone: BackboneSpec) -> None:
    """Refuse to go on without the best checkpoint so far: at the end it would be missing.

    A checkpoint may be newer than the state: it is written first, and a run may have been stopped in between.

    Args:
        progress, backbone: of the state that the run goes on from.

    Raises:
        FPTError: the checkpoint is missing, damaged, older than the state says, or of another run.
    """
    if not progress.history:
        return
    end = f"; restore {job.output / FOLDER}, or start again with --overwrite"
    try:
        found = read(job.output)
    except FPTError as error:
        wanted = f"the best checkpoint so far, of step {progress.best_step},"
        raise FPTError(f"--resume: {wanted} can't be used: {error}{end}") from error
    if found.step < progress.best_step:
        wanted = f"the best one was of step {progress.best_step}"
        raise FPTError(f"--resume: the checkpoint is of step {found.step}, {wanted}{end}")
    if any(getattr(found.core, name) != getattr(backbone, name) for name in WEIGHTS_OF):
        raise FPTError(f"--resume: the checkpoint is on backbone {found.core.name}, the state on {backbone.name}{end}")
    if found.seed != job.args.seed or found.data_sha256 != job.prepared.manifest.data_sha256:
        raise FPTError(f"--resume: the checkpoint is of another run: of seed {found.seed}, or on other data{end}")


def settle(run: Run) -> None:
    """Let the run mean the checkpoint that is there.

    After a stop between checkpoint and state the steps between are taken again. On another number of processes they may round
    differently, and what was the best model then need not be the best now; but it is the one that was kept.

    Raises:
        FPTError: the checkpoint is missing or damaged.
    """
    run.accelerator.wait_for_everyone()
    found, progress = read(run.output), run.progress
    if found.step == progress.best_step:
        return
    run.log(
        f"the checkpoint is of step {found.step}, not of step {progress.best_step}: it was written before the run was stopped,"
        " and the steps since then came out a little different; results are those of the checkpoint"
    )
    progress.best_step, progress.best_metrics = found.step, dict(found.metrics)
    progress.best_score = found.metrics.get(run.prepared.primary_metric)


def load(run: Run) -> None:
    """Collective: put the tensors of the best checkpoint back into the model."""
    run.accelerator.wait_for_everyone()
    path = run.output / FOLDER / WEIGHTS
    with changing(run.accelerator, run.network.own_parameters()):
        load_trainable(run.network, load_file(path), str(path))

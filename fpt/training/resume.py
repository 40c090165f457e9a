"""States of a run: what is in one, whether a run may go on from it, and how it does.

Everything that can be checked is checked before the backbone is loaded: `find_state`. What needs the model is checked before the
first step: `load_parameters` and `go_on`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import torch
from pydantic import ValidationError

from fpt.args import flat
from fpt.backbones.base import BackboneSpec
from fpt.checkpoint import load_trainable
from fpt.errors import FPTError
from fpt.models.base import Made
from fpt.parallel import MOMENTS, gather, load_optimizer_state, optimizer_state, precision, whole
from fpt.results import RESULTS_FILE
from fpt.text.log import Log
from fpt.training import best, state
from fpt.training.averaging import PREFIX
from fpt.training.content import changes
from fpt.training.random_state import RandomState
from fpt.training.records import Job, State, StateInfo
from fpt.training.run_dir import FREE_ON_RESUME
from fpt.training.running import Run

# Bytes of the random state of a CPU; a state with another number can't be put back.
RANDOM_BYTES = torch.get_rng_state().numel()


def save_state(run: Run) -> None:
    """Collective: write what a continuation needs."""
    accelerator, own = run.accelerator, run.network.own_parameters()
    tensors = {f"model.{name}": tensor for name, tensor in whole(accelerator, own).items()}
    moments = optimizer_state(accelerator, run.optimizer, own)
    if run.average:
        tensors |= run.average.tensors()
    tensors |= {f"optimizer.{name}": tensor for name, tensor in moments.items()}
    losses = run.monitor.losses
    mine = {"losses": torch.stack(losses).cpu() if losses else torch.empty(0)}
    mine |= (run.random.state if run.random else RandomState.now()).tensors()
    for rank, theirs in enumerate(gather(accelerator, mine)):
        tensors |= {f"process.{rank}.{name}": tensor for name, tensor in theirs.items()}
    if accelerator.is_main_process:
        info = {
            "progress": asdict(run.progress),
            "schedule": {k: v for k, v in run.schedule.state_dict().items() if k != "lr_lambdas"},
            "core": run.config.core.to_dict(),
            "processes": accelerator.num_processes,
            "data_key": run.job.data_key,
            "arguments": run.job.arguments,
            "mixed_precision": precision(accelerator),
        }
        state.save(run.output / "state", run.progress.step, tensors, info, run.args.keep_last)


def find_state(job: Job, log: Log) -> State | None:
    """The last state that can be used, checked against the data, the arguments and the best checkpoint of the run.

    Returns:
        None for a run that was stopped before its first state was saved.

    Raises:
        FPTError: there are states but none can be used, the data or an argument has changed, or the best checkpoint is missing
            or damaged.
    """
    root = job.output / "state"
    if not root.is_dir() and (root.exists() or root.is_symlink()):
        raise FPTError(f"--resume: {root} is not a folder; restore it, or start again with --overwrite")
    found, problems = None, []
    for folder in state.states(root):
        try:
            found = _read(folder)
            break
        except ValueError as error:
            problems.append(f"{folder.name}: {error}")
    if found is None:
        _from_the_beginning(job, problems, log)
        return None
    for problem in problems:
        log(f"resume: {problem}; the state before it, {found.folder.name}, is used")
    _check_same_run(job, found)
    best.check(job, found.info.progress, found.info.core.spec())
    return found


def _read(folder: Path) -> State:
    """A state with all that it must contain.

    Raises:
        ValueError: it can't be used; its text says why.
    """
    tensors, _ = state.read(folder)
    try:
        info = StateInfo.model_validate_json((folder / state.INFO).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{state.INFO}: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from error
    missing = [name for name in ("data_key", "arguments", "mixed_precision") if getattr(info, name) is None]
    if info.format > 1 and missing:
        raise ValueError(f"{state.INFO} has no {missing[0]}")
    _check_progress(folder, info)
    found = State(folder, info, tensors)
    _check_tensors(found)
    return found


def _check_progress(folder: Path, info: StateInfo) -> None:
    """Refuse numbers that contradict each other."""
    progress, steps = info.progress, [one["step"] for one in info.progress.history]
    if folder.name != f"step-{progress.step:08d}":
        raise ValueError(f"{state.INFO} is of step {progress.step}")
    if info.schedule.get("last_epoch") != progress.step or isinstance(info.schedule["last_epoch"], bool):
        raise ValueError(f"{state.INFO}: the schedule is at step {info.schedule.get('last_epoch')!r:.50}, the run is not")
    rates = info.schedule.get("_last_lr")
    if not isinstance(rates, list) or not all(isinstance(rate, int | float) for rate in rates):
        raise ValueError(f"{state.INFO}: the schedule has no learning rates")
    if steps != sorted(set(steps)) or (steps and not 0 < steps[0] <= steps[-1] <= progress.step):
        raise ValueError(f"{state.INFO}: the evaluations are not in the order of their steps")
    if (progress.best_step not in steps) if steps else (progress.best_step or progress.best_metrics):
        raise ValueError(f"{state.INFO}: there was no evaluation after its best step, {progress.best_step}")


def _check_tensors(found: State) -> None:
    """Refuse a state with missing tensors, or some of another type."""
    model, moments = found.part("model."), found.part("optimizer.")
    wanted = {f"model.{name}" for name in model} | {f"optimizer.{name}" for name in moments}
    for name in {name.rpartition(".")[0] for name in moments}:
        if name not in model:
            raise ValueError(f"it has no tensor model.{name}")
        for key in (*MOMENTS, "step"):
            tensor = moments.get(f"{name}.{key}")
            if tensor is None:
                raise ValueError(f"it has no tensor optimizer.{name}.{key}")
            if tensor.shape != (model[name].shape if key in MOMENTS else ()) or not _is_finite(tensor):
                raise ValueError(f"optimizer.{name}.{key} has another shape than its parameter, or numbers that are not finite")
    average = found.part(PREFIX)
    if any(name not in model or tensor.shape != model[name].shape or not _is_finite(tensor) for name, tensor in average.items()):
        raise ValueError("an average has another shape than its parameter, or numbers that are not finite")
    wanted |= {f"{PREFIX}{name}" for name in average}
    for rank in range(found.info.processes):
        own = f"process.{rank}."
        losses, numbers = found.tensors.get(f"{own}losses"), found.tensors.get(f"{own}random")
        if losses is None or losses.ndim != 1 or not losses.is_floating_point():
            raise ValueError(f"it has no losses of process {rank}")
        if numbers is None or numbers.dtype != torch.uint8 or numbers.shape != (RANDOM_BYTES,):
            raise ValueError(f"it has no random numbers of process {rank}")
        wanted |= {f"{own}{name}" for name in ("losses", "random", "cuda")}
    if other := sorted(set(found.tensors) - wanted):
        raise ValueError(f"it has an unknown tensor {other[0]}")


def _is_finite(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and bool(torch.isfinite(tensor).all())


def _from_the_beginning(job: Job, problems: list[str], log: Log) -> None:
    """Say that a run starts at step 0, where nothing is lost by that.

    Raises:
        FPTError: it would be.
    """
    again = "start again with --overwrite"
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise FPTError(f"--resume: no state in {job.output / 'state'} can be used: {problems[0]}{more}; restore it, or {again}")
    if (job.output / RESULTS_FILE).exists():
        raise FPTError(f"--resume: the run in {job.output} is finished and its states are gone; there is nothing to go on from")
    every = job.args.save_steps or job.args.eval_steps
    step = best.step_of(job.output)
    if step is not None and step > every:
        raise FPTError(
            f"--resume: {job.output} has a checkpoint of step {step} but no state, although one is saved every {every} steps;"
            f" restore {job.output / 'state'}, or {again}"
        )
    log(f"resume: the run in {job.output} was stopped before its first state was saved; starting from step 0")


def _check_same_run(job: Job, found: State) -> None:
    """Refuse to go on with other data, other arguments or in another precision than the state was made with."""
    info, where = found.info, f"--resume: the state {found.folder}"
    if info.data_key is not None and (other := changes(info.data_key, job.data_key)):
        raise FPTError(
            f"{where} was made with other data: {', '.join(other)}; a model must not be continued on another split. Restore the"
            " data, or start a new run in another --output_dir"
        )
    if info.arguments is not None:
        before, now = flat(info.arguments), flat(job.arguments)
        other = [f"--{k} {before[k]} (now {v})" for k, v in now.items() if k not in FREE_ON_RESUME and before.get(k, v) != v]
        if other:
            raise FPTError(f"{where} is of a run with {', '.join(other)}; give the same, or restore the state of this run")
    now_precision = precision(job.accelerator)
    if info.mixed_precision is not None and info.mixed_precision != now_precision:
        raise FPTError(
            f"{where} was computed in precision {info.mixed_precision}, now it is {now_precision}; give --mixed_precision"
            f" {info.mixed_precision}, or the launcher's setting of then"
        )


def load_parameters(job: Job, made: Made, found: State, batches: int) -> None:
    """Put the trainable parameters of a state into the model, before it is spread over processes.

    Args:
        batches: of an epoch.

    Raises:
        FPTError: they are of another backbone, or not those of the model.
    """
    saved, backbone = found.info.core.spec(), made.core
    if saved != backbone:
        raise FPTError(
            f"{job.output} was trained on backbone {_backbone_name(saved)}, not on {_backbone_name(backbone)}; results"
            " of two backbones are never mixed"
        )
    load_trainable(made.network, found.part("model."), str(found.folder))
    trained = {name for name, parameter in made.network.own_parameters().items() if parameter.requires_grad}
    kept = {name.rpartition(".")[0] for name in found.part("optimizer.")}
    if trained != kept:
        _unusable(found, f"its optimizer has other parameters than the model: {sorted(trained ^ kept)[0]}")
    if found.info.progress.batch > batches:
        _unusable(found, f"it is at batch {found.info.progress.batch} of an epoch of {batches}")


def go_on(run: Run, found: State) -> None:
    """Put back everything else of a state."""
    info, accelerator = found.info, run.accelerator
    if len(info.schedule["_last_lr"]) != len(run.plain_optimizer.param_groups):
        _unusable(found, f"its schedule has {len(info.schedule['_last_lr'])} learning rates")
    load_optimizer_state(accelerator, run.optimizer, run.network.own_parameters(), found.part("optimizer."))
    run.schedule.load_state_dict({**run.schedule.state_dict(), **info.schedule})
    for group, rate in zip(run.plain_optimizer.param_groups, run.schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    if run.average:
        average = found.part(PREFIX)
        if set(average) != set(run.average.means):
            _unusable(found, "it has no average of each trainable parameter")
        run.average.put_back(average)
    run.progress = info.progress
    run.log(f"resume: going on from step {run.progress.step}")
    if info.processes != accelerator.num_processes:
        run.log(
            f"resume: {info.processes} processes before, {accelerator.num_processes} now; the batches stay the same, dropout"
            " draws other numbers"
        )
        return
    mine = found.part(f"process.{accelerator.process_index}.")
    run.monitor.losses = list(mine.pop("losses").to(accelerator.device))
    try:
        numbers = RandomState.of(mine)
        numbers.put_back()
    except (RuntimeError, TypeError) as error:
        raise FPTError(f"--resume: {found.folder}: its random numbers can't be put back ({error})") from error
    if run.random:
        run.random.state = numbers


def _backbone_name(backbone: BackboneSpec) -> str:
    return f"{backbone.name} ({backbone.short_hash or 'no hash'}…)"


def _unusable(found: State, why: str) -> NoReturn:
    raise FPTError(f"--resume: {found.folder} can't be used: {why}; restore it, or start again with --overwrite")

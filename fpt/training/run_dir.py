"""The folder of a run: what it holds, whose it is, and whether a run may go on in it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from fpt.args import TrainArguments, flat
from fpt.data.prepared import Prepared
from fpt.errors import FPTError
from fpt.files.disk import reason, refusals, remove, sweep, temporary_folder
from fpt.files.output_paths import CHECKPOINTS, check_output_folder, holder_of
from fpt.files.output_paths import LOCK as LOCK
from fpt.files.output_paths import RUN_FILE as RUN_FILE
from fpt.files.tables import write_csv
from fpt.files.whole import recover_folder
from fpt.results import RESULTS_FILE, Arguments
from fpt.tasks.base import GeneratedTask
from fpt.text.log import Log

# In run.json: which data the run began with.
DATA_KEY = "data_key"
PREDICTIONS = "predictions.csv"
# Everything that a run writes; --overwrite deletes these and nothing else.
REJECTED = "rejected.csv"
OUTPUTS = (*CHECKPOINTS, "state", "logs", RESULTS_FILE, RUN_FILE, PREDICTIONS, REJECTED, "split.csv")
# Arguments that may differ between a run and its continuation.
FREE_ON_RESUME = {
    *("resume", "overwrite", "output_dir", "report_to", "project", "num_proc", "data_dir", "cache_dir", "save_full"),
    *("save_steps", "keep_last", "per_device_batch_size", "eval_batch_size", "push_to_hub", "hub_private", "license"),
}


def claim_output_dir(output: Path, args: TrainArguments, arguments: Arguments) -> None:
    """Refuse a folder that holds another run, or a continuation with other settings. Nothing is deleted here.

    Raises:
        FPTError: the folder can't be written, is in another run or a cache, holds another run, or the arguments of its run are
            others.
    """
    if (whole := check_output_folder("--output_dir", output)) != output:
        raise FPTError(f"--output_dir {output}: give the whole path, {whole}")
    if args.resume and args.overwrite:
        raise FPTError("--resume and --overwrite exclude each other; give one")
    if args.resume:
        try:
            before = json.loads((output / RUN_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FPTError(f"--resume: {output} holds no run (no readable {RUN_FILE}); start it without --resume") from error
        total = before.get("global_batch_size", arguments["global_batch_size"])
        if total != arguments["global_batch_size"]:
            raise FPTError(
                f"--resume: the run in {output} takes batches of {total} samples over all processes, not of"
                f" {arguments['global_batch_size']}; change --per_device_batch_size so that they stay the same"
            )
        before, now = flat(before), flat(arguments)
        other = [k for k, v in now.items() if k not in FREE_ON_RESUME and before.get(k, v) != v]
        if other:
            told = ", ".join(f"--{k} {before[k]} (now {now[k]})" for k in other)
            raise FPTError(f"--resume: the run in {output} was started with {told}; give the same or another --output_dir")
        _check_links(output)
    elif not args.overwrite and _holds_run(output):
        raise FPTError(
            f"--output_dir {output} already holds a run; give another folder, --resume to go on, or --overwrite to delete it"
        )


def list_rejected(rows: pd.DataFrame, output: Path) -> Path:
    """Write the rows for which a run was refused into its folder, or beside it where that holds a run already."""
    path = output.with_name(f"{output.name}.{REJECTED}") if _holds_run(output) else output / REJECTED
    write_csv(rows, path)
    return path


def data_key(prepared: Prepared) -> dict[str, Any]:
    """What a run must find again to go on: the data, which sample is in which split, and what is made of a sample."""
    manifest = prepared.manifest
    split = {"split_seed": manifest.request.split_seed, "method": prepared.split_method, "rows": manifest.rows}
    features = [prepared.input.to_dict(), prepared.output.to_dict(), manifest.request.code]
    digest = hashlib.sha256(json.dumps(features, sort_keys=True).encode()).hexdigest()
    return {"sha256": manifest.data_sha256, **split, "features": digest}


def check_same_data(output: Path, prepared: Prepared) -> None:
    """Refuse to continue a run on other data than it began with.

    Raises:
        FPTError: data, split or features differ from those that the run began with.
    """
    before, now = json.loads((output / RUN_FILE).read_text(encoding="utf-8")).get(DATA_KEY), data_key(prepared)
    if before is None and not isinstance(prepared.task, GeneratedTask):
        raise FPTError(
            f"--resume: the run in {output} was started by an earlier version, which prepared its data otherwise; start a new run"
        )
    if before is not None and before != now:
        changed_parts = [f"{k} {before.get(k)} (now {v})" for k, v in now.items() if before.get(k) != v]
        raise FPTError(
            f"--resume: the data of the run in {output} has changed: {', '.join(changed_parts)}; a model must not be continued on"
            " another split. Restore the data, or start a new run in another --output_dir"
        )


def split_table(prepared: Prepared) -> pd.DataFrame:
    """Which row is in which split: columns id and split."""
    return pd.concat([pd.DataFrame({"id": list(rows["id"]), "split": name}) for name, rows in prepared.splits.items()])


def _holds_run(output: Path) -> bool:
    return any(os.path.lexists(output / name) for name in OUTPUTS if name != REJECTED)


def _check_links(output: Path) -> None:
    """Refuse to go on with states that are a link to nowhere, or to another run's: states are deleted on the way."""
    state = output / "state"
    if not state.is_symlink():
        return
    if not state.is_dir():
        raise FPTError(f"--resume: {state} is a link to {os.readlink(state)}, which is not a folder; put the states back")
    other = holder_of(Path(os.path.realpath(state)))
    if other is not None and not other.samefile(state.parent):
        raise FPTError(f"--resume: {state} is a link into {other}, which is another run; put this run's own states there")


def repair(output: Path) -> None:
    """Finish swaps that a killed run left half done, and delete its temporaries. Only for the run that holds the lock.

    Raises:
        FPTError: the file system refuses it.
    """
    with refusals(f"{output} can't be repaired"):
        for name in CHECKPOINTS:
            recover_folder(output / name)
        state = output / "state"
        for left in state.glob(".step-*.old"):
            recover_folder(state / left.name.removeprefix(".").removesuffix(".old"))
    sweep(output, lambda name: name in (*OUTPUTS, TRASH), owned=True)
    sweep(state, lambda name: name.startswith("step-"), owned=True)


def _put_back(names: list[str], trash: Path, output: Path) -> None:
    try:
        for name in reversed(names):
            os.rename(trash / name, output / name)
    except OSError:
        os.rename(trash, output / f"not-{TRASH}")  # or it would be deleted
        raise


# What is deleted is first brought together in a temporary of this name.
TRASH = "overwritten"


def remove_outputs(output: Path, log: Log = print) -> None:
    """Delete what an earlier run wrote, and nothing else: all of it, or nothing. Links are deleted, not what they lead to.

    Raises:
        FPTError: a part of it can't be deleted; all is as it was then.
    """
    # The record goes first: what is left by a kill can't be taken for a run to go on with.
    names = [name for name in (RUN_FILE, *(n for n in OUTPUTS if n != RUN_FILE)) if os.path.lexists(output / name)]
    if not names:
        return
    with refusals(f"{output} can't be overwritten"), temporary_folder(output / TRASH, "trash") as trash:
        moved: list[str] = []
        try:
            for name in names:
                os.rename(output / name, trash / name)
                moved.append(name)
        except BaseException as error:
            _put_back(moved, trash, output)
            if not isinstance(error, OSError):
                raise
            raise FPTError(f"{output} can't be overwritten: {names[len(moved)]}: {reason(error)}; nothing was deleted") from error
    if os.path.lexists(trash):
        remove(trash)
    if os.path.lexists(trash):
        log(f"{trash} holds what was overwritten, and can't be deleted; delete it by hand")

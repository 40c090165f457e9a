"""The folder of a run: what it holds, whose it is, and whether a run may go on in it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from fpt.args import TrainArguments, flat
from fpt.csv_files import write_csv
from fpt.data.cache import Prepared
from fpt.errors import FPTError
from fpt.results import RESULTS_FILE
from fpt.tasks import GeneratedTask

RUN_FILE = "run.json"
# In it: which data the run began with.
DATA_KEY = "data_key"
PREDICTIONS = "predictions.csv"
# Held by the run that writes to the folder; it stays there when the run has ended.
LOCK = ".lock"
# Everything that a run writes; --overwrite deletes these and nothing else.
REJECTED = "rejected.csv"
OUTPUTS = ("checkpoint", "full", "state", "logs", RESULTS_FILE, RUN_FILE, PREDICTIONS, REJECTED, "split.csv")
# Arguments that may differ between a run and its continuation.
FREE_ON_RESUME = {
    *("resume", "overwrite", "output_dir", "report_to", "project", "num_proc", "data_dir", "cache_dir", "save_full"),
    *("save_steps", "keep_last", "per_device_batch_size", "eval_batch_size", "push_to_hub", "hub_private", "license"),
}


def claim_output_dir(output: Path, args: TrainArguments, arguments: dict[str, Any]) -> None:
    """Refuse a folder that holds another run, or a continuation with other settings. Nothing is deleted here.

    Raises:
        FPTError: the folder is a file, holds another run, or the arguments of its run are others.
    """
    for folder in (output, *output.parents):
        if folder.exists() and not folder.is_dir():
            raise FPTError(f"--output_dir {output}: {folder} is a file; give a folder")
    if args.resume and args.overwrite:
        raise FPTError("--resume and --overwrite exclude each other; give one")
    if args.resume:
        try:
            before = json.loads((output / RUN_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise FPTError(f"--resume: {output} holds no run (no readable {RUN_FILE}); start it without --resume") from None
        total = before.get("global_batch_size", arguments["global_batch_size"])
        if total != arguments["global_batch_size"]:
            raise FPTError(
                f"--resume: the run in {output} takes batches of {total} samples over all processes, not of"
                f" {arguments['global_batch_size']}; change --per_device_batch_size so that they stay the same"
            )
        before, arguments = flat(before), flat(arguments)
        other = [k for k, v in arguments.items() if k not in FREE_ON_RESUME and before.get(k, v) != v]
        if other:
            told = ", ".join(f"--{k} {before[k]} (now {arguments[k]})" for k in other)
            raise FPTError(f"--resume: the run in {output} was started with {told}; give the same or another --output_dir")
    elif not args.overwrite and any((output / name).exists() for name in OUTPUTS if name != REJECTED):
        raise FPTError(
            f"--output_dir {output} already holds a run; give another folder, --resume to go on, or --overwrite to delete it"
        )


def list_rejected(rows: pd.DataFrame, output: Path) -> Path:
    """Write the rows for which a run was refused into its folder, or beside it where that holds a run already."""
    holds_run = any((output / name).exists() for name in OUTPUTS if name != REJECTED)
    path = output.with_name(f"{output.name}.{REJECTED}") if holds_run else output / REJECTED
    write_csv(rows, path)
    return path


def data_key(prepared: Prepared) -> dict[str, Any]:
    """What a run must find again to go on: the data, which sample is in which split, and what is made of a sample."""
    manifest = prepared.manifest
    split = {"split_seed": manifest["request"]["split_seed"], "method": prepared.split_method, "rows": manifest["rows"]}
    features = [prepared.input.to_dict(), prepared.output.to_dict(), manifest["request"]["code"]]
    digest = hashlib.sha256(json.dumps(features, sort_keys=True).encode()).hexdigest()
    return {"sha256": manifest["data_sha256"], **split, "features": digest}


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


def remove_outputs(output: Path) -> None:
    """Delete what an earlier run wrote, and nothing else."""
    for name in OUTPUTS:
        path = output / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

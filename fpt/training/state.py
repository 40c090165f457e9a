"""Files of the states that a run can go on from: ``state/step-N/``, each whole or not there.

A state holds the trainable parameters, AdamW's moments, the schedule, the random numbers of each process and where the run is. It
says nothing of the strategy: a run may go on under another one, or on another number of processes. What its description must
contain is checked by `fpt.training.resume`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic_core import from_json
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fpt.errors import FPTError
from fpt.files.disk import remove
from fpt.files.whole import new_folder, sha256_file, write_json
from fpt.text.log import Log

TENSORS, INFO = "state.safetensors", "state.json"
# Raised whenever a state is written that earlier versions could not read. The first one wrote no number.
FORMAT = 2


def save(root: Path, step: int, tensors: dict[str, torch.Tensor], info: dict[str, Any], keep_last: int) -> None:
    """Write a state, then remove all but the last `keep_last`.

    Raises:
        FPTError: it can't be written; earlier states are as they were.
    """
    try:
        with new_folder(root / f"step-{step:08d}") as folder:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / TENSORS)
            write_json(folder / INFO, {"format": FORMAT, **info, "sha256": sha256_file(folder / TENSORS)})
    except (OSError, SafetensorError, FPTError) as error:
        raise FPTError(f"the state of step {step} is not saved: {error}; then go on with --resume") from error
    for old in states(root)[keep_last:]:
        remove(old)


def latest(root: Path, log: Log) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The last state whose files are whole, or None. Nothing is changed: see `run_dir.repair`."""
    for folder in states(root):
        try:
            return read(folder)
        except ValueError as error:
            log(f"resume: {folder} is damaged ({error}); trying the one before")
    return None


def states(root: Path) -> list[Path]:
    """Everything in `root` that is called a state, the last one first."""
    return sorted(root.glob("step-*"), reverse=True)


def read(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a state, on the CPU, and its description as JSON values.

    Raises:
        ValueError: the files are not those that were written; its text says what is wrong.
    """
    try:
        info = from_json((folder / INFO).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{INFO} can't be read: {_reason(error)}") from error
    if not isinstance(info, dict):
        raise ValueError(f"{INFO} is not an object with names")
    written = info.get("format", 1)
    if not isinstance(written, int) or isinstance(written, bool) or written < 1:
        raise ValueError(f"{INFO}: format is {written!r:.50}, not a number from 1 up")
    if written > FORMAT:
        raise ValueError(f"it has format {written}, of a later version of this project; this one reads formats up to {FORMAT}")
    try:
        if sha256_file(folder / TENSORS) != info.get("sha256"):
            raise ValueError(f"{TENSORS} has other content than it was written with")
        return load_file(folder / TENSORS), info
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{TENSORS} can't be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]

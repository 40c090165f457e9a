"""States that a run can go on from: ``state/step-N/``, each whole or not there.

A state holds the tuned tensors, AdamW's moments, the schedule, the random numbers of each process and where the run is. It says
nothing of the strategy: a run may go on under another one, or on another number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fpt.disk import remove
from fpt.errors import FPTError
from fpt.files import new_folder, sha256_file, write_json

TENSORS, INFO = "state.safetensors", "state.json"


def save(root: Path, step: int, tensors: dict[str, torch.Tensor], info: dict[str, Any], keep_last: int) -> None:
    """Write a state, then remove all but the last `keep_last`.

    Raises:
        FPTError: it can't be written; earlier states are as they were.
    """
    try:
        with new_folder(root / f"step-{step:08d}") as folder:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / TENSORS)
            write_json(folder / INFO, {**info, "sha256": sha256_file(folder / TENSORS)})
    except (OSError, SafetensorError, FPTError) as error:
        raise FPTError(f"the state of step {step} can't be written; make room and go on with --resume ({error})") from error
    for old in _states(root)[keep_last:]:
        remove(old)


def latest(root: Path, log: Callable[[str], None]) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The last state that is whole, or None. Nothing is changed: see `run_dir.repair`."""
    if not root.is_dir():
        return None
    for folder in _states(root):
        try:
            info = json.loads((folder / INFO).read_text(encoding="utf-8"))
            if sha256_file(folder / TENSORS) != info["sha256"]:
                raise ValueError("other content than it was written with")
            return load_file(folder / TENSORS), info
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            log(f"resume: {folder} is damaged ({error}); trying the one before")
    return None


def _states(root: Path) -> list[Path]:
    """States that are there, the last one first."""
    return sorted((p for p in root.glob("step-*") if p.is_dir()), reverse=True)

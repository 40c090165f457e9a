"""What a launcher left in the environment, checked before accelerate, torch and DeepSpeed read it.

Their own errors come late, and name no way out.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from fpt.errors import ROOT, FPTError, UsageError
from fpt.text.log import Log, silent

DEEPSPEED_FILE = "ACCELERATE_DEEPSPEED_CONFIG_FILE"
ON = ("1", "true", "yes", "on", "y", "t")
START = "start the script with accelerate launch --config_file FILE, or python -m fpt.launch"
# Of each process of several, by torch's convention: lowest and highest value.
NUMBERS = {"WORLD_SIZE": (1, 10**6), "RANK": (0, 10**6), "LOCAL_RANK": (-1, 10**5), "MASTER_PORT": (1, 65_535)}
NEEDED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def check_launch(log: Log = print) -> None:
    """Refuse an environment in which processes can't find each other or their device. May be called more than once.

    Args:
        log: is told, in the first process of a machine, what is about to take long or was looked up elsewhere.

    Raises:
        FPTError: names the variable, and what to do.
    """
    several = _check_processes()
    if os.environ.get("LOCAL_RANK", "0") not in ("0", "-1"):
        log = silent
    if is_on("ACCELERATE_USE_DEEPSPEED") or is_on("ACCELERATE_USE_FSDP"):
        kind = "DEEPSPEED" if is_on("ACCELERATE_USE_DEEPSPEED") else "FSDP"
        if not several:
            raise FPTError(
                f"ACCELERATE_USE_{kind} is on, but no launcher has started this process: {START}, or unset the variable"
            )
        if kind == "DEEPSPEED":
            find_deepspeed_file(log)
    _check_device()
    if is_on("ACCELERATE_USE_DEEPSPEED"):
        _tell_of_compilation(log)


def is_on(name: str) -> bool:
    """Whether a variable of accelerate's switches something on."""
    return os.environ.get(name, "").strip().lower() in ON


def _check_processes() -> bool:
    """Whether a launcher has started this process as one of a group.

    Raises:
        FPTError: a number is none or out of range, or not all of `NEEDED` are there.
    """
    numbers = {}
    for name, (low, high) in NUMBERS.items():
        said = os.environ.get(name, "").strip()
        if not said:
            continue
        try:
            numbers[name] = int(said)
        except ValueError as error:
            raise FPTError(f"the environment variable {name} is {said!r}, not a whole number; unset it, and {START}") from error
        if not low <= numbers[name] <= high:
            raise FPTError(f"the environment variable {name} is {said}, not between {low} and {high}; unset it, and {START}")
    size, rank = numbers.get("WORLD_SIZE", 1), numbers.get("RANK", 0)
    if rank >= size:
        raise FPTError(f"RANK is {rank}, but WORLD_SIZE is {size}: ranks go from 0 to {size - 1}; unset both, and {START}")
    several = size > 1 or numbers.get("LOCAL_RANK", -1) != -1
    if several and (missing := [name for name in NEEDED if not os.environ.get(name, "").strip()]):
        verb = "is" if len(missing) == 1 else "are"
        there = next(name for name in ("WORLD_SIZE", "LOCAL_RANK") if name in numbers)
        raise FPTError(
            f"{there} is {numbers[there]}, but {', '.join(missing)} {verb} not set: {START}, which sets all, or unset {there}"
        )
    return several


def find_deepspeed_file(log: Log = print, folders: Sequence[Path] = ()) -> None:
    """Let accelerate find the DeepSpeed file of its configuration from any working folder.

    Args:
        folders: where to look besides the working folder and this project.

    Raises:
        FPTError: the file is nowhere.
    """
    said = os.environ.get(DEEPSPEED_FILE, "").strip()
    if not said or said == "none" or Path(said).suffix != ".json":
        return
    found = deepspeed_file(said, folders)
    if found != Path(said):
        log(f"DeepSpeed: {said} is not in the working folder; taken from {found}")
        os.environ[DEEPSPEED_FILE] = str(found)


def deepspeed_file(said: str, folders: Sequence[Path] = ()) -> Path:
    """Where a DeepSpeed file is: as it is named, else below one of `folders` or of this project.

    Raises:
        FPTError: it is in none of them.
    """
    path = Path(said).expanduser()
    places = [path, *(folder / path for folder in (*folders, ROOT))] if not path.is_absolute() else [path]
    for place in places:
        if place.is_file():
            return place
    raise UsageError(
        f"the DeepSpeed file {said} (deepspeed_config_file of the accelerate configuration) is not there, seen from {Path.cwd()};"
        " start from the folder that its path begins in, or write the whole path"
    )


def _check_device() -> None:
    """Refuse a device that this machine does not have.

    Raises:
        FPTError: CUDA or another device is asked for and is not available.
    """
    import torch

    if said := os.environ.get("ACCELERATE_TORCH_DEVICE", "").strip():
        _check_named_device(said)
    if is_on("ACCELERATE_USE_CPU"):
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    visible = [word for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    if visible and visible[0].strip() not in ("-1", "NoDevFiles") and count < len(visible):
        raise FPTError(
            f"CUDA_VISIBLE_DEVICES is {','.join(visible)}, but {count} of these GPUs can be used; give those that are there"
            ' (nvidia-smi lists them), or set it to "" for the CPU'
        )
    rank = int(os.environ.get("LOCAL_RANK", "-1") or -1)
    if count and rank >= count:
        raise FPTError(f"process {rank} of this machine has no GPU: there are {count}; give --num_processes {count}, or add GPUs")


def _check_named_device(said: str) -> None:
    import torch

    known = "give cpu, cuda or cuda:N, or unset ACCELERATE_TORCH_DEVICE"
    try:
        device = torch.device(said)
    except RuntimeError as error:
        raise FPTError(f"ACCELERATE_TORCH_DEVICE {said!r} is not the name of a device; {known}") from error
    if device.type == "cpu":
        return
    module = getattr(torch, device.type, None)
    there = module.device_count() if module is not None and hasattr(module, "device_count") and module.is_available() else 0
    if (device.index or 0) >= there:
        raise FPTError(f"ACCELERATE_TORCH_DEVICE {said!r} is not there: this machine has {there} devices of that kind; {known}")


def _tell_of_compilation(log: Log) -> None:
    """On a CPU, DeepSpeed compiles a part of itself when it runs for the first time."""
    import torch

    if torch.cuda.is_available():
        return
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    if any(root.glob("**/deepspeed*.so")):
        return
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        raise FPTError(
            "DeepSpeed compiles a part of itself on a CPU, and there is no C++ compiler; install g++, or use DDP instead"
        )
    log(f"DeepSpeed: compiling a part of itself into {root}, which takes some minutes and happens once")
    sys.stdout.flush()

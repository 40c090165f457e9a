"""Where a user lets us write: never into a run, a checkpoint or a cache, and never onto what we read.

All is said before any work is done. Folders are known by what they hold, so any name that leads into one (a link, ``..``, another
case on a file system that has none) is refused alike.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fpt.errors import FPTError
from fpt.files.disk import is_temporary, reason, refusals, shown_path
from fpt.files.whole import cache_home, user_path

RUN_FILE, RESULTS_FILE = "run.json", "results.json"
# Held by the run that writes to the folder; it stays there when the run has ended.
LOCK = ".lock"
CHECKPOINTS = ("checkpoint", "full")
WEIGHTS, CONFIG = "model.safetensors", "config.json"
# Of several runs side by side, and of an experiment: they stand in folders that users may write to otherwise.
OF_SEVERAL = ("summary.json", "table.md", "experiment.json")
# Parts of our cache, which may lie in a folder that has other things.
CACHES = ("arrow", "work", "locks", "cores", "raw")
# Left in the middle of a swap.
HALF_MADE = re.compile(r"\.(checkpoint|full|step-\d+)\.old")
DEVICES = ("/dev", "/proc", "/sys")


def check_output_file(
    option: str, text: str | Path, read: Mapping[str, str | Path | None] | None = None, cache_dir: str | Path | None = None
) -> Path:
    """Return the path of a file that the user lets us write, if nothing of value is lost by that.

    Args:
        option: as the user gave it, for the message.
        text: what the user gave.
        read: files and folders that the command reads, by what they are; none of these files is replaced.
        cache_dir: another cache root than `cache_home`.

    Raises:
        FPTError: it is in a run, a checkpoint or a cache, it is read, or it can't be written.
    """
    told = f"{option} {shown_path(text)}"
    path = _path(option, text)
    with refusals(f"{told} can't be written"):
        _check_kind(path, told)
        for target in (_real(path.parent) / path.name, _real(path)):
            if (folder := holder_of(target)) is not None:
                raise FPTError(f"{told} is in {folder}, {_what_is(folder)}; give a name outside of it, such as {path.name}")
            _check_caches(target, told, cache_dir)
            if target.name.casefold() in OF_SEVERAL and target.is_file() and _has_runs(target.parent):
                raise FPTError(f"{told} is the table of the runs in {target.parent}; give another name")
        for what, place in (read or {}).items():
            if place and _is_read(path, Path(os.path.expanduser(place))):
                raise FPTError(f"{told} is {'a file of ' * os.path.isdir(place)}{what}; give another name")
        check_can_make(path, told)
    return path


def check_output_folder(option: str, text: str | Path) -> Path:
    """Return the path of a folder that the user lets us write to, if it is not in somebody else's.

    Raises:
        FPTError: it is below a file, in another run, a checkpoint or a cache, or it can't be made.
    """
    told = f"{option} {shown_path(text)}"
    path = _path(option, text)
    with refusals(f"{told} can't be written"):
        for folder in (path, *path.parents):
            if os.path.lexists(folder) and not folder.is_dir():
                raise FPTError(f"{told}: {folder} is {_kind(folder)}; give a folder")
        target = _real(path)
        if (what := _what_is(target)) is not None and what != RUN:
            raise FPTError(f"{told} is {what}; give another folder")
        if (above := holder_of(target)) is not None:
            raise FPTError(f"{told} is in {above}, {_what_is(above)}; give a folder outside of it")
        _check_caches(target, told, None)
        check_can_make(path / LOCK, told)
    return path


def _path(option: str, text: str | Path) -> Path:
    try:
        return user_path(text)
    except FPTError as error:
        raise FPTError(f"{option} {error}") from None


def holder_of(path: Path) -> Path | None:
    """The run, checkpoint or half-made folder that `path` is in, the nearest one; None if it is in none."""
    return next((folder for folder in path.parents if _what_is(folder) is not None), None)


def run_of(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint belongs to, or the checkpoint where that is all there is."""
    return checkpoint.parent if _is_run(checkpoint.parent) else checkpoint


def check_can_make(path: Path, told: str) -> None:
    """Refuse a file that could not be written, as far as that is known before. Nothing is made.

    Raises:
        FPTError: a folder is missing that can't be made, or may not be written to, or a name is too long.
    """
    missing = []
    folder = path.parent
    while not folder.is_dir():
        if os.path.lexists(folder):
            raise FPTError(f"{told}: {folder} is {_kind(folder)}, not a folder")
        missing.append(folder.name)
        folder = folder.parent
    longest = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    if any(len(os.fsencode(name)) > longest for name in (*missing, path.name)):
        raise FPTError(f"{told} can't be written: {reason(OSError(errno.ENAMETOOLONG, ''))}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FPTError(f"{told} can't be written: {folder.absolute()} is not writable; give another folder")
    if path.is_file() and not os.access(path, os.W_OK):
        raise FPTError(f"{told} is write-protected; give another name")


def _check_kind(path: Path, told: str) -> None:
    if not path.name:
        raise FPTError(f"{told} is a folder; give the name of a file")
    # `/dev/stdout` may lead to a regular file; it would be replaced itself.
    if path.is_symlink() and any(Path(folder) in path.absolute().parents for folder in DEVICES):
        raise FPTError(f"{told} is not a regular file; give the name of one")
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(mode):
        raise FPTError(f"{told} is a folder; give the name of a file")
    if not stat.S_ISREG(mode):
        raise FPTError(f"{told} is not a regular file; give the name of one")


def _kind(path: Path) -> str:
    return "a link that leads nowhere" if path.is_symlink() and not path.exists() else "a file"


RUN = "which is the folder of a run"


def _what_is(folder: Path) -> str | None:
    """What a folder is that nobody else may write to, in words; None if it is none."""
    if is_temporary(folder.name) or HALF_MADE.fullmatch(folder.name):
        return "which another process is writing"
    if not folder.is_dir():
        return None
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        return "which is a checkpoint"
    return RUN if _is_run(folder) else None


def _is_run(folder: Path) -> bool:
    """Whether a run has been, is, or was stopped while writing to a folder."""
    if _of_ours(folder / RUN_FILE, {"dataset", "max_steps"}) or _of_ours(folder / RESULTS_FILE, {"metrics", "arguments"}):
        return True
    if any((folder / name / file).is_file() for name in CHECKPOINTS for file in (CONFIG, WEIGHTS)):
        return True
    lock = folder / LOCK
    if lock.is_file() and not lock.stat().st_size:
        return True
    state = folder / "state"
    return state.is_dir() and any(name.startswith(("step-", ".step-")) for name in os.listdir(state))


def _of_ours(path: Path, keys: set[str]) -> bool:
    """Whether a file is a record with `keys`; one that can't be read may be."""
    if not path.is_file():
        return False
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(record, dict) and keys <= set(record)


def _has_runs(folder: Path) -> bool:
    """Whether runs are in a folder, or in folders of it."""
    inner = [path for path in folder.iterdir() if path.is_dir()]
    return any(_is_run(path) for path in inner) or any(_is_run(p) for path in inner for p in path.iterdir() if p.is_dir())


def _check_caches(target: Path, told: str, cache_dir: str | Path | None) -> None:
    roots = [user_path(cache_dir)] if cache_dir else []
    for root in (*roots, *_home()):
        for name in CACHES:
            if _real(root / name) in (target, *target.parents):
                raise FPTError(f"{told} is in the cache {root}; give another place")
    for root in _hub_caches():
        if _real(root) in (target, *target.parents):
            raise FPTError(f"{told} is in the cache of the Hub, {root}; give another place")


def _home() -> Iterator[Path]:
    try:
        yield cache_home()
    except FPTError:  # there is none
        return


def _hub_caches() -> list[Path]:
    from huggingface_hub import constants

    return [Path(constants.HF_HOME), Path(constants.HF_HUB_CACHE)]


def _is_read(path: Path, read: Path) -> bool:
    """Whether the file at `path` is `read` or in the folder `read`, also as a hard link; our own earlier outputs are not."""
    if not path.exists() or not read.exists():
        return False
    if not read.is_dir():
        return path.samefile(read)
    if _real(read) in _real(path).parents:
        return not _is_output(path)
    if path.stat().st_nlink < 2:
        return False
    files = (Path(folder) / name for folder, _, names in os.walk(read) for name in names)
    return any(file.exists() and path.samefile(file) for file in files)


def _is_output(path: Path) -> bool:
    """Whether a file is one that an evaluation has written."""
    with open(path, "rb") as file:
        start = file.read(1 << 16)
    columns = start.split(b"\n", 1)[0].strip().split(b",")
    return {b"prediction", b"reason"} <= set(columns) or (start.startswith(b"{") and b'"model_sha256"' in start)


def _real(path: Path) -> Path:
    """Where links lead; never fails."""
    return Path(os.path.realpath(path))

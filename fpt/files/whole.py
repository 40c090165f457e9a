"""Files that are either whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import importlib.util
import json
import mmap
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from fpt.errors import FPTError
from fpt.files.disk import (
    NO_LOCKS,
    exchange,
    flush,
    publish,
    reason,
    refusals,
    remove,
    shown_path,
    sweep_beside,
    temporary_file,
    temporary_folder,
)
from fpt.text.escape import json_text
from fpt.text.log import Log

if TYPE_CHECKING:
    import torch

# Bytes; endings as .log and .lock, and the name of a temporary copy, are put to it.
LONGEST_SLUG = 150
T = TypeVar("T")
# How often a reader looks for a folder that is missing, and reads one that is replaced meanwhile; seconds in between.
LOOKS, READS, PAUSE = 5, 200, 0.002


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step; a reader sees the old file or the new one, never a part.

    Raises:
        FPTError: the file system refuses it, or something that is no file is at `path`; nothing is changed then.
    """
    with refusals(f"{path} can't be written"):
        if os.path.exists(path) and not os.path.isfile(path):
            raise FPTError(f"{path} can't be written: it is {'a folder' if os.path.isdir(path) else 'not a regular file'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_beside(path)
        with temporary_file(path) as (handle, temporary):
            with os.fdopen(handle, "w", encoding="utf-8", newline="", closefd=False) as file:
                file.write(text)
            os.fsync(handle)
            publish(temporary)
            os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON in one step."""
    write_text(path, json_text(json.dumps(value, indent=2, ensure_ascii=False)) + "\n")


@contextlib.contextmanager
def alone(path: Path, taken: Callable[[], None], log: Log | None = None) -> Iterator[bool]:
    """Hold the lock file `path`. The system takes it from a process that ends, however it ends.

    Args:
        path: its folder is made when it is not there.
        taken: called when another process holds it; if it returns, we wait.
        log: hears of it when the file system has no locks, and we go on without one.

    Yields:
        Whether the lock is held; false on a file system without locks.

    Raises:
        FPTError: the lock file can't be made or opened.
    """
    held = True
    with refusals(f"{path} can't be made or locked"):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A soft lock would stay when its process is killed.
        lock = FileLock(path, fallback_to_soft=False)
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                taken()
                lock.acquire()
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            held = False
            if log is not None:
                log(f"{path.parent} is on a file system without locks; make sure that no other process writes there")
    try:
        yield held
    finally:
        if held:
            with contextlib.suppress(OSError):
                lock.release()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path` in one step when the block ends without an error.

    A folder, or a link, that is already at `path` is replaced only then. What a link leads to is left alone. Only one process
    at a time may write to a `path`.

    Raises:
        FPTError: the file system refuses it, also in the block; what was at `path` is as it was.
    """
    what = f"{path} can't be written"
    with refusals(what):
        if path.exists() and not path.is_dir():
            raise FPTError(f"{what}: it is a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(path)
        sweep_beside(path)
    with contextlib.ExitStack() as stack:
        with refusals(what):
            temporary = stack.enter_context(temporary_folder(path))
        with refusals(what, temporary):
            yield temporary
            for file in (temporary, *temporary.rglob("*")):
                publish(file)  # some writers make their files private
                flush(file)
            _swap(temporary, path)


def _swap(new: Path, path: Path) -> None:
    """Put the folder `new` at `path`, in one step where the file system can; what was there may be at `new` afterwards."""
    for attempt in range(LOOKS):
        if os.path.lexists(path):
            if not exchange(new, path):
                _swap_in_steps(new, path)
            break
        try:
            os.rename(new, path)
            break
        except OSError as error:
            # Another process has made it meanwhile.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or attempt == LOOKS - 1:
                raise
    flush(path.parent)


def _swap_in_steps(new: Path, path: Path) -> None:
    old = old_folder(path)
    os.rename(path, old)
    try:
        os.rename(new, path)
    except BaseException:
        recover_folder(path)
        raise
    remove(old)


def old_folder(path: Path) -> Path:
    """Where `new_folder` keeps the previous version during a swap that is not one step."""
    return path.parent / f".{path.name}.old"


def recover_folder(path: Path) -> None:
    """Finish a swap that a killed process left half done: put the old version back, or remove it. For writers alone."""
    old = old_folder(path)
    if os.path.lexists(old):
        if os.path.lexists(path):
            remove(old)
        else:
            os.rename(old, path)


def places(folder: Path) -> tuple[Path, Path]:
    """Where a reader finds `folder`: there, or beside it, if its writer was killed in the middle of a swap."""
    if folder.name.startswith(".") and folder.name.endswith(".old") and len(folder.name) > 5:
        return folder.with_name(folder.name[1:-4]), folder
    return folder, old_folder(folder)


def whole_folder(folder: Path, files: Sequence[str]) -> Path | None:
    """Where `folder` is, with all of `files` in it, None if it is not; see `places`. Nothing is changed.

    Raises:
        FPTError: it is not allowed to look there.
    """
    with refusals(f"{folder} can't be read"):
        for _ in range(LOOKS):
            for place in places(folder):
                if all((place / name).is_file() for name in files):
                    return place
            if os.path.lexists(folder) or not folder.parent.is_dir():
                return None
            time.sleep(PAUSE)  # in the moment of a swap neither is there
    return None


def read_stably(folder: Path, read: Callable[[Path], T]) -> T:
    """Return ``read(place)`` of one version of a folder that `new_folder` may replace meanwhile.

    Args:
        folder: nothing is changed or mended in it or beside it.
        read: reads all that must fit together, from the place that it is given; called again when the folder was replaced.

    Raises:
        FPTError: the folder is replaced again and again.
    """
    for attempt in range(READS):
        first, second = places(folder)
        place = first if os.path.lexists(first) or not os.path.lexists(second) else second
        # Held open, its number is not given to another folder.
        handle = _open_folder(place)
        try:
            try:
                result = read(place)
            except Exception:
                if _has_stayed(handle, place, first) or (handle is None and attempt >= LOOKS):
                    raise
            else:
                if _has_stayed(handle, place, first) or (handle is None and attempt >= LOOKS):
                    return result
        finally:
            if handle is not None:
                os.close(handle)
        time.sleep(random.random() * PAUSE * min(attempt + 1, 20))
    raise FPTError(f"{folder} is replaced again and again while it is read; wait for its run, or copy it first")


def _open_folder(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        return None


def _has_stayed(handle: int | None, place: Path, first: Path) -> bool:
    """Whether the folder that is open is still at `place`, and is not the version before, which goes once there is a `first`."""
    if handle is None:
        return os.name != "posix"  # elsewhere folders can't be opened, nor renamed while somebody reads in them
    try:
        return os.path.samestat(os.fstat(handle), os.stat(place)) and (place == first or not os.path.lexists(first))
    except OSError:
        return False


def slug(name: str) -> str:
    """`name` as the name of a folder. File systems have no longer names than 255 bytes: a long one ends in a hash of it all."""
    short = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"
    if len(short.encode()) <= LONGEST_SLUG:
        return short
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{short.encode()[:LONGEST_SLUG].decode(errors='ignore')}-{digest}"


def fs_name(name: str) -> str:
    """A file's name as this system's calls take it: in a locale that is not UTF-8, names in tables are UTF-8 all the same."""
    try:
        os.fsencode(name)
        return name
    except UnicodeEncodeError:
        return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def user_path(text: str | Path) -> Path:
    """A path that a user gave, with ``~`` and ``~name`` as their home folders.

    Raises:
        FPTError: it begins with a home folder that is not known, is too long, or may not be looked at.
    """
    path = Path(os.path.expanduser(text))
    try:
        os.stat(path)
    except ValueError as error:
        raise FPTError(f"{shown_path(text)!r} is not a path: {error}") from error
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise FPTError(f"{shown_path(text)} can't be read: {reason(error)}") from error
    if path.parts[:1] and path.parts[0].startswith("~") and not os.path.lexists(path.parts[0]):
        raise FPTError(f"{text}: the home folder {path.parts[0]} is not known; give the whole path")
    return path


def cache_home() -> Path:
    """The cache root: ``$FPT_HOME``, else ``$XDG_CACHE_HOME/fpt``, else ``~/.cache/fpt``.

    Raises:
        FPTError: there is no home folder.
    """
    if home := os.environ.get("FPT_HOME"):
        return user_path(home)
    cache = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))
    if cache.parts[0].startswith("~"):
        raise FPTError("there is no home folder to keep the cache in (HOME is not set); set FPT_HOME to a folder")
    return cache / "fpt"


def package_folder(name: str) -> Path | None:
    """Folder of an installed package, found without importing (running) any of its code."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


MADV_PAGEOUT = 21  # Linux 5.4


def release_pages(tensor: torch.Tensor) -> None:
    """Tell the system that the memory of a large tensor is not needed for now.

    Weights are read from files that are mapped into memory; pages that were read count as ours until then. Nothing is lost:
    whoever reads them again gets them from the file. Does nothing on systems other than Linux.
    """
    if not sys.platform.startswith("linux"):
        return
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (tensor.data_ptr() + tensor.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), MADV_PAGEOUT)

"""Files that are either whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import json
import mmap
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from fpt.escape import json_text

if TYPE_CHECKING:
    import torch

# Bytes; endings as .log and .lock, and the name of a temporary copy, are put to it.
LONGEST_SLUG = 150


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step; a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _publish(Path(temporary))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON in one step."""
    write_text(path, json_text(json.dumps(value, indent=2, ensure_ascii=False)) + "\n")


@contextlib.contextmanager
def alone(path: Path, taken: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`. The system takes it from a process that ends, however it ends.

    Args:
        path: its folder is made when it is not there.
        taken: called when another process holds it; if it returns, we wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        taken()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path` when the block ends without an error.

    A folder that is already at `path` is replaced only then, and put back if the rename fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new."))
    _publish(temporary)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _publish(file)  # some writers make their files private
        old = old_folder(path)
        if path.exists():
            os.rename(path, old)
        try:
            os.rename(temporary, path)
        except BaseException:
            recover_folder(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def old_folder(path: Path) -> Path:
    """Where `new_folder` keeps the previous version during the swap."""
    return path.parent / f".{path.name}.old"


def recover_folder(path: Path) -> None:
    """Finish a swap that a killed process left half done: put the old version back, or remove it."""
    old = old_folder(path)
    if old.exists():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, path)


def _publish(path: Path) -> None:
    """Give a file that was made private the permissions of any other new file of the user's."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


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


def cache_home() -> Path:
    """The cache root: ``$FPT_HOME``, else ``$XDG_CACHE_HOME/fpt``, else ``~/.cache/fpt``."""
    if home := os.environ.get("FPT_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "fpt"


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

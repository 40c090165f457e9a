"""What file systems refuse, and what they need: refusals in one line, swaps in one step, temporaries that a kill leaves."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fpt.errors import FPTError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
# What a file system without locks answers.
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
# Answers of networks, not of file systems.
NETWORK = {getattr(errno, name) for name in dir(errno) if name.startswith(("ECONN", "ENET", "EHOST", "EADDR"))}
# Libraries written in Rust (safetensors, tokenizers) or C++ give the number of the system's answer in words.
OS_ERROR = re.compile(r"(?:os error |\[[Ee]rrno )(\d+)")
# Temporaries: `.NAME.new.XXXXXXXX` becomes NAME when it is whole, `.NAME.trash.XXXXXXXX` is about to be deleted.
TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?:new|trash)\.[a-z0-9_]{8}", re.DOTALL)
# The system allows 255 bytes; what is added to a name has to fit.
LONGEST_NAME = 200
# Letters of a path in a message.
LONGEST_SHOWN = 400
# To make a temporary that nobody takes away.
ATTEMPTS = 5


def errno_of(error: BaseException) -> int | None:
    """The number of the file system's answer behind an error, None where there is none."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := OS_ERROR.search(str(error))):
        number = int(found[1])
    return None if number in NETWORK else number


def reason(error: BaseException) -> str:
    """Why the file system refused, and what to do about it, in words."""
    number = errno_of(error)
    said = os.strerror(number) if number is not None else next(iter(str(error).splitlines()), "") or type(error).__name__
    if number in FULL:
        return f"{said}; make room and run it again"
    if number in FORBIDDEN:
        return f"{said}; change the permissions, or give another place"
    return f"{said}; give a shorter name" if number == errno.ENAMETOOLONG else said


def shown_path(text: str | Path) -> str:
    """A path for a message, which says more than a path of thousands of letters."""
    whole = str(text)
    return whole if len(whole) <= LONGEST_SHOWN else f"{whole[: LONGEST_SHOWN // 2]}…{whole[-LONGEST_SHOWN // 2 :]}"


@contextlib.contextmanager
def refusals(what: str, below: Path | None = None) -> Iterator[None]:
    """Turn a refusal of the file system inside into one line that begins with `what`.

    Args:
        below: a folder; refusals that name a file elsewhere, and are not about space, are left as they are.

    Raises:
        FPTError: the file system refused something.
    """
    try:
        yield
    except FPTError:
        raise
    except Exception as error:  # libraries written in Rust or C++ have kinds of their own; those without a number go through
        number = errno_of(error)
        if number is None or not (below is None or number in FULL or _about(error, below)):
            raise
        raise FPTError(f"{what}: {reason(error)}") from error


def _about(error: BaseException, folder: Path) -> bool:
    named = getattr(error, "filename", None)
    return str(folder) in (os.fsdecode(named) if isinstance(named, (str, bytes)) else str(error))


RENAME_EXCHANGE = 2
AT_FDCWD = -100


@functools.cache
def _renameat2() -> Any:
    """The system call that swaps two names, None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def exchange(one: Path, two: Path) -> bool:
    """Swap two names in one step; returns False where the system or the file system can't, and nothing is changed then.

    Raises:
        OSError: it can in general, but refuses this.
    """
    call = _renameat2()
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(two), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(two))


def flush(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk; what can't be opened or synced is left alone.

    Raises:
        OSError: the disk is full or broken.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in FULL or error.errno == errno.EIO:
            raise
    finally:
        os.close(handle)


def publish(path: Path) -> None:
    """Give a file that was made private the permissions of any other new file of the user's."""
    umask = os.umask(0)
    os.umask(umask)
    with contextlib.suppress(PermissionError, NotImplementedError):  # file systems without permissions
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def prefix(name: str, kind: str) -> str:
    """How names of temporaries for `name` begin; `kind` is ``new`` or ``trash``."""
    encoded = os.fsencode(name)
    if len(encoded) > LONGEST_NAME:
        name = f"{encoded[: LONGEST_NAME - 8].decode(errors='ignore')}{hashlib.sha256(encoded).hexdigest()[:8]}"
    return f".{name}.{kind}."


def is_temporary(name: str) -> bool:
    """Whether a file or folder is one that a writer has not finished, or is about to delete."""
    return TEMPORARY.fullmatch(name) is not None


@contextlib.contextmanager
def temporary_file(path: Path) -> Iterator[tuple[int, Path]]:
    """Yield an open handle and the name of a new file beside `path`. It is ours, and deleted at the end if it is there."""
    with _claimed(lambda: tempfile.mkstemp(dir=path.parent, prefix=prefix(path.name, "new"))) as (handle, name):
        yield handle, name


@contextlib.contextmanager
def temporary_folder(path: Path, kind: str = "new") -> Iterator[Path]:
    """Yield a new empty folder beside `path`. It is ours until the end, and deleted then if it is there."""

    def make() -> tuple[int, str]:
        name = tempfile.mkdtemp(dir=path.parent, prefix=prefix(path.name, kind))
        return os.open(name if fcntl else os.devnull, os.O_RDONLY), name

    with _claimed(make) as (_, folder):
        yield folder


@contextlib.contextmanager
def _claimed(make: Callable[[], tuple[int, str]]) -> Iterator[tuple[int, Path]]:
    """A lock on the temporary itself says that its writer lives: the system takes it from a process that ends in any way."""
    for attempt in range(ATTEMPTS):
        # A sweeper may come between its making and its lock.
        try:
            handle, name = make()
        except FileNotFoundError:
            if attempt == ATTEMPTS - 1:
                raise
            continue
        if attempt == ATTEMPTS - 1 or (_lock(handle) is not False and os.path.lexists(name)):
            break
        os.close(handle)
        remove(Path(name))
    try:
        yield handle, Path(name)
    finally:
        try:
            remove(Path(name))
        finally:
            os.close(handle)


def _lock(handle: int) -> bool | None:
    """Whether a lock could be had; None where there are none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def remove(path: Path) -> None:
    """Delete a file, a link or a folder as far as that is possible; links are never followed."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sweep(folder: Path, names: Callable[[str], bool], owned: bool = False) -> None:
    """Delete temporaries that a killed writer left in `folder`, never those of a living one.

    Args:
        names: which files or folders the temporaries are for; of long names, as `prefix` shortens them.
        owned: nobody else writes these: they are deleted also where the file system has no locks to tell who lives.
    """
    try:
        found = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return
    for name in found:
        match = TEMPORARY.fullmatch(name)
        if match and names(match["name"]):
            _remove_dead(folder / name, owned)


def sweep_beside(path: Path) -> None:
    """Delete temporaries that killed writers of `path` left beside it."""
    short = prefix(path.name, "new").removeprefix(".").removesuffix(".new.")
    sweep(path.parent, lambda name: name == short)


def _remove_dead(path: Path, owned: bool) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:  # a link, or a file of somebody else's
        if owned:
            remove(path)
        return
    try:
        free = _lock(handle)
        if free or (free is None and owned):
            remove(path)
    finally:
        os.close(handle)

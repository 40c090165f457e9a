"""One-line errors: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fpt.text.console import consoles
from fpt.text.escape import one_line

DEBUG = "FPT_DEBUG"
# Exit status of a mistake of the user's, and of a fault.
MISTAKE, FAULT = 2, 1
ROOT = Path(__file__).parent.parent


class FPTError(Exception):
    """A mistake in the input that the user can fix. Its text is a single line of printable characters."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


class UsageError(FPTError):
    """A mistake on the command line, which every process of a launcher sees alike."""


class RejectedRows(FPTError):
    """Refuses a run since too many rows are unusable; `rows` is a table of them, to be written to a file."""

    def __init__(self, message: str, rows: Any = None) -> None:
        super().__init__(message)
        self.rows = rows


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Return ``" (did you mean 'x' or 'y'?)"`` for the nearest known names, or an empty string."""
    near = difflib.get_close_matches(name[:200], list(known), n=2, cutoff=cutoff)
    return f" (did you mean {' or '.join(repr(n) for n in near)}?)" if near else ""


def cli(main: Callable[[], None]) -> None:
    """Run `main` as a command: every error is one line on stderr, and its traceback is there with ``FPT_DEBUG=1``.

    Exit status 2 is a mistake that the user can fix (`FPTError`), 1 a fault of the machine or of this program.
    """
    _speak_utf8()
    with consoles():
        status = _status(main)
    if status:
        sys.exit(status)


def _status(main: Callable[[], None]) -> int:
    try:
        main()
        return 0
    except UsageError as error:
        if os.environ.get("LOCAL_RANK", "0") in ("0", "-1"):
            _say(error, str(error))
        return MISTAKE
    except FPTError as error:
        _say(error, str(error))
        return MISTAKE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # the end of a command: whatever is left is explained, a bug of ours as one
        _say(error, explained(error))
        return FAULT


def _say(error: Exception, text: str) -> None:
    if os.environ.get(DEBUG, "") not in ("", "0"):
        traceback.print_exception(error)
    # Another process may be in the middle of its progress bar.
    start = "\n" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
    print(f"{start}error: {one_line(text)}", file=sys.stderr)


def explained(error: Exception) -> str:
    """What an exception that is no `FPTError` means for the user."""
    text, kind = one_line(str(error), 500), type(error).__name__
    more = f"{DEBUG}=1 shows the traceback"
    if _out_of_memory(error):
        return (
            f"the memory is not enough ({text or kind}); give a smaller --per_device_batch_size or --eval_batch_size, or"
            f" --core_dtype bf16 (python -m fpt.plan says what fits). {more}"
        )
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name!r} is not installed; pip install -r requirements.txt installs what is needed. {more}"
    if isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        hint = f"; {_HINTS[error.errno]}" if error.errno in _HINTS else ""
        return f"{where}{error.strerror}{hint}. {more}"
    return (
        f"unexpected {kind} at {_place(error)}: {text}; run again with {DEBUG}=1 for the traceback, and please report it with"
        " that at the project's page"
    )


def _out_of_memory(error: Exception) -> bool:
    """Python's own, CUDA's, and the one of torch's allocator on a CPU."""
    known = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(text in str(error) for text in known))


_ROOM = "make room, or give folders on another disk; --resume goes on from the last saved state"
_HINTS = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: "give a folder that can be written",
    errno.EACCES: "check the permissions, or give another folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or give a smaller --num_proc",
}


def _place(error: Exception) -> str:
    """File and line where an exception is from: the last of them that is ours, else the last one."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT / "fpt") and frame.filename != __file__]
    frame = (ours or frames)[-1]
    path = Path(frame.filename)
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name}:{frame.lineno}"


def _speak_utf8() -> None:
    """Where Python takes the system for another encoding (``LC_ALL=C`` without its UTF-8 mode), start it again in UTF-8 mode.

    Names of files and columns on the command line are UTF-8 there all the same, and neither we nor a library could open them.
    """
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8") and not sys.flags.utf8_mode and os.name == "posix":
        os.environ["PYTHONUTF8"] = "1"
        if sys.stdout is not None and sys.stderr is not None:
            sys.stdout.flush()
            sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])

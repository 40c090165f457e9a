"""One-line errors: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any


class FPTError(Exception):
    """A mistake in the input that the user can mend; its text is shown as a single line."""


class RejectedRows(FPTError):
    """Refuses a run since too many rows are unusable; `rows` is a table of them, to be written to a file."""

    def __init__(self, message: str, rows: Any) -> None:
        super().__init__(message)
        self.rows = rows


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x' or 'y'?)"`` for the nearest known names, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=2, cutoff=0.5)
    return f" (did you mean {' or '.join(repr(n) for n in near)}?)" if near else ""


def cli(main: Callable[[], None]) -> None:
    """Run `main`; an `FPTError` becomes one line on stderr and exit status 2, without a traceback."""
    try:
        main()
    except FPTError as error:
        # Another process may be in the middle of its progress bar.
        start = "\n" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        print(f"{start}error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)

"""Where lines of progress go: a function of one line, handed down from the command, which knows the main process.

Not `logging`: a library that a notebook imports prints nothing of its own (`silent`), a launched run prints in one process only,
and a test reads the lines that a call got.
"""

from __future__ import annotations

from collections.abc import Callable

Log = Callable[[str], None]


def silent(line: str) -> None:
    """Print nothing."""

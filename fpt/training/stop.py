"""Signals that end a run in good order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def until_signal(loops: Sequence[Any]) -> Iterator[None]:
    """A scheduler that takes the machine away says so with SIGTERM: the step is finished and the state saved."""

    def note(number: int, frame: Any) -> None:
        for loop in loops:
            loop.signalled = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        # A signal may come twice, from the launcher and from the scheduler; the second must not undo the good end.
        stopped = any(loop.stopped for loop in loops)
        signal.signal(signal.SIGTERM, signal.SIG_IGN if stopped else before)

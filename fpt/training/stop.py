"""Signals that end a run in good order: SIGTERM of a scheduler, and Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

ONCE_MORE = b"\nstopping after this step; the state is saved then. Ctrl-C once more stops at once\n"


class Stop:
    """Whether the process was told to stop, and how.

    Attributes:
        signal: the signal that came first, None while there was none.
        done: set when what there is to save is saved.
        quiet: say nothing when Ctrl-C is pressed.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.signal: int | None = None
        self.done, self.quiet = False, quiet

    @property
    def by_hand(self) -> bool:
        """Whether it was Ctrl-C."""
        return self.signal == signal.SIGINT

    def note(self, number: int, frame: Any) -> None:
        """Take note of a signal.

        Raises:
            KeyboardInterrupt: it is Ctrl-C, and there was a signal before.
        """
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        if number == signal.SIGINT and not self.quiet:
            # Not `print`: it may be in the middle of a line.
            with contextlib.suppress(OSError):
                os.write(2, ONCE_MORE)
        self.signal = self.signal or number

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Take note of the signals that come inside.

        A signal may come twice, from the launcher and from the scheduler; after a good end by SIGTERM a second one is not heeded.
        Ctrl-C is left alone where it is ignored, as in the background of a shell.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGTERM, *([] if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else [signal.SIGINT])]
        before = {number: signal.signal(number, self.note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                again = self.done and number == self.signal == signal.SIGTERM
                signal.signal(number, signal.SIG_IGN if again else handler)

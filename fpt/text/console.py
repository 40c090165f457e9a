"""Standard output and error as the commands write to them.

What is printed may hold names from anywhere, goes to consoles that know ASCII only, and the console may be closed at any time
(``| head``, a terminal that is gone). None of it may change what the terminal does, or end a training run.
"""

from __future__ import annotations

import contextlib
import errno
import io
import locale
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from fpt.text.escape import terminal

# Characters of our own messages, for a console that has none of them.
PLAIN = {"…": "...", "±": "+-", "×": "x", "–": "-", "—": "-", "→": "->", "≥": ">=", "‘": "'", "’": "'"}
# What progress bars send by themselves to reach another line.
_MOVES = re.compile(r"(?:\x1b\[A|\n|\r)+")
# wandb colors its name on a terminal.
_WANDB = "\x1b[34m\x1b[1mwandb\x1b[0m"


class Console(io.TextIOBase):
    """A text stream before another one. Writing to it never fails: without a reader, what is written is dropped.

    Args:
        out: the stream that is written to.
    """

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.out, name)

    def write(self, text: str) -> int:
        """Write `text` as the console can show it."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if not self.gone:
            with self._survive():
                self.out.write(self._encodable(_shown(text)))
        return len(text)

    def flush(self) -> None:
        """Send what was written."""
        if not self.gone:
            with self._survive():
                self.out.flush()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream behind this one."""
        return getattr(self.out, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What happens to characters that it can't encode."""
        return "backslashreplace"

    @property
    def buffer(self) -> Any:
        """The bytes behind the stream."""
        return self.out.buffer

    def fileno(self) -> int:
        """Descriptor of the stream behind this one."""
        return self.out.fileno()

    def isatty(self) -> bool:
        """Whether the stream behind this one is a terminal."""
        return not self.gone and self.out.isatty()

    def writable(self) -> bool:
        """It always is."""
        return True

    def close(self) -> None:
        """Send what was written; the stream behind this one stays open."""
        self.flush()

    def _encodable(self, text: str) -> str:
        try:
            text.encode(self.encoding)
            return text
        except UnicodeEncodeError:
            return "".join(self._plain(character) for character in text)

    def _plain(self, character: str) -> str:
        try:
            character.encode(self.encoding)
            return character
        except UnicodeEncodeError:
            return PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode("ascii")

    @contextlib.contextmanager
    def _survive(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENOSPC:  # a log file may have room again
                self._leave()
        except ValueError:  # closed by someone
            self._leave()

    def _leave(self) -> None:
        """Nobody reads any more. What is still in buffers, and what libraries and children write, goes nowhere as well."""
        self.gone = True
        with contextlib.suppress(OSError, ValueError, AttributeError):
            descriptor, nowhere = self.out.fileno(), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def _shown(text: str) -> str:
    """`text` without characters that a terminal acts on; a carriage return may begin or end what a progress bar writes."""
    if _MOVES.fullmatch(text):
        return text
    if text.startswith(_WANDB):
        text = "wandb" + text.removeprefix(_WANDB)
    body = text.strip("\r").replace("\r\n", "\n")
    start = text[: len(text) - len(text.lstrip("\r"))]
    return f"{start}{terminal(body)}{text[len(start) + len(text.strip(chr(13))) :]}"


def typed(word: str) -> str:
    """A word of the command line whose bytes are not UTF-8, as the locale reads it; the name of a file stays as it is."""
    if word.isascii() or not any("\udc80" <= c <= "\udcff" for c in word):
        return word
    value = word.partition("=")[2] if word.startswith("--") else word
    if any(name and os.path.lexists(name) for name in (value, value.partition(":")[2])):
        return word
    try:
        return os.fsencode(word).decode(locale.getencoding())
    except (UnicodeDecodeError, LookupError):
        return word


@contextlib.contextmanager
def consoles() -> Iterator[None]:
    """Put a `Console` before standard output and error while the block runs; those of a process of its own stay."""
    _open_descriptors()
    before = {"stdout": sys.stdout, "stderr": sys.stderr}
    for name, stream in before.items():
        if not isinstance(stream, Console):
            # A stream that was closed when the process started is None.
            out = stream if stream is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, Console(out))
            _move_logging(stream, getattr(sys, name))
    try:
        yield
    finally:
        for name, stream in before.items():
            getattr(sys, name).flush()
            if stream is not None and stream is not getattr(sys, f"__{name}__"):
                _move_logging(getattr(sys, name), stream)
                setattr(sys, name, stream)


def _open_descriptors() -> None:
    """Descriptors 0 to 2 that are closed become the null device: the next file that is opened would be written to as output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest one that is free


def _move_logging(old: Any, new: Any) -> None:
    """Handlers that were made while modules were imported keep the stream of that time."""
    loggers = [logging.root, *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if isinstance(handler, logging.StreamHandler) and vars(handler).get("stream") is old and old is not None:
            handler.setStream(new)

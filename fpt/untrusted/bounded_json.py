"""JSON that someone else wrote: bounded before it is parsed, since a few megabytes of it can take gigabytes as objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fpt.errors import FPTError


def read_json(path: Path, most_bytes: int, most_values: int) -> dict[str, Any]:
    """Return the JSON object in the file `path`.

    Args:
        most_bytes: a larger file is refused, unread.
        most_values: a file with more lists, objects and commas is refused, unparsed.

    Raises:
        FPTError: it can't be read, is too large, or is no JSON object.
    """
    try:
        if not path.is_file():  # a pipe would be waited for, a device never ends
            raise FPTError(f"{path} is not a file")
        with open(path, "rb") as file:
            data = file.read(most_bytes + 1)
        if len(data) > most_bytes:
            raise FPTError(f"{path} is larger than {most_bytes:,} bytes, which makes no sense for such a file")
        if (values := sum(data.count(mark) for mark in (b"[", b"{", b","))) > most_values:
            raise FPTError(f"{path} has about {values:,} values; more than {most_values:,} make no sense for such a file")
        found = json.loads(data.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FPTError(f"{path} can't be read as JSON ({short(error)})") from error
    if not isinstance(found, dict):
        raise FPTError(f"{path} is not a JSON object")
    return found


def short(error: BaseException) -> str:
    """An error of someone else's in a few words, on one line."""
    return next(iter(str(error).strip().splitlines()), "")[:200] or type(error).__name__

"""Files that cells of a user's table name: by a path or a ``file://`` address; only regular files are opened."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO
from urllib.parse import unquote_to_bytes


def path_of(name: str) -> str:
    """The path that a name or a ``file://`` address means; "~" is the home folder.

    Raises:
        ValueError: it is empty, or an address of something else than a file on this machine.
    """
    if not name:
        raise ValueError("no file name")
    scheme, is_address, rest = name.partition("://")
    if not is_address or not scheme.isalnum():
        return os.path.expanduser(name)
    if scheme.lower() != "file":
        raise ValueError(f"an address ({scheme}://); download the file and give its path")
    rest = rest.removeprefix("localhost")
    if not rest.startswith("/"):
        raise ValueError("a file on another machine; copy it here and give its path")
    return os.fsdecode(unquote_to_bytes(os.fsencode(rest)))


def unreadable(error: OSError) -> ValueError:
    """The reason why a named file can't be read, as an error for its cell."""
    return ValueError(f"can't be read ({(error.strerror or type(error).__name__).lower()})")


def open_named(name: str, buffering: int = -1) -> BinaryIO:
    """Open a file by its path, or its ``file://`` address as `Path.as_uri` writes it.

    Raises:
        ValueError: it can't be read, and why. Only regular files are opened: a pipe or a device could block.
    """
    try:
        path = path_of(name)
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("is a folder" if stat.S_ISDIR(mode) else "is not a regular file")
        return open(path, "rb", buffering)
    except FileNotFoundError as error:
        raise ValueError(f"can't be read ({'a broken link' if os.path.islink(path) else 'no such file'})") from error
    except OSError as error:
        raise unreadable(error) from error
    except ValueError as error:
        raise ValueError(f"can't be read ({error})") from error

"""Whose error it is: a bug of this package must not be told as a damaged file or a missing backbone."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from fpt.errors import ROOT

# What slips end in: in a library that does not check what it reads they are its way to refuse; in code of ours they are bugs.
SLIPS = (TypeError, LookupError, AttributeError, AssertionError, ImportError)
_PLACES = sysconfig.get_paths()
LIBRARIES = tuple(Path(_PLACES[name]) for name in ("purelib", "platlib"))
STANDARD_LIBRARY = Path(_PLACES["stdlib"])


def is_bug(error: BaseException) -> bool:
    """Whether an error is a slip in code of ours."""
    return isinstance(error, SLIPS) and not of_a_library(error)


def of_a_library(error: BaseException) -> bool:
    """Whether it was a library that failed, and not code of ours; who asks for a missing attribute is who fails."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT / "fpt"):
            return False
        if any(path.is_relative_to(place) for place in LIBRARIES):
            if frame.name not in ("__getattr__", "__getattribute__"):
                return True
        elif not path.is_relative_to(STANDARD_LIBRARY):
            return False
    return False

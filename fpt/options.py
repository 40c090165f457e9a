"""The arguments of a task's or a model's own: what was given by name becomes an instance of the dataclass in ``options``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, cast

from fpt.args import DataArguments
from fpt.errors import FPTError
from fpt.flags.checks import check_types

T = TypeVar("T")


def options_of(args: DataArguments, kind: type[T]) -> T:
    """The task's own arguments, once `fpt.tasks.base.resolve` has read them.

    Raises:
        TypeError: they are not of this kind, or not read yet.
    """
    if not isinstance(args.options, kind):
        raise TypeError(f"the options of the task are {type(args.options).__name__}, not {kind.__name__}")
    return args.options


def own_options(kind: type[T] | None, given: Mapping[str, Any], whose: str) -> T | None:
    """The arguments of a task's or a baseline's own, with their defaults.

    Args:
        kind: their dataclass, None where there are none.
        whose: they are, for the error.

    Raises:
        FPTError: something was given that is none of them.
    """
    known = [f.name for f in fields(cast(Any, kind))] if kind else []
    if unknown := [name for name in given if name not in known]:
        own = ", ".join(f"--{name}" for name in known) or "none"
        raise FPTError(f"{whose} has no argument {', '.join(f'--{u}' for u in unknown)}; its own are {own}")
    if kind is None:
        return None
    made = kind(**given)
    check_types(made)
    return made

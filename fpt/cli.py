"""The command line: words become the dataclasses of `fpt.args`; whatever is wrong with them is one line.

A task or a baseline that is named there adds its own arguments. ``--config FILE`` takes arguments from the record of an earlier
run, or from a file of one's own; those on the command line override them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

from fpt.args import DataArguments, ModelArguments, TrainArguments, Training, as_dict
from fpt.errors import FPTError, UsageError
from fpt.flags.config_file import Configuration, read_configuration
from fpt.flags.hints import of_molecules
from fpt.flags.parser import parser_of, program, read_words


def parse(description: str, *kinds: Any) -> tuple[Any, ...]:
    """Read ``sys.argv`` into one instance of each dataclass in `kinds`.

    Raises:
        FPTError: a flag is wrong, or has no meaning beside the others.
    """
    values = read_words(parser_of(description, kinds), sys.argv[1:])
    found = _made(kinds, values)
    refuse_unread({name: why for one in found if hasattr(one, "unread") for name, why in one.unread(set(values)).items()})
    return tuple(found)


def read_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read ``sys.argv`` with a parser of argparse's own.

    Raises:
        FPTError: as `read_words`.
    """
    parser.prog, parser.allow_abbrev = program(), False
    defaults = {action.dest: action.default for action in parser._actions}
    found = read_words(parser, sys.argv[1:])
    for name, value in found.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.strip():
                raise UsageError(f"{name} is empty; give a value")
    return argparse.Namespace(**{**defaults, **found})


def parse_training(description: str, *more: type, unread: Collection[str] = (), why: str = "") -> tuple[Any, ...]:
    """Read the command line of ``train.py``, or of a command that takes the same arguments.

    Args:
        more: dataclasses of further arguments.
        unread: names of arguments that this command has no use for, and `why`.

    Returns:
        `DataArguments`, `ModelArguments`, `TrainArguments`, and an instance of each of `more`.

    Raises:
        FPTError: a flag is wrong, or is not read by the task, the model or the command.
    """
    found = read_training(sys.argv[1:], *more, description=description)
    # Imported late: it knows all tasks and models.
    from fpt.flags.unread import unread_flags

    refuse_unread({**unread_flags(found), **{name: why for name in unread if name in found.given}})
    if os.environ.get("RANK", "0") == "0":
        for line in found.log:
            print(line)
    return found.data, found.model, found.training, *found.more


def refuse_unread(reasons: dict[str, str]) -> None:
    """Refuse flags that nothing reads.

    Raises:
        UsageError: there are some; the message has the reason of each.
    """
    if reasons:
        told = []
        for why in dict.fromkeys(reasons.values()):
            flags = [f"--{name}" for name in reasons if reasons[name] == why]
            told.append(f"{', '.join(flags)} {'is' if len(flags) == 1 else 'are'} not read: {why}")
        raise UsageError(f"{'; '.join(told)}. Leave {'it' if len(reasons) == 1 else 'them'} out")


def read_training(
    words: Sequence[str], *more: type, description: str = "", configuration: Configuration | None = None
) -> Training:
    """Read words of a command line of ``train.py``; what is given and not read is not refused here.

    Args:
        configuration: arguments from a file; that of ``--config`` when not given.

    Raises:
        FPTError: a flag or a configuration is wrong, or there is no such task or model.
    """
    wanted = _finder(words)
    if configuration is None and "config" in wanted:
        configuration = read_configuration(wanted["config"])
    chosen = {**(configuration.values if configuration else {}), **wanted}
    asked_help = {"-h", "--help"} & set(words)
    task_kind, model_kind = _own_kinds(
        str(chosen.get("dataset", DataArguments.dataset)) if "dataset" in chosen or not asked_help else None,
        str(chosen.get("model", ModelArguments.model)),
        described=bool(asked_help),
    )
    kinds = [DataArguments, ModelArguments, TrainArguments, *more, *(k for k in (task_kind, model_kind) if k is not None)]
    meant = {"--features": of_molecules(str(chosen.get("model", ModelArguments.model)))}
    values = read_words(parser_of(description, kinds, config=True), words, meant)
    values.pop("config", None)
    given, log = frozenset(values), []
    if configuration:
        recorded = configuration.readable(parser_of("", kinds), kinds, values)
        if not configuration.is_record:
            given |= frozenset(recorded)
        log = configuration.told(recorded, values)
        values = {**recorded, **values}
    data, model, training, *others = _made(kinds, values)
    if task_kind is not None:
        data.given_options = as_dict(others[len(more)])
    if model_kind is not None:
        model.given_options = as_dict(others[-1])
    return Training(data, model, training, given, tuple(others[: len(more)]), log)


def _finder(words: Sequence[str]) -> dict[str, Any]:
    """What decides which other arguments there are."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("dataset", "model", "config"):
        finder.add_argument(f"--{name}")
    try:
        found, _ = finder.parse_known_args(list(words))
    except argparse.ArgumentError:
        return {}  # the whole parser says what is wrong
    return {name: value for name, value in vars(found).items() if value is not None}


def _own_kinds(dataset: str | None, model: str, described: bool = False) -> tuple[type | None, type | None]:
    """Dataclasses of the arguments of a task's and of a model's own.

    Args:
        described: they are for --help, which needs none of the packages that the task and the model need.
    """
    task_kind = model_kind = None
    # Imported late, so that --help answers at once.
    if dataset is not None:
        from fpt.tasks.base import TASKS

        task_kind = (TASKS.find if described else TASKS.__getitem__)(dataset).options
    if model != ModelArguments.model:
        from fpt.models.base import MODELS

        model_kind = (MODELS.find if described else MODELS.__getitem__)(model).options
    return task_kind, model_kind


def _made(kinds: Sequence[type], values: dict[str, Any]) -> list[Any]:
    """An instance of each dataclass; what it refuses is a mistake on the command line."""
    from fpt.flags.checks import check_types

    made = []
    for kind in kinds:
        try:
            made.append(kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values}))
            check_types(made[-1])
        except UsageError:
            raise
        except FPTError as error:
            raise UsageError(str(error)) from error
    return made

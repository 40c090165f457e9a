"""The command line: words become the dataclasses of `fpt.args`; whatever is wrong with them is one line.

A task or a baseline that is named there adds its own arguments. ``--config FILE`` takes arguments from the record of an earlier
run, or from a file of one's own; those on the command line override them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from fpt.args import DataArguments, ModelArguments, TrainArguments, as_dict
from fpt.config_file import Configuration, read_configuration
from fpt.console import typed
from fpt.errors import FPTError, UsageError, did_you_mean

UNSET = object()
CONFIG_HELP = (
    "Take arguments from FILE: run.json or results.json of an earlier run, or JSON or YAML of your own (max_steps: 500). Flags on"
    " the command line override it. Of a record, --output_dir, --resume, --overwrite and --push_to_hub are not taken; with"
    " --resume, its --output_dir is."
)
# What the values of flags are called in --help.
METAVARS = {int: "N", float: "X", str: "TEXT"}


@dataclass
class Training:
    """A command line that says what is trained.

    Attributes:
        given: names of the flags that were given, in a record of an earlier run not counted.
        more: instances of further dataclasses.
    """

    data: DataArguments
    model: ModelArguments
    training: TrainArguments
    given: frozenset[str] = frozenset()
    more: tuple[Any, ...] = ()
    log: list[str] = field(default_factory=list)


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows a flag once, its default where there is one, and leaves examples in the description as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or "-h" in action.option_strings:
            return super()._format_action_invocation(action)
        value = "" if action.nargs in (0, "?") else f" {self._format_args(action, str(action.metavar or action.dest.upper()))}"
        return f"{action.option_strings[0]}{value}"


class Reader:
    """Reads the text of one flag, in place of argparse, whose errors name neither flag nor help."""

    def __init__(self, action: argparse.Action) -> None:
        self.action, self.found = action, UNSET
        self.kind: Any = action.type or str

    def __call__(self, text: str) -> Any:
        kinds = {int: "a whole number", float: "a number"}
        try:
            value = self.kind(text)
        except (argparse.ArgumentTypeError, TypeError, ValueError) as error:
            what = kinds.get(self.kind, "true or false" if self.action.nargs == "?" else "what it takes")
            raise UsageError(f"{named(self.action)} {_short(text)} is not {what}; {about(self.action)}") from error
        if self.action.nargs in (None, "?"):
            if self.found is not UNSET and self.found != value:
                raise UsageError(f"{named(self.action)} is given twice: {self.found} and {value}; give it once")
            self.found = value
        return value


def named(action: argparse.Action) -> str:
    """The flag as the documentation writes it."""
    return action.option_strings[-1 if "-h" in action.option_strings else 0] if action.option_strings else action.dest.upper()


def about(action: argparse.Action) -> str:
    """The help of a flag, for an error."""
    return f"{named(action)}: {action.help}" if action.help else f"see --help on {named(action)}"


def parser_of(description: str, kinds: Sequence[type], config: bool = False) -> argparse.ArgumentParser:
    """A parser with the fields of `kinds`, for `read_words`."""
    # Imported late: not every command line needs it.
    from transformers import HfArgumentParser

    prog = program()
    needed = "".join(f" --{f.name} {f.name.upper()}" for kind in kinds for f in fields(kind) if f.init and _is_needed(f))
    usage = f"{prog}{' [--config FILE]' if config else ''}{needed} [--flag value ...]"
    parser = HfArgumentParser([], description=description, allow_abbrev=False, formatter_class=Help, prog=prog, usage=usage)
    if config:
        parser.add_argument("--config", metavar="FILE", help=CONFIG_HELP)
    try:
        for kind in kinds:
            # It writes simpler types into the fields: None would be no value of theirs any more.
            types = {one: one.type for one in fields(kind)}
            parser._add_dataclass_arguments(kind)  # type: ignore[arg-type]
            for one, declared in types.items():
                one.type = declared
    except argparse.ArgumentError as error:
        raise FPTError(f"{kinds[-1].__name__} has a flag of a name that is taken: {error}") from error
    return parser


def _is_needed(one: Any) -> bool:
    from dataclasses import MISSING

    return one.default is MISSING and one.default_factory is MISSING


def program() -> str:
    """How the command that runs is started."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        path = path.parent
    return f"python -m fpt.{path.stem}" if path.parent.name == "fpt" else path.name


def read_words(parser: argparse.ArgumentParser, words: Sequence[str]) -> dict[str, Any]:
    """The values of the flags that `words` name.

    Raises:
        UsageError: a flag is unknown, without or with a wrong value, missing, or given twice with two values.
    """
    needed = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._VersionAction):
            continue
        if action.nargs != 0:
            reader = Reader(action)
            if action.metavar is None and action.option_strings and not action.choices:
                action.metavar = METAVARS.get(reader.kind)
            action.type = reader
        if action.const is True and action.nargs == "?":
            action.const = "true"  # read like any other text
        if action.required:
            needed.append(action)
            action.required = False
    parser.error = _refuse  # type: ignore[method-assign]
    parser.exit_on_error = False
    namespace = argparse.Namespace(**{action.dest: UNSET for action in parser._actions})
    words = [typed(word) for word in words]
    try:
        _, left = parser.parse_known_args(words, namespace)
    except argparse.ArgumentError as error:
        raise UsageError(_why(parser, error, words)) from error
    if left:
        raise UsageError(_unknown(parser, left))
    values = {name: value for name, value in vars(namespace).items() if value is not UNSET}
    for action in needed:
        if action.dest not in values:
            raise UsageError(f"{named(action)} is needed; {about(action)}")
    return values


def _refuse(message: str) -> NoReturn:
    raise UsageError(f"{message}; --help lists all arguments")


def _why(parser: argparse.ArgumentParser, error: argparse.ArgumentError, words: Sequence[str]) -> str:
    """What is wrong with one flag."""
    action = next((a for a in parser._actions if error.argument_name and error.argument_name in _names(a)), None)
    if action is None:
        return f"{error}; --help lists all arguments"
    if not error.message.startswith("expected"):
        return f"{named(action)}: {error.message}; {about(action)}"
    places = [i for i, word in enumerate(words[:-1]) if word in action.option_strings]
    after = next((words[i + 1] for i in places if words[i + 1].startswith("-")), "")
    known = after.partition("=")[0] in {word for a in parser._actions for word in a.option_strings}
    hint = f" (a value that begins with - is written {named(action)}={after[:40]})" if after and not known else ""
    return f"{named(action)} has no value{hint}; {about(action)}"


def _names(action: argparse.Action) -> tuple[str, ...]:
    return ("/".join(action.option_strings), *action.option_strings, str(action.metavar), action.dest)


def _unknown(parser: argparse.ArgumentParser, left: Sequence[str]) -> str:
    """What is wrong with words that nobody takes."""
    word = next((w for w in left if w.startswith("-") and len(w) > 1), left[0])
    name = word.partition("=")[0]
    known = [a.option_strings[0] for a in parser._actions if a.option_strings]
    dashes = "-\u2010\u2011\u2012\u2013\u2014\u2212"
    plain = "--" + name.lstrip(dashes).replace("-", "_").lower()
    flag = word[:1] in dashes
    near = did_you_mean(plain, [*known, "--help"], 0.5 if flag else 0.85)
    if flag or near:
        return f"unknown argument {_short(name)}{near}; --help lists all"
    return f"unexpected {_short(word)}: every value comes after its flag, as in --dataset mnist; --help lists all"


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:59]!r}…"


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
    from fpt.unread import unread_flags

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
    values = read_words(parser_of(description, kinds, config=True), words)
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
        data.options = as_dict(others[len(more)])
    if model_kind is not None:
        model.model_options = as_dict(others[-1])
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
        from fpt.tasks import TASKS

        task_kind = (TASKS.find if described else TASKS.__getitem__)(dataset).options
    if model != ModelArguments.model:
        from fpt.baselines import MODELS

        model_kind = (MODELS.find if described else MODELS.__getitem__)(model).options
    return task_kind, model_kind


def _made(kinds: Sequence[type], values: dict[str, Any]) -> list[Any]:
    """An instance of each dataclass; what it refuses is a mistake on the command line."""
    from fpt.checks import check_types

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

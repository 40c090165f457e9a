"""The parser of the command line: flags from dataclasses, and one line for what is wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from fpt.errors import FPTError, UsageError, did_you_mean
from fpt.text.console import typed

UNSET = object()


CONFIG_HELP = (
    "Take arguments from FILE: run.json or results.json of an earlier run, or JSON or YAML of your own (max_steps: 500). Flags on"
    " the command line override it. Of a record, --output_dir, --resume, --overwrite and --push_to_hub are not taken; with"
    " --resume, its --output_dir is."
)


# What the values of flags are called in --help.
METAVARS = {int: "N", float: "X", str: "TEXT"}


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


def read_words(
    parser: argparse.ArgumentParser, words: Sequence[str], meant: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """The values of the flags that `words` name.

    Args:
        meant: flags that the parser may not know, and what to give in their place.

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
        raise UsageError(_unknown(parser, left, meant))
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


def _unknown(parser: argparse.ArgumentParser, left: Sequence[str], meant: Mapping[str, str]) -> str:
    """What is wrong with words that nobody takes."""
    word = next((w for w in left if w.startswith("-") and len(w) > 1), left[0])
    name = word.partition("=")[0]
    if name in meant:
        return f"unknown argument {_short(name)}: {meant[name]}; --help lists all"
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

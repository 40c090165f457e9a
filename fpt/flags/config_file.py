"""``--config FILE``: arguments from the record of an earlier run (run.json, results.json), or from JSON or YAML of one's own."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from fpt.errors import FPTError, did_you_mean
from fpt.flags.parser import read_words

LARGEST = {"json": 64 * 2**20, "yaml": 2**20}
# In records, and no arguments.
NO_ARGUMENTS = ("data_key", "global_batch_size")
NESTED = ("options", "model_options")
# What a new run must not take from the record of another: it would write over it, or publish again.
LEFT = ("output_dir", "resume", "overwrite", "push_to_hub", "hub_private", "config")


@dataclass
class Configuration:
    """Arguments from a file.

    Attributes:
        values: by name, as the file has them; those without a value are left out.
        is_record: whether a run wrote it; its values are then all there, defaults included.
        left: names of what the new run does not take.
    """

    path: str
    values: dict[str, Any]
    is_record: bool
    left: list[str] = field(default_factory=list)

    def readable(self, parser: argparse.ArgumentParser, kinds: Sequence[type], given: dict[str, Any]) -> dict[str, Any]:
        """The values as the flags of `parser` read them.

        Args:
            kinds: dataclasses that the parser was made of.
            given: values of flags, which go before.

        Raises:
            FPTError: a name is unknown or a value wrong; the message names the file.
        """
        known = [f.name for kind in kinds for f in fields(kind) if f.init]
        self._drop(known, given)
        words = []
        for name, value in self.values.items():
            if name not in known:
                raise FPTError(f"{self.path}: unknown argument {name[:60]!r}{did_you_mean(name, known)}; --help lists all")
            if name not in given:
                words.append(f"--{name}={_text(self.path, name, value, kinds)}")
        try:
            return read_words(parser, words)
        except FPTError as error:
            raise FPTError(f"{self.path}: {error}") from error

    def _drop(self, known: Sequence[str], given: dict[str, Any]) -> None:
        """Leave out of a record what the run that is started now does not take from it."""
        if not self.is_record:
            return
        kept = ("output_dir",) if given.get("resume") else ()
        for name in LEFT:
            if name not in kept and self.values.pop(name, None) and name not in given:
                self.left.append(name)
        # What one run alone had instead of these.
        for several, one in (("seeds", "seed"), ("learning_rates", "learning_rate")):
            if given.get(several):
                self.values.pop(one, None)
        if {"dataset", "model"} & set(given):
            self.left += [name for name in self.values if name not in known]
            for name in self.left:
                self.values.pop(name, None)

    def told(self, taken: dict[str, Any], given: dict[str, Any]) -> list[str]:
        """Lines about what is taken from the file and what is not."""
        changed = {k: v for k, v in given.items() if k in self.values}
        flags = shlex.join(f"--{name}={value}" for name, value in given.items())
        lines = [f"config: {len(taken)} arguments from {self.path}{' (the record of a run)' if self.is_record else ''}"]
        if self.left:
            lines[0] += f"; not taken: {', '.join(f'--{name}' for name in self.left)}"
        if given:
            lines.append(
                f"config: from the command line {flags}" + (f"; instead of {_listed(self.values, changed)}" if changed else "")
            )
        return lines


def _listed(values: dict[str, Any], names: dict[str, Any]) -> str:
    return ", ".join(f"{name} {str(values[name])[:60]}" for name in names)


def read_configuration(path: str) -> Configuration:
    """Read a file.

    Raises:
        FPTError: it is not there, too large, damaged, or holds something else.
    """
    found = _mapping(path, _loaded(path))
    results = isinstance(found.get("arguments"), dict)
    if results:
        found = _mapping(path, found["arguments"])
    is_record = results or any(name in found for name in (*NESTED, *NO_ARGUMENTS))
    for name in NO_ARGUMENTS:
        found.pop(name, None)
    for name in NESTED:
        found |= _mapping(path, found.pop(name, None) or {})
    values = {name.lstrip("-").replace("-", "_"): value for name, value in found.items() if value is not None}
    if not values:
        raise FPTError(f"{path} has no arguments; give names with values, as max_steps: 500")
    return Configuration(path, values, is_record)


def _mapping(path: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise FPTError(f"{path} is not a list of arguments; give names with values, as max_steps: 500")
    return dict(found)


def _loaded(path: str) -> Any:
    """The content of a JSON or YAML file."""
    file = Path(path).expanduser()
    try:
        if file.is_dir():
            raise FPTError(f"--config {path} is a folder; give a file, such as {file / 'run.json'}")
        if not file.is_file():
            raise FPTError(f"--config {path} is not a file; give run.json or results.json of a run, or YAML of your own")
        kind = "yaml" if file.suffix.lower() in (".yaml", ".yml") else "json"
        if file.stat().st_size > LARGEST[kind]:
            raise FPTError(f"--config {path} has {file.stat().st_size:,} bytes, too many for a list of arguments")
        text = file.read_text(encoding="utf-8-sig")
        return json.loads(text, object_pairs_hook=_once) if kind == "json" else yaml.load(text, _Loader)
    except OSError as error:
        raise FPTError(f"--config {path} can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FPTError(f"--config {path} can't be read: it is not UTF-8") from error
    except RecursionError as error:
        raise FPTError(f"--config {path} can't be read: it is nested too deeply") from error
    except (ValueError, yaml.YAMLError) as error:
        raise FPTError(f"--config {path} can't be read as {kind.upper()}: {str(error)[:300]}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, each name in it once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


class _Loader(yaml.SafeLoader):
    """Plain values only, each name in a mapping once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse names that come twice."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1 and name != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _text(path: str, name: str, value: Any, kinds: Sequence[type]) -> str:
    """A value as the word of a command line.

    Raises:
        FPTError: it is not one value.
    """
    one = next(f for kind in kinds for f in fields(kind) if f.name == name)
    if isinstance(value, bool) and "bool" not in str(one.type):
        raise FPTError(
            f'{path}: {name} is {str(value).lower()}; YAML reads words like no and on so: put it in quotes, {name}: "no"'
        )
    if not isinstance(value, str | int | float):
        raise FPTError(f"{path}: {name} must be one value, not {type(value).__name__}; several are written as text: 1,2,3")
    try:
        return str(value)
    except ValueError as error:  # more digits than Python writes
        raise FPTError(f"{path}: {name} has too many digits") from error

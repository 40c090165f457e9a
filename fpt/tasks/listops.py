"""ListOps of the Long Range Arena (arXiv 2011.04006, section 2.2.1; Nangia and Bowman, arXiv 1804.06028).

A nested expression of MAX, MIN, MED (median) and SM (sum modulo 10) over digits, ``[MAX 4 3 [MIN 2 3 ] 1 0 ]``; one token an
operator, bracket or digit; ten classes, accuracy.

``DIR/**/basic_{train,val,test}.tsv`` of LRA's release is used when --data_dir has it. Otherwise expressions are drawn by the
seed from LRA's distribution: an argument is an expression with probability 0.25, up to 10 levels and 10 arguments, 96,000 /
2,000 / 2,000 of them. They are at most --max_length tokens long (512, LRA's own is 2,000), and at least a quarter of that.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset

from fpt.args import DataArguments, arg
from fpt.errors import FPTError
from fpt.flags.checks import Range, check_ranges
from fpt.options import options_of
from fpt.outputs import Classes
from fpt.tasks.base import SPLITS, TASKS, Examples, Source
from fpt.tasks.sources import Ladder
from fpt.tasks.text import Text, TextTask
from fpt.text.log import Log

OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "[MAX": max,
    "[MIN": min,
    # The lower of the two middle ones, rounded down from their mean, as LRA's int(median).
    "[MED": lambda v: (sorted(v)[(len(v) - 1) // 2] + sorted(v)[len(v) // 2]) // 2,
    "[SM": lambda v: sum(v) % 10,
}
END = "]"
NESTED = 0.25
FILES = {"train": "basic_train.tsv", "valid": "basic_val.tsv", "test": "basic_test.tsv"}


@dataclass
class ListOpsOptions:
    """Sizes of the generated set."""

    _argument_group_name = "listops"
    num_train: int = arg(96_000, "Expressions to train on.")
    num_eval: int = arg(2_000, "Expressions of valid, and of test.")
    max_depth: int = arg(10, "Levels of nesting.")
    max_args: int = arg(10, "Arguments of an operator.")

    def __post_init__(self) -> None:
        check_ranges(self, num_train=Range(1, 10**8), num_eval=Range(1, 10**7), max_depth=Range(2, 100), max_args=Range(2, 1000))


def evaluate(tokens: list[str]) -> int:
    """The value of an expression.

    Raises:
        ValueError: it is no whole expression.
    """
    stack: list[list[Any]] = [[]]
    for token in tokens:
        if token in OPERATORS:
            stack.append([token])
        elif token == END:
            operator, *values = stack.pop()
            if not stack or not values:
                raise ValueError("a bracket too many, or an operator without arguments")
            stack[-1].append(OPERATORS[operator](values))
        elif len(token) == 1 and token.isdigit():
            stack[-1].append(int(token))
        else:
            raise ValueError(f"unknown token {token[:20]!r}")
    if len(stack) != 1 or len(stack[0]) != 1:
        raise ValueError("no single whole expression")
    return stack[0][0]


def draw(rng: random.Random, shortest: int, longest: int, max_depth: int, max_args: int) -> list[str]:
    """Draw an expression of `shortest` to `longest` tokens from LRA's distribution, by rejection."""
    operators = list(OPERATORS)
    while True:
        tokens: list[str] = []
        # Arguments that are still to be written, of each open operator; the root is one.
        open_: list[int] = [1]
        while open_ and len(tokens) + len(open_) <= longest + 1:
            if not open_[-1]:
                open_.pop()
                if open_:
                    tokens.append(END)
                continue
            open_[-1] -= 1
            if len(open_) < max_depth and (len(open_) == 1 or rng.random() < NESTED):
                tokens.append(rng.choice(operators))
                open_.append(rng.randint(2, max_args))
            else:
                tokens.append(str(rng.randrange(10)))
        if not open_ and shortest <= len(tokens) <= longest:
            return tokens


class Expressions(Text):
    """Expressions, with LRA's parentheses or without."""

    tokenizer = "word"
    columns = ("Source", "text")

    def check(self, text: str) -> str | None:
        """Whether it is a whole expression."""
        try:
            evaluate(_tokens(text))
        except ValueError as error:
            return str(error)
        return None

    def clean(self, text: str) -> str:
        """Without parentheses."""
        return " ".join(_tokens(text))


class ListOps(TextTask):
    """What is the value of the expression?"""

    name = "listops"
    source = "https://arxiv.org/abs/2011.04006, section 2.2.1"
    licence = "none: generated; LRA's release: Apache-2.0"
    primary_metric = "accuracy"
    modality = Expressions()
    options = ListOpsOptions

    def locate(self, args: DataArguments, log: Log) -> Source:
        """LRA's files in --data_dir, else the generator."""
        found = Ladder(self.name, _files, _read, f"{', '.join(FILES.values())} into DIR", users_own=True).look(args, log)
        return found or _generated(args, log)

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """LRA's own files, or expressions drawn by the seed."""
        output = Classes(tuple("0123456789"))
        if isinstance(source.rows, pd.DataFrame):
            parts = {name: source.rows[source.rows.split == name] for name in SPLITS}
            columns = {
                name: {"id": [f"{name}-{i}" for i in range(len(p))], "text": list(p.text), "label": p.label.tolist()}
                for name, p in parts.items()
            }
            return Examples({name: Dataset.from_dict(c) for name, c in columns.items()}, output, seeded=False)
        o = options_of(args, ListOpsOptions)
        sizes = {"train": o.num_train, "valid": o.num_eval, "test": o.num_eval}
        # [BOS] and [EOS] stand around an expression.
        bounds = {"longest": args.longest - 2, "shortest": (args.longest - 2) // 4}
        depth = {"max_depth": o.max_depth, "max_args": o.max_args}
        processes = args.num_proc or os.cpu_count() or 1
        splits = {
            name: Dataset.from_dict({"id": [f"{name}-{i}" for i in range(size)]}).map(
                _draw_row,
                fn_kwargs={"seed": seed, **bounds, **depth},
                num_proc=processes if processes > 1 and size > 1000 else None,
                keep_in_memory=True,
                desc=f"drawing {name}",
            )
            for name, size in sizes.items()
        }
        return Examples(splits, output)


def _files(root: Path) -> list[Path]:
    """The files of LRA's release, in the first folder that has its training set."""
    first = next(iter(sorted(root.glob(f"**/{FILES['train']}"))), None)
    return [first.parent / name for name in FILES.values()] if first else []


def _read(files: Sequence[Path], origin: str) -> Source:
    tables = [read_tsv(path).assign(split=name) for name, path in zip(FILES, files, strict=True)]
    rows = pd.concat(tables, ignore_index=True)
    return Source(rows, f"{origin}, LRA basic_*.tsv", hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest())


def _generated(args: DataArguments, log: Log) -> Source:
    """Numbers of the expressions that `ListOps.split` draws."""
    if args.longest < 16:
        raise FPTError(f"--max_length {args.max_length} is too short for an expression; give at least 16")
    o = options_of(args, ListOpsOptions)
    recipe = {**asdict(o), "max_length": args.max_length}
    log(f"generated: {json.dumps(recipe)}")
    sha256 = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return Source(range(o.num_train + 2 * o.num_eval), "generated ListOps", sha256)


def read_tsv(path: Path) -> pd.DataFrame:
    """Read a file of LRA's release (columns Source and Target).

    Returns:
        Columns text (tokens without LRA's parentheses) and label.

    Raises:
        FPTError: it is missing, or has other columns or labels.
    """
    try:
        rows = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise FPTError(f"{path} can't be read: {error}; expected LRA's columns Source and Target") from error
    if not {"Source", "Target"} <= set(rows) or not rows["Target"].isin(list("0123456789")).all():
        raise FPTError(f"{path} is no file of LRA's ListOps: expected the columns Source and Target, with targets 0 to 9")
    return pd.DataFrame({"text": [" ".join(_tokens(t)) for t in rows["Source"]], "label": rows["Target"].astype(int)})


def _tokens(text: str) -> list[str]:
    """Tokens of an expression as LRA writes it, with parentheses that say nothing, or as we do."""
    return [t for t in text.split() if t not in ("(", ")")]


def _draw_row(row: dict[str, Any], seed: int, **bounds: int) -> dict[str, Any]:
    tokens = draw(random.Random(f"{seed}/{row['id']}"), **bounds)
    return {"text": " ".join(tokens), "label": evaluate(tokens)}


TASKS.register("listops")(ListOps())

"""What a file of an experiment says: rows, their arguments, and the cells that they stand for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from fpt.args import DataArguments, ModelArguments, TrainArguments, arg
from fpt.cli import read_training, refuse_unread
from fpt.errors import FPTError, did_you_mean
from fpt.experiment.runner import CPU_CONFIG, Cell, Row
from fpt.files.whole import slug
from fpt.flags.checks import Range, check_ranges
from fpt.flags.config_file import Configuration
from fpt.flags.unread import unread_flags
from fpt.tasks.base import TASKS, GeneratedTask

TABLE, ABOUT = "table.md", "experiment.json"
# Arguments that tell the cells of a row apart, or how one is started.
CELLS_OWN = ("seed", "output_dir", "resume", "overwrite", "config")


@dataclass
class ExperimentArguments:
    """Which table, and how its cells are run."""

    _argument_group_name = "experiment"
    file: str = field(metadata={"help": "YAML file of the experiment."})
    seeds: int = arg(3, "Seeds of each row: 1 to N.")
    budget: str = arg("small", "Budget of the file to run: small, paper, ...")
    output_dir: str = arg("runs/experiments", "Folder that gets NAME/BUDGET/ROW/seed-N/.")
    config_file: str = arg(CPU_CONFIG, "Accelerate configuration that each cell is launched with.")
    jobs: int = arg(1, "Cells that run side by side.")
    rows: str | None = arg(None, "Only rows whose name contains this.")
    data_dir: str | None = arg(None, "Folder with raw downloads, for every cell.")
    sweep: str | None = arg(
        None,
        "ARGUMENT=VALUE,VALUE,...: each row first tries these with seed 1 and keeps the best on validation; a wandb sweep when"
        " logged in to a server, a local one else.",
    )
    dry_run: bool = arg(False, "Print the commands and run nothing.")

    def __post_init__(self) -> None:
        check_ranges(self, seeds=Range(1, 10_000), jobs=Range(1, 1024))


@dataclass(frozen=True)
class Experiment:
    """What a file says, for one budget."""

    name: str
    title: str
    budget: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]


def read_experiment(path: Path, budget: str, only: str | None = None) -> Experiment:
    """Read a file.

    Raises:
        FPTError: it can't be read, or says something that makes no sense.
    """
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise FPTError(f"{path} can't be read as YAML: {str(error)[:300]}") from error
    _check_keys(path, said, ("title", "metrics", "arguments", "budgets", "rows"), "the file")
    metrics = said.get("metrics") or []
    if not isinstance(metrics, list) or not all(isinstance(metric, str) for metric in metrics):
        raise FPTError(f"{path}: metrics must be a list of names")
    rows = said.get("rows")
    if not isinstance(rows, list) or not rows:
        raise FPTError(f"{path} has no rows; give a list of them with name and arguments")
    for row in rows:
        _check_keys(path, row, ("name", "arguments", "budgets", "published", "source"), "a row")
        if not row.get("name"):
            raise FPTError(f"{path}: a row has no name")
    names = [str(row["name"]) for row in rows]
    if len({slug(name) for name in names}) < len(names):
        raise FPTError(f"{path}: two rows have the same name; {', '.join(names)}")
    known = {name for part in (said, *rows) for name in part.get("budgets") or {}}
    # A file without budgets means the same by any name.
    if known and budget not in known:
        raise FPTError(f"{path} has no budget {budget!r}{did_you_mean(budget, known)}; it has {', '.join(sorted(known))}")

    # A row that is not run may need a package that is not here.
    chosen = [row for row in rows if only is None or only in str(row["name"])]
    if not chosen:
        raise FPTError(f"--rows {only}: there is no such row; there are {', '.join(names)}")
    made = [_row(path, said, row, budget) for row in chosen]
    return Experiment(path.stem, str(said.get("title") or path.stem), budget, tuple(metrics), tuple(made))


def cells_of(experiment: Experiment, folder: Path, seeds: int, data_dir: str | None = None) -> list[Cell]:
    """The cells of a table, row by row."""
    return [
        Cell(row, seed, folder / slug(row.name) / f"seed-{seed}", {**row.arguments, **_data_of(row, data_dir)})
        for row, seed in itertools.product(experiment.rows, range(1, seeds + 1))
    ]


def _data_of(row: Row, data_dir: str | None) -> dict[str, Any]:
    """Where the row's raw data is; a task that is generated has none."""
    task = TASKS[str(row.arguments.get("dataset") or DataArguments.dataset)]
    return {"data_dir": data_dir} if data_dir and not isinstance(task, GeneratedTask) else {}


def parse_sweep(text: str) -> tuple[str, list[str]]:
    """``learning_rate=1e-3,3e-3`` in its parts.

    Raises:
        FPTError: it is of another form.
    """
    name, _, values = text.partition("=")
    known = {f.name for kind in (DataArguments, ModelArguments, TrainArguments) for f in fields(kind) if f.init}
    if name.strip("- ") not in known or not values:
        raise FPTError(f"--sweep {text}: give an argument of train.py and its values, as learning_rate=5e-4,1e-3,3e-3")
    return name.strip("- "), [value.strip() for value in values.split(",")]


def _row(path: Path, said: dict[str, Any], row: dict[str, Any], budget: str) -> Row:
    """A row with its arguments: those of all rows that its task and model read, and its own.

    Raises:
        FPTError: train.py does not have or not read an argument of the row's own, or a value is wrong.
    """
    name = str(row["name"])

    def merged(part: dict[str, Any]) -> dict[str, Any]:
        values = {**(part.get("arguments") or {}), **((part.get("budgets") or {}).get(budget) or {})}
        return {str(key): value for key, value in values.items()}

    common, own = merged(said), merged(row)
    values = {**common, **own}
    # The row has the defaults of these, whatever the arguments of all rows are.
    defaults = {key: None for key, value in values.items() if value is None}
    values = {key: value for key, value in values.items() if value is not None}
    where = f"{path}: row {name!r}"
    for key in values:
        if key in CELLS_OWN:
            raise FPTError(f"{where}: each cell has its own --{key}; leave it out")
    unread = unread_flags(read_training((), configuration=Configuration(where, dict(values), is_record=False)))
    try:
        refuse_unread({key: why for key, why in unread.items() if key in own})
    except FPTError as error:
        raise FPTError(f"{where}: {error}") from error
    values = {key: value for key, value in values.items() if key not in unread}
    return Row(name, {**values, **defaults}, dict(row.get("published") or {}), str(row.get("source") or ""))


def _check_keys(path: Path, said: Any, known: Sequence[str], what: str) -> None:
    if not isinstance(said, dict):
        raise FPTError(f"{path}: {what} must be names with values; known: {', '.join(known)}")
    for name in said:
        if name not in known:
            raise FPTError(f"{path}: unknown {name!r} in {what}{did_you_mean(str(name), known)}; known: {', '.join(known)}")
    for name in ("arguments", "budgets", "published"):
        if not isinstance(said.get(name) or {}, dict):
            raise FPTError(f"{path}: {name} of {what} must be names with values")
    for metric, value in (said.get("published") or {}).items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not isinstance(metric, str) or not number or not math.isfinite(value):
            raise FPTError(f"{path}: published {metric!r} of {what} must be a number")
    for budget, values in (said.get("budgets") or {}).items():
        if not isinstance(values or {}, dict):
            raise FPTError(f"{path}: budget {budget!r} of {what} must be names with values")

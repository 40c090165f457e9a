"""A table of runs from one file: `python -m fpt.experiment experiments/question1_cyp3a4.yaml --budget small --seeds 3`.

A file names the rows of a table and the arguments of `train.py` that each stands for; a cell is a row with a seed. Cells that are
finished are skipped, cells that were stopped go on. The folder of the experiment then holds a run for each cell, and `table.md`
with mean and standard deviation over seeds beside the published value, and the command of each row.

The file (YAML)::

    title: Does a language core transfer to molecules?
    metrics: [auprc, accuracy]          # columns; the task's own first when not given
    arguments: {dataset: cyp3a4}        # of every row
    budgets:                            # --budget NAME adds these
      small: {max_steps: 500}
      paper: {max_steps: 20000}
    rows:
      - name: FPT, language core
        arguments: {backbone: gpt2}
        budgets: {small: {backbone: smollm2}}
        published: {accuracy: 0.7565}
        source: where the published value is from
"""

from __future__ import annotations

import itertools
import math
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from fpt.args import DataArguments, ModelArguments, TrainArguments, arg
from fpt.cells import Cell, Row, Runner, finished
from fpt.checks import Range, check_ranges
from fpt.cli import parse, read_training, refuse_unread
from fpt.config_file import Configuration
from fpt.errors import FPTError, cli, did_you_mean
from fpt.experiment_table import table
from fpt.files import slug, write_json, write_text
from fpt.output_paths import check_output_folder
from fpt.results import LOWER_IS_BETTER, is_better
from fpt.tasks.base import TASKS, GeneratedTask
from fpt.unread import unread_flags

TABLE, ABOUT = "table.md", "experiment.json"
__all__ = ["Cell", "Row", "Runner", "finished"]  # of `fpt.cells`
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
    config_file: str = arg("accelerate_configs/cpu.yaml", "Accelerate configuration that each cell is launched with.")
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


def read_experiment(path: Path, budget: str) -> Experiment:
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
    if budget not in known:
        raise FPTError(f"{path} has no budget {budget!r}{did_you_mean(budget, known)}; it has {', '.join(sorted(known))}")

    made = [_row(path, said, row, budget) for row in rows]
    return Experiment(path.stem, str(said.get("title") or path.stem), budget, tuple(metrics), tuple(made))


def cells_of(
    experiment: Experiment, folder: Path, seeds: int, only: str | None = None, data_dir: str | None = None
) -> list[Cell]:
    """The cells of a table, row by row."""
    rows = [row for row in experiment.rows if only is None or only in row.name]
    if not rows:
        raise FPTError(f"--rows {only}: there is no such row; there are {', '.join(r.name for r in experiment.rows)}")
    return [
        Cell(row, seed, folder / slug(row.name) / f"seed-{seed}", {**row.arguments, **_data_of(row, data_dir)})
        for row, seed in itertools.product(rows, range(1, seeds + 1))
    ]


def _data_of(row: Row, data_dir: str | None) -> dict[str, Any]:
    """Where the row's raw data is; a task that is generated has none."""
    task = TASKS[str(row.arguments.get("dataset") or DataArguments.dataset)]
    return {"data_dir": data_dir} if data_dir and not isinstance(task, GeneratedTask) else {}


class NoTrialError(FPTError):
    """No trial of a sweep ended well."""


def best_value(runner: Runner, row: Row, cells: Sequence[Cell], name: str, jobs: int) -> Any:
    """Run the trials of a sweep, and return the value that is best on the validation split.

    Raises:
        NoTrialError: none ended well.
    """
    if logged_in():
        try:
            wandb_sweep(runner, cells, name)
        except FPTError:
            raise
        except Exception as error:  # whatever a tracker raises: the trials need none of it
            why = next(iter(str(error).splitlines()), type(error).__name__)
            runner.say(f"warning: the wandb sweep failed ({why}); its trials are run without it")
            runner.run([cell for cell in cells if cell.folder not in runner.reasons], jobs)
    else:
        runner.run(cells, jobs)
    done = [(cell, results) for cell in cells if (results := cell.results)]
    best: tuple[float | None, Any] | None = None
    for cell, results in done:
        primary = results["primary_metric"]
        score = results["metrics"]["valid"][primary]
        if best is None or is_better(primary, score, best[0]):
            best = score, cell.arguments[name]
    if best is None:
        raise NoTrialError(f"{row.name}: no trial of --sweep {name} ended well")
    if len(done) < len(cells):
        failed = ", ".join(str(cell.arguments[name]) for cell in cells if not cell.results)
        runner.say(f"{row.name}: {len(done)} of {len(cells)} trials of --sweep {name} ended well, not {failed}")
    return best[1]


def logged_in() -> bool:
    """Whether there is a wandb server to sweep with."""
    from fpt.parallel import logged_in_to_wandb

    return os.environ.get("WANDB_MODE") not in ("offline", "disabled") and logged_in_to_wandb()


def wandb_sweep(runner: Runner, cells: Sequence[Cell], name: str) -> None:
    """Let a wandb sweep (grid) name the trials, and tell it the score of each."""
    import wandb

    by_value = {str(cell.arguments[name]): cell for cell in cells}
    parameters = {name: {"values": [cell.arguments[name] for cell in cells]}}
    sweep = wandb.sweep(
        {"method": "grid", "metric": {"name": "valid", "goal": "maximize"}, "parameters": parameters}, project="fpt"
    )

    def trial() -> None:
        with wandb.init() as run:
            cell = by_value[str(run.config[name])]
            runner.run([cell], 1)
            if results := cell.results:
                score = results["metrics"]["valid"][results["primary_metric"]]
                run.log({"valid": -score if results["primary_metric"] in LOWER_IS_BETTER else score})

    wandb.agent(sweep, trial, count=len(cells), project="fpt")


def run(args: ExperimentArguments) -> int:
    """What the command does; returns how many cells failed."""
    experiment = read_experiment(Path(args.file), args.budget)
    folder = check_output_folder("--output_dir", args.output_dir).absolute() / experiment.name / experiment.budget
    cells = cells_of(experiment, folder, args.seeds, args.rows, args.data_dir)
    launcher = [sys.executable, "-m", "fpt.launch", "--config_file", args.config_file]
    shown = ["accelerate", "launch", "--config_file", args.config_file]
    if args.dry_run:
        for cell in cells:
            print(shlex.join(cell.command(shown)))
        return 0
    runner = Runner(launcher)
    todo = cells
    if args.sweep:
        cells, todo = _swept(runner, cells, folder, *parse_sweep(args.sweep), args.jobs)
    runner.run(todo, args.jobs)
    text, rows = table(experiment, cells, shown, runner.reasons)
    write_text(folder / TABLE, text)
    about = {"name": experiment.name, "title": experiment.title, "budget": experiment.budget, "metrics": experiment.metrics}
    write_json(folder / ABOUT, {**about, "rows": rows})
    print(f"\n{text}\n{folder / TABLE}")
    if runner.by_hand:
        raise KeyboardInterrupt
    return sum(len(row["failed"]) for row in rows)


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


def _swept(
    runner: Runner, cells: Sequence[Cell], folder: Path, name: str, values: list[str], jobs: int
) -> tuple[list[Cell], list[Cell]]:
    """All cells, with the best value of a sweep of each row, and those of them that can be run: of rows with a best value."""
    out, todo = [], []
    for row in dict.fromkeys(cell.row.name for cell in cells):
        own = [cell for cell in cells if cell.row.name == row]
        trials = [
            Cell(own[0].row, 1, folder / slug(row) / f"sweep-{name}" / slug(value), {**own[0].arguments, name: value})
            for value in values
        ]
        try:
            best = best_value(runner, own[0].row, trials, name, jobs)
        except NoTrialError as error:
            runner.say(f"{error}; the row is left out")
            runner.reasons |= {cell.folder: f"no trial of --sweep {name} ended well" for cell in own}
            out += own
            continue
        runner.say(f"{row}: --{name} {best} is best on validation")
        with_best = [Cell(cell.row, cell.seed, cell.folder, {**cell.arguments, name: best}) for cell in own]
        out += with_best
        todo += with_best
    return out, todo


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


def main() -> None:
    """Read the command line, run, and end with status 1 when a cell failed."""
    words = sys.argv[1:]
    if words and not words[0].startswith("-"):
        sys.argv[1:] = [f"--file={words[0]}", *words[1:]]
    (args,) = parse(__doc__ or "", ExperimentArguments)
    if failed := run(args):
        raise FPTError(f"{failed} cells have no results; their logs say why, and the same command goes on with them")


if __name__ == "__main__":
    cli(main)

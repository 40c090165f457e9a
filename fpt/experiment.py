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

import contextlib
import itertools
import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fpt.args import DataArguments, ModelArguments, TrainArguments, arg, flags, flat
from fpt.checks import Range, check_ranges, check_types
from fpt.cli import parse, read_training, refuse_unread
from fpt.config_file import Configuration
from fpt.disk import refusals
from fpt.errors import FPTError, cli, did_you_mean
from fpt.escape import markdown, markdown_block, markdown_code, markdown_table
from fpt.files import slug, write_json, write_text
from fpt.output_paths import check_output_folder
from fpt.results import LOWER_IS_BETTER, RESULTS_FILE, is_better, shown_metric, shown_spread
from fpt.run_results import read_results
from fpt.tasks import TASKS, GeneratedTask
from fpt.unread import unread_flags

ROOT = Path(__file__).parent.parent
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
        check_types(self)
        check_ranges(self, seeds=Range(1, 10_000), jobs=Range(1, 1024))


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    name: str
    arguments: dict[str, Any]
    published: dict[str, float] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class Experiment:
    """What a file says, for one budget."""

    name: str
    title: str
    budget: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Cell:
    """One run of the table."""

    row: Row
    seed: int
    folder: Path
    arguments: dict[str, Any]

    def command(self, launcher: Sequence[str], **more: Any) -> list[str]:
        """The command that runs it."""
        values = {**self.arguments, **more, "seed": self.seed, "output_dir": str(self.folder)}
        return [*launcher, "train.py", *flags(values)]

    @property
    def results(self) -> dict[str, Any] | None:
        """Its results, when it is finished.

        Raises:
            FPTError: they can't be read.
        """
        return read_results(self.folder).values if (self.folder / RESULTS_FILE).exists() else None


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
    task = TASKS[str(row.arguments.get("dataset", DataArguments.dataset))]
    return {"data_dir": data_dir} if data_dir and not isinstance(task, GeneratedTask) else {}


class Runner:
    """Runs cells, each in a process of its own that is told to stop when we are.

    Args:
        launcher: words before ``train.py``.
        say: hears what happens, a line at a time.
    """

    def __init__(self, launcher: Sequence[str], say: Callable[[str], None] = print) -> None:
        self.launcher, self.say = list(launcher), say
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def run(self, cells: Sequence[Cell], jobs: int) -> list[Cell]:
        """Run what is not finished.

        Returns:
            The cells that failed.

        Raises:
            FPTError: a folder holds a run with other arguments; nothing was started then.
        """
        todo = [cell for cell in cells if not finished(cell)]
        self.say(f"{len(cells)} cells, {len(cells) - len(todo)} of them finished")
        with self._until_signal(), ThreadPoolExecutor(jobs) as pool:
            well = list(pool.map(self._one, todo))
        return [cell for cell, good in zip(todo, well, strict=True) if not good]

    def _one(self, cell: Cell) -> bool:
        if self.stopped:
            return False
        # An estimator has no states to go on from; what it left is begun anew.
        stopped = (cell.folder / "run.json").exists()
        states = any((cell.folder / "state").glob("step-*")) if stopped else False
        more = {"resume": True} if states else {"overwrite": True} if stopped else {}
        log = cell.folder.with_suffix(".log")
        with refusals(f"{log} can't be written"):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
        self.say(f"{cell.row.name}, seed {cell.seed}: {'going on' if states else 'started'}; {log}")
        with open(log, "ab") as file:
            command = cell.command(self.launcher, **more)
            with refusals(f"{log} can't be written"):
                file.write(f"$ {shlex.join(command)}\n".encode())
                file.flush()
            process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
            self.running.add(process)
            status = process.wait()
            self.running.discard(process)
        results = cell.results
        if results is None:
            self.say(f"{cell.row.name}, seed {cell.seed}: status {status}, no results: {_last_words(log)}")
            return False
        primary = results["primary_metric"]
        score, seconds = results["metrics"]["test"][primary], results["wall_seconds"]
        self.say(f"{cell.row.name}, seed {cell.seed}: test {primary} {shown_metric(score)}, {seconds:.0f} s")
        return True

    @contextlib.contextmanager
    def _until_signal(self) -> Iterator[None]:
        def stop(number: int, frame: Any) -> None:
            self.stopped = True
            for process in list(self.running):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def finished(cell: Cell) -> bool:
    """Whether the cell has results, of the arguments that it has now.

    Raises:
        FPTError: of others.
    """
    results = cell.results
    if results is None:
        return False
    did = flat(results["arguments"])
    for name, value in {**cell.arguments, "seed": cell.seed}.items():
        if name != "data_dir" and name in did and str(did[name]) != str(value):
            raise FPTError(
                f"{cell.folder} is a run with --{name} {did[name]}, the experiment now says {value}; remove it or give another"
                " --output_dir"
            )
    return True


def best_value(runner: Runner, row: Row, cells: Sequence[Cell], name: str, jobs: int) -> Any:
    """Run the trials of a sweep, and return the value that is best on the validation split.

    Raises:
        FPTError: no trial ended well.
    """
    if logged_in():
        wandb_sweep(runner, cells, name)
    else:
        runner.run(cells, jobs)
    best: tuple[float | None, Any] | None = None
    for cell in cells:
        if (results := cell.results) is None:
            continue
        primary = results["primary_metric"]
        score = results["metrics"]["valid"][primary]
        if best is None or is_better(primary, score, best[0]):
            best = score, cell.arguments[name]
    if best is None:
        raise FPTError(f"{row.name}: no trial of --sweep {name} ended well")
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


def table(experiment: Experiment, cells: Sequence[Cell], launcher: Sequence[str]) -> tuple[str, list[dict[str, Any]]]:
    """The table as Markdown, and its rows as JSON values."""
    rows: list[dict[str, Any]] = []
    for row in experiment.rows:
        own = [cell for cell in cells if cell.row.name == row.name]
        found = [results for cell in own if (results := cell.results)]
        if not own:
            continue
        command = shlex.join(Cell(row, 0, Path("DIR"), own[0].arguments).command(launcher)).replace("--seed 0", "--seed SEED")
        rows.append(
            {
                "name": row.name,
                "published": row.published,
                "source": row.source,
                "seeds": [results["seed"] for results in found],
                "steps": sorted({results["steps"] for results in found}),
                "core": sorted({str(results["core"]["name"]) for results in found}),
                "primary_metric": found[0]["primary_metric"] if found else None,
                "metrics": {split: _spread([r["metrics"][split] for r in found]) for split in ("valid", "test")} if found else {},
                "wall_seconds": round(float(np.mean([r["wall_seconds"] for r in found])), 1) if found else None,
                "command": command,
                "runs": [str(cell.folder) for cell in own],
            }
        )
    primary = next((row["primary_metric"] for row in rows if row["primary_metric"]), None)
    metrics = experiment.metrics or ((primary,) if primary else ())
    head = ["row", "core", "seeds", "steps", *(f"test {m}" for m in metrics), *(f"published {m}" for m in metrics), "seconds"]
    about = f"Budget {markdown_code(experiment.budget)}; mean ± standard deviation over seeds, on the test split."
    texts = []
    for made in rows:
        scores = [_cell_text(made["metrics"].get("test", {}).get(m)) for m in metrics]
        published = [shown_metric(made["published"][m]) if m in made["published"] else "" for m in metrics]
        steps = ", ".join(f"{s:,}" for s in made["steps"])
        seconds = f"{made['wall_seconds'] or 0:,.0f}"
        texts.append([made["name"], ", ".join(made["core"]), str(len(made["seeds"])), steps, *scores, *published, seconds])
    lines = [f"# {markdown(experiment.title)}", "", about, "", *markdown_table(head, texts)]
    if sources := {row["source"] for row in rows if row["source"]}:
        lines += ["", f"Published values: {markdown('; '.join(sorted(sources)))}."]
    lines += ["", "Each row again:", "", markdown_block("\n".join(row["command"] for row in rows)), ""]
    return "\n".join(lines), rows


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
    if args.sweep:
        cells = _swept(runner, cells, folder, *parse_sweep(args.sweep), args.jobs)
    failed = runner.run(cells, args.jobs)
    text, rows = table(experiment, cells, shown)
    write_text(folder / TABLE, text)
    about = {"name": experiment.name, "title": experiment.title, "budget": experiment.budget, "metrics": experiment.metrics}
    write_json(folder / ABOUT, {**about, "rows": rows})
    print(f"\n{text}\n{folder / TABLE}")
    return len(failed)


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


def _swept(runner: Runner, cells: Sequence[Cell], folder: Path, name: str, values: list[str], jobs: int) -> list[Cell]:
    """The cells with the best value of a sweep of each row."""
    out = []
    for row in dict.fromkeys(cell.row.name for cell in cells):
        own = [cell for cell in cells if cell.row.name == row]
        trials = [
            Cell(own[0].row, 1, folder / slug(row) / f"sweep-{name}" / slug(value), {**own[0].arguments, name: value})
            for value in values
        ]
        best = best_value(runner, own[0].row, trials, name, jobs)
        runner.say(f"{row}: --{name} {best} is best on validation")
        out += [Cell(cell.row, cell.seed, cell.folder, {**cell.arguments, name: best}) for cell in own]
    return out


def _spread(metrics: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float | int]]:
    """Mean and sample standard deviation of each metric over runs."""
    out: dict[str, dict[str, float | int]] = {}
    for name in metrics[0]:
        values = [float(m[name]) for m in metrics if m.get(name) is not None]  # type: ignore[arg-type]
        if values:
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            out[name] = {"mean": float(np.mean(values)), "std": deviation, "n": len(values)}
    return out


def _cell_text(value: Mapping[str, float | int] | None) -> str:
    if value is None:
        return "-"
    return shown_spread(value["mean"], value["std"]) if value["n"] > 1 else shown_metric(value["mean"])


def _last_words(log: Path) -> str:
    lines = [
        line.strip()
        for line in log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
        if line.strip()
    ]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or [""])[-1]


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
    values = {key: value for key, value in {**common, **own}.items() if value is not None}
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
    return Row(name, values, dict(row.get("published") or {}), str(row.get("source") or ""))


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

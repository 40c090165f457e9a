"""A table of runs from one file: `python -m fpt.experiment experiments/cyp3a4.yaml --budget small --seeds 3`.

A file names the rows of a table and the arguments of `train.py` that each stands for; a cell is a row with a seed. Cells that are
finished are skipped, cells that were stopped go on. The folder of the experiment then holds a run for each cell, and `table.md`
with mean and standard deviation over seeds beside the published value, and the command of each row.

The file (YAML)::

    title: Does a language backbone transfer to molecules?
    metrics: [auprc, accuracy]          # columns; the task's own first when not given
    arguments: {dataset: cyp3a4}        # of every row
    budgets:                            # --budget NAME adds these
      small: {max_steps: 500}
      paper: {max_steps: 20000}
    rows:
      - name: FPT, language backbone
        arguments: {backbone: gpt2}
        budgets: {small: {backbone: smollm2}}
        published: {accuracy: 0.7565}
        source: where the published value is from
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from fpt.cli import parse
from fpt.errors import FPTError, cli
from fpt.experiment.runner import Runner, launch_words
from fpt.experiment.spec import ABOUT, TABLE, ExperimentArguments, cells_of, parse_sweep, read_experiment
from fpt.experiment.sweep import swept
from fpt.experiment.table import table
from fpt.files.output_paths import check_output_folder
from fpt.files.whole import write_json, write_text


def run(args: ExperimentArguments) -> int:
    """What the command does; returns how many cells failed."""
    experiment = read_experiment(Path(args.file), args.budget, args.rows)
    folder = check_output_folder("--output_dir", args.output_dir).absolute() / experiment.name / experiment.budget
    cells = cells_of(experiment, folder, args.seeds, data_dir=args.data_dir)
    words = launch_words(args.config_file)
    launcher = [sys.executable, "-m", "fpt.launch", *words]
    shown = ["accelerate", "launch", *words]
    if args.dry_run:
        for cell in cells:
            print(shlex.join(cell.command(shown)))
        return 0
    runner = Runner(launcher)
    todo = cells
    if args.sweep:
        cells, todo = swept(runner, cells, folder, *parse_sweep(args.sweep), args.jobs)
    runner.run(todo, args.jobs)
    text, rows = table(experiment, cells, shown, runner.reasons)
    write_text(folder / TABLE, text)
    about = {"name": experiment.name, "title": experiment.title, "budget": experiment.budget, "metrics": experiment.metrics}
    write_json(folder / ABOUT, {**about, "rows": [row.to_dict() for row in rows]})
    print(f"\n{text}\n{folder / TABLE}")
    if runner.by_hand:
        raise KeyboardInterrupt
    return sum(len(row.failed) for row in rows)


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

"""The best value of an argument for each row, on the validation split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fpt.errors import FPTError
from fpt.experiment.runner import Cell, Row, Runner
from fpt.files.whole import slug
from fpt.metrics import LOWER_IS_BETTER, is_better


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
        score = results.score("valid")
        if best is None or is_better(results.primary_metric, score, best[0]):
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
                score = results.score("valid")
                if score is not None:
                    run.log({"valid": -score if results.primary_metric in LOWER_IS_BETTER else score})

    wandb.agent(sweep, trial, count=len(cells), project="fpt")


def swept(
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

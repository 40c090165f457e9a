"""Cells of an experiment that fail: named with their reason, and the others go on."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from fpt.errors import FPTError
from fpt.experiment.runner import Cell, Row, Runner, how_it_ended
from fpt.experiment.spec import Experiment
from fpt.experiment.sweep import NoTrialError, best_value, swept
from fpt.experiment.table import table

GOOD = {
    **{"task": "cyp3a4", "primary_metric": "auprc", "metrics": {s: {"auprc": 0.5, "accuracy": None} for s in ("valid", "test")}},
    **{"seed": 1, "steps": 8, "wall_seconds": 1.0, "history": [], "core": {"name": "core"}},
    **{"split": {"method": "scaffold", "seed": 1}, "arguments": {"dataset": "cyp3a4", "seed": 1}},
}
# Stands for `train.py`: does to its --output_dir what the environment says for its seed.
SCRIPT = f"""
import json, os, signal, sys, time
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
folder, seed = options["--output_dir"], int(options["--seed"])
what = json.loads(os.environ["WHAT"]).get(options.get("--learning_rate", str(seed)), "good")
os.makedirs(folder, exist_ok=True)
if what == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "error":
    print("error: the disk is full")
    sys.exit(2)
if what == "waits":
    signal.signal(signal.SIGTERM, lambda *a: None if "stay" in os.environ["WHAT"] else sys.exit(0))
    open(folder + "/started", "w").close()
    time.sleep(30)
if what == "nothing":
    sys.exit(0)
results = {{**{GOOD!r}, "seed": seed}}
results["arguments"] = {{**results["arguments"], "seed": seed}}
if "--learning_rate" in options:
    results["arguments"]["learning_rate"] = float(options["--learning_rate"])
text = json.dumps(results)
open(folder + "/results.json", "w").write(text[:20] if what == "damaged" else text)
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch):
    """Returns a function that makes a runner and three cells, each of which does what is said for its seed."""

    def made(**what: str) -> tuple[Runner, list[Cell], list[str]]:
        monkeypatch.setenv("WHAT", json.dumps({seed.removeprefix("s"): does for seed, does in what.items()}))
        (tmp_path / "script.py").write_text(SCRIPT)
        said: list[str] = []
        row = Row("FPT", {})
        cells = [Cell(row, seed, tmp_path / "out" / f"seed-{seed}", {}) for seed in (1, 2, 3)]
        return Runner([sys.executable, str(tmp_path / "script.py")], said.append), cells, said

    return made


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("killed", "killed by SIGKILL, no results"),
        ("error", "status 2, no results: error: the disk is full"),
        ("nothing", "status 0, no results"),
        ("damaged", "status 0, no results: .*results.json can't be read"),
    ],
)
def test_a_cell_that_fails_is_named_in_the_table(does: str, reason: str, make) -> None:
    import re

    runner, cells, said = make(s2=does)
    assert runner.run(cells, 2) == [cells[1]]
    assert re.search(reason, runner.reasons[cells[1].folder])
    assert any(re.search(f"FPT, seed 2: {reason}", line) for line in said)
    text, rows = table(Experiment("e", "E", "small", (), (cells[0].row,)), cells, ["x"], runner.reasons)
    assert "2 of 3" in text and "Without results (1 of 3 cells):" in text
    assert rows[0].seeds == [1, 3] and rows[0].failed[0].seed == 2
    assert rows[0].metrics["test"]["auprc"].count == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[" * 100_000, '{"metrics": 3}', json.dumps({**GOOD, "metrics": {"test": {}}}), "\0"]
)
def test_damaged_results_are_run_again(text: str, make) -> None:
    runner, cells, said = make()
    cells[0].folder.mkdir(parents=True)
    (cells[0].folder / "results.json").write_text(text)
    assert cells[0].results is None and cells[0].damage
    assert runner.run(cells, 1) == []
    assert any("results.json can't be read" in line and "it is run again" in line for line in said)
    assert cells[0].results is not None and not cells[0].damage


def test_a_cell_that_can_not_be_started_leaves_the_others(make, tmp_path: Path) -> None:
    runner, cells, _ = make()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "seed-2.log").mkdir()
    assert runner.run(cells, 1) == [cells[1]]
    assert "can't be started" in runner.reasons[cells[1].folder]
    missing = Runner(["/no/such/python"], lambda line: None)
    assert missing.run(cells[1:2], 1) == cells[1:2]


@pytest.mark.parametrize(("second", "status"), [(False, "status 0"), (True, "killed by SIGKILL")])
def test_ctrl_c_reaches_the_cells(second: bool, status: str, make, monkeypatch) -> None:
    import threading
    import time

    # A process that does not end by itself has to be killed.
    runner, cells, _ = make(s1="waits", s2="waits", s3="waits", **({"stay": "stay"} if second else {}))

    def press() -> None:
        while not (cells[0].folder / "started").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)
        if second:
            time.sleep(0.1)  # two at once are one
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    if second:
        with pytest.raises(KeyboardInterrupt):
            runner.run(cells, 1)
    else:
        assert runner.run(cells, 1) == cells
        assert runner.by_hand
        assert runner.reasons[cells[0].folder].startswith(status)
        assert runner.reasons[cells[2].folder] == "not started: a signal came"
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_statuses_in_words() -> None:
    assert how_it_ended(2) == "status 2"
    assert how_it_ended(-11) == how_it_ended(139) == "killed by SIGSEGV"
    assert how_it_ended(255) == "status 255"


# Sweeps.


def trials(cells: list[Cell], tmp_path: Path) -> list[Cell]:
    return [Cell(cells[0].row, 1, tmp_path / "trials" / rate, {"learning_rate": rate}) for rate in ("0.1", "0.2")]


def test_a_trial_that_fails_is_named_and_the_others_decide(make, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fpt.experiment.sweep.logged_in", lambda: False)
    runner, cells, said = make(**{"0.1": "killed"})
    tried = trials(cells, tmp_path)
    assert best_value(runner, cells[0].row, tried, "learning_rate", 1) == "0.2"
    assert said[-1] == "FPT: 1 of 2 trials of --sweep learning_rate ended well, not 0.1"


def test_a_row_whose_trials_all_fail_is_left_out(make, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fpt.experiment.sweep.logged_in", lambda: False)
    runner, cells, said = make(**{"0.1": "killed", "0.2": "error"})
    with pytest.raises(NoTrialError, match="FPT: no trial of --sweep learning_rate ended well"):
        best_value(runner, cells[0].row, trials(cells, tmp_path), "learning_rate", 1)
    other = [Cell(Row("Other", {}), 1, tmp_path / "other", {})]
    monkeypatch.setattr("fpt.experiment.sweep.best_value", lambda runner, row, *a: "0.3" if row.name == "Other" else _none(row))
    every, todo = swept(runner, [*cells, *other], tmp_path, "learning_rate", ["0.1"], 1)
    assert [cell.row.name for cell in every] == ["FPT"] * 3 + ["Other"]
    assert [(cell.row.name, cell.arguments) for cell in todo] == [("Other", {"learning_rate": "0.3"})]
    assert runner.reasons[cells[0].folder] == "no trial of --sweep learning_rate ended well"
    assert "the row is left out" in said[-2]


def _none(row: Row) -> str:
    raise NoTrialError(f"{row.name}: no trial ended well")


def test_a_wandb_sweep_that_fails_is_a_local_one(make, tmp_path: Path, monkeypatch) -> None:
    import wandb

    def fails(*args, **named):
        raise ConnectionError("no route to the server\nmore")

    monkeypatch.setattr("fpt.experiment.sweep.logged_in", lambda: True)
    monkeypatch.setattr(wandb, "sweep", fails)
    runner, cells, said = make()
    assert best_value(runner, cells[0].row, trials(cells, tmp_path), "learning_rate", 1) in ("0.1", "0.2")
    assert said[0] == "warning: the wandb sweep failed (no route to the server); its trials are run without it"


def test_a_run_with_other_arguments_still_ends_the_experiment(make) -> None:
    runner, cells, _ = make()
    runner.run(cells, 1)
    other = Cell(cells[0].row, 1, cells[0].folder, {"dataset": "mnist"})
    with pytest.raises(FPTError, match="is a run with --dataset cyp3a4, the experiment now says mnist"):
        runner.run([other], 1)

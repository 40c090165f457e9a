"""The package without the checkout around it, as pip installs it: its commands work in any folder."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from setuptools import find_packages

import fpt.experiment.runner as runner
from fpt.optional import EXTRAS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TABLE = """
title: Are bits remembered?
metrics: [accuracy]
arguments: {dataset: bit-xor, max_steps: 1, eval_steps: 1, per_device_batch_size: 4}
rows:
  - {name: random weights, arguments: {backbone: "random:smollm2", num_layers: 1}}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that pyproject.toml puts into a wheel, and none of the checkout beside them."""
    folder = tmp_path_factory.mktemp("site")
    settings = PROJECT["tool"]["setuptools"]
    patterns = ["*.py", *settings["package-data"]["*"]]
    for name in find_packages(str(ROOT), include=settings["packages"]["find"]["include"]):
        package = ROOT / name.replace(".", "/")
        (folder / package.relative_to(ROOT)).mkdir(parents=True, exist_ok=True)
        for file in (file for pattern in patterns for file in package.glob(pattern)):
            shutil.copy(file, folder / file.relative_to(ROOT))
    return folder


def python(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(installed), "FPT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=folder, env=env, timeout=300)


def test_every_file_of_the_package_is_installed(installed: Path) -> None:
    def files(folder: Path) -> set[str]:
        return {str(f.relative_to(folder)) for f in (folder / "fpt").rglob("*") if f.is_file() and "__pycache__" not in f.parts}

    assert files(installed) == files(ROOT)


def test_an_experiment_is_run_trained_and_scored_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TABLE)
    out = python(installed, tmp_path, "-m", "fpt.experiment", "mine.yaml", "--seeds", "1")
    assert out.returncode == 0, out.stderr[-2000:]
    run = tmp_path / "runs" / "experiments" / "mine" / "small" / "random-weights" / "seed-1"
    results = json.loads((run / "results.json").read_text())
    assert (results["steps"], results["device"]["type"]) == (1, "cpu")
    # The command of the row is one that works here too.
    table = (tmp_path / "runs" / "experiments" / "mine" / "small" / "table.md").read_text()
    assert " -m fpt.train --dataset bit-xor " in table
    assert "train.py" not in table and "accelerate_configs" not in table
    out = python(installed, tmp_path, "-m", "fpt.evaluate", "--checkpoint", str(run))
    assert out.returncode == 0, out.stderr[-2000:]
    assert f"{results['metrics']['test']['accuracy']:.4f}" in out.stdout


def test_cells_start_the_script_of_a_checkout() -> None:
    cell = runner.Cell(runner.Row("x", {}), 1, Path("/runs/x"), {"dataset": "bit-xor"})
    assert cell.command(["python"])[:4] == ["python", "train.py", "--dataset", "bit-xor"]
    assert runner.launch_words(runner.CPU_CONFIG) == ["--config_file", "accelerate_configs/cpu.yaml"]
    assert runner.FOLDER == ROOT


@pytest.mark.parametrize("name", PROJECT["project"]["scripts"])
def test_a_command_has_its_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module, _, function = PROJECT["project"]["scripts"][name].partition(":")
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{name}", "--help"])
    with pytest.raises(SystemExit) as ended:
        getattr(importlib.import_module(module), function)()
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert shown.startswith(f"usage: {name} ")
    assert f"\n{name} --" in shown


def test_extras_are_those_that_messages_name() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(EXTRAS.values()) <= set(extras)
    # "all" has each but the developer's and the packages of other models, which are large; none is empty.
    others = {"all", "dev", "catboost", "chemprop", "lightgbm"}
    assert extras["all"] == [f"fpt[{','.join(name for name in extras if name not in others)}]"]
    assert all(extras.values())


def test_the_pythons_that_are_promised_are_checked() -> None:
    workflow = (ROOT / ".github" / "workflows" / "check.yml").read_text(encoding="utf-8")
    promised = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line]
    assert f"python: {json.dumps(promised)}" in workflow
    assert PROJECT["project"]["requires-python"] == f">={promised[0]}"

"""chemprop as a baseline. Tests of the network itself are skipped where the package is not installed."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from test_baselines import groups

from fpt.cli import parse_training
from fpt.errors import FPTError, UsageError
from fpt.models.base import MODELS
from fpt.models.chemprop import Best, ChempropOptions
from fpt.optional import missing
from fpt.tasks.base import TASKS
from fpt.training import run


def test_chemprop_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fpt.optional._broken", {})
    monkeypatch.setitem(sys.modules, "chemprop", None)
    expected = "model 'chemprop' needs the package chemprop, which is not installed; pip install 'fpt[chemprop]'"
    with pytest.raises(FPTError, match=re.escape(expected)):
        MODELS["chemprop"]
    assert MODELS.find("chemprop").options is ChempropOptions


def test_chemprop_reads_molecules_and_no_flags_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fpt.optional._broken", {})
    monkeypatch.setitem(sys.modules, "chemprop", type(sys)("chemprop"))  # as if it was installed
    with pytest.raises(FPTError, match="--model chemprop reads molecules; bit-xor has no SMILES"):
        MODELS["chemprop"].view(TASKS["bit-xor"])
    for words, message in {
        "--max_steps 5": "--max_steps is not read: --model chemprop is fitted at once",
        "--backbone gpt2": "--backbone is not read: it is for a frozen backbone; --model chemprop has none",
        "--chemprop_epochs 2": "--chemprop_epochs 2 must be at least 3",
    }.items():
        monkeypatch.setattr(sys, "argv", f"train.py --dataset cyp3a4 --model chemprop {words}".split())
        with pytest.raises(UsageError, match=message):
            parse_training("")


def test_the_best_epoch_keeps_its_weights() -> None:
    network, best = torch.nn.Linear(1, 1), Best("auprc")
    for score in (None, 0.5, 0.8, 0.7):
        with torch.no_grad():
            network.weight.fill_(score or 0.0)
        best.add(network, {"auprc": score})
    assert best.epoch == 3 and best.weights["weight"].item() == pytest.approx(0.8)
    assert [h["epoch"] for h in best.history] == [1, 2, 3, 4]


@pytest.fixture
def chemprop() -> None:
    if missing("chemprop"):
        pytest.skip("chemprop is not installed")


@pytest.mark.usefixtures("chemprop")
def test_chemprop_finds_halogens(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    options = {"chemprop_epochs": 12, "chemprop_hidden_size": 64, "chemprop_batch_size": 16}
    results = run(*groups("chemprop", "cyp3a4", data_dir, tmp_path / "run", options))
    assert results.metrics["test"]["auprc"] > 0.8
    best = max(results.history, key=lambda h: h["valid"]["auprc"])
    assert results.chosen == {"epoch": best["epoch"]} and len(results.history) == 12
    # The weights of that epoch are those that predict.
    assert results.metrics["valid"] == pytest.approx(best["valid"])
    assert not os.listdir(work)
    out, err = capfd.readouterr()
    assert "GPU" not in out + err and "lightning" not in (out + err).lower()
    again = run(*groups("chemprop", "cyp3a4", data_dir, tmp_path / "again", options))
    assert again.history == results.history


@pytest.mark.usefixtures("chemprop")
@pytest.mark.parametrize("kind", ["number", "three classes"])
def test_chemprop_on_molecules_of_a_users_own(kind: str, tmp_path: Path) -> None:
    rows = [("C" * carbons + "O" * oxygens, carbons) for carbons in range(1, 30) for oxygens in range(4)]
    file = tmp_path / "mine.csv"
    label = (lambda y: f"{100 + y / 2}") if kind == "number" else (lambda y: ("short", "middle", "long")[y // 10])
    file.write_text("smiles,y\n" + "\n".join(f"{s},{label(y)}" for s, y in rows) + "\n")
    options = {"chemprop_epochs": 60, "chemprop_hidden_size": 32, "chemprop_batch_size": 16}
    data, made, training = groups("chemprop", f"csv:{file}", tmp_path, tmp_path / "run", options)
    data.data_dir, data.split = None, "random"
    data.given_options = {"input_type": "smiles", "input_column": "smiles", "label_column": "y"}
    scores = run(data, made, training).metrics["test"]
    if kind == "number":
        assert scores["mae"] < 2  # of 100 to 115
    else:
        assert scores["accuracy"] > 0.5  # the largest class has a third

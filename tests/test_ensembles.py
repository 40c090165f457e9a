"""Several models that predict together: seeds of a run, checkpoints of evaluate.py, and in Python."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_sides import train

import fpt
from fpt.ensemble import mean_prediction, spread_of
from fpt.errors import FPTError
from fpt.evaluation.arguments import EvaluateArguments
from fpt.evaluation.run import run as evaluate
from fpt.outputs import Classes, Value

OUTPUT = Classes(("no", "yes"))


def test_the_mean_is_of_probabilities_and_the_spread_of_the_predicted_class() -> None:
    each = [np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([[0.5, 0.5], [0.2, 0.8]])]
    np.testing.assert_allclose(mean_prediction(each), [[0.7, 0.3], [0.3, 0.7]])
    np.testing.assert_allclose(spread_of(each, OUTPUT), [0.2, 0.1])
    np.testing.assert_allclose(spread_of([np.array([[1.0]]), np.array([[3.0]])], Value(0.0, 1.0)), [1.0])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    """Three seeds side by side, and a run on another split."""
    folder = tmp_path_factory.mktemp("ensemble")
    before, os.environ["FPT_HOME"] = os.environ.get("FPT_HOME"), str(folder / "home")
    try:
        train(folder, llama_dir, {"split_seed": 1}, {}, {"seeds": "1,2,3", "eval_steps": 10, "max_steps": 20})
        train(folder, llama_dir, {"split_seed": 2}, {}, {"output_dir": str(folder / "other"), "max_steps": 1})
    finally:
        os.environ.pop("FPT_HOME")
        if before is not None:
            os.environ["FPT_HOME"] = before
    return folder


def members(runs: Path) -> list[str]:
    return [str(runs / "run" / f"seed-{seed}") for seed in (1, 2, 3)]


def test_seeds_end_with_their_ensemble(runs: Path) -> None:
    summary = json.loads((runs / "run" / "summary.json").read_text())
    ensemble = summary["ensemble"]
    assert ensemble["seeds"] == [1, 2, 3]
    tables = [pd.read_csv(Path(member) / "predictions.csv") for member in members(runs)]
    mean = np.mean([table["probability_yes"] for table in tables], axis=0)
    written = pd.read_csv(runs / "run" / "predictions.csv")
    np.testing.assert_allclose(written["probability_yes"], mean, atol=1e-5)
    chosen = written["prediction"] == "yes"
    assert ensemble["test"]["accuracy"] == pytest.approx((chosen == (written["label"] == "yes")).mean())
    np.testing.assert_allclose(written["spread"], np.std([table["probability_yes"] for table in tables], axis=0), atol=1e-4)
    assert set(ensemble["valid"]) == set(ensemble["test"])


def test_checkpoints_are_scored_together(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(EvaluateArguments(members(runs), output=str(tmp_path / "scores.json"), cache_dir=str(runs / "cache")))
    found = json.loads((tmp_path / "scores.json").read_text())
    wanted = json.loads((runs / "run" / "summary.json").read_text())["ensemble"]["test"]
    assert found["metrics"]["test"] == pytest.approx(wanted, abs=1e-4)
    assert [one["training"]["seed"] for one in found["members"]] == [1, 2, 3]
    assert "mean prediction of 3 models of seeds 1, 2, 3" in capsys.readouterr().out


def test_a_file_is_predicted_with_mean_and_spread(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("smiles\nCCCl\nC((\nCCCC\n")
    evaluate(EvaluateArguments(members(runs), predict=str(tmp_path / "mine.csv"), output=str(tmp_path / "out.csv")))
    written = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    together = fpt.load(members(runs)).predict(["CCCl", "C((", "CCCC"])
    alone = [fpt.load(member).predict(["CCCl"])[0]["probabilities"]["yes"] for member in members(runs)]
    assert float(written["probability_yes"][0]) == pytest.approx(np.mean(alone), abs=1e-5)
    assert together[0]["spread"] == pytest.approx(np.std(alone), abs=1e-5)
    assert together[0]["probabilities"]["yes"] == pytest.approx(np.mean(alone), abs=1e-5)
    assert (together[1]["prediction"], together[1]["spread"], written["spread"][1]) == (None, None, "")


def test_models_of_one_backbone_share_its_frozen_weights(runs: Path) -> None:
    first, second, third = (dict(model.named_parameters()) for model in fpt.load(members(runs)).models)
    frozen = [name for name, parameter in first.items() if not parameter.requires_grad]
    assert frozen and all(first[name] is second[name] is third[name] for name in frozen)
    own = next(name for name, parameter in first.items() if parameter.requires_grad and name.startswith("core."))
    assert first[own] is not second[own]
    for number, model in enumerate(fpt.load(members(runs)).models):
        alone = dict(fpt.load(members(runs)[number]).model.named_parameters())
        assert all(bool((p == alone[name]).all()) for name, p in model.named_parameters())


def test_models_that_were_trained_on_other_data_are_refused(runs: Path) -> None:
    others = [members(runs)[0], str(runs / "other")]
    with pytest.raises(FPTError, match="can't predict together: the split, the inputs, the tokenizer differ"):
        fpt.load(others)
    with pytest.raises(FPTError, match="no checkpoint was given"):
        fpt.load([])
    with pytest.raises(FPTError, match="twice"):
        fpt.load([members(runs)[0], members(runs)[0]])
    with pytest.raises(FPTError, match="is not there"):
        evaluate(EvaluateArguments([members(runs)[0], str(runs / "nothing")]))

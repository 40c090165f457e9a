"""Calibration by one temperature: fitted on valid, kept with the checkpoint, applied wherever probabilities are given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from own_data import TEXT, arguments, write
from test_sides import train

import fpt
from fpt.args import DataArguments, ModelArguments, TrainArguments, changed
from fpt.calibration import calibrated, calibration_error, fit_temperature, log_loss, tempered
from fpt.checkpoint.config import parse_config
from fpt.cli import read_training, refuse_unread
from fpt.errors import FPTError
from fpt.evaluation.arguments import EvaluateArguments
from fpt.evaluation.run import run as evaluate
from fpt.flags.unread import unread_flags
from fpt.metrics import expected_calibration_error
from fpt.outputs import Bits, Classes, MultiLabel, Output
from fpt.report.page import build
from fpt.report.runs import find_runs
from fpt.training import run

TWO, THREE, LABELS = Classes(("no", "yes")), Classes(("a", "b", "c")), MultiLabel(("x", "y"))


def drawn(output: Output, scale: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Labels that follow some logits, and the predictions of a model whose logits are `scale` times as large."""
    import torch

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, output.tokens * output.size)) * 1.5
    shares = output.predict(torch.tensor(logits)).numpy()
    if isinstance(output, Classes):
        labels = np.array([rng.choice(output.size, p=row) for row in shares])
    else:
        labels = (rng.random(shares.shape) < shares).astype(np.float64)
    return labels, output.predict(torch.tensor(logits * scale)).numpy()


def test_the_error_is_the_distance_between_confidence_and_accuracy() -> None:
    confidences, right = np.array([0.95, 0.95, 0.62, 0.62]), np.array([True, False, True, True])
    assert expected_calibration_error(confidences, right) == pytest.approx((2 * 0.45 + 2 * 0.38) / 4)
    # A border belongs to the bin below it, and 0 to the first one.
    assert expected_calibration_error(np.array([1 / 15, 0.0]), np.array([True, False])) == pytest.approx((1 - 1 / 15) / 2)
    assert calibration_error(TWO, np.array([1]), np.array([[0.2, 0.8]])) == pytest.approx(0.2)
    assert calibration_error(LABELS, np.array([[1, 0]]), np.array([[0.8, 0.2]])) == pytest.approx(0.2)


@pytest.mark.parametrize("output", [TWO, THREE, LABELS, Bits(3, 2)], ids=["two", "three", "multilabel", "bits"])
@pytest.mark.parametrize("scale", [3.0, 0.4])
def test_the_temperature_undoes_the_scale_of_logits(output: Output, scale: float) -> None:
    labels, predictions = drawn(output, scale)
    plain = output.metrics(labels, predictions)
    temperature = fit_temperature(output, labels, predictions)
    assert temperature == pytest.approx(scale, rel=0.08)
    found = calibrated(output, labels, predictions, plain, temperature)
    assert found.change.loss < found.change.loss_before == pytest.approx(log_loss(output, labels, predictions))
    assert found.change.ece < 0.03 < found.change.ece_before
    same = [name for name in plain if name != "loss"]
    assert {name: found.metrics[name] for name in same} == {name: plain[name] for name in same}
    assert (found.metrics["loss"], found.metrics["ece"]) == (found.change.loss, found.change.ece)
    # Ranks of the calibrated ones may have other ties.
    again = output.metrics(labels, found.predictions)
    assert again == pytest.approx({name: found.metrics[name] for name in plain}, abs=1e-5)
    for near in (0.9, 1.1):
        assert log_loss(output, labels, tempered(output, predictions, near * temperature)) > found.change.loss


def test_certain_predictions_stay_so_and_one_temperature_changes_nothing() -> None:
    certain = np.array([[0.0, 1.0], [1.0, 0.0], [0.3, 0.7]])
    np.testing.assert_allclose(tempered(TWO, certain, 1.0), certain)
    np.testing.assert_allclose(tempered(TWO, certain, 5.0)[:2], certain[:2])
    np.testing.assert_allclose(tempered(LABELS, certain, 5.0)[:2], certain[:2])
    # Odds of 7 to 3, squared.
    np.testing.assert_allclose(tempered(TWO, certain, 0.5)[2], [9 / 58, 49 / 58])


def test_a_model_that_is_right_about_all_of_valid_keeps_its_probabilities() -> None:
    assert fit_temperature(TWO, np.array([0, 1]), np.array([[0.6, 0.4], [0.4, 0.6]])) == 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    """Two seeds side by side of 15 steps, calibrated, and the first of them alone without that."""
    folder = tmp_path_factory.mktemp("calibration")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPT_HOME", str(folder / "home"))
        short = {"max_steps": 15, "eval_steps": 5, "learning_rate": 2e-2, "keep_last": 3}
        train(folder, llama_dir, {"split_seed": 1}, {}, {"seeds": "1,2", "calibrate": "temperature", **short})
        train(folder, llama_dir, {"split_seed": 1}, {}, {"output_dir": str(folder / "plain"), **short})
    return folder


def results_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def probabilities(folder: Path) -> np.ndarray:
    return pd.read_csv(folder / "predictions.csv")[["probability_no", "probability_yes"]].to_numpy()


def test_results_have_the_temperature_and_only_the_loss_differs(runs: Path) -> None:
    with_it, plain = results_of(runs / "run" / "seed-1"), results_of(runs / "plain")
    found = with_it["calibration"]
    assert "calibration" not in plain
    for split in ("valid", "test"):
        change, metrics = found[split], with_it["metrics"][split]
        # A run beside another one rounds a little differently.
        wanted = {**plain["metrics"][split], "loss": change["loss"], "ece": change["ece"]}
        assert metrics == pytest.approx(wanted, abs=1e-6)
        assert change["loss_before"] == pytest.approx(plain["metrics"][split]["loss"], abs=1e-5)
    assert found["valid"]["loss"] < found["valid"]["loss_before"]
    wanted = tempered(TWO, probabilities(runs / "plain"), found["temperature"])
    np.testing.assert_allclose(probabilities(runs / "run" / "seed-1"), wanted, atol=1e-5)


def test_a_checkpoint_predicts_and_is_scored_as_its_run(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FPT_HOME", str(runs / "home"))
    one, plain = runs / "run" / "seed-1", runs / "plain"
    results, cache = results_of(one), str(runs / "cache")
    for split in ("valid", "test"):
        evaluate(EvaluateArguments([str(one)], output=str(tmp_path / "scores.json"), split=split, cache_dir=cache))
        written = json.loads((tmp_path / "scores.json").read_text())
        assert written["metrics"][split] == pytest.approx(results["metrics"][split], abs=1e-9)
        assert written["calibration"] == results["calibration"]
    temperature = results["calibration"]["temperature"]
    assert f"calibrated by the temperature {temperature:.4g}" in capsys.readouterr().out
    (tmp_path / "mine.csv").write_text("smiles\nCCCl\nCCCC\nC((\n")
    evaluate(EvaluateArguments([str(one)], predict=str(tmp_path / "mine.csv"), output=str(tmp_path / "out.csv")))
    assert f"2 rows predicted, calibrated by the temperature {temperature:.4g}, 1 could not" in capsys.readouterr().out
    shares = pd.read_csv(tmp_path / "out.csv")[["probability_no", "probability_yes"]].to_numpy()[:2]
    before = fpt.load(str(plain)).predict(["CCCl", "CCCC"])
    wanted = tempered(TWO, np.array([list(row["probabilities"].values()) for row in before]), temperature)
    np.testing.assert_allclose(shares, wanted, atol=1e-5)
    after = fpt.load(str(one)).predict(["CCCl", "CCCC"])
    np.testing.assert_allclose([list(row["probabilities"].values()) for row in after], shares, atol=1e-6)
    assert [row["prediction"] for row in before] == [row["prediction"] for row in after]


def test_each_member_of_an_ensemble_has_its_own_temperature(runs: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FPT_HOME", str(runs / "home"))
    each = [runs / "run" / f"seed-{seed}" for seed in (1, 2)]
    temperatures = [results_of(one)["calibration"]["temperature"] for one in each]
    assert temperatures[0] != temperatures[1]
    mean = np.mean([probabilities(one) for one in each], axis=0)
    np.testing.assert_allclose(probabilities(runs / "run"), mean, atol=1e-5)
    ensemble = json.loads((runs / "run" / "summary.json").read_text())["ensemble"]["test"]
    evaluate(EvaluateArguments([str(one) for one in each], output=str(tmp_path / "scores.json"), cache_dir=str(runs / "cache")))
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["metrics"]["test"] == pytest.approx(ensemble, abs=1e-9)
    assert [member["calibration"]["temperature"] for member in written["members"]] == temperatures
    # Beside one that is not calibrated as well.
    mixed = fpt.load([str(each[0]), str(runs / "plain")]).predict(["CCCl"])[0]["probabilities"]["yes"]
    alone = [fpt.load(str(one)).predict(["CCCl"])[0]["probabilities"]["yes"] for one in (each[0], runs / "plain")]
    assert mixed == pytest.approx(np.mean(alone), abs=1e-5)


def test_a_run_that_goes_on_has_the_same_calibration(runs: Path, llama_dir: Path, tmp_path: Path) -> None:
    short = {
        "max_steps": 15,
        "eval_steps": 5,
        "learning_rate": 2e-2,
        "keep_last": 3,
        "calibrate": "temperature",
        "save_full": True,
    }
    data = {"split_seed": 1}
    train(tmp_path, llama_dir, data, {}, short)
    whole = results_of(tmp_path / "run")
    side_by_side = results_of(runs / "run" / "seed-1")["calibration"]
    assert whole["calibration"]["temperature"] == pytest.approx(side_by_side["temperature"], rel=1e-3)
    full, checkpoint = (json.loads((tmp_path / "run" / name / "config.json").read_text()) for name in ("full", "checkpoint"))
    assert full["calibration"]["temperature"] == checkpoint["calibration"]["temperature"] == whole["calibration"]["temperature"]
    (tmp_path / "run" / "results.json").unlink()
    shutil.rmtree(tmp_path / "run" / "state" / "step-00000015")
    train(tmp_path, llama_dir, data, {}, {**short, "resume": True})
    again = results_of(tmp_path / "run")
    assert (again["calibration"], again["metrics"], again["history"]) == (
        whole["calibration"],
        whole["metrics"],
        whole["history"],
    )
    with pytest.raises(FPTError, match="was started with --calibrate temperature"):
        train(tmp_path, llama_dir, data, {}, {**short, "resume": True, "calibrate": None})


def test_reports_and_cards_show_it(runs: Path) -> None:
    page, text = build(find_runs([runs / "run", runs / "plain"]), "calibrated or not", 0, None, lambda line: None)
    assert "test ece" in page and "test ece" in text
    found = results_of(runs / "run" / "seed-1")
    card = (runs / "run" / "seed-1" / "checkpoint" / "README.md").read_text()
    assert f"divided by the temperature {found['calibration']['temperature']:.4g}, fitted on the validation split" in card
    assert f"On test: log loss {found['calibration']['test']['loss_before']:.4f} before" in card
    assert f"| ece | {found['metrics']['valid']['ece']:.4f} | {found['metrics']['test']['ece']:.4f} |" in card
    assert "calibrated" not in (runs / "plain" / "checkpoint" / "README.md").read_text()


@pytest.mark.parametrize("value", [0.0, -1.0, "1"])
def test_a_damaged_temperature_is_refused(runs: Path, value: object) -> None:
    config = json.loads((runs / "run" / "seed-1" / "checkpoint" / "config.json").read_text())
    config["calibration"]["temperature"] = value
    with pytest.raises(FPTError, match=r"config\.json: calibration.*copy the checkpoint again"):
        parse_config(config, "config.json")
    config["calibration"]["temperature"] = 2.0
    config["output"] = {"kind": "value", "mean": 0.0, "std": 1.0}
    with pytest.raises(FPTError, match="a number has no probability"):
        parse_config(config, "config.json")


def test_several_labels_and_bits_are_calibrated(llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"a {'good' if i % 2 else 'bad'} film {i}", ["good", "bad", "good|long", "long"][(i * i) % 4]) for i in range(120)]
    data = arguments(f"csv:{write(tmp_path / 'x.csv', ['text', 'label'], rows)}", TEXT)
    short = TrainArguments(max_steps=4, eval_steps=4, calibrate="temperature", output_dir=str(tmp_path / "labels"))
    results = run(data, ModelArguments(backbone=str(llama_dir)), short)
    assert results.calibration.valid.loss <= results.calibration.valid.loss_before
    monkeypatch.setattr("fpt.tasks.base.GeneratedTask.sizes", {"train": 64, "valid": 32, "test": 32})
    bits = run(
        DataArguments(dataset="bit-memory"),
        ModelArguments(backbone=str(llama_dir)),
        changed(short, output_dir=str(tmp_path / "bits")),
    )
    evaluate(EvaluateArguments([str(tmp_path / "bits")], output=str(tmp_path / "bits.json")))
    assert json.loads((tmp_path / "bits.json").read_text())["metrics"]["test"] == pytest.approx(bits.metrics["test"])


def test_a_regression_has_nothing_to_calibrate(llama_dir: Path, tmp_path: Path) -> None:
    rows = [(f"film {i}", i / 7) for i in range(60)]
    data = arguments(f"csv:{write(tmp_path / 'x.csv', ['text', 'label'], rows)}", TEXT)
    training = TrainArguments(max_steps=1, calibrate="temperature", output_dir=str(tmp_path / "run"))
    with pytest.raises(FPTError, match=r"--calibrate is for probabilities, and csv:x\.csv is a regression"):
        run(data, ModelArguments(backbone=str(llama_dir)), training)
    with pytest.raises(FPTError, match=r"unknown --calibrate 'platt'.*known: temperature"):
        TrainArguments(calibrate="platt")


def test_a_fitted_baseline_is_calibrated(tmp_path: Path, data_dir: Path) -> None:
    refuse_unread(unread_flags(read_training("--dataset cyp3a4 --model morgan --calibrate temperature".split())))
    found = {}
    for name, calibrate in (("plain", None), ("calibrated", "temperature")):
        model = changed(ModelArguments(model="morgan"), given_options={"estimator": "linear"})
        training = TrainArguments(output_dir=str(tmp_path / name), calibrate=calibrate)
        found[name] = run(DataArguments(data_dir=str(data_dir)), model, training)
    with_it, plain = found["calibrated"], found["plain"]
    assert with_it.calibration.valid.loss <= plain.metrics["valid"]["loss"]
    same = ("accuracy", "auroc", "auprc")
    assert [with_it.metrics["test"][m] for m in same] == [plain.metrics["test"][m] for m in same]
    before, after = (pd.read_csv(tmp_path / name / "predictions.csv") for name in found)
    assert list(before["prediction"]) == list(after["prediction"])
    columns = ["probability_non-inhibitor", "probability_inhibitor"]
    wanted = tempered(TWO, before[columns].to_numpy(), with_it.calibration.temperature)
    np.testing.assert_allclose(after[columns].to_numpy(), wanted, atol=1e-4)

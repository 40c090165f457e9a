"""Runs side by side: dropout as each draws it alone, and one that fails leaves the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fpt.errors import FPTError
from fpt.training import Run, loop, results, resume, run, state, validation
from fpt.training.random_state import OwnRandom, drawing
from fpt.training.records import Failure
from fpt.training.shared_backbone import Together
from fpt.training.summary import pick_rate


def losses(folder: Path) -> list[float]:
    return [one["train_loss"] for one in json.loads((folder / "results.json").read_text())["history"]]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint" / "model.safetensors")


def same(one: Path, two: Path) -> bool:
    first, second = tensors_of(one), tensors_of(two)
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def kill_at(monkeypatch, count: int) -> None:
    """Stop the process after so many states."""
    save, seen = resume.save_state, []

    def killed(self: Run) -> None:
        save(self)
        seen.append(1)
        if len(seen) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume, "save_state", killed)


@pytest.mark.parametrize("recompute", [False, True])
def test_dropout_in_one_row_is_what_each_draws_alone(recompute, settings, tmp_path: Path, monkeypatch) -> None:
    shared = {"max_steps": 8, "eval_steps": 2, "dropout": 0.4, "activation_checkpointing": recompute}
    for seed in (1, 2):
        run(*settings(seed=seed, split_seed=1, output_dir=str(tmp_path / f"alone-{seed}"), **shared))
    joined, forward = [], Together.forward
    monkeypatch.setattr(Together, "forward", lambda self, active, *a: joined.append(len(active)) or forward(self, active, *a))
    run(*settings(seeds="1,2", output_dir=str(tmp_path / "all"), **shared))
    assert 2 in joined
    for seed in (1, 2):
        beside, alone = tmp_path / "all" / f"seed-{seed}", tmp_path / f"alone-{seed}"
        # Before random numbers of their own: 0.04.
        assert np.abs(np.subtract(losses(beside), losses(alone))).max() < 1e-3
        for name, tensor in tensors_of(alone).items():
            torch.testing.assert_close(tensors_of(beside)[name], tensor, atol=5e-3, rtol=5e-2)


@pytest.mark.parametrize("recompute", [False, True])
def test_dropout_inside_the_backbone_lets_the_runs_take_turns(
    recompute, settings, gpt2_dir, tmp_path, monkeypatch, capsys
) -> None:
    shared = {"max_steps": 8, "eval_steps": 2, "dropout": 0.2, "core_dropout": True, "backbone": str(gpt2_dir)}
    shared |= {"activation_checkpointing": recompute}
    for seed in (1, 2):
        run(*settings(seed=seed, split_seed=1, output_dir=str(tmp_path / f"alone-{seed}"), **shared))
    with monkeypatch.context() as patch:
        kill_at(patch, 3)  # the second run has no state of step 4 yet
        with pytest.raises(KeyboardInterrupt):
            run(*settings(seeds="1,2", output_dir=str(tmp_path / "all"), **shared))
    run(*settings(seeds="1,2", output_dir=str(tmp_path / "all"), resume=True, **shared))
    assert "side by side: dropout inside the backbone" in capsys.readouterr().out
    for seed in (1, 2):
        beside, alone = tmp_path / "all" / f"seed-{seed}", tmp_path / f"alone-{seed}"
        assert losses(beside) == losses(alone)
        assert same(beside, alone)


def test_a_stop_changes_nothing_side_by_side(settings, tmp_path: Path, monkeypatch) -> None:
    shared = {"seeds": "1,2", "max_steps": 12, "eval_steps": 4, "dropout": 0.3}
    run(*settings(output_dir=str(tmp_path / "whole"), **shared))
    with monkeypatch.context() as patch:
        kill_at(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            run(*settings(output_dir=str(tmp_path / "parts"), **shared))
    run(*settings(output_dir=str(tmp_path / "parts"), resume=True, **shared))
    for name in ("seed-1", "seed-2"):
        assert losses(tmp_path / "parts" / name) == losses(tmp_path / "whole" / name)
        assert same(tmp_path / "parts" / name, tmp_path / "whole" / name)


def test_a_run_of_several_goes_on_alone(settings, tmp_path: Path, monkeypatch) -> None:
    shared = {"max_steps": 8, "eval_steps": 4, "dropout": 0.3}
    with monkeypatch.context() as patch:
        kill_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            run(*settings(seeds="1,2", output_dir=str(tmp_path / "all"), **shared))
    run(*settings(seed=2, split_seed=1, output_dir=str(tmp_path / "all" / "seed-2"), resume=True, **shared))
    run(*settings(seed=2, split_seed=1, output_dir=str(tmp_path / "alone"), **shared))
    assert np.abs(np.subtract(losses(tmp_path / "all" / "seed-2"), losses(tmp_path / "alone"))).max() < 1e-3


def test_what_a_run_draws_moves_no_other() -> None:
    torch.manual_seed(7)
    first = OwnRandom()
    expected = torch.rand(4)
    torch.manual_seed(8)
    second = OwnRandom()
    outside = torch.rand(2)
    torch.manual_seed(8)
    found = []
    for own in (first, second, first):
        with drawing(own):
            found.append(torch.rand(2))
    assert torch.equal(torch.cat([found[0], found[2]]), expected)
    assert torch.equal(found[1], outside) and torch.equal(torch.rand(2), outside)
    with drawing(None):
        assert not torch.equal(torch.rand(2), outside)


# A run that fails.


def diverging(monkeypatch, names: tuple[str, ...]) -> None:
    """The loss of these runs is not finite from the start."""
    loss = loop.loss_of

    def bad(self: Run, logits, batch):
        return loss(self, logits * float("nan") if self.output.name in names else logits, batch)

    monkeypatch.setattr(loop, "loss_of", bad)


SHORT = {"max_steps": 16, "eval_steps": 8, "dropout": 0.0, "warmup_steps": 0}


def test_one_diverging_seed_is_left_out(settings, tmp_path: Path, monkeypatch, capsys) -> None:
    run(*settings(seeds="1,3", output_dir=str(tmp_path / "two"), **SHORT))
    diverging(monkeypatch, ("seed-2",))
    summary = run(*settings(seeds="1,2,3", output_dir=str(tmp_path / "run"), **SHORT))
    assert [one.seed for one in summary.runs] == [1, 3]
    (failed,) = summary.failed
    assert (failed.folder, failed.seed) == ("seed-2", 2) and "the loss is not finite" in failed.reason
    assert failed.step in (10, 16)
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary.to_dict()
    out = capsys.readouterr().out
    assert out.count("seed-2: left out at step") == 2  # when it is, and in the summary
    assert "2 of 3 runs side by side" in out and "2 of 3 seeds" in out
    folder = tmp_path / "run" / "seed-2"
    assert (folder / "run.json").exists() and not (folder / "results.json").exists()
    # The others are as they would have been without it.
    for name in ("seed-1", "seed-3"):
        assert np.abs(np.subtract(losses(tmp_path / "run" / name), losses(tmp_path / "two" / name))).max() < 1e-4


def test_the_run_that_was_left_out_goes_on_with_its_neighbours(settings, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        diverging(patch, ("seed-2",))
        run(*settings(seeds="1,2", save_steps=4, **SHORT))
    summary = run(*settings(seeds="1,2", save_steps=4, resume=True, **SHORT))
    assert [one.seed for one in summary.runs] == [1, 2] and summary.failed == []


def test_a_rate_of_which_a_seed_fails_is_not_picked(settings, tmp_path: Path, monkeypatch, capsys) -> None:
    diverging(monkeypatch, ("seed-2-lr-0.02",))
    score = validation.score
    better = {0.02: 0.9, 1e-6: 0.1}
    monkeypatch.setattr(validation, "score", lambda self, s: {**score(self, s), "auprc": better[self.args.learning_rate]})
    summary = run(*settings(learning_rates="1e-6,2e-2", seeds="1,2", **SHORT))
    assert [rate.learning_rate for rate in summary.learning_rates if "test" in rate.spreads] == [1e-6]
    assert "the learning rate is picked among those whose seeds all ended well; not 0.02" in capsys.readouterr().out


def failure(rate: float) -> Failure:
    return Failure("x", 1, rate, 3, "why")


def test_the_rule_of_picking_is_printed() -> None:
    said: list[str] = []
    runs = [(1e-3, 0.5), (1e-3, 0.5), (1e-2, 0.9)]
    assert pick_rate(runs, [], "auprc", said.append) == 1e-2 and said == []
    assert pick_rate(runs, [failure(1e-2)], "auprc", said.append) == 1e-3
    assert pick_rate(runs, [failure(1e-2), failure(1e-3)], "auprc", said.append) == 1e-3
    assert said[1] == "the learning rate is picked among those with the most seeds left, since each lost some; not 0.01"
    assert pick_rate([(1e-3, 0.5)], [failure(1.0)], "auprc", said.append) == 1e-3


def test_when_all_fail_it_is_one_line(settings, tmp_path: Path, monkeypatch) -> None:
    diverging(monkeypatch, ("seed-1", "seed-2"))
    with pytest.raises(FPTError, match=r"all 2 runs failed: seed-1: the loss is not finite .*; seed-2: the loss") as error:
        run(*settings(seeds="1,2", **SHORT))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("writes", ["state", "checkpoint", "results"])
def test_a_full_disk_in_the_folder_of_one_run_leaves_the_others(writes, settings, tmp_path: Path, monkeypatch) -> None:
    places = {"state": (state, "save"), "checkpoint": (validation, "save_checkpoint"), "results": (results, "write")}
    target, name = places[writes]
    real = getattr(target, name)

    def full(folder: Path, *rest, **named):
        if "seed-2" in Path(folder).parts:
            raise OSError(28, "No space left on device")
        return real(folder, *rest, **named)

    monkeypatch.setattr(target, name, full)
    summary = run(*settings(seeds="1,2,3", **SHORT))
    assert [one.seed for one in summary.runs] == [1, 3]
    assert "No space left on device" in summary.failed[0].reason
    assert not (tmp_path / "run" / "seed-2" / "results.json").exists()


def test_a_run_that_stops_early_is_no_failure(settings, monkeypatch) -> None:
    score = validation.score
    monkeypatch.setattr(validation, "score", lambda self, s: {**score(self, s), "auprc": -self.progress.step})
    summary = run(*settings(seeds="1,2", max_steps=40, eval_steps=4, early_stopping_patience=2, dropout=0.0))
    assert [one.steps for one in summary.runs] == [12, 12] and summary.failed == []


@pytest.mark.parametrize("where", ["valid", "test"])
def test_predictions_that_are_not_finite_fail_one_run(where: str, settings, tmp_path: Path, monkeypatch) -> None:
    predict = validation.predict

    def bad(self: Run, split: str):
        predictions, labels = predict(self, split)
        return predictions * (float("nan") if self.args.seed == 2 and split == where else 1.0), labels

    monkeypatch.setattr(validation, "predict", bad)
    summary = run(*settings(seeds="1,2", **SHORT))
    assert "predicts numbers that are not finite" in summary.failed[0].reason and len(summary.runs) == 1
    assert not (tmp_path / "run" / "seed-2" / "results.json").exists()

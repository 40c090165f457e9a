"""Runs side by side on one backbone: each as it would be alone, and none disturbs another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from test_backbones import MODELS

from fpt.args import ModelArguments
from fpt.backbones.base import BackboneSpec
from fpt.backbones.loading import load_backbone
from fpt.errors import FPTError
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.files.whole import sha256_file
from fpt.inputs import Patches, Tokens
from fpt.models.fpt import build_model
from fpt.models.input_init import init_input
from fpt.models.tuning import Tuning, parse_parts
from fpt.outputs import Bits, Classes
from fpt.training import run
from fpt.training.shared_backbone import JOINED_TOKENS, Together
from fpt.training.summary import best_rate


def models(name: str, inputs, tune: str = "fpt", count: int = 3, output=None, dtype: str = "fp32"):
    """Models that share the frozen parts of a small backbone."""
    tuning = Tuning(parse_parts(tune))
    backbone = load_backbone(BackboneSpec(name, dtype=dtype, seed=1, num_layers=2), keep_fp32=tuning.parts)
    made = []
    for seed, own in enumerate([backbone, *(backbone.twin(tuning.parts) for _ in range(count - 1))]):
        torch.manual_seed(seed)
        model = build_model(own, inputs, output or Classes(("a", "b", "c")), tuning)
        init_input(model, own, None)
        for parameter in model.trainable_parameters().values():
            parameter.data += 0.1 * torch.randn_like(parameter)  # norms and positions of their own
        made.append(model.eval())
    return made


def batch(inputs, rows: int, tokens: int, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    shape = (rows, tokens, inputs.dim) if isinstance(inputs, Patches) else (rows, tokens)
    values = torch.randn(shape) if isinstance(inputs, Patches) else torch.randint(0, inputs.vocab_size, shape)
    mask = torch.ones(rows, tokens, dtype=torch.long)
    mask[0, tokens // 2 :] = 0
    return {"inputs": values, "attention_mask": mask}


class Alone:
    """What `Together` asks of a training loop."""

    def __init__(self, model) -> None:
        self.model = self.network = model
        self.random = None


def logits_of(forward, loops, batches) -> list[torch.Tensor]:
    """Logits of all loops, whatever the parts they come in."""
    found = {id(loop): one for own, _, logits in forward(loops, batches) for loop, one in zip(own, logits, strict=True)}
    return [found[id(loop)] for loop in loops]


PLAIN, PLACED, IDS = Patches(5), Patches(5, positions=9), Tokens(20, 0)
CASES = [
    *((name, IDS, "fpt", "fp32") for name in MODELS),
    ("gpt2", PLAIN, "fpt", "fp32"),
    ("gpt2", IDS, "fpt", "bf16"),
    ("llama", PLACED, "fpt", "fp32"),
    ("llama", IDS, "ln+attn", "fp32"),
    ("llama", IDS, "lora", "fp32"),
    ("gpt2", IDS, "ln,pos,in,out,lora", "fp32"),
    ("llama", IDS, "full", "fp32"),
    ("bert", PLAIN, "full", "fp32"),
]
# Batches of other lengths and sizes, as the runs' own orders give them, and all of one shape.
RAGGED, EVEN = [(4, 9), (3, 7), (4, 8)], [(4, 9)] * 3
# Backbones whose blocks do not take several batches, or only short ones.
TURNS = ("longformer", "t5", "vit", "lstm", "mistral-window")


@pytest.mark.parametrize("shapes", [RAGGED, EVEN], ids=["ragged", "even"])
@pytest.mark.parametrize(("name", "inputs", "tune", "dtype"), CASES)
def test_logits_and_gradients_are_those_of_each_alone(name, inputs, tune, dtype, shapes, folders) -> None:
    made = models(str(folders[name]), inputs, tune, output=Bits(4, tokens=3), dtype=dtype)
    loops, told = [Alone(model) for model in made], []
    together = Together(made, told.append)
    forward = together.on(Accelerator(cpu=True))
    batches = [batch(inputs, rows, tokens, seed) for seed, (rows, tokens) in enumerate(shapes)]
    logits_of(forward, loops, batches)  # the first time it is checked
    for model in (together, *made):
        model.eval()  # backbones have dropout of their own
    parts = list(forward(loops, batches))
    assert len(parts) == (3 if name in TURNS else 1)
    assert bool(told) == (name in TURNS and name != "mistral-window")
    found = [logits for _, _, part in parts for logits in part]
    expected = [model(b["inputs"], b["attention_mask"]) for model, b in zip(made, batches, strict=True)]
    near = {"atol": 1e-5, "rtol": 1e-4} if dtype == "fp32" else {"atol": 3e-2, "rtol": 3e-2}
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, **near)
    assert not torch.allclose(expected[0], expected[2], atol=1e-2)
    if dtype != "fp32":
        return
    sum(logits.square().mean() for logits in found).backward()
    joint = [{n: p.grad.clone() for n, p in model.trainable_parameters().items() if p.grad is not None} for model in made]
    for model in made:
        model.zero_grad()
    sum(logits.square().mean() for logits in expected).backward()
    for gradients, model in zip(joint, made, strict=True):
        for parameter_name, parameter in model.trainable_parameters().items():
            if parameter.grad is not None:
                torch.testing.assert_close(gradients[parameter_name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_a_row_holds_the_real_batches_and_no_more(folders) -> None:
    """No layer sees a token that a run alone would not have."""
    made = models(str(folders["gpt2"]), IDS)
    together = Together(made)
    forward = together.on(Accelerator(cpu=True))
    batches = [batch(IDS, rows, tokens, seed) for seed, (rows, tokens) in enumerate(RAGGED)]
    loops = [Alone(model) for model in made]
    logits_of(forward, loops, batches)
    seen = []
    together.core.h[0].mlp.c_fc.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[1]))
    logits_of(forward, loops, batches)
    assert seen == [4 * 9 + 3 * 7 + 4 * 8]


def test_long_batches_go_in_rows_of_their_own(folders, monkeypatch) -> None:
    """So that several runs keep no more for the way back than one."""
    monkeypatch.setitem(JOINED_TOKENS, "cpu", 60)
    made = models(str(folders["gpt2"]), IDS)
    forward = Together(made).on(Accelerator(cpu=True))
    batches = [batch(IDS, rows, tokens, seed) for seed, (rows, tokens) in enumerate([(4, 9), (3, 7), (10, 8)])]
    loops = [Alone(model) for model in made]
    assert [own for own, _, _ in forward(loops, batches)] == [loops[:2], loops[2:]]


def test_a_core_that_does_more_than_is_known_here_takes_turns(folders) -> None:
    made = models(str(folders["gpt2"]), IDS)
    for model in made:  # a norm that looks at more than its own token
        model.core.ln_f.register_forward_hook(lambda module, args, out: out * args[0].shape[1])
    told: list[str] = []
    forward = Together(made, told.append).on(Accelerator(cpu=True))
    batches = [batch(IDS, rows, tokens, seed) for seed, (rows, tokens) in enumerate([(4, 9), (3, 7), (4, 8)])]
    loops = [Alone(model) for model in made]
    assert [own for own, _, _ in forward(loops, batches)] == [[loop] for loop in loops]
    assert len(told) == 1 and "the runs take turns" in told[0]


def test_the_frozen_core_is_there_once(llama_dir: Path) -> None:
    made = models(str(llama_dir), Tokens(20, 0), count=5)
    tensors = {p.data_ptr(): p.numel() for model in made for p in model.parameters()}
    one = sum(p.numel() for p in made[0].parameters())
    trainable = sum(p.numel() for p in made[0].trainable_parameters().values())
    assert sum(tensors.values()) == one + 4 * trainable
    before = len(tensors)
    together = Together(made)
    assert len({p.data_ptr() for p in together.parameters()} - set(tensors)) <= 10  # the ones that norms are multiplied by
    assert before == len(tensors)


@pytest.mark.parametrize(("tune", "steps"), [("fpt", 40), ("lora", 10)])
def test_runs_side_by_side_end_as_each_alone(tune: str, steps: int, settings, tmp_path: Path) -> None:
    shared = {"max_steps": steps, "eval_steps": steps // 2, "dropout": 0.0, "tune": tune}
    summary = run(*settings(seeds="1,2,3", output_dir=str(tmp_path / "all"), **shared))
    assert [one.seed for one in summary.runs] == [1, 2, 3]
    for seed in (1, 2, 3):
        alone = run(*settings(seed=seed, split_seed=1, output_dir=str(tmp_path / f"alone-{seed}"), **shared))
        folder = tmp_path / "all" / f"seed-{seed}"
        beside = json.loads((folder / "results.json").read_text())
        for split in ("valid", "test"):
            for metric, value in alone.metrics[split].items():
                assert beside["metrics"][split][metric] == pytest.approx(value, abs=2e-3), (seed, split, metric)
        assert (beside["best_step"], beside["steps"], beside["seed"]) == (alone.best_step, steps, seed)
        for one, other in zip(beside["history"], alone.history, strict=True):
            assert one["train_loss"] == pytest.approx(other["train_loss"], abs=2e-3)
        tensors, others = (
            load_file(place / "checkpoint" / "model.safetensors") for place in (folder, tmp_path / f"alone-{seed}")
        )
        assert set(tensors) == set(others)
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, others[name], atol=5e-3, rtol=5e-2)
        # The arguments that it was started with are those of the run alone.
        told = json.loads((folder / "run.json").read_text())
        assert (told["seed"], told["split_seed"], told["seeds"]) == (seed, 1, None)
    written = json.loads((tmp_path / "all" / "summary.json").read_text())
    scores = [one["test"]["auprc"] for one in written["runs"]]
    assert written["learning_rates"][0]["test"] == {
        "mean": pytest.approx(np.mean(scores)),
        "std": pytest.approx(np.std(scores, ddof=1)),
    }
    evaluation.run(EvaluateArguments(checkpoint=str(tmp_path / "all" / "seed-2"), output=str(tmp_path / "again.json")))
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["metrics"]["test"]["auprc"] == pytest.approx(scores[1], abs=1e-6)


def test_recomputing_changes_nothing_side_by_side(settings, tmp_path: Path) -> None:
    shared = {"seeds": "1,2", "max_steps": 10, "eval_steps": 5}
    plain = run(*settings(output_dir=str(tmp_path / "plain"), **shared))
    again = run(*settings(output_dir=str(tmp_path / "again"), activation_checkpointing=True, **shared))
    assert [one.metrics["valid"] for one in again.runs] == [one.metrics["valid"] for one in plain.runs]


def test_of_several_learning_rates_only_the_best_on_valid_sees_test(settings, tmp_path: Path, capsys) -> None:
    summary = run(*settings(learning_rates="1e-6,2e-2", seeds="1,2", max_steps=60, eval_steps=30, dropout=0.0))
    by_rate = {one.learning_rate: one.spreads for one in summary.learning_rates}
    assert by_rate[2e-2]["valid"].mean > by_rate[1e-6]["valid"].mean
    assert "test" in by_rate[2e-2] and "test" not in by_rate[1e-6]
    folders = {one.folder: tmp_path / "run" / one.folder for one in summary.runs}
    assert set(folders) == {f"seed-{seed}-lr-{rate}" for seed in (1, 2) for rate in ("1e-06", "0.02")}
    for name, folder in folders.items():
        assert (folder / "checkpoint" / "model.safetensors").is_file()
        assert (folder / "results.json").is_file() == (folder / "predictions.csv").is_file() == name.endswith("0.02")
    assert "learning rate 0.02, 2 seeds: valid" in capsys.readouterr().out


def test_runs_side_by_side_go_on_after_a_stop(settings, tmp_path: Path, monkeypatch) -> None:
    from fpt.training import Run, resume

    shared = {"seeds": "1,2", "max_steps": 12, "eval_steps": 4}
    run(*settings(output_dir=str(tmp_path / "whole"), **shared))
    save, seen = resume.save_state, []

    def stop_in_between(self: Run) -> None:
        save(self)
        seen.append(self.label)
        if len(seen) == 3:  # the second run has no state of step 8 yet
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resume, "save_state", stop_in_between)
        with pytest.raises(KeyboardInterrupt):
            run(*settings(output_dir=str(tmp_path / "parts"), **shared))
    summary = run(*settings(output_dir=str(tmp_path / "parts"), resume=True, **shared))
    assert [one.steps for one in summary.runs] == [12, 12]
    whole = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert [one.metrics["valid"]["loss"] for one in summary.runs] == pytest.approx(
        [one["valid"]["loss"] for one in whole["runs"]], abs=0.1
    )


def test_a_run_that_stops_early_leaves_the_others(settings, monkeypatch) -> None:
    from fpt.training import Run, validation

    score = validation.score

    def falling(self: Run, split: str):
        metrics = score(self, split)
        return {**metrics, "auprc": -self.progress.step} if self.args.seed == 2 else {**metrics, "auprc": self.progress.step}

    monkeypatch.setattr(validation, "score", falling)
    summary = run(*settings(seeds="1,2,3", max_steps=40, eval_steps=4, early_stopping_patience=2))
    assert [one.steps for one in summary.runs] == [40, 12, 40]


def test_a_folder_that_holds_one_of_the_runs_is_refused(settings, tmp_path: Path) -> None:
    run(*settings(seeds="1,2", max_steps=4))
    before = sha256_file(tmp_path / "run" / "seed-2" / "results.json")
    with pytest.raises(FPTError, match="seed-2 already holds a run"):
        run(*settings(seeds="3,2", max_steps=4))
    assert sha256_file(tmp_path / "run" / "seed-2" / "results.json") == before
    assert not (tmp_path / "run" / "seed-3").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": "1,x"}, "--seeds '1,x' must be numbers separated by commas: 1,2,3"),
        ({"seeds": "1,1"}, "names a number twice"),
        ({"learning_rates": "1e-3,0"}, "must all be above 0"),
        ({"seeds": "1,2", "push_to_hub": "user/name"}, "push the one you want"),
        ({"seeds": "1,2", "model": "mat"}, "are for tunings of one frozen backbone"),
        ({"seeds": "1,2", "model": "morgan"}, "fitted at once"),
    ],
)
def test_what_can_not_be_had_side_by_side_is_told(changes, words, settings, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    if "model" in changes:
        groups = settings(**changes)
        groups[1] = ModelArguments(model=changes["model"])
    else:
        groups = settings(**changes)
    with pytest.raises(FPTError, match=words):
        run(*groups)
    assert not list(tmp_path.glob("run/*/results.json"))


def test_the_best_rate_is_that_of_the_best_mean() -> None:
    assert best_rate([(1e-3, 0.5), (1e-3, 0.9), (1e-2, 0.8), (1e-2, 0.7)], "auprc") == 1e-2
    assert best_rate([(1e-3, 0.5), (1e-3, 0.9), (1e-2, 0.8), (1e-2, 0.7)], "mae") == 1e-3
    assert best_rate([(1e-3, None), (1e-2, 0.1)], "auprc") == 1e-2

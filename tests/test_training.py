"""Whole runs: train, keep the best, score, write down, go on, evaluate, predict."""

from __future__ import annotations

import csv
import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import molecules, short_run, write_tdc
from rdkit import Chem
from safetensors.torch import load_file, save_file

from fpt.args import DataArguments
from fpt.checkpoint import load_checkpoint, read_config
from fpt.checkpoint.card import model_card
from fpt.data.cache import prepare
from fpt.errors import FPTError
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.files.whole import alone, new_folder, sha256_file, write_text
from fpt.metrics import classification_metrics, score_table
from fpt.tasks.base import TASKS
from fpt.training import run
from fpt.training.run_dir import LOCK, OUTPUTS


def evaluate(checkpoint: Path, **changes) -> None:
    evaluation.run(EvaluateArguments(checkpoint=str(checkpoint), **changes))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    """A folder with a short run and its cache, made once."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPT_HOME", str(folder / "home"))
        run(*short_run(write_tdc(folder / "raw", molecules()), llama_dir, folder / "run"))
    return folder


@pytest.fixture
def finished(template: Path, tmp_path: Path) -> Path:
    """The output folder of a short run, a copy for each test."""
    shutil.copytree(template / "home", tmp_path / "home")
    return shutil.copytree(template / "run", tmp_path / "run")


def test_a_run_learns_and_writes_down_what_it_did(settings, tmp_path: Path) -> None:
    results = run(*settings(max_steps=400, eval_steps=100, dropout=0.0, learning_rate=2e-2))
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert written == json.loads(json.dumps(results.to_dict()))
    # Whether there is a halogen is easy to see; chance is about 0.38 AUPRC.
    assert written["metrics"]["test"]["auprc"] > 0.8
    assert set(written["metrics"]) == {"valid", "test"}
    assert set(written["metrics"]["test"]) == {"accuracy", "loss", "auroc", "auprc"}
    assert written["core"]["sha256"]
    assert (written["seed"], written["steps"], written["split"]["method"]) == (1, 400, "scaffold")
    assert 0 < written["trainable_parameters"] < written["total_parameters"]
    assert written["tokens_per_second"] > 0
    assert written["evaluation_tokens_per_second"] > 0
    assert written["wall_seconds"] >= written["train_seconds"] > 0
    assert written["padding"]["grouped"] < written["padding"]["random"]
    assert [h["step"] for h in written["history"]] == [100, 200, 300, 400]


def test_the_model_is_picked_on_validation_and_test_is_scored_once(settings, tmp_path: Path, monkeypatch) -> None:
    from fpt.training import validation

    asked: list[str] = []
    predict = validation.predict
    monkeypatch.setattr(validation, "predict", lambda self, split: asked.append(split) or predict(self, split))
    results = run(*settings())
    assert asked == ["valid"] * 3 + ["test"]
    best = max(results.history, key=lambda h: h["valid"]["auprc"])
    assert results.best_step == best["step"]
    assert results.metrics["valid"] == best["valid"]


def test_a_batch_that_is_not_finite_is_left_out(settings, monkeypatch, capsys) -> None:
    from fpt.outputs import Classes

    loss, calls = Classes.loss, []

    def bad_once(self, logits, labels):
        calls.append(1)
        return loss(self, logits, labels) * (float("nan") if len(calls) == 5 else 1.0)

    monkeypatch.setattr(Classes, "loss", bad_once)
    results = run(*settings(max_steps=12, eval_steps=4))
    assert "step 8: the gradients of 1 steps were not finite and were left out" in capsys.readouterr().out
    assert all(np.isfinite(h["train_loss"]) for h in results.history)
    assert results.metrics["test"]["auroc"] is not None


def test_a_loss_that_stays_not_finite_ends_the_run_and_keeps_the_best(settings, tmp_path: Path, monkeypatch) -> None:
    from fpt.outputs import Classes

    loss, calls = Classes.loss, []

    def bad_from_then_on(self, logits, labels):
        calls.append(1)
        return loss(self, logits, labels) * (float("nan") if len(calls) > 6 else 1.0)

    monkeypatch.setattr(Classes, "loss", bad_from_then_on)
    with pytest.raises(FPTError, match=r"at step 16 and before; the best checkpoint so far, of step (4|8|12), is whole"):
        run(*settings(max_steps=40, eval_steps=4))
    tensors = load_file(tmp_path / "run" / "checkpoint" / "model.safetensors")
    assert all(torch.isfinite(t).all() for t in tensors.values())


def test_a_loss_that_explodes_is_told(settings, monkeypatch, capsys) -> None:
    from fpt.outputs import Classes

    loss, calls = Classes.loss, []

    def growing(self, logits, labels):
        calls.append(1)
        return loss(self, logits, labels) * (20.0 if len(calls) > 4 else 1.0)

    monkeypatch.setattr(Classes, "loss", growing)
    run(*settings(max_steps=8, eval_steps=4))
    assert "step 8: the training loss has grown from" in capsys.readouterr().out


def test_two_runs_do_not_write_to_one_folder(settings, tmp_path: Path) -> None:
    with alone(tmp_path / "run" / LOCK, lambda: None), pytest.raises(FPTError, match="another run is writing to --output_dir"):
        run(*settings())
    assert not (tmp_path / "run" / "run.json").exists()
    # Free again, as after the end of any process.
    assert run(*settings()).steps == 12


def test_two_runs_make_one_cache_entry(settings, tmp_path: Path, home: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        said = list(pool.map(_prepare, [str(tmp_path / "raw")] * 2, [str(home)] * 2))
    made = [sum("preprocessing" in line for line in lines) for lines in said]
    assert sorted(made) == [0, 1]
    assert len(list((home / "arrow" / "cyp3a4").iterdir())) == 1
    assert list((home / "work").iterdir()) == []


def _prepare(data_dir: str, home: str) -> list[str]:
    said: list[str] = []
    prepare(TASKS["cyp3a4"], DataArguments(data_dir=data_dir, cache_dir=home), 1, said.append)
    return said


def test_early_stopping_counts_evaluations_without_gain(settings, monkeypatch) -> None:
    from fpt.training import validation

    scores = iter([0.5, 0.6, 0.55, 0.6, 0.4] + [0.6] * 5)
    monkeypatch.setattr(validation, "score", lambda self, split: {"auprc": next(scores), "accuracy": 0.5})
    results = run(*settings(max_steps=40, eval_steps=4, early_stopping_patience=2))
    assert (results.steps, results.best_step, results.stopped_early) == (16, 8, True)


def test_two_runs_with_one_seed_are_the_same_and_another_seed_is_not(settings, tmp_path: Path) -> None:
    def trainable(name: str, seed: int) -> str:
        run(*settings(output_dir=str(tmp_path / name), seed=seed, split_seed=1))
        return sha256_file(tmp_path / name / "checkpoint" / "model.safetensors")

    assert trainable("a", 1) == trainable("b", 1) != trainable("c", 2)


@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation_steps": 2}, {"augment": 3, "per_device_batch_size": 64}])
def test_a_continued_run_ends_bitwise_where_an_uninterrupted_one_does(settings, tmp_path: Path, changes, monkeypatch) -> None:
    from fpt.training import Run, resume

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = run(*settings(output_dir=str(whole), save_steps=3, **changes))

    save, seen = resume.save_state, []

    def stop_after_two(self: Run) -> None:
        save(self)
        seen.append(self.progress.step)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resume, "save_state", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            run(*settings(output_dir=str(parts), save_steps=3, **changes))
    assert seen == [3, 6]
    results = run(*settings(output_dir=str(parts), save_steps=3, resume=True, **changes))
    for name in ("checkpoint/model.safetensors", "state/step-00000012/state.safetensors"):
        first, second = load_file(whole / name), load_file(parts / name)
        assert set(first) == set(second)
        assert all(torch.equal(first[n], second[n]) for n in first), name
    assert results.metrics == expected.metrics
    assert results.history == expected.history


def test_a_folder_with_a_run_is_refused_and_kept(settings, finished: Path, llama_dir: Path, gpt2_dir: Path) -> None:
    before = sha256_file(finished / "results.json")
    with pytest.raises(FPTError, match="already holds a run"):
        run(*settings())
    with pytest.raises(FPTError, match="was started with --backbone"):
        run(*settings(resume=True, backbone=str(gpt2_dir)))
    with pytest.raises(FPTError, match="did you mean"):
        run(*settings(overwrite=True, dataset="cyp3a5"))
    with pytest.raises(FPTError, match="can't be reached"):
        run(*settings(overwrite=True, backbone="gpt2"))
    assert sha256_file(finished / "results.json") == before


def test_overwrite_deletes_the_run_and_nothing_else(settings, finished: Path) -> None:
    (finished / "notes.txt").write_text("mine")
    run(*settings(overwrite=True, max_steps=4))
    assert json.loads((finished / "results.json").read_text())["steps"] == 4
    assert (finished / "notes.txt").read_text() == "mine"


def test_resume_without_a_run_says_so(settings) -> None:
    with pytest.raises(FPTError, match="holds no run"):
        run(*settings(resume=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 0}, "--max_steps 0 must be at least 1"),
        ({"learning_rate": -1.0}, "--learning_rate"),
        ({"lr_scheduler": "cosinus"}, "--lr_scheduler 'cosinus'"),
        ({"report_to": "paper"}, "--report_to 'paper'"),
        ({"mixed_precision": "fp7"}, "fp7"),
        ({"learning_rate": 1e30, "max_grad_norm": 0.0}, "not finite; start again with a lower --learning_rate"),
        ({"core_dtype": "int3"}, "--core_dtype 'int3'"),
        ({"max_length": 2}, "--max_length 2"),
    ],
)
def test_bad_arguments_are_one_line(settings, changes: dict, message: str) -> None:
    with pytest.raises(FPTError, match=message) as error:
        run(*settings(**changes))
    assert "\n" not in str(error.value)


def test_the_checkpoint_is_small_and_readable(finished: Path) -> None:
    folder = finished / "checkpoint"
    assert {p.name for p in folder.iterdir()} >= {"model.safetensors", "config.json", "tokenizer.json", "README.md"}
    assert not [p for p in finished.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".pth")]
    tensors = load_file(folder / "model.safetensors")
    assert not [n for n in tensors if "attn" in n or "mlp" in n]
    config = read_config(folder)
    assert config.output.label_names == ("non-inhibitor", "inhibitor")
    assert config.core.sha256
    card = (folder / "README.md").read_text()
    # The configuration has neither the folder of the data nor that of the run; only the backbone's is needed.
    told = {**config.to_dict(), "core": {}}
    assert str(finished.parent) not in json.dumps(told)
    assert card.startswith("---\nlibrary_name: fpt\n")
    assert config.core.sha256 in card
    # The Hub reads base_model as the id of a page: a folder is none.
    assert "base_model" not in card
    assert "\nbase_model: user/core\n" in model_card(replace(config, core=replace(config.core, hub_id="user/core")))


def test_evaluate_gives_the_runs_scores(finished: Path, capsys) -> None:
    results = json.loads((finished / "results.json").read_text())
    for split in ("valid", "test"):
        evaluate(finished, split=split, output=str(finished.parent / f"{split}.json"))
        again = json.loads((finished.parent / f"{split}.json").read_text())["metrics"][split]
        for name, value in results["metrics"][split].items():
            assert again[name] == pytest.approx(value, abs=1e-6)
    assert "auprc" in capsys.readouterr().out


def test_scores_do_not_depend_on_the_batch_size(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    evaluate(finished, eval_batch_size=7, output=str(finished.parent / "x.json"))
    again = json.loads((finished.parent / "x.json").read_text())["metrics"]["test"]
    assert again["loss"] == pytest.approx(results["metrics"]["test"]["loss"], abs=1e-5)


def test_save_full_needs_no_core(settings, tmp_path: Path, monkeypatch) -> None:
    run(*settings(save_full=True))
    trainable, tokenizer, _ = load_checkpoint(tmp_path / "run" / "checkpoint")
    monkeypatch.setattr("fpt.checkpoint.load.load_backbone", lambda *a: pytest.fail("the backbone was loaded"))
    full, _, _ = load_checkpoint(tmp_path / "run" / "full")
    ids = torch.randint(0, len(tokenizer), (2, 9))
    assert torch.equal(trainable(ids, torch.ones_like(ids)), full(ids, torch.ones_like(ids)))


def test_predict_keeps_every_row_and_says_what_could_not_be_read(finished: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "mine.csv", tmp_path / "out.csv"
    file.write_text('name,smiles\na,c1ccccc1Cl\n"b, ""quoted""",not a molecule\nc,\nd,CCO\n')
    evaluate(finished, predict=str(file), output=str(out))
    rows = list(csv.DictReader(out.open()))
    assert [r["name"] for r in rows] == ["a", 'b, "quoted"', "c", "d"]
    assert [r["reason"] for r in rows] == ["", "invalid SMILES", "empty SMILES", ""]
    assert [bool(r["prediction"]) for r in rows] == [True, False, False, True]
    assert rows[1]["probability_inhibitor"] == ""
    for row in (rows[0], rows[3]):
        p = [float(row["probability_non-inhibitor"]), float(row["probability_inhibitor"])]
        assert sum(p) == pytest.approx(1, abs=1e-6)
        assert row["prediction"] == ["non-inhibitor", "inhibitor"][int(np.argmax(p))]


def test_predictions_are_those_of_the_model_on_each_row_alone(finished: Path, tmp_path: Path) -> None:
    texts = [s for s, _ in molecules()[:9]] + ["C" * 40]
    (tmp_path / "in.csv").write_text("smiles\n" + "\n".join(texts) + "\n")
    evaluate(finished, predict=str(tmp_path / "in.csv"), output=str(tmp_path / "out.csv"))
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    model, tokenizer, _ = load_checkpoint(finished / "checkpoint")
    for text, row in zip(texts, rows, strict=True):
        ids = torch.tensor([tokenizer(Chem.CanonSmiles(text))["input_ids"]])
        expected = model(ids, torch.ones_like(ids)).detach().softmax(-1)[0, 1]
        assert float(row["probability_inhibitor"]) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", None, "can't be read as a table"),
        ("smiles\n", None, "no rows"),
        ("a,b\n1,2\n", None, "Give --column, one of a, b"),
        ("smiles,b\nC,2\n", "smile", "no column 'smile' .did you mean 'smiles'"),
        ('smiles\n"C\n', None, "can't be read as a table"),
    ],
)
def test_a_bad_prediction_file_is_refused_and_nothing_is_written(finished, tmp_path, text, column, message) -> None:
    (tmp_path / "in.csv").write_text(text)
    with pytest.raises(FPTError, match=message):
        evaluate(finished, predict=str(tmp_path / "in.csv"), column=column, output=str(tmp_path / "out.csv"))
    assert not (tmp_path / "out.csv").exists()


def test_prediction_never_replaces_what_the_user_has(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text("\ufeffsmiles\nCCO\n", encoding="utf-8")
    with pytest.raises(FPTError, match="is the file to predict"):
        evaluate(finished, predict=str(file), output=str(file))
    evaluate(finished, predict=str(file), output=str(tmp_path / "out.csv"))
    with pytest.raises(FPTError, match="has the column 'prediction'"):
        evaluate(finished, predict=str(tmp_path / "out.csv"), output=str(tmp_path / "again.csv"))


def test_evaluating_on_other_data_is_refused(finished: Path, tmp_path: Path) -> None:
    other = write_tdc(tmp_path / "other", molecules()[20:])
    with pytest.raises(FPTError, match="is not what the checkpoint was trained on"):
        evaluate(finished, data_dir=str(other))


def damage_truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def damage_value(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["readout.bias"] += 1
    save_file(tensors, folder / "model.safetensors")


def damage_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"C"', '"Q"'))


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text()[:-20])


def damage_keys(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def damage_missing(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_truncate, "truncated or was changed"),
        (damage_value, "truncated or was changed"),
        (damage_tokenizer, "tokenizer.json is truncated or was changed"),
        (damage_config, "can't be read"),
        (damage_keys, "lacks task, input, output"),
        (damage_missing, "has no tokenizer.json"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(finished: Path, damage, message: str) -> None:
    damage(finished / "checkpoint")
    with pytest.raises(FPTError, match=message) as error:
        evaluate(finished)
    assert "\n" not in str(error.value)


def rewrite(folder: Path, tensors: dict[str, torch.Tensor] | None = None, **backbone) -> None:
    """Change a checkpoint and make its hashes agree, as somebody who builds one by hand would."""
    config = json.loads((folder / "config.json").read_text())
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors")
        config["model_sha256"] = sha256_file(folder / "model.safetensors")
    config["core"] |= backbone
    (folder / "config.json").write_text(json.dumps(config))


def test_a_checkpoint_of_another_core_or_shape_is_refused(finished: Path, gpt2_dir: Path) -> None:
    folder = finished / "checkpoint"
    tensors = load_file(folder / "model.safetensors")
    rewrite(folder, {**tensors, "core.norm.weight": torch.ones(5)})
    with pytest.raises(FPTError, match=r"core.norm.weight has shape \(5,\), this backbone needs \(32,\)"):
        evaluate(finished)
    rewrite(folder, {n: t for n, t in tensors.items() if n != "readout.bias"})
    with pytest.raises(FPTError, match=r"lacks 1 tensors of this backbone, the first one readout\.bias"):
        evaluate(finished)
    rewrite(folder, tensors, name=str(gpt2_dir), num_layers=2)
    with pytest.raises(FPTError, match=r"gpt2.* lacks \d+ tensors of this backbone"):
        evaluate(finished)


def test_a_random_core_comes_back_from_its_seed(settings, tmp_path: Path, llama_dir: Path) -> None:
    run(*settings(backbone=f"random:{llama_dir}", backbone_seed=7))
    config = read_config(tmp_path / "run" / "checkpoint")
    assert config.core.seed == 7
    evaluate(tmp_path / "run")
    rewrite(tmp_path / "run" / "checkpoint", seed=8)
    with pytest.raises(FPTError, match="has other weights"):
        evaluate(tmp_path / "run")


def test_no_checkpoint_says_what_to_give(tmp_path: Path, finished: Path) -> None:
    with pytest.raises(FPTError, match="is not there"):
        evaluate(tmp_path / "nope")
    with pytest.raises(FPTError, match="is no checkpoint"):
        evaluate(tmp_path)
    with pytest.raises(FPTError, match="unknown --split 'tests'"):
        evaluate(finished, split="tests")
    with pytest.raises(FPTError, match="--predict needs --output"):
        evaluate(finished, predict="x.csv")


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_precision_is_kept_for_the_evaluation(settings, tmp_path: Path, precision: str) -> None:
    results = run(*settings(mixed_precision=precision, core_dtype="bf16" if precision == "bf16" else "fp32", save_full=True))
    for name in ("checkpoint", "full"):
        evaluate(tmp_path / "run" / name, output=str(tmp_path / "x.json"))
        again = json.loads((tmp_path / "x.json").read_text())["metrics"]["test"]
        assert again == pytest.approx(results.metrics["test"], abs=1e-6)


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_trackers_write_locally(settings, tmp_path: Path, tracker: str, monkeypatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run(*settings(report_to=tracker, max_steps=4))
    pattern = {"tensorboard": "*tfevents*", "wandb": "run-*.wandb"}[tracker]
    assert list((tmp_path / "run" / "logs").rglob(pattern))
    monkeypatch.delenv("WANDB_MODE", raising=False)


def test_a_failed_write_leaves_the_old_version(tmp_path: Path) -> None:
    target = tmp_path / "thing"
    with new_folder(target) as folder:
        write_text(folder / "a", "old")
    with pytest.raises(RuntimeError), new_folder(target) as folder:
        write_text(folder / "a", "new")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_metrics_are_the_textbooks() -> None:
    labels = np.array([0, 1, 1, 0])
    p = np.array([0.1, 0.9, 0.4, 0.6])
    metrics = classification_metrics(labels, np.stack([1 - p, p], axis=1))
    assert metrics["accuracy"] == 0.5
    assert metrics["auroc"] == 0.75
    assert metrics["auprc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert metrics["loss"] == pytest.approx(-np.mean(np.log([0.9, 0.9, 0.4, 0.4])))
    one_class = classification_metrics(np.zeros(4, int), np.stack([1 - p, p], axis=1))
    assert one_class["auroc"] is None
    assert "-" in score_table({"test": one_class})


def test_every_output_of_a_run_is_known_to_overwrite(settings, finished: Path) -> None:
    assert {p.name for p in finished.iterdir()} <= {*OUTPUTS, LOCK}

"""Molecules that are written as other SMILES: anew in each epoch of training, and several times for a prediction."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem
from test_sides import molecules, train

import fpt
from fpt.args import DataArguments
from fpt.cli import read_training, refuse_unread
from fpt.data.cache import prepare
from fpt.errors import FPTError
from fpt.evaluation.arguments import EvaluateArguments
from fpt.evaluation.run import run as evaluate
from fpt.flags.unread import unread_flags
from fpt.tasks.base import TASKS
from fpt.tasks.text import Smiles
from fpt.text.log import silent


def prepared(folder: Path, **data):
    args = DataArguments(dataset=f"csv:{molecules(folder)}", cache_dir=str(folder / "cache"), split="random", **data)
    args.given_options = {"input_type": "smiles"}
    return prepare(TASKS[args.dataset], args, 1, silent)


def test_each_epoch_writes_another_smiles_of_the_same_molecule(tmp_path: Path) -> None:
    found = prepared(tmp_path, augment_each_epoch=True)
    plain, samples = found.samples("train"), found.train_samples(3)
    assert len(samples) == len(plain)
    read = {}
    for epoch in range(3):
        samples.start_epoch(epoch)
        read[epoch] = [
            "".join(found.tokenizer.convert_ids_to_tokens(ids["input_ids"])[1:-1])
            for ids in samples.__getitems__(list(range(20)))
        ]
    texts = found.splits["train"]["text"][:20]
    for written in read.values():
        known = [(smiles, text) for smiles, text in zip(written, texts, strict=True) if "UNK" not in smiles]
        assert len(known) > 10
        assert all(Chem.CanonSmiles(smiles) == Chem.CanonSmiles(text) for smiles, text in known)
    assert read[0] != read[1] != read[2]
    again = found.train_samples(3)
    again.start_epoch(1)
    # One at a time, as on several processes, the same.
    assert [again[i]["input_ids"].tolist() for i in range(5)] == [s["input_ids"].tolist() for s in _epoch(samples, 1)[:5]]


def _epoch(samples, epoch: int) -> list[dict]:
    samples.start_epoch(epoch)
    return samples.__getitems__(list(range(20)))


def test_any_seed_decides_how_a_molecule_is_written() -> None:
    for seed in (0, 1, 2**31, 2**40):
        once, again = (Smiles().variants("CC(=O)Nc1ccccc1Cl", 4, seed) for _ in range(2))
        assert once == again and len(set(once)) > 1


def test_the_cache_is_that_of_plain_molecules_and_sides_follow_the_atoms(tmp_path: Path) -> None:
    plain = prepared(tmp_path, environments=1, side_buckets=64)
    anew = prepared(tmp_path, environments=1, side_buckets=64, augment_each_epoch=True)
    assert plain.manifest == anew.manifest
    samples = anew.train_samples(1)
    samples.start_epoch(0)
    for one, other in zip(plain.samples("train").__getitems__([0, 1, 2]), samples.__getitems__([0, 1, 2]), strict=True):
        before, after = (np.asarray(s["input_ids"]).reshape(-1, 3) for s in (one, other))
        assert sorted(before[before[:, 1] > 0, 1:].tolist()) == sorted(after[after[:, 1] > 0, 1:].tolist())


def test_a_prediction_is_the_mean_over_several_smiles(tmp_path: Path, llama_dir: Path) -> None:
    train(tmp_path, llama_dir, {"split_seed": 1, "augment_each_epoch": True}, {}, {"max_steps": 20})
    (tmp_path / "in.csv").write_text("smiles\nCC(=O)Nc1ccccc1Cl\nnothing\nCCO\n")
    asked = {"predict": str(tmp_path / "in.csv"), "output": str(tmp_path / "out.csv")}
    evaluate(EvaluateArguments([str(tmp_path / "run")], **asked, test_time_augment=4))
    many = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    one = fpt.load(str(tmp_path / "run")).predict(["CC(=O)Nc1ccccc1Cl", "CCO"])
    assert many["prediction"][1] == "" and "invalid SMILES" in many["reason"][1]
    assert float(many["probability_yes"][0]) != pytest.approx(one[0]["probabilities"]["yes"], abs=1e-6)
    again = fpt.load(str(tmp_path / "run")).predict(["CCO", "CC(=O)Nc1ccccc1Cl"], test_time_augment=4)
    assert again[1]["probabilities"]["yes"] == pytest.approx(float(many["probability_yes"][0]), abs=1e-5)
    assert again[0]["probabilities"]["yes"] == pytest.approx(float(many["probability_yes"][2]), abs=1e-5)
    scored = {"cache_dir": str(tmp_path / "cache"), "output": str(tmp_path / "scores.json")}
    evaluate(EvaluateArguments([str(tmp_path / "run")], **scored, test_time_augment=2))
    found = json.loads((tmp_path / "scores.json").read_text())
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["test_time_augment"] == 2
    assert found["metrics"]["test"]["loss"] != pytest.approx(results["metrics"]["test"]["loss"], abs=1e-6)


def test_what_has_no_smiles_is_refused(tmp_path: Path, llama_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FPTError, match="--augment_each_epoch is not read"):
        refuse_unread(unread_flags(read_training("--dataset mnist --augment_each_epoch".split())))
    file = tmp_path / "numbers.csv"
    file.write_text("a,b,label\n" + "\n".join(f"{i},{i % 7},{'x' if i % 2 else 'y'}" for i in range(60)) + "\n")
    from fpt.args import ModelArguments, TrainArguments
    from fpt.training import run

    data = DataArguments(dataset=f"csv:{file}", split="random")
    data.given_options = {"input_type": "numbers"}
    run(data, ModelArguments(backbone=str(llama_dir)), TrainArguments(max_steps=1, output_dir=str(tmp_path / "run")))
    with pytest.raises(FPTError, match="only SMILES can be written in several ways"):
        evaluate(EvaluateArguments([str(tmp_path / "run")], predict=str(file), output="o.csv", test_time_augment=1))

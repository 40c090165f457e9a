"""Baselines: the same data, the same loop and the same results as the frozen transformer."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import molecules, write_tdc
from PIL import Image
from rdkit import Chem
from test_modalities import write_speech
from transformers import ASTConfig, ASTForAudioClassification

from fpt.args import DataArguments, ModelArguments, TrainArguments
from fpt.errors import FPTError
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.models.base import MODELS
from fpt.models.mat import ATOM_FEATURES, FAR, Graphs, MatNetwork, MatOptions, atom_features, graph_features
from fpt.tasks.images import patches, unpatch
from fpt.training import run

SMALL = {
    "mat": {"mat_width": 32, "mat_layers": 2, "mat_heads": 4},
    "ast": {"ast_width": 32, "ast_layers": 2, "ast_heads": 2},
    "vit": {"vit_width": 32, "vit_layers": 2, "vit_heads": 2},
}


def groups(model: str, dataset: str, data_dir: Path, output: Path, options: dict | None = None, **changes):
    data = DataArguments(dataset=dataset, data_dir=str(data_dir), num_proc=1)
    made = ModelArguments(model=model)
    made.given_options = {**SMALL.get(model, {}), **(options or {})}
    training = TrainArguments(
        output_dir=str(output), max_steps=30, eval_steps=10, warmup_steps=2, learning_rate=3e-3, max_grad_norm=1.0
    )
    for name, value in changes.items():
        setattr(next(g for g in (data, made, training) if hasattr(g, name)), name, value)
    return data, made, training


# MAT against the numbers of the paper's code.


def test_atoms_have_the_features_of_the_published_code() -> None:
    # What https://github.com/ardigen/MAT gives for these atoms: the places of the ones.
    known = {
        "C[N+](C)(C)CC([O-])=O": {0: [1, 12, 20, 23], 1: [2, 15, 17, 24], 6: [3, 12, 17, 22]},
        "[Na+].[Cl-]": {0: [10, 11, 17, 24], 1: [7, 11, 17, 22]},
        "c1ccsc1": {0: [1, 13, 18, 23, 25, 26], 3: [6, 13, 17, 23, 25, 26]},
    }
    for smiles, atoms in known.items():
        molecule = Chem.MolFromSmiles(smiles)
        for index, places in atoms.items():
            features = np.array(atom_features(molecule.GetAtomWithIdx(index)))
            assert features.shape == (27,)
            assert features.nonzero()[0].tolist() == places


def test_a_molecule_has_bonds_distances_and_a_dummy() -> None:
    graph = graph_features("CCO")
    assert graph.shape == (4, ATOM_FEATURES + 8)
    assert graph[0, :ATOM_FEATURES].tolist() == [1.0] + [0.0] * 27
    bonds, distances = graph[:, ATOM_FEATURES : ATOM_FEATURES + 4], graph[:, ATOM_FEATURES + 4 :]
    assert bonds.tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    assert (distances[0] == FAR).all()
    assert distances[1, 2] == pytest.approx(1.52, abs=0.05)  # Å, a C-C bond
    assert distances[2, 3] == pytest.approx(1.42, abs=0.05)  # C-O
    assert np.array_equal(graph, graph_features("CCO"))


def test_a_molecule_that_can_not_be_embedded_is_flat_and_has_no_hydrogens() -> None:
    graph = graph_features("[Na+].[Cl-]")
    assert len(graph) == 3
    assert np.isfinite(graph).all()


def toy_graph(count: int) -> np.ndarray:
    """A chain of atoms 1.5 Å apart."""
    features = np.sin(np.arange(count * ATOM_FEATURES)).reshape(count, ATOM_FEATURES).round(2)
    chain = np.eye(count) + np.eye(count, k=1) + np.eye(count, k=-1)
    distances = 1.5 * abs(np.subtract.outer(np.arange(count), np.arange(count)))
    return np.hstack([features, chain, distances]).astype(np.float32).ravel()


def test_the_network_gives_the_logits_of_the_published_code() -> None:
    network = MatNetwork(MatOptions(**SMALL["mat"]), 2, 0.0).eval()
    with torch.no_grad():
        for number, (name, parameter) in enumerate(network.named_parameters()):
            wave = torch.arange(parameter.numel()).view(parameter.shape) * 0.37 + number
            parameter.copy_(wave.sin() * 0.2 + ("norm" in name and "weight" in name))
        logits = network(*Graphs().pad([toy_graph(4), toy_graph(3)]))
    # From https://github.com/ardigen/MAT (N=2, d_model=32, h=4, N_dense=1, kernel exp) with the same weights.
    expected = [[0.5213671922683716, -0.0008196234703063965], [0.5127149820327759, -0.008359163999557495]]
    assert torch.allclose(logits, torch.tensor(expected), atol=1e-6)


def test_padding_changes_no_prediction_of_mat() -> None:
    torch.manual_seed(0)
    network = MODELS["mat"].network(Graphs(), type("Two", (), {"size": 2}), MatOptions(**SMALL["mat"]), {}, 0.0)
    alone = network(*Graphs().pad([toy_graph(3)]))
    beside = network(*Graphs().pad([toy_graph(9), toy_graph(3)]))[1:]
    assert torch.allclose(alone, beside, atol=1e-6)


def write_bars(folder: Path) -> Path:
    """CIFAR-10 of bright bars: where the bar is says the class."""
    rng = np.random.default_rng(0)
    (folder / "cifar10" / "plain_text").mkdir(parents=True)
    for part, count in (("train", 200), ("test", 20)):
        files = []
        for number in range(count):
            picture = rng.integers(0, 100, (32, 32, 3), dtype=np.uint8)
            picture[:, 3 * (number % 10) : 3 * (number % 10) + 3] += 150
            out = io.BytesIO()
            Image.fromarray(picture).save(out, "png")
            files.append({"bytes": out.getvalue(), "path": None})
        table = pa.table({"img": files, "label": [number % 10 for number in range(count)]})
        pq.write_table(table, folder / "cifar10" / "plain_text" / f"{part}-00000-of-00001.parquet")
    return folder


def test_patches_become_the_picture_again() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    cut = patches(picture, 4)
    assert np.array_equal(unpatch(cut, 8, 12, 3, 4), picture)
    assert np.array_equal(unpatch(cut.ravel(), 8, 12, 3, 4), picture)
    batch = torch.from_numpy(np.stack([cut, cut[::-1].copy()]))
    assert np.array_equal(unpatch(batch, 8, 12, 3, 4)[0].numpy(), picture)


# Each baseline from raw data to a score, and back from its checkpoint.


@pytest.mark.parametrize(
    ("model", "dataset", "least", "changes"),
    [
        ("mat", "cyp3a4", 0.8, {"max_steps": 60, "eval_steps": 20}),
        ("ast", "speech-commands", 0.9, {}),
        ("vit", "cifar10", 0.3, {"max_steps": 60, "eval_steps": 20}),
        ("cnn", "cifar10", 0.3, {"max_steps": 20, "learning_rate": 1e-3}),
    ],
)
def test_a_network_learns_and_is_scored_again(model: str, dataset: str, least: float, changes: dict, tmp_path: Path) -> None:
    write = {"cyp3a4": lambda f: write_tdc(f, molecules()), "speech-commands": write_speech, "cifar10": write_bars}
    raw = write[dataset](tmp_path / "raw")
    results = run(*groups(model, dataset, raw, tmp_path / "run", **changes))
    assert (results.model, results.core.name) == (model, model)
    assert results.trainable_parameters == results.total_parameters
    assert results.metrics["test"]["accuracy"] > least
    evaluate = EvaluateArguments(checkpoint=str(tmp_path / "run"), data_dir=str(raw), output=str(tmp_path / "again.json"))
    evaluation.run(evaluate)
    again = json.loads((tmp_path / "again.json").read_text())["metrics"]["test"]
    assert again == pytest.approx(results.metrics["test"], abs=1e-6)
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert (table.label.astype(str) == table.prediction.astype(str)).mean() == pytest.approx(results.metrics["test"]["accuracy"])


def test_ast_starts_from_a_checkpoint_that_is_not_needed_again(tmp_path: Path) -> None:
    config = ASTConfig(
        **{"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48},
        **{"max_length": 128, "num_mel_bins": 64, "num_labels": 7},
    )
    ASTForAudioClassification(config).save_pretrained(tmp_path / "trained")
    raw = write_speech(tmp_path / "raw")
    data, made, training = groups("ast", "speech-commands", raw, tmp_path / "run", {"ast_checkpoint": str(tmp_path / "trained")})
    with pytest.raises(FPTError, match="--ast_checkpoint reads 64 bands, not 80; give --num_mels 64"):
        run(data, made, training)
    data.given_options = {"num_mels": 64}
    results = run(data, made, training)
    shutil.rmtree(tmp_path / "trained")
    evaluate = EvaluateArguments(checkpoint=str(tmp_path / "run"), data_dir=str(raw), output=str(tmp_path / "again.json"))
    evaluation.run(evaluate)
    again = json.loads((tmp_path / "again.json").read_text())["metrics"]["test"]
    assert again == pytest.approx(results.metrics["test"], abs=1e-6)
    made.given_options["ast_checkpoint"] = str(tmp_path / "nothing")
    training.output_dir = str(tmp_path / "other")
    with pytest.raises(FPTError, match=r"--ast_checkpoint .*nothing"):
        run(data, made, training)


@pytest.mark.parametrize(("estimator", "setting"), [("boosting", "trees"), ("linear", "C")])
def test_fingerprints_find_halogens(estimator: str, setting: str, data_dir: Path, tmp_path: Path) -> None:
    results = run(*groups("morgan", "cyp3a4", data_dir, tmp_path / "run", {"estimator": estimator}))
    assert results.core.name == "morgan"
    assert results.metrics["test"]["auprc"] > 0.9
    best = max(results.history, key=lambda h: h["valid"]["auprc"])
    assert results.chosen == {"estimator": estimator, setting: best[setting]}
    assert results.metrics["valid"] == best["valid"]


def test_molecules_of_a_users_own_file_and_a_number(tmp_path: Path) -> None:
    rows = [(smiles, len(smiles)) for smiles, _ in molecules()[::2]]
    file = tmp_path / "mine.csv"
    file.write_text("smiles,y\n" + "\n".join(f"{s},{y + 0.5}" for s, y in rows) + "\n")
    for model in ("mat", "morgan"):
        data, made, training = groups(model, f"csv:{file}", tmp_path, tmp_path / model)
        data.data_dir = None
        data.given_options = {"input_type": "smiles", "input_column": "smiles", "label_column": "y"}
        results = run(data, made, training)
        assert results.metrics["test"]["mae"] < 4
    evaluate = EvaluateArguments(
        checkpoint=str(tmp_path / "mat"), predict=str(file), column="smiles", output=str(tmp_path / "out.csv")
    )
    evaluation.run(evaluate)
    out = pd.read_csv(tmp_path / "out.csv")
    assert np.abs(out.prediction - out.y).mean() < 4


def test_full_tunes_every_weight(data_dir: Path, llama_dir: Path, tmp_path: Path) -> None:
    results = run(*groups("full", "cyp3a4", data_dir, tmp_path / "run", backbone=str(llama_dir), max_steps=4, eval_steps=4))
    assert results.model == "full"
    assert results.trainable_parameters == results.total_parameters
    assert {"attn", "ff", "other"} <= {*results.tuning.parts}


def test_lstm_is_trained_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fpt.tasks.base.GeneratedTask.sizes", {"train": 96, "valid": 64, "test": 64})
    data, made, training = groups("lstm", "bit-xor", tmp_path, tmp_path / "run", max_steps=6, eval_steps=6)
    data.data_dir = None
    results = run(data, made, training)
    assert (results.model, results.core.name) == ("lstm", "lstm")
    assert results.trainable_parameters == results.total_parameters > 10_000_000
    again = EvaluateArguments(checkpoint=str(tmp_path / "run"), output=str(tmp_path / "again.json"))
    evaluation.run(again)
    scores = json.loads((tmp_path / "again.json").read_text())["metrics"]["test"]
    assert scores == pytest.approx(results.metrics["test"], abs=1e-6)


def test_a_baseline_goes_on_where_it_was_stopped(data_dir: Path, tmp_path: Path) -> None:
    whole = run(*groups("mat", "cyp3a4", data_dir, tmp_path / "whole"))
    parts = tmp_path / "parts"
    run(*groups("mat", "cyp3a4", data_dir, parts, keep_last=9, dropout=0.0))
    for step in (20, 30):
        for file in (parts / "state" / f"step-{step:08d}").iterdir():
            file.unlink()
        (parts / "state" / f"step-{step:08d}").rmdir()
    (parts / "results.json").unlink()
    again = run(*groups("mat", "cyp3a4", data_dir, parts, resume=True))
    assert [h["train_loss"] for h in again.history] == [h["train_loss"] for h in whole.history]


@pytest.mark.parametrize(
    ("model", "dataset", "changes", "message"),
    [
        ("mat", "bit-xor", {}, "--model mat reads molecules; bit-xor has no SMILES"),
        ("morgan", "bit-xor", {}, "--model morgan reads molecules; bit-xor has no SMILES"),
        ("ast", "cyp3a4", {}, "--model ast reads log-mel spectrograms; cyp3a4 has none"),
        ("vit", "cyp3a4", {}, "--model vit reads pictures; cyp3a4 has none"),
        ("mat", "cyp3a4", {"backbone": "smollm2"}, "--backbone is for a frozen backbone; --model mat has none"),
        ("mat", "cyp3a4", {"options": {"mat_heads": 5}}, "--mat_heads 5 must divide --mat_width 32"),
        ("mat", "cyp3a4", {"tokenizer": "bpe"}, "--tokenizer bpe: cyp3a4 is made of numbers"),
        ("full", "cyp3a4", {"tune": "lora"}, "--model full stands for --tune full; leave --tune lora out"),
        ("lstm", "cyp3a4", {"backbone": "bert"}, "--model lstm stands for --backbone lstm; leave --backbone bert out"),
        ("morgan", "cyp3a4", {"options": {"estimator": "magic"}}, "unknown --estimator 'magic'; known: boosting, linear"),
        ("mut", "cyp3a4", {}, "unknown model 'mut' \\(did you mean 'mat'"),
    ],
)
def test_what_does_not_go_together_is_one_line(model, dataset, changes, message, data_dir: Path, tmp_path: Path) -> None:
    data, made, training = groups(model, dataset, data_dir, tmp_path / "run", **changes)
    data.data_dir = str(data_dir) if dataset == "cyp3a4" else None
    with pytest.raises(FPTError, match=message):
        run(data, made, training)
    assert not (tmp_path / "run" / "results.json").exists()

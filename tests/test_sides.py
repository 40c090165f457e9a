"""Tokens that carry more than their ids: Morgan environments of atoms, k-mers of residues; and readouts of all tokens."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import Chem

import fpt
from fpt.args import DataArguments, ModelArguments, TrainArguments
from fpt.cli import read_training, refuse_unread
from fpt.data.tokenizers import PIECES, build_tokenizer
from fpt.errors import FPTError
from fpt.evaluation.arguments import EvaluateArguments
from fpt.evaluation.run import run as evaluate
from fpt.flags.unread import unread_flags
from fpt.models.pooling import Pooling
from fpt.side_tokens import SideTokens
from fpt.tasks.sides import encode_tokens, environments, is_atom, kmers
from fpt.training import run

MOLECULES = [
    "CCO",
    "c1ccccc1O",
    "CC(=O)Oc1ccccc1C(=O)O",
    "C[C@H](N)C(=O)O",
    "[Na+].[Cl-]",
    "Clc1ccccc1Br",
    "C[Se]C",
    "O=S(=O)(N)C",
]


def pieces(smiles: str) -> list[str]:
    return [piece for piece, _ in PIECES["atom"].pre_tokenize_str(smiles)]


def of_atoms(smiles: str, radius: int = 2) -> list[list[int]]:
    return [
        own
        for own, piece in zip(environments(smiles, pieces(smiles), radius, 4096), pieces(smiles), strict=True)
        if is_atom(piece)
    ]


@pytest.mark.parametrize("smiles", MOLECULES)
def test_environments_are_those_of_the_atom_however_the_smiles_is_written(smiles: str) -> None:
    molecule = Chem.MolFromSmiles(smiles)
    wanted = of_atoms(smiles)
    rng = random.Random(1)
    for _ in range(5):
        order = list(range(molecule.GetNumAtoms()))
        rng.shuffle(order)
        written = Chem.MolToSmiles(Chem.RenumberAtoms(molecule, order), canonical=False)
        assert sorted(of_atoms(written)) == sorted(wanted)
    # Radius 0 is the atom, and larger ones tell more atoms apart.
    assert len({tuple(own) for own in wanted}) >= len({own[0] for own in wanted})


def test_environments_stand_at_atoms_alone() -> None:
    smiles = "CC(=O)[O-].[Na+]"
    found = environments(smiles, pieces(smiles), 1, 64)
    for piece, own in zip(pieces(smiles), found, strict=True):
        assert (own[0] > 0) == is_atom(piece)
    assert found[-1][1] == 0  # an ion without bonds has no larger environment
    assert max(max(own) for own in found) <= 64


def test_explicit_hydrogens_change_no_environment_of_their_neighbours() -> None:
    plain, explicit = of_atoms("CO"), of_atoms("[H]C([H])([H])O")
    assert [own for own in explicit if any(own)] == plain
    assert sum(not any(own) for own in explicit) == 3


def test_what_does_not_match_its_atoms_is_refused() -> None:
    with pytest.raises(ValueError, match="its atoms are not the tokens of its SMILES"):
        environments("CCO", ["C", "C"], 2, 64)


def test_kmers_are_the_letters_around_a_residue() -> None:
    one, two = kmers(list("MKVLA"), 3, 1 << 20), kmers(list("GKVLT"), 3, 1 << 20)
    assert one[2] == two[2]
    assert one[0] != two[0]
    assert [a == b for a, b in zip(one, two, strict=True)] == [False, False, True, False, False]


def encoded(texts: list[str], **arguments) -> tuple:
    args = DataArguments(tokenizer="atom", environments=1, **arguments)
    tokenizer = build_tokenizer(MOLECULES, args)
    return encode_tokens(texts, tokenizer, args), tokenizer


def test_each_token_is_followed_by_its_sides() -> None:
    found, tokenizer = encoded(["CCO"], max_length=100)
    rows = np.asarray(found.inputs[0]).reshape(-1, 3)
    assert rows[:, 0].tolist() == found.ids[0] == tokenizer("CCO")["input_ids"]
    assert not rows[0, 1:].any()
    assert not rows[-1, 1:].any()
    assert (rows[1:-1, 1:] > 0).all()


def test_tokens_of_atoms_alone() -> None:
    every, tokenizer = encoded(["CC(=O)Cl"], max_length=100)
    atoms, _ = encoded(["CC(=O)Cl"], max_length=100, tokens="atoms")
    assert tokenizer.convert_ids_to_tokens(atoms.ids[0]) == ["[BOS]", "C", "C", "O", "Cl", "[EOS]"]
    assert len(every.ids[0]) == len(atoms.ids[0]) + 3


def test_a_long_molecule_is_cut_with_its_sides_and_counted() -> None:
    found, _ = encoded(["CCCCCCCCCC"], max_length=6)
    assert found.cut == [True]
    assert len(found.ids[0]) == 6
    assert len(found.inputs[0]) == 18


def test_an_unknown_atom_keeps_its_environments() -> None:
    found, tokenizer = encoded(["C[Te]C"], max_length=100)
    rows = np.asarray(found.inputs[0]).reshape(-1, 3)
    assert found.ids[0].count(tokenizer.unk_token_id) == 1
    assert (rows[1:4, 1:] > 0).all()


def test_padding_and_the_embedding() -> None:
    inputs = SideTokens(vocab_size=9, pad_id=0, sides=2, buckets=8, width=4)
    module = inputs.module(16).eval()
    values, mask = inputs.pad([np.array([3, 1, 2, 4, 0, 0]), np.array([5, 8, 0])])
    assert values.shape == (2, 2, 3)
    assert mask.tolist() == [[1, 1], [1, 0]]
    states = module(values)
    torch.testing.assert_close(states[0, 1], module.tokens.weight[4] + module.mix.bias)
    first = torch.cat([module.table.weight[0], module.table.weight[8 + 1]])
    torch.testing.assert_close(states[0, 0], module.tokens.weight[3] + module.mix(first))


def test_sides_are_left_out_in_training_alone() -> None:
    module = SideTokens(vocab_size=9, pad_id=0, sides=2, buckets=8, width=4, dropout=0.5).module(16)
    values = torch.tensor([[[3, 1, 2]] * 50])
    assert len(module.train()(values)[0].unique(dim=0)) == 4
    assert len(module.eval()(values)[0].unique(dim=0)) == 1


@pytest.mark.parametrize("changes", [{"sides": 0}, {"buckets": 0}, {"width": 10**6}, {"dropout": 1.0}, {"sides": 65}])
def test_impossible_sides_are_refused(changes: dict) -> None:
    with pytest.raises(ValueError, match="is not"):
        SideTokens(**{"vocab_size": 9, "pad_id": 0, **changes})


def test_mean_and_attention_ignore_padding() -> None:
    states, mask = torch.randn(2, 4, 8), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    mean = Pooling("mean", 1, 8)
    torch.testing.assert_close(mean(states, mask)[1, 0], states[1, :2].mean(dim=0))
    attention = Pooling("attention", 1, 8)
    weights = attention.score(states[1, :2]).softmax(dim=0)
    torch.testing.assert_close(attention(states, mask)[1, 0], (weights * states[1, :2]).sum(dim=0))
    assert mean.positions(mask).tolist() == [[0, 1, 2, 3]] * 2
    assert Pooling("last", 1, 8).positions(mask).tolist() == [[3], [1]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPT_HOME", str(tmp_path / "home"))


def molecules(folder: Path) -> Path:
    rng = random.Random(0)
    parts = ["C", "N", "O", "c1ccccc1", "CC", "C(=O)N", "S"]
    rows = []
    for _ in range(120):
        chain = [rng.choice(parts) for _ in range(rng.randint(2, 6))]
        if label := rng.random() < 0.5:
            chain.append("Cl")
        rows.append({"smiles": "".join(chain), "label": "yes" if label else "no"})
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "mine.csv", index=False)
    return folder / "mine.csv"


def train(folder: Path, backbone: Path, data: dict, model: dict, training: dict) -> None:
    given = DataArguments(dataset=f"csv:{molecules(folder)}", cache_dir=str(folder / "cache"), split="random", **data)
    given.given_options = {"input_type": "smiles"}
    settings = {
        "max_steps": 40,
        "eval_steps": 20,
        "per_device_batch_size": 16,
        "learning_rate": 3e-3,
        "output_dir": str(folder / "run"),
    }
    run(given, ModelArguments(backbone=str(backbone), **model), TrainArguments(**{**settings, **training}))


@pytest.mark.parametrize("readout", ["last", "mean", "attention"])
def test_a_run_is_scored_again_and_predicts(
    tmp_path: Path, llama_dir: Path, readout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FPT_HOME", str(tmp_path / "home"))
    data = {"environments": 2, "tokens": "atoms", "side_buckets": 128}
    train(tmp_path, llama_dir, data, {"readout": readout, "side_width": 8, "side_dropout": 0.1}, {})
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    evaluate(
        EvaluateArguments(
            checkpoint=str(tmp_path / "run"), output=str(tmp_path / "again.json"), cache_dir=str(tmp_path / "cache")
        )
    )
    assert json.loads((tmp_path / "again.json").read_text())["metrics"]["test"] == pytest.approx(results["metrics"]["test"])
    config = json.loads((tmp_path / "run" / "checkpoint" / "config.json").read_text())
    assert (config["input"]["kind"], config["input"]["sides"], config["tuning"]["readout"]) == ("side_tokens", 3, readout)
    one, two, bad = fpt.load(str(tmp_path / "run")).predict(["CCCl", "ClCC", "C(("])
    assert one["probabilities"] == pytest.approx(two["probabilities"])  # one molecule, written in two ways
    assert bad["prediction"] is None
    # A model that reads other sides than it was trained with is refused.
    config["data"]["arguments"]["environments"] = 1
    (tmp_path / "run" / "checkpoint" / "config.json").write_text(json.dumps(config))
    with pytest.raises(FPTError, match="contradict each other about what a token carries"):
        fpt.load(str(tmp_path / "run"))


def test_runs_side_by_side_are_as_each_alone(tmp_path: Path, llama_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPT_HOME", str(tmp_path / "home"))
    data = {"environments": 1, "side_buckets": 64, "split_seed": 1}
    model = {"readout": "mean", "side_width": 8, "side_dropout": 0.2}
    train(tmp_path, llama_dir, data, model, {"seeds": "1,2", "output_dir": str(tmp_path / "both"), "max_steps": 20})
    train(tmp_path, llama_dir, data, model, {"seed": 2, "output_dir": str(tmp_path / "alone"), "max_steps": 20})
    both, alone = (json.loads((tmp_path / name / "results.json").read_text())["history"] for name in ("both/seed-2", "alone"))
    assert [one["train_loss"] for one in both] == pytest.approx([one["train_loss"] for one in alone], abs=1e-4)


def test_sides_need_the_tokenizer_that_cuts_them(tmp_path: Path, llama_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPT_HOME", str(tmp_path / "home"))
    with pytest.raises(FPTError, match="--environments needs --tokenizer atom"):
        train(tmp_path, llama_dir, {"environments": 2, "tokenizer": "bpe"}, {}, {})
    assert not (tmp_path / "run").exists() or not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--dataset mnist --environments 2", "--environments"),
        ("--dataset cyp3a4 --tokens atoms", "--tokens"),
        ("--dataset cyp3a4 --kmers 3", "--kmers"),
        ("--dataset cyp3a4 --side_width 8", "--side_width"),
        ("--dataset cyp3a4 --environments 2 --model morgan", "--environments"),
        ("--dataset cyp3a4 --environments 2 --model mat", "--environments"),
    ],
)
def test_flags_that_nothing_reads_are_refused(words: str, why: str) -> None:
    with pytest.raises(FPTError, match=why):
        refuse_unread(unread_flags(read_training(words.split())))

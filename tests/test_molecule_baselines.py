"""What a chemist would compare with: fingerprints, counts and descriptors with classical models."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Descriptors
from test_baselines import groups

from fpt.args import ModelArguments
from fpt.cli import parse_training, read_training, refuse_unread
from fpt.errors import FPTError, UsageError
from fpt.flags.unread import unread_flags
from fpt.models.base import MODELS
from fpt.models.estimators import ESTIMATORS, Problem
from fpt.models.molecule_features import Features, read_features
from fpt.models.morgan import MorganOptions
from fpt.optional import missing
from fpt.report.runs import row_name
from fpt.results import read_results
from fpt.tasks.molecules import BITS, descriptors, fingerprints
from fpt.training import run

# A peptide of 35 residues, whose Ipc is about 1e60, and a metal without BCUT2D.
PEPTIDE = "C[C@H](N)C(=O)" + "N[C@@H](C)C(=O)" * 34 + "O"
METAL = "[Cu+2].[Cl-].[Cl-]"


def test_counts_say_how_often_and_bits_whether() -> None:
    smiles = ["CCO", "CCCCCCCCO"]
    bits, counts = fingerprints(smiles), fingerprints(smiles, counts=True)
    assert bits.shape == counts.shape == (2, BITS)
    assert ((counts > 0) == bits).all() and counts.max() > 1 == bits.max()


def test_descriptors_are_rdkits_and_nan_where_there_is_none() -> None:
    names = [name for name, _ in Descriptors.descList]
    found = descriptors(["CCO", METAL, PEPTIDE])
    assert found.shape == (3, len(names)) and not np.isinf(found).any()
    assert found[0, names.index("MolWt")] == pytest.approx(Descriptors.MolWt(Chem.MolFromSmiles("CCO")))
    assert not np.isnan(found[0]).any()
    assert np.isnan(found[1, names.index("BCUT2D_MWHI")])
    assert found[0, names.index("Ipc")] == pytest.approx(np.log1p(Descriptors.Ipc(Chem.MolFromSmiles("CCO"))))
    assert found[2, names.index("Ipc")] < 1000


def test_molecules_with_values_left_out_are_counted() -> None:
    lines: list[str] = []
    splits = {"train": ["CCO", METAL], "valid": ["CC"], "test": ["C"]}
    found = read_features("counts+descriptors", splits, 1, lines.append)
    assert found.descriptors == BITS and found.splits["train"].shape[0] == 2
    odd = sum(np.isnan(rows).any(axis=1).sum() for rows in found.splits.values())
    assert odd and f"{odd} of 4 molecules have some without a finite value" in lines[0]


@pytest.mark.slow
def test_several_processes_give_what_one_does() -> None:
    splits = {"train": ["C" * n + "O" for n in range(1, 41)] * 40, "valid": ["CN"], "test": ["CS"]}
    one, two = (read_features("descriptors", splits, n, print) for n in (1, 2))
    for name, rows in one.splits.items():
        np.testing.assert_array_equal(rows, two.splits[name])


def test_linear_models_get_standardised_descriptors_and_fingerprints_as_they_are() -> None:
    rng = np.random.default_rng(0)
    train = np.column_stack([rng.integers(0, 2, 101), 1000 + 50 * rng.normal(size=101), np.full(101, np.nan)])
    train[0, 1] = np.nan
    odd = np.array([[1, np.nan, np.nan], [0, 1e30, 3.0]])
    found = Features({"train": train, "test": odd}, 1).for_linear_models()
    np.testing.assert_array_equal(found["train"][:, 0], train[:, 0])
    assert found["train"][:, 1].mean() == pytest.approx(0, abs=1e-9) and found["train"][:, 1].std() == pytest.approx(1)
    assert found["test"][0, 1] == found["train"][0, 1] == pytest.approx(np.median(found["train"][1:, 1]))
    assert found["test"][1, 1] == 10 and np.isfinite(found["test"]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("features", "estimator"), [("counts+descriptors", "boosting"), ("descriptors", "linear")])
def test_features_find_halogens(features: str, estimator: str, data_dir: Path, tmp_path: Path) -> None:
    options = {"morgan_features": features, "estimator": estimator, "trees": 15}
    results = run(*groups("morgan", "cyp3a4", data_dir, tmp_path / "run", options))
    assert results.metrics["test"]["auprc"] > 0.9
    tried = [{k: v for k, v in h.items() if k != "valid"} for h in results.history]
    if estimator == "boosting":
        assert tried == [{"trees": trees, "rate": rate} for rate in (0.05, 0.1) for trees in (10, 15)]
    best = max(results.history, key=lambda h: h["valid"]["auprc"])
    assert results.chosen == {
        "estimator": estimator,
        "features": features,
        **{k: v for k, v in best.items() if k != "valid"},
    }
    assert row_name(read_results(tmp_path / "run")) == f"morgan ({estimator}, {features})"


def test_bits_keep_their_one_rate_unless_others_are_asked_for() -> None:
    assert MorganOptions().rates() == (0.1,)
    assert MorganOptions(morgan_features="counts").rates() == (0.05, 0.1)
    assert MorganOptions(tree_rates="0.3,0.2").rates() == (0.3, 0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"morgan_features": "bit"}, "unknown --morgan_features 'bit' (did you mean 'bits'"),
        ({"trees": 0}, "--trees 0 must be at least 1"),
        ({"tree_rates": "fast"}, "--tree_rates 'fast' must be numbers separated by commas: 0.05,0.1"),
        ({"tree_rates": "0.1,0.1"}, "names a number twice"),
    ],
)
def test_wrong_options_are_one_line(options: dict, message: str) -> None:
    with pytest.raises(FPTError, match=re.escape(message)):
        MorganOptions(**options)


def test_trees_are_not_read_by_a_linear_model(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "train.py --dataset cyp3a4 --model morgan --trees 50 --tree_rates 0.2"
    monkeypatch.setattr(sys, "argv", words.split())
    _, model, _ = parse_training("")
    assert (model.given_options["trees"], model.given_options["tree_rates"]) == (50, "0.2")
    monkeypatch.setattr(sys, "argv", [*words.split(), "--estimator", "linear"])
    with pytest.raises(UsageError, match="--trees, --tree_rates are not read: --estimator linear has no trees"):
        parse_training("")


@pytest.mark.parametrize("package", ["lightgbm", "catboost"])
@pytest.mark.parametrize("number", [False, True])
def test_other_packages_boost_as_well(package: str, number: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing(package):
        pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    splits = {name: rng.normal(size=(200, 5)) for name in ("train", "valid", "test")}
    splits["valid"][0, 3] = np.nan
    score = splits["train"][:, 0]
    problem = Problem(Features(splits, 0), score if number else (score > 0).astype(int), number, 1, 25, (0.1, 0.3))
    tried = list(ESTIMATORS[package](problem))
    assert [setting for setting, _ in tried] == [{"trees": t, "rate": r} for r in (0.1, 0.3) for t in (10, 20, 25)]
    found = tried[-1][1]["test"]
    assert found.shape == ((200,) if number else (200, 2))
    truth = splits["test"][:, 0]
    assert np.corrcoef(found if number else found[:, 1], truth)[0, 1] > 0.7
    # More trees are another model.
    assert np.abs(tried[0][1]["test"] - tried[1][1]["test"]).max() > 0.01
    assert not os.listdir(tmp_path)


def hide(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it look as if a package was not installed."""
    monkeypatch.setattr("fpt.optional._broken", {})
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("package", ["lightgbm", "catboost"])
def test_a_missing_package_of_an_estimator_is_one_line(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(package, monkeypatch)
    args = ModelArguments(model="morgan")
    args.given_options = {"estimator": package}
    expected = f"--estimator {package} needs the package {package}, which is not installed; pip install 'fpt[{package}]'"
    with pytest.raises(FPTError, match=re.escape(expected)):
        MODELS["morgan"].check(args)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            "--dataset cyp3a4 --model morgan",
            "unknown argument '--features': it is for sounds; the features of .* --morgan_features",
        ),
        (
            "--dataset tdc/hERG --model morgan",
            "unknown argument '--features': .* --model morgan reads are named by --morgan_features",
        ),
        (
            "--dataset csv:x.csv --input_type smiles --model morgan",
            "--features is not read: it is for sounds; the features of molecules that --model morgan reads are named by"
            " --morgan_features",
        ),
        ("--dataset csv:x.csv --model morgan", "--features is not read: it is for sounds; the features .* --morgan_features"),
        (
            "--dataset cyp3a4",
            "unknown argument '--features': it is for sounds; numbers .* by --sample_vector, .* --morgan_features",
        ),
        ("--dataset csv:x.csv --input_type smiles", "--features is not read: it is for sounds; numbers .* by --sample_vector"),
        ("--dataset csv:x.csv", r"--features is not read: it is for sound; csv:x\.csv is read as text"),
    ],
)
def test_features_of_molecules_are_not_those_of_sounds(words: str, why: str) -> None:
    with pytest.raises(FPTError, match=why):
        refuse_unread(unread_flags(read_training(f"{words} --features counts+descriptors".split())))

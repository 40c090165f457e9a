"""Samples that carry a vector of numbers as their first token; averaged weights, smoothed labels, and no backbone at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_sides import train

import fpt
from fpt.args import DataArguments, ModelArguments, TrainArguments
from fpt.backbones.base import BackboneSpec
from fpt.backbones.loading import load_backbone
from fpt.cli import read_training, refuse_unread
from fpt.data.batches import collate, fed
from fpt.errors import FPTError
from fpt.evaluation.arguments import EvaluateArguments
from fpt.evaluation.run import run as evaluate
from fpt.flags.unread import unread_flags
from fpt.inputs import Tokens, input_from_dict
from fpt.models.fpt import build_model
from fpt.models.frozen import tuning_of
from fpt.models.tuning import Tuning
from fpt.outputs import Bits, Classes
from fpt.sample_vectors import SampleVector, VectorToken, measured
from fpt.tasks.molecules import BITS, plain_numbers, vectors
from fpt.training import run
from fpt.training.averaging import Average

OUTPUT = Classes(("no", "yes"))


def test_a_vector_is_standardised_on_train_and_has_no_holes() -> None:
    rng = np.random.default_rng(0)
    train = np.stack([rng.integers(0, 3, 50), 1000 + 50 * rng.normal(size=50), np.full(50, 7.0)], axis=1).astype(np.float32)
    train[0, 1] = np.nan
    found = measured(lambda: [train[:20], train[20:]], 1)
    assert (found.plain, found.dim) == (1, 3)
    assert found.mean[0] == pytest.approx(np.nanmean(train[:, 1]), rel=1e-5)
    assert found.std == pytest.approx((np.nanstd(train[:, 1]), 1.0), rel=1e-4)
    token = VectorToken(found, 3)
    with torch.no_grad():
        token.layer.weight.copy_(torch.eye(3))
        token.layer.bias.zero_()
    given = torch.tensor([[2.0, found.mean[0] + found.std[0], 7.0], [0.0, np.nan, 1e30]])
    torch.testing.assert_close(token(given)[:, 0], torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 10.0]]), atol=1e-4, rtol=0)


def test_counts_are_logarithms_and_descriptors_follow() -> None:
    found = vectors(["CCO", "c1ccccc1"], "counts+descriptors")
    assert found.shape[0] == 2 and found.shape[1] > BITS + 100
    assert np.expm1(found[1, :BITS]).max() == pytest.approx(6)  # six alike carbons
    assert (plain_numbers("counts+descriptors"), plain_numbers("descriptors")) == (BITS, 0)
    np.testing.assert_array_equal(vectors(["CCO"], "descriptors")[0], found[0, BITS:])


@pytest.mark.parametrize(
    "changes", [{"plain": 0}, {"mean": (1.0,)}, {"mean": (1.0,), "std": (0.0,)}, {"dropout": 1.0}, {"length": 0.0}]
)
def test_impossible_vectors_are_refused(changes: dict) -> None:
    with pytest.raises(ValueError):
        SampleVector(**{"plain": 4, **changes})


def test_a_vector_is_the_first_token_of_its_sample(llama_dir: Path) -> None:
    inputs = Tokens(9, 0, vector=SampleVector(2, (1.0,), (2.0,)))
    assert input_from_dict(inputs.to_dict()) == inputs
    assert "vector" not in Tokens(9, 0).to_dict()
    samples = [{"input_ids": np.array(ids), "vector": np.arange(3.0), "label": 1} for ids in ([1, 2, 3], [4])]
    batch = collate(samples, inputs, OUTPUT)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    model = build_model(load_backbone(BackboneSpec(str(llama_dir))), inputs, OUTPUT, Tuning(readout="mean")).eval()
    states = model.embed(batch["inputs"], batch["vector"])
    torch.testing.assert_close(states[:, :1], model.vector(batch["vector"]))
    whole = model(*fed(batch))
    one = collate(samples[1:], inputs, OUTPUT)
    torch.testing.assert_close(model(*fed(one)), whole[1:])
    with torch.no_grad():
        model.vector.layer.weight.add_(1.0)
    assert not torch.allclose(model(*fed(batch)), whole)
    assert "vector.layer.weight" in model.trainable_parameters()


@pytest.mark.parametrize("readout", ["last", "attention"])
def test_a_run_with_vectors_is_scored_again_and_predicts(
    tmp_path: Path, llama_dir: Path, readout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"sample_vector": "counts+descriptors", "environments": 1, "side_buckets": 64}
    train(tmp_path, llama_dir, data, {"readout": readout, "side_dropout": 0.2}, {"ema": 0.9, "label_smoothing": 0.05})
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    again = tmp_path / "again.json"
    evaluate(EvaluateArguments([str(tmp_path / "run")], output=str(again), cache_dir=str(tmp_path / "cache")))
    assert json.loads(again.read_text())["metrics"]["test"] == pytest.approx(results["metrics"]["test"])
    predictor = fpt.load(str(tmp_path / "run"))
    one, two, bad = predictor.predict(["CCCl", "ClCC", "C(("])
    assert one["probabilities"] == pytest.approx(two["probabilities"], abs=1e-6)
    assert bad["prediction"] is None
    # Another rdkit may have other descriptors.
    monkeypatch.setattr("fpt.tasks.text.vectors", lambda texts, kind: vectors(texts, kind)[:, :-1])
    with pytest.raises(FPTError, match=r"the model was trained on vectors of [\d,]+ numbers, the rdkit .* computes"):
        predictor.predict(["CCCl"])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--dataset mnist --sample_vector counts", "--sample_vector is not read: it is for SMILES; mnist has none"),
        ("--dataset cyp3a4 --model morgan --sample_vector counts", "--sample_vector is not read: --model morgan"),
        ("--dataset cyp3a4 --model mat --sample_vector counts", "--sample_vector is not read: --model mat"),
        ("--dataset cyp3a4 --sample_vector counts --side_width 8", "--side_width is not read"),
        ("--dataset cyp3a4 --side_dropout 0.1", "--side_dropout is not read"),
        ("--dataset cyp3a4 --sample_vector bits", "bits"),
        ("--dataset cyp3a4 --backbone none --num_layers 2", "--num_layers is not read: --backbone none has no layers"),
        (
            "--dataset cyp3a4 --backbone none:bert --core_dtype bf16",
            "--core_dtype is not read: --backbone none:bert has no layers",
        ),
    ],
)
def test_flags_that_nothing_reads_are_refused(words: str, why: str) -> None:
    with pytest.raises(FPTError, match=why):
        refuse_unread(unread_flags(read_training(words.split())))


def test_the_average_follows_the_weights_and_gives_them_back() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    average = Average(dict(layer.named_parameters()), 0.5)
    before = layer.weight.item()
    with torch.no_grad():
        layer.weight.fill_(before + 8)
    average.update(1000)
    with average.applied():
        assert layer.weight.item() == pytest.approx(before + 4)
    assert layer.weight.item() == pytest.approx(before + 8)
    average.update(1)  # at the start the decay is (1 + 1) / (10 + 1)
    assert average.means["weight"].item() == pytest.approx(before + 4 + 4 * 9 / 11)


def test_averaged_runs_go_on_as_if_never_stopped(tmp_path: Path, llama_dir: Path) -> None:
    data, model = {"split_seed": 1}, {}
    train(tmp_path, llama_dir, data, model, {"ema": 0.9, "keep_last": 2})
    whole = json.loads((tmp_path / "run" / "results.json").read_text())
    train(tmp_path, llama_dir, data, model, {"output_dir": str(tmp_path / "plain")})
    plain = json.loads((tmp_path / "plain" / "results.json").read_text())
    assert plain["history"][0]["train_loss"] == pytest.approx(whole["history"][0]["train_loss"])
    assert plain["history"][0]["valid"] != whole["history"][0]["valid"]
    (tmp_path / "run" / "results.json").unlink()
    for file in sorted((tmp_path / "run" / "state").glob("step-00000040/*")):
        file.unlink()
    (tmp_path / "run" / "state" / "step-00000040").rmdir()
    train(tmp_path, llama_dir, data, model, {"ema": 0.9, "keep_last": 2, "resume": True})
    again = json.loads((tmp_path / "run" / "results.json").read_text())
    assert again["history"] == whole["history"]
    assert again["metrics"] == whole["metrics"]


def test_smoothing_is_for_classes(tmp_path: Path) -> None:
    logits, labels = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    plain, smooth = OUTPUT.loss(logits, labels), OUTPUT.smoothed_loss(logits, labels, 0.2)
    assert smooth.item() == pytest.approx(0.9 * plain.item() + 0.1 * (plain.item() + 2))
    training = TrainArguments(label_smoothing=0.1, max_steps=1, output_dir=str(tmp_path / "run"))
    with pytest.raises(FPTError, match="--label_smoothing softens classes; the labels of bit-xor are of another kind"):
        run(DataArguments(dataset="bit-xor"), ModelArguments(backbone="none"), training)


@pytest.mark.parametrize("name", ["none", "none:random:smollm2", "none:bert"])
def test_no_backbone_reads_the_mean_of_its_input(name: str) -> None:
    width = load_backbone(BackboneSpec("none")).hidden_size
    assert width == 768
    tuning = tuning_of(ModelArguments(backbone=name), OUTPUT)
    assert tuning.readout == "mean"
    assert tuning_of(ModelArguments(backbone=name), Bits(1, tokens=5)).readout == "last"
    assert tuning_of(ModelArguments(backbone=name, readout="last"), OUTPUT).readout == "last"


def test_a_control_without_a_backbone_is_trained_scored_and_loaded(tmp_path: Path, llama_dir: Path) -> None:
    train(tmp_path, Path("none"), {"environments": 0, "side_buckets": 64}, {}, {"seeds": "1,2"})
    train(tmp_path, Path(f"none:{llama_dir}"), {}, {}, {"output_dir": str(tmp_path / "narrow")})
    results = json.loads((tmp_path / "run" / "seed-1" / "results.json").read_text())
    assert (results["core"]["name"], results["core"]["num_layers"], results["tuning"]["readout"]) == ("none", None, "mean")
    assert results["metrics"]["test"]["auroc"] > 0.9  # whether a molecule has chlorine needs no order of tokens
    narrow = json.loads((tmp_path / "narrow" / "results.json").read_text())
    assert narrow["total_parameters"] < results["total_parameters"]
    found = fpt.load(str(tmp_path / "run" / "seed-1")).predict(["CCCl", "CCCC"])
    assert [one["prediction"] for one in found] == ["yes", "no"]
    with pytest.raises(FPTError, match="--num_layers 2: there is no backbone that could have them"):
        train(tmp_path, Path("none"), {}, {"num_layers": 2}, {"output_dir": str(tmp_path / "other")})


def test_a_vector_belongs_to_the_data_of_a_checkpoint() -> None:
    assert DataArguments(sample_vector="counts").sample_vector == "counts"
    with pytest.raises(FPTError, match="sample_vector"):
        DataArguments(sample_vector="ecfp")

"""Scores that rank know ties, labels keep their digits, and a score is printed with digits that say something."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from fpt.data.batches import SortedBatchSampler
from fpt.data.prepared import Prepared
from fpt.evaluation.predict import predict_split, resolution_of
from fpt.inputs import Patches
from fpt.metrics import classification_metrics, is_better, regression_metrics, score_table, shown_metric, shown_spread, tied
from fpt.outputs import Classes, MultiLabel, Output, Value
from fpt.text.table import plain_table

TWO = Classes(("inactive", "active"))
EPOCH = 1_700_000_000.0


# Ties.


@pytest.mark.parametrize("offset", [0.0, 0.123455, -3.00005, 1e-5, 40.0, -700.0])
def test_scores_within_the_resolution_are_ties_wherever_they_are(offset: float) -> None:
    noise = np.random.default_rng(0).normal(scale=1e-7, size=1000) * max(1, abs(offset))
    assert set(tied(offset + noise)) == {0}


def test_ties_keep_the_order_of_the_rest() -> None:
    assert tied(np.array([0.3, -2.0, 0.3 + 1e-7, 5.0, 0.3001])).tolist() == [1, 0, 1, 3, 2]
    assert tied(np.array([])).tolist() == []
    assert tied(np.array([1.0])).tolist() == [0]
    # A long row of scores, each near the next one, is not one group.
    dense = tied(np.linspace(0, 1, 1_000_001))
    assert dense[0] == 0
    assert 7e4 < dense[-1] < 9e4
    assert (np.diff(dense) >= 0).all()
    assert tied(np.linspace(0, 1, 11), 0.0).tolist() == list(range(11))


def test_nan_is_not_ranked() -> None:
    with pytest.raises(ValueError, match="nan"):
        tied(np.array([0.0, math.nan]))
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"NaN|finite|inf"):
            classification_metrics(np.array([0, 1]), np.array([[0.5, 0.5], [bad, 1 - bad]]))
        with pytest.raises(ValueError, match=r"NaN|finite|inf"):
            regression_metrics(np.array([0.0, 1.0]), np.array([0.0, bad]))
        with pytest.raises(ValueError, match="finite"):
            MultiLabel(("a", "b")).metrics(np.eye(2), np.array([[0.5, bad], [0.1, 0.1]]))


def test_scores_without_ties_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 500)
    logits = torch.as_tensor(rng.normal(size=(500, 2)) + 0.5 * labels[:, None] * [0, 1])
    found, p = TWO.metrics(labels, TWO.predict(logits).numpy()), logits.softmax(-1).numpy()[:, 1]
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, p), abs=1e-4)
    assert found["auprc"] == pytest.approx(average_precision_score(labels, p), abs=1e-4)


def test_probabilities_of_a_confident_model_are_ranked() -> None:
    # 1e-12 against 1e-13, and 1 less as little: as probabilities they are the same to eight digits.
    logits = torch.tensor([[0.0, -30.0], [0.0, -29.0], [0.0, 30.0], [0.0, 31.0], [0.0, 2000.0], [0.0, -2000.0]])
    p = TWO.predict(logits).numpy()
    assert (p[4:] == [[0, 1], [1, 0]]).all()
    assert TWO.metrics(np.array([0, 1, 0, 1, 1, 0]), p)["auroc"] == pytest.approx(8 / 9)
    assert TWO.metrics(np.array([0, 1, 1, 1, 1, 0]), p)["auroc"] == 1.0
    assert float(TWO.cells(p[0])[2]) == pytest.approx(p[0, 1], rel=1e-6)


def test_constant_numbers_have_no_correlation() -> None:
    labels = EPOCH + np.arange(100.0)
    output = Value(float(labels.mean()), float(labels.std()))
    # Noise that grows with the label: the rank correlation of the plain numbers is 1.
    logits = torch.as_tensor(0.3 + 1e-8 * np.arange(100))[:, None]
    found = output.metrics(labels, output.predict(logits).numpy())
    assert found["spearman"] is found["pearson"] is None
    assert found["r2"] is not None
    assert found["r2"] < 0
    other = output.metrics(labels, output.predict(torch.as_tensor((labels - output.mean) / output.std)[:, None]).numpy())
    assert other["spearman"] == pytest.approx(1)
    assert other["r2"] == pytest.approx(1)
    # Its own labels give the scale where there is no other.
    assert regression_metrics(labels, np.full(100, EPOCH))["spearman"] is None
    assert regression_metrics(labels * 1e-18, labels * 1e-18)["spearman"] == pytest.approx(1)


# A model that answers the same for every sample.


class Constant(nn.Module):
    """Gives every sample the same logits, but for noise that depends on the batch."""

    def __init__(self, size: int = 2, noise: float = 1e-8) -> None:
        super().__init__()
        self.size, self.noise, self.calls = size, noise, 0
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        logits = torch.full((len(inputs), self.size), 0.7, dtype=torch.float64)
        logits[:, -1] += self.noise * self.calls
        return logits


class Tiny(nn.Module):
    """A small network in fp32 whose readout has weights of zero and a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.readout = nn.Linear(3, 64), nn.Linear(64, 2)
        nn.init.zeros_(self.readout.weight)

    def forward(self, inputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = torch.tanh(self.body(inputs)) * mask[..., None]
        return self.readout(states.sum(1) / mask.sum(1, keepdim=True))


def rows_of(labels: list, lengths: list[int], start: int = 0) -> Dataset:
    rng = np.random.default_rng(start)
    values = [rng.normal(size=3 * n).tolist() for n in lengths]
    return Dataset.from_dict({"id": [str(i) for i in range(len(labels))], "label": labels, "length": lengths, "values": values})


def prepared_of(rows: Dataset, output: Output) -> Prepared:
    return Prepared(SimpleNamespace(name="own"), None, {"test": rows}, Patches(3), output, None, {}, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("lengths", [[4] * 200, [*range(1, 101), *range(1, 101)]])
@pytest.mark.parametrize("model", [Constant(), Tiny()], ids=["noise", "network"])
def test_a_constant_model_knows_nothing_of_rows_in_the_order_of_their_class(model: nn.Module, lengths: list[int]) -> None:
    rows = rows_of([0] * 100 + [1] * 100, lengths)
    accelerator = Accelerator(cpu=True)
    predictions, labels = predict_split(model, prepared_of(rows, TWO), "test", 16, accelerator)
    assert labels.tolist() == [0] * 100 + [1] * 100
    found = TWO.metrics(labels, predictions, resolution_of(model, accelerator))
    assert found["auroc"] == 0.5
    assert found["auprc"] == 0.5


def test_noise_above_the_resolution_knows_nothing_of_the_class_either() -> None:
    rows = rows_of([0] * 500 + [1] * 500, [4] * 1000)
    predictions, labels = predict_split(Constant(noise=0.1), prepared_of(rows, TWO), "test", 16, Accelerator(cpu=True))
    assert TWO.metrics(labels, predictions)["auroc"] == pytest.approx(0.5, abs=0.06)


def test_a_batch_mixes_rows_of_one_length_the_same_way_on_any_number_of_processes() -> None:
    lengths = np.array([5, 9] * 150)
    one = SortedBatchSampler(lengths, 10).batches
    assert [lengths[i] for batch in one for i in batch] == [9] * 150 + [5] * 150
    assert all(min(b) < 150 < max(b) for b in one)
    parts = [SortedBatchSampler(lengths, 10, rank, 3) for rank in range(3)]
    assert [part.batches[n] for n in range(10) for part in parts] == one
    assert SortedBatchSampler(lengths, 10).batches == one


def test_coarser_weights_have_a_coarser_resolution() -> None:
    accelerator = Accelerator(cpu=True)
    fine, coarse = resolution_of(nn.Linear(2, 2), accelerator), resolution_of(nn.Linear(2, 2).bfloat16(), accelerator)
    assert fine == 1e-5
    assert coarse == 2e-2
    assert resolution_of(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).half()), accelerator) == 2.5e-3
    backbone_only = SimpleNamespace(mixed_precision="no", backbone_precision="bf16", device=torch.device("cpu"))
    assert resolution_of(nn.Linear(2, 2), backbone_only) == coarse  # type: ignore[arg-type]


# Which is better, and how it is printed.


def test_every_score_has_its_direction() -> None:
    for metric in ("auroc", "auprc", "f1", "exact", "accuracy", "r2", "spearman", "pearson"):
        assert is_better(metric, 0.9, 0.8)
        assert not is_better(metric, 0.8, 0.9)
    for metric in ("loss", "mae", "rmse"):
        assert is_better(metric, 0.8, 0.9)
        assert not is_better(metric, 0.9, 0.8)
    assert is_better("auroc", 0.1, math.nan)
    assert is_better("loss", 0.1, None)
    assert not is_better("loss", math.nan, 0.1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0.0000"),
        (0.12345, "0.1235"),
        (-12.5, "-12.5000"),
        (1e-9, "1e-09"),
        (3.21987e-10, "3.22e-10"),
        (0.00052, "0.00052"),
        (1234567.8, "1.235e+06"),
        (math.nan, "nan"),
    ],
)
def test_a_score_is_printed_with_digits(value: float | None, text: str) -> None:
    assert shown_metric(value) == text


def test_plain_tables_are_aligned_and_get_wider() -> None:
    rows = [["a", "1", "2", ""], ["longest name", "1,000,000", "3", "does not fit"]]
    assert plain_table(["row", "x", "y"], rows, [5, 4, 4]) == (
        "row                  x   y\na                    1   2\nlongest name 1,000,000   3  does not fit"
    )


def test_spreads_and_tables_are_printed_with_digits() -> None:
    assert shown_spread(0.8679, 0.0008) == "0.8679 ± 0.0008"
    assert shown_spread(0.8679, 0.0) == "0.8679 ± 0.0000"
    assert shown_spread(0.8679, 2.94e-5) == "0.8679 ± 2.9e-05"
    assert shown_spread(1e-9, 2.5e-10) == "1e-09 ± 2.5e-10"
    assert shown_spread(0.5, None) == "0.5000 ± -"
    lines = score_table({"valid": {"mae": 1e-9, "r2": -1.2345678e9}, "test": {"mae": None, "r2": 0.5}}).splitlines()
    assert lines[1].split() == ["valid", "1e-09", "-1.235e+09"]
    assert lines[2].split() == ["test", "-", "0.5000"]
    assert len({len(line) for line in lines}) == 1

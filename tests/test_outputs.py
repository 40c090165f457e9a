"""Labels keep their digits from the row to the file, and each kind of output is scored, written and described."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from test_scores import EPOCH, TWO, prepared_of
from torch import nn

from fpt.data.samples import ArrowSamples, numbers
from fpt.errors import FPTError
from fpt.evaluation.predict import predict, predict_split, prediction_table
from fpt.inputs import Patches
from fpt.metrics import constant
from fpt.outputs import Bits, Classes, MultiLabel, Value, output_from_dict

# Numbers.


class Copy(nn.Module):
    """Predicts the first value of the first token."""

    def forward(self, inputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return inputs[:, 0, :1]


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (EPOCH, 10.0), (3e-9, 1e-9), (-5e11, 1e9), (1e4, 1e-3)])
def test_numbers_keep_their_digits_from_the_row_to_the_file(mean: float, std: float) -> None:
    rng = np.random.default_rng(0)
    true = mean + std * rng.normal(size=40)
    output = Value(float(true.mean()), float(true.std()))
    z = (true - output.mean) / output.std
    off = rng.normal(size=40) * 0.1
    values = [[a + b, 0.0, 0.0] for a, b in zip(z, off, strict=True)]
    rows = Dataset.from_dict({"id": [str(i) for i in range(40)], "label": true, "length": [1] * 40, "values": values})
    assert numbers(rows, "label").tolist() == true.tolist()
    prepared = prepared_of(rows, output)
    predictions, labels = predict_split(Copy(), prepared, "test", 7, Accelerator(cpu=True))
    assert labels.dtype == np.float64
    assert labels.tolist() == true.tolist()
    found = output.metrics(labels, predictions)
    assert found["mae"] == pytest.approx(np.abs(off).mean() * output.std, rel=1e-5)
    assert found["loss"] == pytest.approx((off**2).mean(), rel=1e-5)
    written = prediction_table(prepared, "test", [predictions], labels)
    assert [float(text) for text in written.label] == true.tolist()
    assert np.abs(written.prediction.astype(float) - predictions[:, 0]).max() < 1e-7 * output.std
    # What the network learns from has the digits too.
    batch = output.labels([row["label"] for row in ArrowSamples(rows, Patches(3)).__getitems__(list(range(40)))])
    assert batch.dtype == torch.float32
    assert np.abs(batch.numpy() - z).max() < 1e-6
    assert float(output.loss(torch.as_tensor(z + off, dtype=torch.float32)[:, None], batch)) == pytest.approx(
        (off**2).mean(), rel=1e-4
    )


@pytest.mark.parametrize(
    ("output", "number", "text"),
    [
        (Value(EPOCH, 10.0), 1700000010.3, "1700000010.3"),
        (Value(0.0, 1e-9), 3.2e-9, "3.2e-09"),
        (Value(5.0, 2.9), 6.0, "6"),
        (Value(5.0, 2.9), 0.1 + 0.2, "0.3"),
        (Value(0.0, 1.0), -0.25, "-0.25"),
        (Value(1e12, 1e9), 1234567890123.0, "1234567890100"),
    ],
)
def test_a_prediction_has_the_digits_of_the_deviation(output: Value, number: float, text: str) -> None:
    assert output.cells(np.array([number])) == [text]
    assert float(output.shown(np.float64(number))) == number


def test_a_label_is_written_as_it_was_given() -> None:
    assert [Value(0, 1).shown(np.float64(y)) for y in (1700000010.3, 6.0, 1e-9, 1700000010.1234567)] == [
        "1700000010.3",
        "6",
        "1e-09",
        "1700000010.1234567",
    ]


def test_labels_of_generated_samples_come_back_as_they_were_drawn() -> None:
    class Drawn(list):
        lengths = [1] * 9

        def restored(self, predictions: np.ndarray) -> np.ndarray:
            return predictions

    true = [1e15 + i for i in range(9)]
    samples = Drawn({"values": np.zeros(3, np.float32), "label": y} for y in true)
    _, labels = predict(Copy(), samples, Patches(3), Value(1e15, 4.0), 4, Accelerator(cpu=True))
    assert labels is not None
    assert labels.tolist() == true
    bits = Drawn({"values": np.zeros(3, np.float32), "label": np.array([0, 1, i % 2])} for i in range(9))
    _, labels = predict(Copy(), bits, Patches(3), Bits(3), 4, Accelerator(cpu=True))
    assert labels is not None
    assert labels[:2].tolist() == [[0, 1, 0], [0, 1, 1]]


def test_an_output_of_an_earlier_checkpoint_loads() -> None:
    assert output_from_dict({"kind": "value", "mean": 1.0, "std": 2.0, "unit": "nM"}) == Value(1.0, 2.0, "nM")
    assert output_from_dict({"kind": "classes", "label_names": ["a", "b"], "counts": False}) == Classes(("a", "b"))
    assert output_from_dict({"kind": "bits", "size": 3, "tokens": 2}) == Bits(3, 2)


def test_a_description_has_the_digits_of_the_deviation() -> None:
    assert Value(0, 1).describe(np.array([EPOCH, EPOCH + 20])) == "1700000010 ± 10"
    assert Value(0, 1, "nM").describe(np.array([1.0, 3.0])) == "2 ± 1 nM"
    assert TWO.describe(np.array([0, 0, 1])) == "inactive 2, active 1"
    assert Classes(tuple(map(str, range(30)))).describe(np.arange(29)) == "30 classes of 0 to 1 samples, 1 of none"


# Classes and labels.


def test_a_class_that_a_split_lacks_changes_no_score() -> None:
    output = Classes(("a", "b", "c"))
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
    found = output.metrics(np.array([0, 1, 0]), p)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx(-np.log([0.6, 0.7, 0.1]).mean())
    one = TWO.metrics(np.zeros(3, int), np.stack([p[:, 0], 1 - p[:, 0]], 1))
    assert one["loss"] == pytest.approx(-np.log([0.6, 0.2, 0.1]).mean())
    assert one["auroc"] is one["auprc"] is None


def test_an_estimator_that_saw_not_all_classes_gives_none_to_another() -> None:
    from fpt.models.morgan import all_classes

    assert all_classes(np.array([[0.2, 0.8]]), np.array([0, 2]), 3).tolist() == [[0.2, 0, 0.8]]


LABELS = MultiLabel(("toxic", "red", "sweet"))


def test_several_labels_are_scored() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (50, 3))
    labels[:, 2] = 0
    logits = torch.as_tensor(rng.normal(size=(50, 3)) + labels)
    p = LABELS.predict(logits).numpy()
    found = LABELS.metrics(labels, p)
    loss = LABELS.loss(logits.float(), LABELS.labels(list(labels)))
    assert found["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert found["accuracy"] == ((p > 0.5) == labels).mean()
    assert found["exact"] == ((p > 0.5) == labels).all(1).mean()
    assert found["f1"] == pytest.approx(f1_score(labels, p > 0.5, average="micro"))
    # The third label is nowhere: the mean is over the others.
    assert found["auroc"] == pytest.approx(np.mean([roc_auc_score(labels[:, n], p[:, n]) for n in (0, 1)]))
    assert found["auprc"] == pytest.approx(np.mean([average_precision_score(labels[:, n], p[:, n]) for n in (0, 1)]))
    none = LABELS.metrics(np.zeros((4, 3)), np.full((4, 3), 0.2))
    assert none["auroc"] is none["auprc"] is none["f1"] is None
    assert none["accuracy"] == 1


@pytest.mark.parametrize("logit", [-800.0, -35.0, 0.0, 30.0, 35.0, 800.0])
def test_a_constant_label_is_ranked_as_one(logit: float) -> None:
    labels = np.repeat([[0], [1]], 50, axis=0) * np.ones((1, 3), int)
    noise = torch.arange(100)[:, None] * 1e-9 * max(1, abs(logit))
    found = LABELS.metrics(labels, LABELS.predict(logit + noise.double().expand(100, 3)).numpy())
    assert found["auroc"] == 0.5
    assert math.isfinite(found["loss"])  # type: ignore[arg-type]


def test_several_labels_are_written_and_read() -> None:
    assert LABELS.cells(np.array([0.9, 0.1, 0.6]))[0] == "toxic|sweet"
    assert LABELS.cells(np.array([0.1, 0.1, 1e-12])) == ["(none)", "0.10000000", "0.10000000", "1e-12"]
    assert LABELS.columns() == ["prediction", "probability_toxic", "probability_red", "probability_sweet"]
    assert LABELS.shown(np.array([0, 1, 1])) == "red|sweet"
    assert LABELS.describe(np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])) == "toxic 2, red 1, sweet 0; 1 without a label"
    assert output_from_dict(LABELS.to_dict()) == LABELS
    assert LABELS.size == 3
    for name in ("a|b", "", "(none)"):
        with pytest.raises(FPTError, match="can't be named"):
            MultiLabel(("x", name))


def test_labels_say_which_score_they_do_not_allow() -> None:
    assert TWO.undefined("auroc", np.array([0, 0])) == "auroc needs both classes, and all 2 labels are 'inactive'"
    assert TWO.undefined("auroc", np.array([0, 1])) is TWO.undefined("accuracy", np.array([0, 0])) is None
    assert "3" in str(Classes(("a", "b", "c")).undefined("auprc", np.array([0, 1])))
    assert Value(0, 1).undefined("r2", np.array([0.1, 0.1])) == "r2 needs labels that differ, and all 2 labels are '0.1'"
    assert Value(0, 1).undefined("spearman", EPOCH + np.arange(2)) is Value(0, 1).undefined("mae", np.zeros(2)) is None
    assert "some samples have" in str(LABELS.undefined("auroc", np.array([[1, 0, 0], [1, 0, 0]])))
    assert LABELS.undefined("auprc", np.array([[1, 0, 0], [0, 0, 0]])) is None
    assert "f1" in str(LABELS.undefined("f1", np.zeros((2, 3))))
    assert Bits(2).undefined("accuracy", np.zeros((2, 2))) is None
    # They agree with the scores themselves.
    for output, labels in ((TWO, np.zeros(3, int)), (Value(0, 1), np.ones(3)), (LABELS, np.zeros((3, 3)))):
        predictions = np.random.default_rng(0).dirichlet([1] * 3, 3)[:, : output.size]
        if output is TWO:
            predictions /= predictions.sum(1, keepdims=True)
        for metric, value in output.metrics(labels, predictions).items():
            assert (value is None) >= (output.undefined(metric, labels) is not None)


def test_last_digits_do_not_make_numbers_differ() -> None:
    assert constant(np.array([0.1 + 0.2, 0.3]))
    assert not constant(np.array([EPOCH, EPOCH + 1e-3]))
    assert constant(np.array([5.0]))

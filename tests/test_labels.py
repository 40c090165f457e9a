"""What a label column is taken for, which class is positive, and what is refused because it may mean several things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_data import NUMBERS, TEXT, labels_of, prepared, texts, told, write

from fpt.data.classes import LabelOptions
from fpt.data.labels import LabelSchema, read_labels
from fpt.errors import FPTError, RejectedRows
from fpt.outputs import Classes, MultiLabel, Value


def schema(cells: list[Any], **options: Any) -> LabelSchema:
    return read_labels(cells, LabelOptions(**options), "y").schema


@pytest.mark.parametrize(
    ("cells", "kind", "names"),
    [
        (["b", "a"] * 9, "classes", ("a", "b")),
        (["10", "9"] * 9, "classes", ("9", "10")),
        (["0", "1.0", "1", "0.0", " 1"] * 5, "classes", ("0", "1")),
        (["True", "FALSE", "true"] * 5, "classes", ("False", "True")),
        (["yes", "NO", "Yes"] * 5, "classes", ("No", "Yes")),
        (["1", "True", "false", "0"] * 5, "classes", ("0", "1")),
        ([True, False] * 5, "classes", ("False", "True")),
        ([1.0, 0.0, None, float("nan")] * 5, "classes", ("0", "1")),
        (["+", "-"] * 9, "classes", ("-", "+")),
        (["cafe\u0301", "café", "thé"] * 5, "classes", ("café", "thé")),
        ([str(i % 30) for i in range(600)], "classes", tuple(map(str, range(30)))),
        ([f"{i % 30:02d}" for i in range(600)], "classes", tuple(f"{i:02d}" for i in range(30))),
        (["01", "1"] * 9, "classes", ("01", "1")),
        ([str(i % 5 + 1) for i in range(60)], "classes", tuple("12345")),
        (["Paris, FR", "Rome, IT", "Oslo, NO"] * 9, "classes", ("Oslo, NO", "Paris, FR", "Rome, IT")),
        (["1.5", "2", "3"] * 9, "number", ()),
        (["1.5", "-", "3", "NA"] * 9, "number", ()),
        ([str(20 + i % 60) for i in range(600)], "number", ()),  # ages
        ([str(i) for i in range(30)], "number", ()),
        ([str(min(i % 40, i % 7)) for i in range(40)], "classes", tuple("0123456")),
        (["7", "1900000000"] + ["3"] * 5 + [str(i) for i in range(100, 120)], "number", ()),
        (["a|b", "a", "b", "c|a"] * 9, "multilabel", ("a", "b", "c")),
        (["x; y", "y", "x", "z;x"] * 9, "multilabel", ("x", "y", "z")),
        ([["a"], ["b", "a"], [], None], "multilabel", ("a", "b")),
        ([[0, 1, 1], [1, 0, 0], [0, 0, 1]], "multilabel", ("label_0", "label_1", "label_2")),
        ([[2], [10], [2, 10]], "multilabel", ("2", "10")),
    ],
)
def test_labels_are_what_they_look_like(cells: list[Any], kind: str, names: tuple[str, ...]) -> None:
    found = schema(cells)
    assert (found.kind, found.names) == (kind, names)


@pytest.mark.parametrize(
    ("cells", "positive"),
    [
        (["active"] * 32 + ["inactive"] * 348, "active"),
        (["toxic"] * 30 + ["nontoxic"] * 3, "toxic"),
        (["inhibitor", "non-inhibitor"], "inhibitor"),
        (["ok"] * 30 + ["defect"] * 3, "defect"),
        (["benign"] * 3 + ["malignant"] * 30, "malignant"),
        (["neg", "pos"], "pos"),
        (["spam", "ham"], "spam"),
        (["-1", "1"], "1"),
        (["1"] * 3 + ["2"] * 9, "2"),
        (["red"] * 30 + ["blue"] * 3, "blue"),
        (["cats", "dogs"], "dogs"),
        (["healthy"] * 3 + ["x"] * 30, "x"),
    ],
)
def test_the_positive_class(cells: list[str], positive: str) -> None:
    found = schema(cells)
    assert (found.positive, found.names[1]) == (positive, positive)
    assert f"positive: {positive}" in found.describe()
    other = found.names[0]
    assert schema(cells, positive=other).names[1] == other


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        (["Active", "active", "no"] * 9, {}, "differ in case only: 'Active' .9 rows. and 'active'.*--label_case"),
        ([">10000"] * 9 + [str(i / 7) for i in range(30)], {}, "30 labels that are numbers and 9 that are not .'>10000'."),
        ([f"text {i}" for i in range(40)], {}, "40 texts in 40 rows; pass --label_type classes"),
        (["a", "b"], {"type": "klass"}, "unknown --label_type 'klass'.*did you mean 'classes'"),
        (["a", "b"], {"positive": "c"}, "--positive_label 'c' is not a class.*it has a, b"),
        (["a", "b", "c"], {"positive": "c"}, "--positive_label is for two classes; column 'y' has 3"),
        (["a", "b"], {"case": "fold"}, "--label_case 'fold' must be keep or ignore"),
        ([["a", "c"], "b"], {}, "lists and single values"),
        ([["a", "c"], ["b"]], {"type": "classes"}, "holds lists; --label_type classes needs one label"),
        (["", "NA", None], {}, "no row with a label"),
    ],
)
def test_labels_that_may_mean_several_things_are_refused(cells: list[Any], options: dict, message: str) -> None:
    with pytest.raises(FPTError, match=message):
        schema(cells, **options)


def test_flags_decide() -> None:
    assert schema(["Active", "active", "no"], case="ignore").names == ("no", "Active")
    assert len(schema(["Active", "active", "no"], case="keep").names) == 3
    assert schema([str(i) for i in range(30)] * 2, type="classes").kind == "classes"
    assert schema(["1", "2"] * 9, type="number").kind == "number"
    assert schema(["None", "mild"] * 9, missing=("",)).names == ("None", "mild")
    assert schema(["a/b", "b"], type="multilabel", delimiter="/").names == ("a", "b")
    censored = read_labels([">5", "1.5"], LabelOptions(type="number"), "y")
    assert (censored.values, censored.reasons) == ([None, 1.5], ["the label '>5' is not a number", ""])


def test_names_of_folders_are_names() -> None:
    found = read_labels(["00000", "nan", "", "None", "1", "1.0"] * 3, LabelOptions(named=True), "label")
    assert found.schema.names == ("00000", "1", "1.0", "None", "nan")
    assert found.reasons.count("no label") == 3


@pytest.mark.parametrize("mark", ["nan", "NA", "None", "null", "", "#N/A", "<NA>"])
def test_a_missing_label_is_no_class(tmp_path: Path, mark: str) -> None:
    rows = texts(100)
    rows[4] = (rows[4][0], mark)
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['text', 'label'], rows)}", TEXT)
    assert found.output == Classes(("neg", "pos"))
    assert list(found.rejected.reason) == [f"no label ({mark!r})" if mark else "no label"]
    assert "1 rows without a label" in told(found)
    rows[5:20] = [(text, mark) for text, _ in rows[5:20]]
    path = write(tmp_path / "y.csv", ["text", "label"], rows)
    with pytest.raises(RejectedRows, match=r"16 of 100 rows .*no label.*--missing drop"):
        prepared(f"csv:{path}", TEXT)
    dropped = prepared(f"csv:{path}", {**TEXT, "missing": "drop"})
    assert sum(dropped.manifest.rows.values()) == 84


def test_missing_targets_are_not_classes_and_digits_are_kept(tmp_path: Path) -> None:
    rows = [(text, "nan" if i == 7 else repr(1.7e9 + i / 10)) for i, (text, _) in enumerate(texts(120))]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['text', 'label'], rows)}", TEXT)
    assert isinstance(found.output, Value)
    known = labels_of(found)
    assert all(float(known[f"row-{i + 1}"]) == 1.7e9 + i / 10 for i in range(120) if i != 7)
    tiny = prepared(f"csv:{write(tmp_path / 'y.csv', ['text', 'label'], [(t, 1e-9 * i) for i, (t, _) in enumerate(rows)])}", TEXT)
    assert isinstance(tiny.output, Value)
    assert 1e-8 < tiny.output.std < 1e-7
    assert float(labels_of(tiny)["row-4"]) == pytest.approx(3e-9, rel=1e-9)


def test_sets_of_labels(tmp_path: Path) -> None:
    tags = ["a", "b", "a|b", "a|c", "b|c"]
    rows = [(text, tags[i % 5]) for i, (text, _) in enumerate(texts(100))]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['text', 'label'], rows)}", TEXT)
    assert found.output == MultiLabel(("a", "b", "c"))
    assert labels_of(found)["row-4"] == "a|c"
    assert np.asarray(found.splits["train"]["label"]).shape == (70, 3)
    assert "sets of 3 labels, separated by '|': a (60), b (60), c (40)" in told(found)


def test_one_class_in_valid_falls_back_to_the_loss_and_one_in_train_is_refused(tmp_path: Path) -> None:
    rows = [(t, y, ["train", "test", "val"][i // 40]) for i, (t, y) in enumerate(texts(120))]
    rows = [(t, "neg" if s == "val" else y, s) for t, y, s in rows]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['text', 'label', 'split'], rows)}", TEXT)
    assert found.primary_metric == "loss"
    assert "auroc is not defined on the validation split" in told(found)
    rows = [(t, "neg" if s == "train" else y, s) for t, y, s in rows]
    with pytest.raises(FPTError, match=r"the train split has one class only .'neg'."):
        prepared(f"csv:{write(tmp_path / 'y.csv', ['text', 'label', 'split'], rows)}", TEXT)


def test_labels_that_never_change_are_refused(tmp_path: Path) -> None:
    rows = [(i, 3.5) for i in range(40)]
    with pytest.raises(FPTError, match=r"all 28 training labels are 3.5"):
        prepared(f"csv:{write(tmp_path / 'x.csv', ['x', 'y'], rows)}", {**NUMBERS, "input_column": "x"})
    rows = [(i, "same") for i in range(40)]
    with pytest.raises(FPTError, match="one class only"):
        prepared(f"csv:{write(tmp_path / 'z.csv', ['x', 'y'], rows)}", {**NUMBERS, "input_column": "x"})


def test_a_rare_class_is_named(tmp_path: Path) -> None:
    rows = [*texts(40), ("odd", "rare"), ("odder", "rarer"), ("odder still", "rarer")]
    with pytest.raises(FPTError, match=r"'rare' .1 row., 'rarer' .2 rows.; add rows, .*--split random"):
        prepared(f"csv:{write(tmp_path / 'x.csv', ['text', 'label'], rows)}", TEXT)

"""Splits that the data comes with, groups, repeated samples, and a run that goes on after its data changed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from own_data import SMILES, TEXT, labels_of, prepared, texts, told, train, write

from fpt.data.splits import split_name
from fpt.errors import FPTError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((n, "train") for n in ("train", "Training", "TRAIN", "train_set", "train2017", "train-images", "trn", "train.csv")),
        *((n, "valid") for n in ("valid", "Val", "validation", "dev", "eval", "val2017", "Validation Set", "development")),
        *((n, "test") for n in ("test", "Testing", "TEST", "test_data", "hold-out", "holdout")),
        *((n, "") for n in ("cats", "unsupervised", "extra", "training wheels", "contest", "", "trainer", "tests of time")),
    ],
)
def test_names_of_splits(name: str, expected: str) -> None:
    assert split_name(name.removesuffix(".csv")) == expected


def split_rows(names: list[str], count: int = 120) -> list[tuple[str, str, str]]:
    return [(t, y, names[i * len(names) // count]) for i, (t, y) in enumerate(texts(count))]


@pytest.mark.parametrize(
    ("names", "rows", "method"),
    [
        (["train", "val", "test"], (40, 40, 40), "given"),
        (["Training", "Testing"], (54, 6, 60), "given; valid cut from train (stratified)"),
        (["train", "validation"], (48, 60, 12), "given; test cut from train (stratified)"),
        (["train", "eval", "extra"], (32, 40, 8), "given; test cut from train (stratified)"),
        (["train"], (84, 12, 24), "given; valid and test cut from train (stratified)"),
    ],
)
def test_given_splits_are_kept_and_only_what_is_missing_is_cut(
    tmp_path: Path, names: list[str], rows: tuple[int, int, int], method: str
) -> None:
    path = write(tmp_path / "x.csv", ["text", "label", "split"], split_rows(names))
    found = prepared(f"csv:{path}", {**TEXT, "split_column": "split"})
    assert tuple(found.manifest.rows.values()) == rows
    assert found.split_method == method
    given = {f"row-{i + 1}": split_name(name) for i, (_, _, name) in enumerate(split_rows(names))}
    for name, part in found.splits.items():
        assert {given[i] for i in part["id"]} <= {name, "train"}
    if "extra" in names:
        assert "40 rows of the split 'extra' are not used" in told(found)
        assert (found.rejected.reason == "in the split 'extra'").sum() == 40


def test_a_split_column_is_guessed_told_and_can_be_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", ["text", "label", "split"], split_rows(["train", "val", "test"]))
    assert "split     `split` (guessed; --split_column)" in told(prepared(f"csv:{path}", TEXT))
    own = prepared(f"csv:{path}", TEXT, split="stratified")
    assert (own.split_method, own.manifest.rows["train"]) == ("stratified", 84)
    assert "the splits that the data names are not used (--split stratified)" in told(own)
    assert prepared(f"csv:{path}", {**TEXT, "split_column": "none"}).split_method == "stratified"
    odd = prepared(f"csv:{write(tmp_path / 'y.csv', ['text', 'label', 'split'], split_rows(['train', 'north', 'test']))}", TEXT)
    assert odd.split_method == "given; valid cut from train (stratified)"
    assert "40 rows of the split 'north' are not used" in told(odd)
    none = write(tmp_path / "v.csv", ["text", "label", "split"], split_rows(["east", "north"]))
    assert prepared(f"csv:{none}", TEXT).split_method == "stratified"
    with pytest.raises(FPTError, match="no labelled training rows"):
        prepared(
            f"csv:{write(tmp_path / 'z.csv', ['text', 'label', 'split'], split_rows(['val', 'test']))}",
            {**TEXT, "split_column": "split"},
        )
    with pytest.raises(FPTError, match="--split given: the data names no splits"):
        prepared(f"csv:{write(tmp_path / 'w.csv', ['text', 'label'], texts())}", TEXT, split="given")


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_test_split_without_labels_is_not_scored(tmp_path: Path, hidden: str) -> None:
    rows = [(t, hidden if s == "test" else str(int(y == "pos")), s) for t, y, s in split_rows(["train", "val", "test"])]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['text', 'label', 'split'], rows)}", TEXT)
    assert found.output.label_names == ("0", "1")
    assert found.manifest.rows == {"train": 32, "valid": 40, "test": 8}
    assert "the split 'test' has 40 rows and no labels: it is not used" in told(found)


def test_minus_one_may_be_a_class(tmp_path: Path) -> None:
    rows = [(t, "1" if y == "pos" else "-1", s) for t, y, s in split_rows(["train", "val", "test"])]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['text', 'label', 'split'], rows)}", TEXT)
    assert (found.output.label_names, found.split_method) == (("-1", "1"), "given")


def hub(folder: Path, parts: dict[str, list[int | None]], names: bool = True) -> Path:
    folder.mkdir(parents=True)
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"]) if names else Value("int64")})
    for name, labels in parts.items():
        rows = {"text": [f"{name} {'good' if y else 'bad'} {i}" for i, y in enumerate(labels)], "label": labels}
        Dataset.from_dict(rows, features=features).to_parquet(folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("names", [True, False])
def test_a_hub_dataset_keeps_its_splits_and_hides_no_label(tmp_path: Path, names: bool) -> None:
    parts = {"train": [0, 1] * 50, "validation": [0, 1] * 10, "test": [-1] * 20}
    found = prepared(f"hub:{hub(tmp_path / 'set', parts, names)}", TEXT)
    assert found.output.label_names == (("neg", "pos") if names else ("0", "1"))
    assert found.manifest.rows == {"train": 80, "valid": 20, "test": 20}
    assert found.split_method == "given; test cut from train (stratified)"
    assert {text.split()[0] for text in found.splits["valid"]["text"]} == {"validation"}
    assert {text.split()[0] for text in found.splits["test"]["text"]} == {"train"}


def test_missing_labels_within_a_hub_split_are_missing(tmp_path: Path) -> None:
    folder = hub(tmp_path / "set", {"train": [0, 1] * 50 + [-1, -1], "test": [0, 1] * 20})
    found = prepared(f"hub:{folder}", {**TEXT, "missing": "drop"})
    assert (found.rejected.reason == "no label").sum() == 2
    assert found.output.label_names == ("neg", "pos")
    (folder / "unsupervised.parquet").write_bytes((folder / "test.parquet").read_bytes())
    assert "files of the folder that datasets does not load (unsupervised.parquet)" in told(
        prepared(f"hub:{folder}", {**TEXT, "missing": "drop"})
    )


def test_moving_a_row_to_another_split_is_another_cache_entry(tmp_path: Path) -> None:
    first = prepared(f"hub:{hub(tmp_path / 'a' / 'set', {'train': [0, 1] * 50, 'test': [0, 1] * 20})}", TEXT)
    moved = hub(tmp_path / "b" / "set", {"train": [0, 1] * 40, "test": [0, 1] * 20})
    rows = pd.read_parquet(tmp_path / "a" / "set" / "train.parquet")
    test = pd.read_parquet(moved / "test.parquet")
    pd.concat([test, rows[80:]]).to_parquet(moved / "test.parquet", index=False)
    second = prepared(f"hub:{moved}", TEXT)
    assert first.manifest.data_sha256 != second.manifest.data_sha256
    assert second.manifest.rows["test"] == 60


def test_groups_are_in_one_split(tmp_path: Path) -> None:
    rows = [(t, y, f"patient {i // 4}") for i, (t, y) in enumerate(texts(120))]
    path = write(tmp_path / "x.csv", ["text", "label", "patient"], rows)
    found = prepared(f"csv:{path}", {**TEXT, "group_column": "patient"})
    groups = {name: {(int(i[4:]) - 1) // 4 for i in part["id"]} for name, part in found.splits.items()}
    assert not groups["train"] & groups["test"] and not groups["train"] & groups["valid"] and not groups["valid"] & groups["test"]
    assert found.split_method == "group"
    assert [round(n / 120, 1) for n in found.manifest.rows.values()] == [0.7, 0.1, 0.2]
    crossing = [(*row, ["train", "test"][i % 2]) for i, row in enumerate(rows)]
    with pytest.raises(FPTError, match="30 groups of --group_column are in more than one of the given splits"):
        prepared(
            f"csv:{write(tmp_path / 'y.csv', ['text', 'label', 'patient', 'split'], crossing)}",
            {**TEXT, "group_column": "patient"},
        )


def test_own_ids_are_kept(tmp_path: Path) -> None:
    rows = [(f"CPD-{i:03d}", *row) for i, row in enumerate(texts())]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['compound_id', 'text', 'label'], rows)}", TEXT)
    assert labels_of(found)["CPD-003"] == "pos"
    assert "id        `compound_id` (guessed; --id_column)" in told(found)
    assert "row-4" in labels_of(prepared(f"csv:{tmp_path / 'x.csv'}", {**TEXT, "id_column": "none"}))
    twice = write(tmp_path / "y.csv", ["patient_id", "text", "label"], [(i // 2, *row) for i, row in enumerate(texts())])
    assert "row-4" in labels_of(prepared(f"csv:{twice}", TEXT))  # ids that repeat name no row


def test_repeated_samples_are_counted_and_left_out_on_request(tmp_path: Path) -> None:
    rows = [row for row in texts(40) for _ in range(3)] + [("a good film, number 1", "neg")]
    path = write(tmp_path / "x.csv", ["text", "label"], rows)
    line = next(line for line in told(prepared(f"csv:{path}", TEXT)).splitlines() if "repeat" in line)
    assert "81 samples repeat" in line
    assert "samples of valid or test are in another split too; 1 inputs have different labels" in line
    found = prepared(f"csv:{path}", {**TEXT, "deduplicate": True})
    assert sum(found.manifest.rows.values()) == 39
    assert "repeat" not in told(found)
    assert (found.rejected.reason == "the same input has different labels").sum() == 4
    again = [row for part in found.splits.values() for row in part["text"]]
    assert len(again) == len(set(again)) == 39


def test_one_molecule_in_several_notations_is_one_sample(tmp_path: Path) -> None:
    rows = [("c1ccccc1" + "C" * (i % 20), i % 2) for i in range(40)] + [
        ("C1=CC=CC=C1" + "C" * (i % 20), i % 2) for i in range(40)
    ]
    path = write(tmp_path / "x.csv", ["smiles", "active"], rows)
    found = prepared(f"csv:{path}", {**SMILES, "deduplicate": True}, split="stratified")
    assert sum(found.manifest.rows.values()) == 20
    assert "60 rows: the same input as row-" in told(found)


def test_the_mean_of_repeated_measurements_and_the_test_row_stays(tmp_path: Path) -> None:
    rows = [(f"text {i % 30}", i + 0.5, "test" if 30 <= i < 40 else "train") for i in range(60)]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['text', 'label', 'split'], rows)}", {**TEXT, "deduplicate": True})
    values = {i: float(v) for i, v in labels_of(found).items()}
    assert found.manifest.rows["test"] == 10
    assert values["row-31"] == 30.5  # of its split alone
    assert values["row-11"] == (10.5 + 40.5) / 2


def test_acyclic_molecules_get_advice_that_helps(tmp_path: Path) -> None:
    rows = [("C" * (i % 30 + 1) + "O", i % 2) for i in range(60)]
    with pytest.raises(FPTError, match="60 of 60 molecules have no ring and so no scaffold; pass --split stratified"):
        prepared(f"csv:{write(tmp_path / 'x.csv', ['smiles', 'active'], rows)}", SMILES)


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path, llama_dir: Path) -> None:
    path = write(tmp_path / "x.csv", ["text", "label"], texts())
    results = train(f"csv:{path}", TEXT, llama_dir, tmp_path / "run")
    assert results.split.method == "stratified"
    assert results.data["schema"]["label"]["names"] == ["neg", "pos"]
    train(f"csv:{path}", TEXT, llama_dir, tmp_path / "run", resume=True)
    write(path, ["text", "label"], texts(80))
    with pytest.raises(FPTError, match=r"--resume: the state .* was made with other data: the raw data .*rows"):
        train(f"csv:{path}", TEXT, llama_dir, tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["data"]["rows"]["train"] == 42


def test_a_refused_run_lists_the_rows_in_its_folder_and_can_be_started_there(tmp_path: Path, llama_dir: Path) -> None:
    rows = [("", y) if i % 5 == 0 else (t, y) for i, (t, y) in enumerate(texts())]
    path = write(tmp_path / "x.csv", ["text", "label"], rows)
    with pytest.raises(FPTError, match=r"12 of 60 rows .*listed in .*rejected.csv"):
        train(f"csv:{path}", TEXT, llama_dir, tmp_path / "run")
    listed = pd.read_csv(tmp_path / "run" / "rejected.csv")
    assert list(listed.row) == list(range(1, 60, 5)) and set(listed.reason) == {"empty input"}
    results = train(f"csv:{path}", TEXT, llama_dir, tmp_path / "run", max_bad_fraction=0.5)
    assert results.data["rejected"] == 12
    before = (tmp_path / "run" / "rejected.csv").read_bytes()
    with pytest.raises(FPTError, match=r"listed in .*run\.rejected\.csv"):
        train(f"csv:{path}", TEXT, llama_dir, tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "rejected.csv").read_bytes() == before
    assert (tmp_path / "run" / "results.json").exists()

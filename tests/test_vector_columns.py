"""Columns of numbers beside a text, a SMILES or a sequence, which become the first token of their row (--vector_columns)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import molecules
from own_data import SMILES, TEXT, arguments, predict, prepared, scored, told, train, values_of, write

import fpt
from fpt.args import ModelArguments, TrainArguments
from fpt.checkpoint.config import parse_config
from fpt.cli import read_training, refuse_unread
from fpt.errors import FPTError, RejectedRows
from fpt.evaluation.arguments import EvaluateArguments
from fpt.evaluation.run import run as evaluate
from fpt.flags.unread import unread_flags
from fpt.tasks.molecules import BITS, descriptors
from fpt.training import run

COLUMNS = ["smiles", "dose", "kind", "active"]


def rows(count: int = 120) -> list[list[Any]]:
    """Molecules whose label is whether their dose is high; the molecule says nothing."""
    rng = np.random.default_rng(0)
    doses = 50_000 + 20_000 * rng.normal(size=count)
    # Not in turn with what the molecules have in common.
    return [[s, f"{d:.2f}", i % 5, int(d > 50_000)] for i, ((s, _), d) in enumerate(zip(molecules()[:count], doses, strict=True))]


def table(folder: Path, name: str = "mine.csv", changes: dict[tuple[int, int], Any] | None = None) -> Path:
    found = rows()
    for (row, column), value in (changes or {}).items():
        found[row][column] = value
    return write(folder / name, COLUMNS, found)


def of(file: Path, columns: str = "dose,kind", **changes: Any) -> Any:
    return prepared(f"csv:{file}", SMILES, vector_columns=columns, split="random", **changes)


def test_numbers_are_standardised_on_train_in_the_order_of_the_flag(tmp_path: Path) -> None:
    found = of(table(tmp_path), "kind, dose")
    by_id = {f"row-{i + 1}": (float(kind), float(dose)) for i, (_, dose, kind, _) in enumerate(rows())}
    train_rows = np.array([by_id[i] for i in found.splits["train"]["id"]])
    for split in ("train", "test"):
        raw = np.array([by_id[i] for i in found.splits[split]["id"]])
        wanted = (raw - train_rows.mean(0)) / train_rows.std(0)
        np.testing.assert_allclose(np.array(found.splits[split]["vector"]), wanted, atol=1e-6)
    assert found.input.vector.dim == 2
    assert found.input.vector.std == pytest.approx((1, 1), rel=1e-4)
    sample = found.splits["train"][0]
    assert sample["length"] == len(sample["input_ids"]) + 1
    assert "vector    `dose`: number, mean" in told(found)
    plain = prepared(f"csv:{table(tmp_path)}", SMILES, split="random")
    assert plain.input.vector is None and "vector" not in plain.splits["train"].column_names
    assert "vector_columns" not in plain.manifest.request.to_dict()


def test_they_follow_counts_and_descriptors(tmp_path: Path) -> None:
    found = of(table(tmp_path), sample_vector="counts+descriptors")
    width = descriptors(["CCO"]).shape[1]
    assert (found.input.vector.plain, found.input.vector.dim) == (BITS, BITS + width + 2)
    alone = values_of(of(table(tmp_path)), "vector")
    both = values_of(found, "vector")
    assert all(np.array_equal(both[i][-2:], alone[i]) for i in alone)


def test_a_missing_number_is_the_mean_and_counted(tmp_path: Path) -> None:
    holes = table(tmp_path, changes={(0, 1): "", (1, 1): "NA", (2, 2): ""})
    found = of(holes)
    assert sum(map(len, found.splits.values())) == 120
    assert np.isnan(values_of(found, "vector")["row-1"][0])
    said = told(found)
    assert "`dose`: number, mean" in said and ", 2 missing" in said
    assert "2 rows have no number in 'dose': it counts as the training mean (--missing)" in said
    dropped = prepared(f"csv:{holes}", {**SMILES, "missing": "drop"}, vector_columns="dose,kind", split="random")
    assert sum(map(len, dropped.splits.values())) == 117
    assert "no value in 'dose'" in told(dropped)
    with pytest.raises(FPTError, match="no value in 'dose'; --missing error allows none"):
        prepared(f"csv:{holes}", {**SMILES, "missing": "error"}, vector_columns="dose,kind", split="random")


def test_a_column_that_says_nothing_is_reported(tmp_path: Path) -> None:
    same = table(tmp_path, changes={(row, 2): 7 for row in range(120)})
    assert "the column 'kind' is 7 in all training rows: it says nothing to the model" in told(of(same))
    splits = [["train", "valid", "test"][i % 10 - 7 if i % 10 > 7 else 0] for i in range(120)]
    found = [[*row, split] for row, split in zip(rows(), splits, strict=True)]
    for row in found:
        row[2] = "" if row[-1] == "train" else 1
    file = write(tmp_path / "holes.csv", [*COLUMNS, "split"], found)
    assert "the column 'kind' has no value in the training rows" in told(prepared(f"csv:{file}", SMILES, vector_columns="kind"))


def test_a_cell_that_is_not_a_number_costs_its_row(tmp_path: Path) -> None:
    found = of(table(tmp_path, changes={(4, 1): "high"}))
    assert sum(map(len, found.splits.values())) == 119
    assert list(found.rejected["reason"]) == ["'high' is not a number (column 'dose')"]
    with pytest.raises(RejectedRows, match="'high' is not a number"):
        of(table(tmp_path, changes={(row, 1): "high" for row in range(4, 9)}))


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ("dose,active", "column 'active' of csv:mine.csv is both --label_column and one of --vector_columns"),
        ("smiles", "column 'smiles' of csv:mine.csv is both the input and one of --vector_columns"),
        ("dose,nope", r"csv:mine.csv has no column 'nope'.*; give --vector_columns, one of smiles, dose"),
        ("dose,dose", "--vector_columns 'dose,dose' names a column twice"),
        ("note", "column 'note' of csv:mine.csv is not made of numbers: 120 of 120 cells are none, such as 'high'"),
        ("empty", "column 'empty' of csv:mine.csv has no value in any row; leave it out of --vector_columns"),
    ],
)
def test_columns_that_make_no_sense_are_refused(columns: str, why: str, tmp_path: Path) -> None:
    more = [[*row, "high", ""] for row in rows()]
    file = write(tmp_path / "mine.csv", [*COLUMNS, "note", "empty"], more)
    with pytest.raises(FPTError, match=why):
        of(file, columns)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--dataset cyp3a4", "it is for columns of your own table"),
        ("--dataset mnist", "it is for columns of your own table"),
        ("--dataset bit-xor", "bit-xor is generated"),
        ("--dataset csv:x.csv --input_type numbers", r"csv:x\.csv is made of numbers, not of text"),
        ("--dataset csv:x.csv --input_type smiles --model morgan", "--model morgan is fitted at once"),
        ("--dataset csv:x.csv --input_type smiles --model mat", "--model mat reads molecules as graphs"),
    ],
)
def test_what_does_not_read_the_flag_refuses_it(words: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(FPTError, match=f"--vector_columns is not read: {why}"):
        refuse_unread(unread_flags(read_training(f"{words} --vector_columns a".split())))
    refuse_unread(unread_flags(read_training("--dataset csv:x.csv --vector_columns a --side_dropout 0.1".split())))


def test_python_is_told_the_same(tmp_path: Path) -> None:
    file = table(tmp_path)
    with pytest.raises(FPTError, match=r"--vector_columns is for texts, SMILES and proteins; .* is read as numbers"):
        prepared(f"csv:{file}", {"input_type": "numbers", "label_column": "active"}, vector_columns="kind")
    with pytest.raises(FPTError, match=r"--vector_columns is for columns of your own table .*; mnist has none"):
        prepared("mnist", {}, vector_columns="kind")


def test_the_same_molecule_with_other_numbers_is_another_sample(tmp_path: Path) -> None:
    twice = table(tmp_path, changes={(1, 0): rows()[0][0], (3, 0): rows()[2][0], (3, 1): rows()[2][1], (3, 2): rows()[2][2]})
    assert "1 samples repeat the input of another one" in told(of(twice))
    assert "2 samples repeat the input of another one" in told(prepared(f"csv:{twice}", SMILES, split="random"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    """A run that knows the label from the dose alone."""
    folder = tmp_path_factory.mktemp("columns")
    about = {"vector_columns": "dose,kind", "split": "random", "cache_dir": str(folder / "cache")}
    train(f"csv:{table(folder)}", SMILES, llama_dir, folder / "run", 40, eval_steps=20, **about)
    return folder


def test_a_run_learns_from_them_and_is_scored_again(trained: Path, tmp_path: Path) -> None:
    results = json.loads((trained / "run" / "results.json").read_text())
    assert results["metrics"]["test"]["auroc"] > 0.95
    out = tmp_path / "again.json"
    evaluate(EvaluateArguments([str(trained / "run")], output=str(out), cache_dir=str(trained / "cache")))
    assert json.loads(out.read_text())["metrics"]["test"] == pytest.approx(results["metrics"]["test"], abs=1e-6)


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.jsonl"])
def test_a_file_with_these_columns_is_predicted_as_it_was_scored(trained: Path, tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame(rows(), columns=COLUMNS)[["kind", "active", "dose", "smiles"]]
    frame["dose"] = frame["dose"].astype(float)
    file = tmp_path / name
    {"x.csv": frame.to_csv, "x.parquet": frame.to_parquet}.get(
        name, lambda path: frame.to_json(path, orient="records", lines=True)
    )(file)
    test = scored(trained / "run")
    mine = predict(trained / "run", file)
    mine.index = [f"row-{i + 1}" for i in range(len(mine))]
    assert mine.loc[test.index, "probability_1"].astype(float).to_numpy() == pytest.approx(test["probability_1"], abs=1e-6)


def test_a_file_without_them_is_refused_and_cells_say_what_is_wrong(trained: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "x.csv", ["smiles", "Dose", "kind"], [["CCO", 1, 2]])
    with pytest.raises(
        FPTError, match=r"has no column 'dose' \(did you mean 'Dose'\?\); the model was trained with --vector_columns"
    ):
        predict(trained / "run", other)
    found = [["CCO", "60000,5", "2"], ["CCO", "", "2"], ["CCO", "60000,5", "high"], ["C((", "60000,5", "2"]]
    out = predict(trained / "run", write(tmp_path / "y.csv", ["smiles", "dose", "kind"], found, sep=";"))
    assert list(out.prediction != "") == [True, True, False, False]
    assert out.reason[1].endswith("no value in 'dose', the training mean is read")
    assert out.reason[2] == "'high' is not a number (column 'kind')"
    named = write(tmp_path / "z.csv", ["text", "dose", "kind"], [["CCO", "60000.5", "2"]])
    again = predict(trained / "run", named, column="text")
    assert float(again.probability_1[0]) == pytest.approx(float(out.probability_1[0]), abs=1e-6)


def test_python_takes_rows_by_name_or_in_order(trained: Path) -> None:
    model = fpt.load(str(trained / "run"))
    high, low, ordered, missing = model.predict(
        [
            {"smiles": "CCO", "dose": 90_000, "kind": 1},
            {"smiles": "CCO", "dose": 10_000.0, "kind": 1},
            ("CCO", "90000", 1),
            {"smiles": "CCO", "dose": None, "kind": 1},
        ]
    )
    assert (high["prediction"], low["prediction"]) == ("1", "0")
    assert ordered["probabilities"] == high["probabilities"]
    assert "the training mean is read" in missing["reason"]
    mean = json.loads((trained / "run" / "checkpoint" / "config.json").read_text())["data"]["schema"]["columns"]
    dose = next(column["mean"][0] for column in mean if column["name"] == "dose")
    assert model.predict([("CCO", dose, 1)])[0]["probabilities"] == pytest.approx(missing["probabilities"], abs=1e-6)
    table_of_rows = pd.DataFrame([{"dose": 90_000, "smiles": "CCO", "kind": 1}])
    assert model.predict(table_of_rows)[0]["probabilities"] == pytest.approx(high["probabilities"], abs=1e-6)
    assert model.predict([("CCO", 90_000, 1)], test_time_augment=3)[0]["prediction"] == "1"
    with pytest.raises(FPTError, match="input 1 has 1 values; the model reads 3: smiles, dose, kind"):
        model.predict(["CCO"])
    with pytest.raises(FPTError, match="input 1 has no 'kind'; the model reads smiles, dose, kind"):
        model.predict([{"smiles": "CCO", "dose": 1}])


def test_a_run_goes_on_and_seeds_go_side_by_side(trained: Path, llama_dir: Path, tmp_path: Path) -> None:
    about = {"vector_columns": "dose,kind", "split": "random", "cache_dir": str(trained / "cache")}
    shutil.copytree(trained / "run", tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    whole = json.loads((trained / "run" / "results.json").read_text())
    train(f"csv:{trained / 'mine.csv'}", SMILES, llama_dir, tmp_path / "run", 40, eval_steps=20, resume=True, **about)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["metrics"] == whole["metrics"]
    other = {**about, "vector_columns": "kind,dose"}
    with pytest.raises(FPTError, match="was started with --vector_columns dose,kind"):
        train(f"csv:{trained / 'mine.csv'}", SMILES, llama_dir, tmp_path / "run", 40, eval_steps=20, resume=True, **other)
    data = arguments(f"csv:{trained / 'mine.csv'}", SMILES, split_seed=1, **about)
    training = TrainArguments(
        output_dir=str(tmp_path / "seeds"), seeds="1,2", max_steps=40, eval_steps=20, learning_rate=1e-2, warmup_steps=1
    )
    found = run(data, ModelArguments(backbone=str(llama_dir)), training)
    assert found.ensemble.metrics["test"]["auroc"] > 0.95
    assert found.runs[0].metrics["test"]["loss"] == pytest.approx(whole["metrics"]["test"]["loss"], rel=1e-2)


def test_texts_and_proteins_have_them_too(llama_dir: Path, tmp_path: Path) -> None:
    for kind, column, texts in (("text", "text", ["a film", "an old film"]), ("protein", "text", ["MKVL", "MKVVLA"])):
        found = [[texts[i % 2], dose, label] for i, (_, dose, _, label) in enumerate(rows())]
        file = write(tmp_path / kind / "x.csv", ["text", "dose", "label"], found)
        options = {**TEXT, "input_type": kind, "input_column": column}
        results = train(f"csv:{file}", options, llama_dir, tmp_path / kind / "run", 20, vector_columns="dose")
        assert results.metrics["test"]["auroc"] > 0.9
        same = predict(tmp_path / kind / "run", file)
        assert (same.prediction == same.label).mean() > 0.6


def test_a_checkpoint_whose_parts_contradict_each_other_is_refused(trained: Path) -> None:
    config = json.loads((trained / "run" / "checkpoint" / "config.json").read_text())
    parse_config(config, "config.json")
    columns = config["data"]["schema"]["columns"]
    broken = [column for column in columns if column["name"] != "kind"]
    for changed in (
        {**config["data"], "schema": {**config["data"]["schema"], "columns": broken}},
        {**config["data"], "arguments": {**config["data"]["arguments"], "vector_columns": None}},
        {**config["data"], "schema": {**config["data"]["schema"], "columns": [{**c, "mean": [], "std": []} for c in columns]}},
    ):
        with pytest.raises(FPTError, match="contradict each other"):
            parse_config({**config, "data": changed}, "config.json")

"""From a user's file to the score and back: what was trained, evaluated and predicted is the same, in every format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_data import NUMBERS, SMILES, TEXT, picture, pictures, predict, prepared, scored, sounds, texts, train, write

import fpt
from fpt.errors import FPTError
from fpt.evaluation import files
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments


def numbers(count: int = 80) -> list[list[str]]:
    rng = np.random.default_rng(0)
    return [
        [f"{a:.4f}", f"{b:.0f}", f"{c:.3f}", str(int(a > c))]
        for a, b, c in rng.normal([0, 50_000, 0], [1, 20_000, 1], (count, 3))
    ]


COLUMNS = ["x", "income", "z", "y"]
INPUTS = {**NUMBERS, "input_column": "x,income,z"}


def same(predicted: pd.DataFrame, run: Path, column: str) -> None:
    """Rows of the file have the probability that the run gave them."""
    test = scored(run)
    mine = predicted.set_index(pd.Index([f"row-{i + 1}" for i in range(len(predicted))]))
    assert len(test) > 5
    assert mine.loc[test.index, column].astype(float).to_numpy() == pytest.approx(test[column].to_numpy(), abs=1e-6)
    assert list(mine.loc[test.index, "prediction"]) == list(test["prediction"].astype(str))


def write_as(path: Path, columns: list[str], rows: list, extra: bool = False) -> Path:
    frame = pd.DataFrame(rows, columns=columns)
    if extra:  # other columns, in another order
        frame = frame[columns[::-1]].assign(note="a, b")
    if path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".xlsx":
        frame.to_excel(path, index=False)
    else:
        frame.to_csv(path, index=False, sep={".tsv": "\t"}.get(path.suffix, ";" if path.stem == "semi" else ","))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> dict[str, Path]:
    """A run on text and one on numbers, each from a .tsv."""
    folder = tmp_path_factory.mktemp("own")
    found = {}
    for name, columns, rows, options in (
        ("text", ["text", "label"], texts(), TEXT),
        ("numbers", COLUMNS, numbers(), INPUTS),
    ):
        path = write(folder / f"{name}.tsv", columns, rows, sep="\t")
        train(f"csv:{path}", options, llama_dir, folder / name, cache_dir=str(folder / "cache"))
        found[name] = folder / name
    return found


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "semi.csv", "x.jsonl", "x.parquet", "x.xlsx"])
@pytest.mark.parametrize(("kind", "column"), [("text", "probability_pos"), ("numbers", "probability_1")])
def test_a_file_is_predicted_as_it_was_scored(trained, tmp_path: Path, name: str, kind: str, column: str) -> None:
    columns, rows = (["text", "label"], texts()) if kind == "text" else (COLUMNS, numbers())
    path = write_as(tmp_path / name, columns, rows, extra=True)
    same(predict(trained[kind], path), trained[kind], column)


def test_evaluation_gives_the_score_of_the_run(trained, tmp_path: Path, capsys) -> None:
    results = json.loads((trained["text"] / "results.json").read_text())
    out = tmp_path / "again.json"
    cache = str(trained["text"].parent / "cache")
    evaluation.run(EvaluateArguments(checkpoint=str(trained["text"]), cache_dir=cache, output=str(out)))
    assert json.loads(out.read_text())["metrics"]["test"] == pytest.approx(results["metrics"]["test"], abs=1e-6)
    assert "stratified split of seed 1" in capsys.readouterr().out
    config = json.loads((trained["text"] / "checkpoint" / "config.json").read_text())
    assert config["data"]["schema"] == results["data"]["schema"]
    assert str(trained["text"].parent) not in json.dumps(config)


def test_several_columns_are_found_by_name_or_named(trained, tmp_path: Path) -> None:
    path = write(tmp_path / "other.csv", ["b", "a", "c"], [(b, a, c) for a, b, c, _ in numbers()])
    with pytest.raises(FPTError, match="has no column 'x', 'income', 'z'; the model reads x, income, z"):
        predict(trained["numbers"], path)
    same(predict(trained["numbers"], path, column="a,b,c"), trained["numbers"], "probability_1")
    with pytest.raises(FPTError, match="names 1 columns; the model reads 3"):
        predict(trained["numbers"], path, column="a")


def test_rows_that_can_not_be_read_say_why_and_others_are_predicted(trained, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('x,income,z\n1,2,3\n,22.5,121\n"1,5",2,3\n1,2\n1,2,x\n1,2,inf\n1,2,3\n')
    out = predict(trained["numbers"], tmp_path / "x.csv", decimal=".")
    assert list(out.prediction != "") == [True, False, False, False, False, False, True]
    assert list(out.reason) == [
        "",
        "no value in 'x'",
        "'1,5' is not a number (column 'x')",
        "2 cells where the header has 3",
        "'x' is not a number (column 'z')",
        "'inf' is not a finite number (column 'z')",
        "",
    ]
    (tmp_path / "comma.csv").write_text("x;income;z\n1,5;50000;0,25\n")
    (tmp_path / "point.csv").write_text("x,income,z\n1.5,50000,0.25\n")
    first, second = (predict(trained["numbers"], tmp_path / f"{name}.csv") for name in ("comma", "point"))
    assert first.probability_1[0] == second.probability_1[0]


def test_the_decimal_separator_of_a_file_is_found_once_and_logged(trained, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "x.csv").write_text("x;income;z\n1,5;2;3\n1,25;2;3\n")
    found, decide = [], files.decimal_of
    monkeypatch.setattr(files, "decimal_of", lambda *args: found.append(decide(*args)) or found[-1])
    out = predict(trained["numbers"], tmp_path / "x.csv")
    assert found == [","]
    assert "decimal ','" in capsys.readouterr().out
    assert list(out.reason) == ["", ""]


def test_missing_values_are_the_mean_where_training_said_so(llama_dir: Path, tmp_path: Path) -> None:
    rows = numbers()
    for i in range(0, 80, 7):
        rows[i][0] = ""
    path = write(tmp_path / "x.csv", COLUMNS, rows)
    train(f"csv:{path}", {**INPUTS, "missing": "mean"}, llama_dir, tmp_path / "run")
    same(predict(tmp_path / "run", path), tmp_path / "run", "probability_1")


def test_python_takes_rows_by_name_or_in_order(trained) -> None:
    model = fpt.load(str(trained["numbers"]))
    row = dict(zip(COLUMNS, numbers()[0], strict=True))
    by_name, in_order = model.predict([row]), model.predict([[float(row[c]) for c in COLUMNS[:3]]])
    table = model.predict(pd.DataFrame([row]))
    assert by_name[0]["probabilities"] == in_order[0]["probabilities"] == table[0]["probabilities"]
    assert by_name[0]["prediction"] in ("0", "1")
    with pytest.raises(FPTError, match="input 1 has 2 values; the model reads 3"):
        model.predict([[1, 2]])
    with pytest.raises(FPTError, match="input 1 has no 'z'"):
        model.predict([{"x": 1, "income": 2}])
    assert fpt.load(str(trained["text"])).predict(["a good film", ""])[1] == {"prediction": None, "reason": "empty input"}


def test_the_scale_of_a_column_says_nothing(llama_dir: Path, tmp_path: Path) -> None:
    rows = numbers()
    scaled = [[a, f"{(float(b) - 50_000) / 20_000:.8f}", c, y] for a, b, c, y in rows]
    for name, table in (("raw", rows), ("scaled", scaled)):
        train(f"csv:{write(tmp_path / f'{name}.csv', COLUMNS, table)}", INPUTS, llama_dir, tmp_path / name, steps=20)
    raw, by_hand = (scored(tmp_path / name).probability_1.to_numpy() for name in ("raw", "scaled"))
    assert raw == pytest.approx(by_hand, abs=1e-4)


def test_large_and_small_targets_come_back(llama_dir: Path, tmp_path: Path) -> None:
    for name, scale, shift in (("big", 10.0, 1.7e9), ("small", 1e-9, 0.0)):
        rows = [[a, b, c, repr(float(a) * scale + shift)] for a, b, c, _ in numbers()]
        results = train(f"csv:{write(tmp_path / f'{name}.csv', COLUMNS, rows)}", INPUTS, llama_dir, tmp_path / name)
        table = scored(tmp_path / name)
        expected = {f"row-{i + 1}": float(row[3]) for i, row in enumerate(rows)}
        assert all(table.label[i] == expected[i] for i in table.index)
        error = np.abs(table.label - table.prediction).mean()
        assert results.metrics["test"]["mae"] == pytest.approx(error, rel=1e-5)
        assert 0.1 * scale < error < 3 * scale


def test_two_notations_of_a_molecule_get_one_answer(llama_dir: Path, tmp_path: Path) -> None:
    rows = [(s, int("n" in s)) for i in range(20) for s in (f"c1ccccc1{'C' * i}", f"c1ccncc1{'C' * i}")]
    path = write(tmp_path / "x.csv", ["smiles", "active"], rows)
    train(f"csv:{path}", SMILES, llama_dir, tmp_path / "run", split="stratified")
    file = write(tmp_path / "p.csv", ["name", "smiles"], [("a", "c1ccccc1C"), ("b", "CC1=CC=CC=C1"), ("c", "c1ccccc1C toluene")])
    out = predict(tmp_path / "run", file)
    assert float(out.probability_1[0]) == pytest.approx(float(out.probability_1[1]), abs=1e-6)
    assert "text after the SMILES: 'toluene'" in out.reason[2]
    other = predict(tmp_path / "run", write(tmp_path / "q.csv", ["smiles"], [("c1ccsc1Br",)]))
    assert "unknown token" in other.reason[0]


@pytest.mark.parametrize("kind", ["imagefolder", "audiofolder"])
def test_files_are_predicted_as_they_were_scored(kind: str, llama_dir: Path, tmp_path: Path) -> None:
    folder = (pictures if kind == "imagefolder" else sounds)(tmp_path / "set")
    options = {"image_size": 16} if kind == "imagefolder" else {"seconds": 0.25}
    train(f"{kind}:{folder}", options, llama_dir, tmp_path / "run")
    test = scored(tmp_path / "run")
    column = next(c for c in test if c.startswith("probability"))
    # Beside the table, whatever the current folder is.
    out = predict(tmp_path / "run", write(folder / "list.csv", ["file"], [(i,) for i in test.index]))
    assert out[column].astype(float).to_numpy() == pytest.approx(test[column].to_numpy(), abs=1e-6)
    again = predict(tmp_path / "run", write(tmp_path / "all.csv", ["file", "x"], [(str(folder / test.index[0]), 1), ("none", 2)]))
    assert float(again[column][0]) == pytest.approx(test[column].iloc[0], abs=1e-6)
    assert again.reason[1] != ""


def test_sets_of_labels_are_trained_and_predicted(llama_dir: Path, tmp_path: Path) -> None:
    rows = [(text, ["good", "bad", "good|long", "long|bad"][i % 4]) for i, (text, _) in enumerate(texts())]
    path = write(tmp_path / "x.csv", ["text", "label"], rows)
    results = train(f"csv:{path}", TEXT, llama_dir, tmp_path / "run")
    assert {"auroc", "auprc", "f1", "exact"} <= set(results.metrics["test"])
    out = predict(tmp_path / "run", path)
    assert list(out)[-5:] == ["prediction", "probability_bad", "probability_good", "probability_long", "reason"]
    assert (out.prediction != "").all()


def test_a_checkpoint_from_before_schemas_still_reads(trained, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained["text"] / "checkpoint", tmp_path / "old")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    config["data"].pop("schema")
    config["data"]["arguments"].pop("keep_notation")
    config["data"]["arguments"]["options"] = {
        "input_column": "text",
        "label_column": "label",
        "input_type": "text",
        "numbers_per_token": 1,
    }
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    first, second = (
        predict(folder, write(tmp_path / "x.csv", ["text"], [(t,) for t, _ in texts()[:5]]))
        for folder in (trained["text"], tmp_path / "old")
    )
    assert list(first.prediction) == list(second.prediction)


def test_threads_stay_as_they_are(tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        prepared(f"audiofolder:{sounds(tmp_path / 'set')}", {"seconds": 0.25})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_pictures_of_a_table_with_splits_are_scored(llama_dir: Path, tmp_path: Path) -> None:
    names = ["train"] * 30 + ["val"] * 10 + ["test"] * 10
    rows = [(f"img/{picture(tmp_path / 'img' / f'{i}.png', i % 2, seed=i).name}", i % 2, names[i]) for i in range(50)]
    path = write(tmp_path / "x.csv", ["file", "label", "split"], rows)
    options = {"image_size": 16, "input_type": "image", "input_column": "file"}
    results = train(f"csv:{path}", options, llama_dir, tmp_path / "run", steps=40)
    assert results.split.method == "given"
    assert results.metrics["test"]["auroc"] > 0.9

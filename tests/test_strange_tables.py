"""Tables that look ordinary and can be misread: typed cells, lists, row numbers, swallowed records, roles that collide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_data import NUMBERS, TEXT, labels_of, predict, prepared, scored, texts, told, train, values_of, write

import fpt
from fpt.data.classes import LabelOptions
from fpt.data.files import read_table
from fpt.data.labels import read_labels
from fpt.errors import FPTError, RejectedRows

ROWS = [(f"{x:.2f}", f"{1 + y:.3f}", i % 2) for i, (x, y) in enumerate(np.random.default_rng(3).normal(size=(60, 2)) ** 2)]


def means(found: Any) -> dict[str, float]:
    return {c["name"]: c["mean"][0] for c in found.manifest.schema.to_dict()["columns"] if c["role"] == "input"}


def test_a_number_that_is_one_is_never_read_as_text(tmp_path: Path, llama_dir: Path) -> None:
    frame = pd.DataFrame({"x": [a.replace(".", ",") for a, _, _ in ROWS], "y": [float(b) for _, b, _ in ROWS]})
    frame.to_json(tmp_path / "x.jsonl", orient="records", lines=True)
    found = prepared(f"csv:{tmp_path / 'x.jsonl'}", {**NUMBERS, "input_column": "x", "decimal": ","})
    assert all(float(labels_of(found)[f"row-{i + 1}"]) == float(b) for i, (_, b, _) in enumerate(ROWS))
    commas = [(a.replace(".", ","), b.replace(".", ","), y) for a, b, y in ROWS]
    path = write(tmp_path / "comma.csv", ["a", "b", "y"], commas, sep=";")
    train(f"csv:{path}", {**NUMBERS, "input_column": "a,b"}, llama_dir, tmp_path / "run")
    pd.DataFrame({"a": [float(a) for a, _, _ in ROWS], "b": [float(b) for _, b, _ in ROWS]}).to_parquet(tmp_path / "t.parquet")
    typed, table = predict(tmp_path / "run", tmp_path / "t.parquet"), scored(tmp_path / "run")
    for i, p in table.probability_1.items():
        assert float(typed.probability_1[int(str(i)[4:]) - 1]) == pytest.approx(p, abs=1e-6)
    model = fpt.load(str(tmp_path / "run"))
    assert model.predict([[float(ROWS[0][0]), float(ROWS[0][1])]])[0]["probabilities"]["1"] == pytest.approx(
        float(typed.probability_1[0]), abs=1e-6
    )
    (tmp_path / "point.csv").write_text("a,b\n45.123,1.125\n")
    with pytest.raises(FPTError, match=r"'45.123' in column 'a' may be 45123 or 45.123; pass --decimal"):
        predict(tmp_path / "run", tmp_path / "point.csv")


@pytest.mark.parametrize(
    ("cells", "width"),
    [
        (["477 698 813 359", "1 2 3 4"], 4),
        (["[1.5, nan, 0.2]", "[1, 2, 3]"], 3),
        (["3,7", "214,141,683"], "with a decimal point .* and with a decimal comma"),
        (["3,7", "5,1"], "may be one number or a list"),
        (["214,141", "683,467"], "may be 214141 or 214.141"),
        (["24.211", "730"], "may be 24211 or 24.211"),
    ],
)
def test_a_list_is_not_a_number_with_thousands(tmp_path: Path, cells: list[str], width: int | str) -> None:
    path = write(tmp_path / "x.csv", ["v", "y"], [(cells[i % 2], i // 2 % 2) for i in range(40)], sep=";")
    options = {**NUMBERS, "input_column": "v", "missing": "mean"}
    if isinstance(width, str):
        with pytest.raises(FPTError, match=width):
            prepared(f"csv:{path}", options)
        assert {
            len(v) for v in values_of(prepared(f"csv:{path}", {**options, "decimal": ","}, max_bad_fraction=0.5)).values()
        } == {1}
    else:
        assert {len(v) for v in values_of(prepared(f"csv:{path}", options)).values()} == {width}


@pytest.mark.parametrize(
    "names",
    [["__index_level_0__"], ["Unnamed: 0.1", "id"], ["idx", "id"], ["fold"], ["Y"], ["patient_id"], ["row"]],
)
def test_row_numbers_folds_and_copies_of_the_label_are_no_measurements(tmp_path: Path, names: list[str]) -> None:
    rows = [(*[i % 5 if n == "fold" else i for n in names], a, b, i % 2) for i, (a, b, _) in enumerate(ROWS)]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', [*names, 'a', 'b', 'y'], rows)}", NUMBERS)
    assert list(means(found)) == ["a", "b"]


def test_a_few_odd_cells_do_not_drop_a_column_and_marks_are_numbers_too(tmp_path: Path) -> None:
    rows = [["error" if i == 7 else a, b, y] for i, (a, b, y) in enumerate(ROWS)]
    path = write(tmp_path / "x.csv", ["a", "b", "y"], rows)
    assert list(means(prepared(f"csv:{path}", NUMBERS, max_bad_fraction=0.05))) == ["a", "b"]
    column = [-999.0 if i % 6 == 0 else float(a) for i, (a, _, _) in enumerate(ROWS)]
    frame = pd.DataFrame({"a": column, "b": [float(b) for _, b, _ in ROWS], "y": [y for *_, y in ROWS]})
    for name in ("y.parquet", "y.csv"):
        frame.to_parquet(tmp_path / name) if name.endswith("parquet") else frame.to_csv(tmp_path / name, index=False)
        found = prepared(f"csv:{tmp_path / name}", {**NUMBERS, "missing_values": "-999", "missing": "mean"})
        assert means(found)["a"] > 0
        assert found.manifest.schema.to_dict()["columns"][0]["missing"] == 10
    huge = write(tmp_path / "z.jsonl", ["x"], [])
    huge.write_text("\n".join(json.dumps({"a": 10**400 if i == 3 else i, "y": i % 2}) for i in range(60)))
    assert "too large" in told(prepared(f"csv:{huge}", {**NUMBERS, "input_column": "a"}, max_bad_fraction=0.05))


def test_columns_of_several_roles(tmp_path: Path) -> None:
    rows = [row for row in texts(40) for _ in range(3)]
    path = write(tmp_path / "x.csv", ["text", "label"], rows)
    found = prepared(f"csv:{path}", {**TEXT, "group_column": "text"})
    assert found.split_method == "group"
    parts = {name: set(part["text"]) for name, part in found.splits.items()}
    assert not parts["train"] & parts["test"]
    for flag in ("group_column", "split_column", "id_column"):
        with pytest.raises(FPTError, match=f"both the label and --{flag}"):
            prepared(f"csv:{path}", {**TEXT, flag: "label"})
    people = write(tmp_path / "y.csv", ["pid", "text", "label"], [(i, *row) for i, row in enumerate(texts(60))])
    both = prepared(f"csv:{people}", {**TEXT, "id_column": "pid", "group_column": "pid"})
    assert both.split_method == "group" and "5" in labels_of(both)


def test_groups_in_two_spellings_are_one(tmp_path: Path) -> None:
    rows = [(t, y, ["7", "7.0", "8", "NA"][i % 4] if i % 9 else f"g{i}") for i, (t, y) in enumerate(texts(120))]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['text', 'label', 'g'], rows)}", {**TEXT, "group_column": "g"})
    home = {i: name for name, part in found.splits.items() for i in part["id"]}
    assert len({home[f"row-{i + 1}"] for i, row in enumerate(rows) if row[2] in ("7", "7.0")}) == 1
    assert "rows have no group: each is one by itself" in told(found)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "0", "1.0", "True"] * 9, ("0", "1")),
        (["T", "F", "TRUE", "FALSE"] * 9, ("False", "True")),
        (["y", "n", "yes", "no"] * 9, ("No", "Yes")),
        (["０", "0", "1"] * 9, ("0", "1")),
        (["pos\u200b", "pos", "neg"] * 9, ("neg", "pos")),
        (["yes", "no", "?"] * 9, ("no", "yes")),
        (["yes", "no", "-"] * 9, ("no", "yes")),
        (["yes", "no", "#REF!", "n.d."] * 9, ("no", "yes")),
        (["['a', 'b']", "['a']", "[]"] * 9, ("a", "b")),
        (["1,3", "2", "1,2"] * 9, "may be numbers or sets of labels"),
        (["<5", "<10", "7", "8", "20"] * 9, "2 that are not|18 that are not"),
        ([f"{i}%" for i in range(40)], "are numbers with signs or units; write bare numbers"),
        (["[a, b]", "[a]"] * 9, "can't be read; write a|b"),
    ],
)
def test_labels_as_people_write_them(cells: list[str], expected: Any) -> None:
    from fpt.data.numerals import decimal_of

    def read() -> tuple[str, ...]:
        return read_labels(cells, LabelOptions(), "y", decimal_of({"y": cells})).schema.names

    if isinstance(expected, tuple):
        assert read() == expected
    else:
        with pytest.raises(FPTError, match=expected):
            read()


def test_flags_of_labels_in_other_spellings() -> None:
    assert read_labels(["1", "0"] * 9, LabelOptions(positive="0.0"), "y").schema.positive == "0"
    assert read_labels(["Yes", "no"] * 9, LabelOptions(positive="NO"), "y").schema.positive == "no"
    assert read_labels(["yes", "Yes", "no"] * 9, LabelOptions(case="keep"), "y").schema.names == ("Yes", "no", "yes")
    assert read_labels(["a b", "b", "a"] * 9, LabelOptions(delimiter=" "), "y").schema.kind == "multilabel"


def test_proteins_that_are_missing_and_texts_that_look_so(tmp_path: Path) -> None:
    rows = [("NA" if i % 10 == 0 else "MKV" + "ACDEF"[i % 5] * (i % 7 + 1), i % 2) for i in range(60)]
    path = write(tmp_path / "x.csv", ["sequence", "label"], rows)
    options = {"input_type": "protein", "input_column": "sequence", "label_column": "label"}
    with pytest.raises(RejectedRows, match=r"6 rows: no value in 'sequence'.*--missing drop"):
        prepared(f"csv:{path}", options)
    assert sum(prepared(f"csv:{path}", {**options, "missing": "drop"}).manifest.rows.values()) == 54
    rows = [("none" if i % 10 == 0 else t, y) for i, (t, y) in enumerate(texts(60))]
    found = prepared(f"csv:{write(tmp_path / 'y.csv', ['text', 'label'], rows)}", TEXT)
    assert "6 inputs are texts such as 'none', read as they are" in told(found)
    rows = [("" if i % 10 == 0 else t, y) for i, (t, y) in enumerate(texts(60))]
    empty = write(tmp_path / "z.csv", ["text", "label"], rows)
    assert sum(prepared(f"csv:{empty}", {**TEXT, "missing": "drop"}).manifest.rows.values()) == 54
    with pytest.raises(FPTError, match="--missing error"):
        prepared(f"csv:{empty}", {**TEXT, "missing": "error"})


def test_excel_sheets_are_read_whole_and_short_rows_are_padded(tmp_path: Path) -> None:
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("data")
    sheet.append(["text", "label", "note"])
    for text, label in texts(60):
        sheet.append([text, label])
    book.save(tmp_path / "x.xlsx")
    table = read_table(tmp_path / "x.xlsx")
    assert (len(table.rows), table.rejected) == (60, [])
    assert sum(prepared(f"csv:{tmp_path / 'x.xlsx'}", TEXT).manifest.rows.values()) == 60


def test_parquet_with_columns_that_can_not_be_read(tmp_path: Path) -> None:
    rows = texts(60)
    columns = {
        "text": pa.array([t for t, _ in rows]),
        "label": pa.array([y for _, y in rows]),
        "more": pa.array([[("a", 1)]] * 60, pa.map_(pa.string(), pa.int64())),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    found = prepared(f"csv:{tmp_path / 'x.parquet'}", TEXT)
    assert "1 columns of maps, which are not read" in told(found)


def test_truth_values_are_read_the_same_from_any_format(tmp_path: Path, llama_dir: Path) -> None:
    frame = pd.DataFrame({"a": [i % 3 == 0 for i in range(60)], "b": [float(a) for a, *_ in ROWS], "y": [y for *_, y in ROWS]})
    frame.to_parquet(tmp_path / "x.parquet")
    frame.to_csv(tmp_path / "x.csv", index=False)
    train(f"csv:{tmp_path / 'x.parquet'}", {**NUMBERS, "input_column": "a,b"}, llama_dir, tmp_path / "run")
    first, second = (predict(tmp_path / "run", tmp_path / name) for name in ("x.parquet", "x.csv"))
    assert (first.prediction != "").all()
    assert first.probability_1.astype(float).to_numpy() == pytest.approx(second.probability_1.astype(float).to_numpy(), abs=1e-6)


def test_records_that_were_swallowed_or_shifted_are_refused(tmp_path: Path) -> None:
    lines = [f"text {i},{i % 2}" for i in range(60)]
    lines[10], lines[40] = '"text 10,0', 'text 40",1'
    (tmp_path / "x.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    with pytest.raises(FPTError, match="a cell of record 11 holds 29 lines that look like records"):
        read_table(tmp_path / "x.csv")
    (tmp_path / "r.csv").write_text("x1,x2,y,note\n" + "".join(f"{i + 1},0.{i},{i},{i % 2},\n" for i in range(9)))
    with pytest.raises(FPTError, match="rows have 5 cells and begin with their number, the header has 4 names"):
        read_table(tmp_path / "r.csv")
    write(tmp_path / "s.csv", ["text", "label", "__sha__"], [(*row, "x") for row in texts(9)])
    with pytest.raises(FPTError, match="'__sha__', a name that is used here; rename it"):
        read_table(tmp_path / "s.csv")


def test_rows_of_other_splits_remove_no_training_row(tmp_path: Path) -> None:
    rows = [(t, y, ["train", "test"][i // 40]) for i, (t, y) in enumerate(texts(80))]
    rows += [(t, "neg" if y == "pos" else "pos", "unlabeled") for t, y in texts(40)]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['text', 'label', 'split'], rows)}", {**TEXT, "deduplicate": True})
    assert sum(found.manifest.rows.values()) == 80


def test_what_python_is_given_is_one_list_of_inputs(tmp_path: Path, llama_dir: Path) -> None:
    train(f"csv:{write(tmp_path / 'x.csv', ['text', 'label'], texts())}", TEXT, llama_dir, tmp_path / "run")
    model = fpt.load(str(tmp_path / "run"))
    assert [row["prediction"] for row in model.predict([None, float("nan")])] == [None, None]
    for one in ("good film", {"text": "good film"}):
        with pytest.raises(FPTError, match="predict takes a list"):
            model.predict(one)
    file = write(tmp_path / "p.csv", ["id", "text"], [("a", "good film"), ("b",)])
    out = predict(tmp_path / "run", file)
    assert list(out["id"]) == ["a", "b"] and out.reason[1] == "1 cells where the header has 2"
    (tmp_path / "f.csv.predicted.csv").mkdir()
    with pytest.raises(FPTError, match="is a folder; give the name of a file"):
        predict(tmp_path / "run", write(tmp_path / "f.csv", ["text"], [("x",)]))


@pytest.mark.parametrize(
    ("header", "rows", "options", "expected"),
    [
        (
            ["5.1", "3.5", "setosa"],
            lambda i: (i, i / 7, ["setosa", "virginica"][i % 2]),
            {**NUMBERS, "label_column": "setosa"},
            "no header",
        ),
        (["text", "a", "b"], lambda i: (f"t {i}", i % 2, i % 3), {"label_column": "a,b"}, "name one column; several labels"),
        (["sentence", "label", "idx"], lambda i: (f"t {i}", "ab"[i % 2], i % 9), {}, ["sentence"]),
        (["number", "a", "y"], lambda i: (i * 0.37, i, i % 2), NUMBERS, ["number", "a"]),
        (["refractive_index", "y"], lambda i: (i * 0.37, i % 2), NUMBERS, ["refractive_index"]),
        (["signal", "label"], lambda i: (f"[{i}, 0.5, 1]", i % 2), {"input_type": "numbers"}, ["signal"]),
    ],
)
def test_ordinary_tables_without_flags(tmp_path: Path, header: list[str], rows: Any, options: dict, expected: Any) -> None:
    path = write(tmp_path / "x.csv", header, [rows(i) for i in range(60)])
    if isinstance(expected, str):
        with pytest.raises(FPTError, match=expected):
            prepared(f"csv:{path}", options)
    else:
        columns = prepared(f"csv:{path}", options).manifest.schema.to_dict()["columns"]
        assert [column["name"] for column in columns if column["role"] == "input"] == expected


def test_lists_of_one_label_and_sets_that_never_recur() -> None:
    found = read_labels([[i / 7] for i in range(60)], LabelOptions(), "y")
    assert (found.schema.kind, found.values[7]) == ("number", 1.0)
    with pytest.raises(FPTError, match="120 different labels in 60 sets"):
        read_labels([[f"a{i}", f"b{i}"] for i in range(60)], LabelOptions(), "y")
    assert read_labels(["glioma_tumor", "no_tumor"] * 9, LabelOptions(), "y").schema.positive == "glioma_tumor"
    counts = [str(i % 9) for i in range(60)]
    assert "(--label_type number if they are quantities)" in read_labels(counts, LabelOptions(), "y").schema.describe()


def test_quotes_escaped_by_backslashes_and_the_line_of_a_bad_one(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('text,label\n"He said \\"hi\\" to me",1\n"fine, really",0\n')
    table = read_table(tmp_path / "x.csv")
    assert list(table.rows.text) == ['He said "hi" to me', "fine, really"]
    assert table.format["quotes"] == "escaped by backslashes"
    (tmp_path / "y.csv").write_text('text,label\na,1\n"b"c,0\n')
    with pytest.raises(FPTError, match="line 3: ',' expected after"):
        read_table(tmp_path / "y.csv")


def test_a_class_that_reads_as_missing_is_shown(tmp_path: Path) -> None:
    rows = [(t, ["None", "mild", "severe"][i % 3]) for i, (t, _) in enumerate(texts(90))]
    path = write(tmp_path / "x.csv", ["text", "label"], rows)
    with pytest.raises(RejectedRows, match=r"30 rows: no label \('None'\).*--missing_values says which texts mean no label"):
        prepared(f"csv:{path}", TEXT)
    assert prepared(f"csv:{path}", {**TEXT, "missing_values": "NA"}).output.size == 3

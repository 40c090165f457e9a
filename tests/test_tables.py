"""A user's own table, from the file to the features: formats, delimiters, numbers, missing cells."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from own_data import NUMBERS, SMILES, TEXT, arguments, labels_of, prepared, told, values_of, write

from fpt.args import DataArguments, as_dict
from fpt.data.files import read_table
from fpt.data.numerals import decimal_of, is_number, number_of
from fpt.data.table import TableOptions
from fpt.errors import FPTError, RejectedRows
from fpt.options import options_of
from fpt.tasks.base import TASKS, resolve
from fpt.tasks.table import HubArguments, HubReader, TableArguments

ROWS = [(f"a {'good' if i % 2 else 'bad'} film, number {i} café", "pos" if i % 2 else "neg") for i in range(40)]


def as_file(path: Path) -> Path:
    """The same rows in the format of the file's name."""
    frame = pd.DataFrame(ROWS, columns=["text", "label"])
    name = path.name
    if name.endswith((".gz", ".bz2", ".xz")):
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in name else ",")
    elif name.endswith(".jsonl"):
        frame.to_json(path, orient="records", lines=True)
    elif name.endswith(".json"):
        frame.to_json(path, orient="records")
    elif name.endswith(".parquet"):
        frame.to_parquet(path)
    elif name.endswith(".xlsx"):
        frame.to_excel(path, index=False)
    else:
        sep = {"semi": ";", "tabs": "\t", "bars": "|"}.get(path.stem, "\t" if name.endswith((".tsv", ".tab")) else ",")
        encoding = {"utf16": "utf-16", "bom": "utf-8-sig"}.get(path.stem, "utf-8")
        frame.to_csv(path, index=False, sep=sep, encoding=encoding)
    return path


FORMATS = (
    "a.csv a.tsv a.tab a.txt semi.csv tabs.csv bars.txt a.csv.gz a.tsv.gz a.csv.bz2 a.csv.xz a.jsonl a.json a.parquet a.xlsx"
    " utf16.csv bom.csv"
).split()


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_rows_in_any_format_are_the_same_samples(tmp_path: Path, name: str) -> None:
    table = read_table(as_file(tmp_path / name))
    assert list(table.rows.itertuples(index=False, name=None)) == ROWS
    assert not table.rejected


def test_a_format_does_not_change_the_hash_or_a_token(tmp_path: Path) -> None:
    found = [prepared(f"csv:{as_file(tmp_path / name)}", TEXT) for name in ("a.csv", "a.tsv", "a.parquet", "a.xlsx", "utf16.csv")]
    assert len({one.manifest.data_sha256 for one in found}) == 1
    first = values_of(found[0], "input_ids")
    assert all(values_of(one, "input_ids") == first and labels_of(one) == labels_of(found[0]) for one in found)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("text,label\na café,1\n".encode("latin-1"), {}, r"line 2\) is not utf-8; pass --encoding"),
        ("text,label\nx,1\n".encode("utf-16-le"), {}, "zero bytes; pass --encoding utf-16"),
        (b"a;b|c\n1;2|3\n4;5|6\n", {}, "semicolon or bar; pass --delimiter"),
        (b"text,label\nx,1\n", {"delimiter": "ab"}, "--delimiter 'ab' must be one character"),
        (b"text,label\nx,1\n", {"encoding": "klingon"}, "unknown --encoding 'klingon'"),
        (b"", {}, "is empty"),
        (b"\n\n,,\n", {}, "is empty"),
        (b"text,label\n", {}, "a header line and no rows"),
        (b"text,label,text\nx,1,y\n", {}, "the column 'text' 2 times"),
        (b'text,label\n"x,1\ny,0\n', {}, "can't be read as a table: line 3: unexpected end of data"),
        (b'text,label\n"x"y,1\n', {}, "expected after"),
    ],
)
def test_a_text_table_that_may_be_misread_names_the_flag(tmp_path: Path, content: bytes, options: dict, message: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(FPTError, match=message):
        read_table(tmp_path / "x.csv", TableOptions(**options))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", b"PAR1 nothing", "can't be read as Parquet"),
        ("x.xlsx", b"PK\x03\x04 nothing", "can't be read as an Excel file .*save it as CSV"),
        ("x.json", b"{", "can't be read as JSON"),
        ("x.json", b'{"a": 1}', "expected a JSON list of objects"),
        ("x.jsonl", b"1\n2\n", "expected JSON objects"),
        ("x.csv.gz", b"\x1f\x8b nothing", "can't be decompressed"),
        ("x.docx", b"PK", "its ending '.docx' is not one of"),
    ],
)
def test_a_damaged_or_unknown_file_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FPTError, match=message):
        read_table(tmp_path / name)


def test_options_read_what_would_be_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("text;label\na café;1\n".encode("latin-1"))
    assert read_table(tmp_path / "x.csv", TableOptions(";", "latin-1")).rows.text[1] == "a café"
    with pd.ExcelWriter(tmp_path / "x.xlsx") as book:
        pd.DataFrame({"a": [1]}).to_excel(book, sheet_name="one", index=False)
        pd.DataFrame({"b": [2]}).to_excel(book, sheet_name="two", index=False)
    first = read_table(tmp_path / "x.xlsx")
    assert list(first.rows) == ["a"]
    assert any("other sheets" in what for what in first.odd)
    assert list(read_table(tmp_path / "x.xlsx", TableOptions(sheet="two")).rows) == ["b"]
    with pytest.raises(FPTError, match="no sheet 'three'; it has one, two"):
        read_table(tmp_path / "x.xlsx", TableOptions(sheet="three"))


def test_records_that_do_not_fit_are_rejected_and_nothing_is_shifted(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('id,text,label\n0,"a, b",x,\n1,c,y,\n2,d\n3,e,z,w\n\n4,f,v,,\n')
    table = read_table(tmp_path / "x.csv")
    assert table.rows.values.tolist() == [["0", "a, b", "x"], ["1", "c", "y"], ["4", "f", "v"]]
    assert [(bad.row, bad.reason) for bad in table.rejected] == [
        (3, "2 cells where the header has 3"),
        (4, "4 cells where the header has 3"),
    ]
    assert table.odd == {"empty cells beyond the last column": 4, "blank rows": 1}


def test_quotes_of_a_tab_file_and_excels_first_line(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text('text\tlabel\n"great" film\t1\n5" disk\t0\n')
    table = read_table(tmp_path / "x.tsv")
    assert list(table.rows.text) == ['"great" film', '5" disk']
    assert table.format["quotes"] == "read as they are"
    (tmp_path / "y.csv").write_text("sep=;\ntext;label\na,b;1\n")
    assert list(read_table(tmp_path / "y.csv").rows.text) == ["a,b"]


def test_nested_json_and_lines_that_are_none(tmp_path: Path) -> None:
    lines = [{"review": {"body": "b", "stars": 3}, "label": 1}, {"review": {"body": "c"}, "label": 0}]
    (tmp_path / "x.jsonl").write_text("\n".join([json.dumps(line) for line in lines] + ["{broken", "[1]"]))
    table = read_table(tmp_path / "x.jsonl")
    assert list(table.rows) == ["review.body", "review.stars", "label"]
    assert [bad.row for bad in table.rejected] == [3, 4]


@pytest.mark.parametrize(
    ("text", "point", "comma"),
    [
        ("9,452", 9452.0, 9.452),
        ("1,80", None, 1.8),
        ("1.80", 1.8, None),
        ("1,234.5", 1234.5, None),
        ("1.234,5", None, 1234.5),
        ("1 234.5", 1234.5, None),
        ("1'234", 1234.0, 1234.0),
        ("\u22123", -3.0, -3.0),
        ("1e-9", 1e-9, 1e-9),
        (".5", 0.5, None),
        ("1_000", None, None),
        ("0x10", None, None),
        ("inf", None, None),
        ("12%", None, None),
        ("$5", None, None),
        (">10000", None, None),
        ("1,2,3", None, None),
        ("12,34,567", None, None),
    ],
)
def test_numbers_as_people_write_them(text: str, point: float | None, comma: float | None) -> None:
    for decimal, expected in ((".", point), (",", comma)):
        assert (number_of(text, decimal) if is_number(text, decimal) else None) == expected


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"a": ["9,452", "852"], "b": ["0.5"]}, "."),
        ({"a": ["1,80", "2"]}, ","),
        ({"a": ["1.234"]}, "."),
        ({"a": ["1,234,567"]}, "."),
        ({"a": ["1.234.567"]}, ","),
        ({"a": ["5", "x, y"]}, "."),
        ({"a": ["9,452", "852"]}, "may be 9452 or 9.452; pass --decimal"),
        ({"a": ["1,80"], "b": ["2.5"]}, "with a decimal point .*'2.5'.* decimal comma .*'1,80'"),
    ],
)
def test_the_decimal_separator_is_proved_or_asked_for(columns: dict, expected: str) -> None:
    if len(expected) == 1:
        assert decimal_of(columns) == expected
    else:
        with pytest.raises(FPTError, match=expected):
            decimal_of(columns)


def numbers(count: int = 60) -> list[list[str]]:
    rng = np.random.default_rng(0)
    x, income = rng.normal(size=count), rng.normal(50_000, 20_000, count)
    return [[f"{a:.4f}", f"{b:.0f}", str(int(a > 0))] for a, b in zip(x, income, strict=True)]


def test_each_column_has_its_own_mean_and_deviation(tmp_path: Path) -> None:
    rows = numbers()
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['x', 'income', 'y'], rows)}", {**NUMBERS, "input_column": "x,income"})
    values = np.stack([row for row in found.splits["train"].with_format("numpy")["values"]])
    assert np.abs(values.mean(axis=0)).max() < 1e-6
    assert np.abs(values.std(axis=0) - 1).max() < 1e-6
    by_name = {column["name"]: column for column in found.manifest.schema.to_dict()["columns"]}
    train = [int(i.removeprefix("row-")) - 1 for i in found.splits["train"]["id"]]
    assert by_name["income"]["mean"][0] == pytest.approx(np.mean([float(rows[i][1]) for i in train]))
    assert "input     `income`: number, mean" in told(found)


@pytest.mark.parametrize("scale", [1e-9, 1e12])
def test_columns_of_any_scale_keep_their_differences(tmp_path: Path, scale: float) -> None:
    rows = [[repr(float(a) * scale), "1", y] for a, _, y in numbers()]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['x', 'same', 'y'], rows)}", {**NUMBERS, "input_column": "x,same"})
    values = np.stack([row for row in found.splits["train"].with_format("numpy")["values"]])
    assert values[:, 0].std() == pytest.approx(1, abs=1e-5)
    assert not values[:, 1].any()  # a number that never changes


def test_large_numbers_are_standardised_before_they_lose_digits(tmp_path: Path) -> None:
    rows = [[f"{1.7e9 + float(a):.4f}", y] for a, _, y in numbers()]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['t', 'y'], rows)}", {**NUMBERS, "input_column": "t"})
    values = np.concatenate(found.splits["train"].with_format("numpy")["values"])
    assert len(np.unique(values)) > 40
    assert values.std() == pytest.approx(1, abs=1e-5)


def test_a_missing_number_moves_no_other(tmp_path: Path) -> None:
    rows = numbers(100)
    for i in range(0, 100, 10):
        rows[i][0] = ("", "NA", "nan", "-", "null")[i // 10 % 5]
    path = write(tmp_path / "x.csv", ["x", "income", "y"], rows)
    options = {**NUMBERS, "input_column": "x,income"}
    with pytest.raises(RejectedRows, match=r"10 of 100 rows .*no value in 'x' \(first: row-1\).*--missing drop"):
        prepared(f"csv:{path}", options)
    dropped = prepared(f"csv:{path}", {**options, "missing": "drop"})
    assert sum(dropped.manifest.rows.values()) == 90
    assert "left out, 10 rows: no value in 'x' (first: row-1)" in told(dropped)
    means = values_of(prepared(f"csv:{path}", {**options, "missing": "mean"}))
    assert len(means) == 100
    assert [means[f"row-{i + 1}"][0] for i in range(0, 100, 10)] == [0.0] * 10
    assert all(len(row) == 2 for row in means.values())
    with pytest.raises(FPTError, match="row-1: no value in 'x'; --missing error"):
        prepared(f"csv:{path}", {**options, "missing": "error"})


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["[1, 2.5, 3]", "[4, 5, 6]"], 3),
        (["1 2 3", "4 5 6"], 3),
        (["1;2;3", "4;5;6"], 3),
        (["1,2,3", "4,5,6"], 3),
        (["5", "6"], 1),
    ],
)
def test_lists_of_numbers_in_one_cell(tmp_path: Path, cells: list[str], expected: int) -> None:
    rows = [(cells[i % 2].replace("1", str(i % 9 + 1), 1), i % 2) for i in range(40)]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['x', 'y'], rows)}", {**NUMBERS, "input_column": "x"})
    assert {len(v) for v in values_of(found).values()} == {expected}


def test_lists_of_other_lengths_are_rejected_or_a_series(tmp_path: Path) -> None:
    rows = [(" ".join(str(j + i) for j in range(3 + i % 2)), i % 2) for i in range(40)]
    path = write(tmp_path / "x.csv", ["x", "y"], rows)
    found = prepared(f"csv:{path}", {**NUMBERS, "input_column": "x"})
    assert found.manifest.schema.standardise == "all"
    with pytest.raises(FPTError, match="--standardise each needs rows of equally many numbers"):
        prepared(f"csv:{path}", {**NUMBERS, "input_column": "x", "standardise": "each"})


def test_a_cell_of_a_column_never_becomes_two_numbers(tmp_path: Path) -> None:
    rows = [("9,452" if i else "1 2", "0.5", i % 2) for i in range(40)]
    path = write(tmp_path / "x.tsv", ["a", "b", "y"], rows, sep="\t")
    with pytest.raises(RejectedRows, match=r"'1 2' is not a number .column 'a'"):
        prepared(f"csv:{path}", {**NUMBERS, "input_column": "a,b"})
    found = prepared(f"csv:{path}", {**NUMBERS, "input_column": "a,b"}, max_bad_fraction=0.05)
    column = found.manifest.schema.columns[0]
    assert (column.name, column.mean) == ("a", (9452.0,))


def test_no_input_is_guessed_where_several_could_be(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", ["one", "two", "label"], [("a", "b", i % 2) for i in range(20)])
    with pytest.raises(FPTError, match="Give --input_column, one of one, two"):
        prepared(f"csv:{path}", {})
    path = write(tmp_path / "y.csv", ["nr", "text", "label"], [(i, f"a {i}", i % 2) for i in range(20)])
    found = prepared(f"csv:{path}", {})
    assert "input     `text`: text (guessed; --input_column)" in told(found)
    assert "label     `label`: 2 classes 1 (10), 0 (10); positive: 1 (guessed; --label_column)" in told(found)
    assert "ignored   nr" in told(found)


def test_bad_rows_are_counted_by_kind_and_listed(tmp_path: Path) -> None:
    rows = [(f"{'C' * (i % 7 + 1)}O", i % 2) for i in range(60)]
    rows[3], rows[5], rows[7], rows[9] = ("c1cc", 1), ("", 0), ("CCO ethanol", 1), ("CCO", "")
    path = write(tmp_path / "x.csv", ["smiles", "active"], rows)
    with pytest.raises(RejectedRows, match=r"4 of 60 rows .* can't be used") as caught:
        prepared(f"csv:{path}", SMILES)
    assert list(caught.value.rows.row) == [4, 6, 8, 10]
    found = prepared(f"csv:{path}", {**SMILES}, max_bad_fraction=0.1, split="stratified")
    assert found.split_method == "stratified"
    assert dict(zip(found.rejected.id, found.rejected.reason, strict=True))["row-10"] == "no label"
    assert "text after the SMILES: 'ethanol'" in told(found)


def test_a_dataset_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.csv", ["text", "label"], [(f"word {i % 5} {i}", "ab"[i % 2]) for i in range(60)])
    opened, load = [], datasets.load_dataset
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **k: opened.append(a) or load(*a, **k))
    reader = HubReader(str(tmp_path / "set"))
    options = HubArguments()
    assert reader.completed(options) == reader.completed(options) == replace(options, input_type="text", patch_size=4)
    args = DataArguments()
    args.options = options
    assert len(reader.read(args, print).rows) == 60
    assert len(opened) == 1


def test_options_are_completed_beside_what_was_given(tmp_path: Path) -> None:
    given = arguments(f"csv:{tmp_path / 'x.csv'}", {"input_type": "audio", "features": "raw"})
    task, args = resolve(TASKS[given.dataset], given)
    assert given.options is None and given.given_options == args.given_options == {"input_type": "audio", "features": "raw"}
    assert args.options == TableArguments(input_type="audio", features="raw", patch_size=80)
    assert as_dict(args)["options"] == args.stored_options() == asdict(args.options)
    assert resolve(task, args)[1].options == args.options
    with pytest.raises(TypeError, match="TableArguments, not HubArguments"):
        options_of(args, HubArguments)
    task_of_its_own, unread = TASKS[given.dataset], replace(given)
    unread.options = {"input_type": "audio"}
    with pytest.raises(TypeError, match=r"options is dict: arguments by name belong in args\.given_options"):
        resolve(task_of_its_own, unread)
    with pytest.raises(TypeError, match="NoneType, not TableArguments"):
        options_of(given, TableArguments)

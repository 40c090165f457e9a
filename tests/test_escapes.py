"""Text that means something to a format goes out as text: cells, Markdown, YAML heads, pictures, names."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from strange_text import HALF, READER, TEXTS, cells_of, config_of, kinds, results_of, write_run

from fpt.checkpoint.card import model_card
from fpt.errors import FPTError
from fpt.experiment.runner import Cell, Row, finished
from fpt.experiment.spec import Experiment
from fpt.experiment.table import table
from fpt.files.tables import read_csv, write_csv
from fpt.files.whole import slug, write_json
from fpt.report.figures import figure, picture_text
from fpt.text.escape import (
    csv_cell,
    csv_plain,
    is_formula,
    markdown,
    markdown_block,
    markdown_code,
    visible,
    yaml_text,
)
from fpt.text.table import markdown_table

PIECES = st.sampled_from(
    [*TEXTS, *"=+-@＝＋－＠'\"\t\r\n\0 ,;\\`*_[]()<>&|~$#!.:^{}/%1aé", HALF, "\u202e", "\x1b", "\ufeff", "😀", "  "]
)
STRANGE = st.lists(PIECES, max_size=6).map("".join)
FAST = settings(max_examples=300, deadline=None, derandomize=True)


# Cells of CSV.


@FAST
@given(STRANGE)
def test_a_cell_is_read_back_as_it_was(text: str) -> None:
    assert csv_plain(csv_cell(text)) == text


@FAST
@given(STRANGE)
def test_no_cell_begins_a_formula(text: str) -> None:
    cell = csv_cell(text)
    shown = cell.lstrip(" \u3000\ufeff")
    if shown[:1] in tuple("=+-@＝＋－＠\t\r") and not shown.strip().strip("+-").replace(".", "").isdigit():
        assert is_number(shown), cell


def is_number(text: str) -> bool:
    """Digits with what separates them, and nothing to compute."""
    return all(c.isspace() or c in "0123456789.,'eE%+-" for c in text) and text.strip()[1:].lstrip()[:1] in tuple("0123456789.,")


@pytest.mark.parametrize(
    "number", "-0.5 +1e-3 -1 -1,5 -1.234.567,89 +49\u00a089 -12% -.5 -inf +0 -1e308 1 0.25 -0 +1'000 2024-01-01".split(" ")
)
def test_numbers_are_never_touched(number: str) -> None:
    assert csv_cell(number) == number


@pytest.mark.parametrize(
    "formula",
    ["=1", "+a", "-a", "@a", " =1", "\u3000=1", "\ufeff=1", "\u200b\x00=1", "＝1", "－１", "﹢a", "-2+3", "-", "\ta", " \t"],
)
def test_what_a_spreadsheet_runs_gets_an_apostrophe(formula: str) -> None:
    assert csv_cell(formula) == f"'{formula}"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(STRANGE, STRANGE, st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=5), STRANGE)
def test_a_table_is_read_back_as_it_was(tmp_path_factory, rows: list[tuple[str, str, float]], name: str) -> None:
    path = tmp_path_factory.getbasetemp() / "table.csv"
    frame = (
        pd.DataFrame(rows, dtype=object)
        .set_axis(pd.Index([f"{name}a", f"{name}b", "number"], dtype=object), axis=1)
        .astype({"number": float})
    )
    write_csv(frame, path, log=lambda line: None)
    cells, found = cells_of(path), read_csv(path)
    assert {len(row) for row in cells} == {3}
    assert len(cells) == len(rows) + 1
    assert not any(is_formula(cell) for row in cells for cell in row)
    assert pd.read_csv(path, dtype=str, keep_default_na=False).shape == (len(rows), 3)
    assert [float(number) for number in found["number"]] == frame["number"].tolist()
    for column in (0, 1):
        told = [text.replace("\0", "\\x00").replace(HALF, "\\ud800") for text in frame.iloc[:, column]]
        assert found.iloc[:, column].tolist() == told


def test_what_was_changed_is_counted(tmp_path: Path) -> None:
    lines: list[str] = []
    frame = pd.DataFrame({"=x": ["=1", "-1", "a"], "n": [-1.0, 2.0, 3.0]}, index=[7, 7, 7])
    write_csv(frame, tmp_path / "a.csv", log=lines.append)
    assert (tmp_path / "a.csv").read_text() == "'=x,n\n'=1,-1.0\n-1,2.0\na,3.0\n"
    assert lines == [
        f"{tmp_path / 'a.csv'}: cells that a spreadsheet would run as formulas: 2; an apostrophe was put before each"
    ]
    write_csv(frame, tmp_path / "b.csv", raw=True, log=lines.append)
    assert (tmp_path / "b.csv").read_text() == "=x,n\n=1,-1.0\n-1,2.0\na,3.0\n"
    assert lines[1].endswith("a spreadsheet would run as formulas: 2; they were left as they are")
    write_csv(pd.DataFrame({"a": ["b"]}), tmp_path / "c.csv", log=lines.append)
    write_csv(pd.DataFrame({"a": ["b\0"]}), tmp_path / "d.csv", log=lines.append)
    assert lines[2:] == [
        f"{tmp_path / 'd.csv'}: cells with characters that a text file can't hold: 1; these are written out, as \\x00"
    ]


@pytest.mark.parametrize("data", [b"", b"a,a\n1,2\n", b"a,b\n1\n", b"a\n\xff\n", b'a\n"x\n', b"a\n\n\n"])
def test_a_damaged_table_is_one_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(FPTError, match=r"x\.csv can't be read as CSV: "):
        read_csv(tmp_path / "x.csv")


# Markdown.


def shown(text: object) -> str:
    return " ".join(visible(text).split())


@FAST
@given(STRANGE)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    for start in ("", "# ", "- ", "Split: "):
        inline = [t for t in READER.parse(f"{start}{markdown(text)}") if t.type == "inline"]
        expected = f"{start.strip('#- ')}{' ' if start == 'Split: ' else ''}{shown(text)}".strip()
        assert [child.type for token in inline for child in token.children or ()] == (["text"] if expected else []), text
        assert "".join(child.content for token in inline for child in token.children or ()) == expected


@FAST
@given(STRANGE, STRANGE)
def test_a_table_of_markdown_keeps_its_cells(one: str, two: str) -> None:
    found = READER.parse("\n".join(markdown_table(["a", one, "b"], [[one, two, "-"], ["x", two, one]])))
    cells = [token.content for token in found if token.type == "inline"]
    assert len(cells) == 9
    assert {child.type for token in found for child in token.children or ()} <= {"text"}
    told = ["".join(child.content for child in token.children or ()) for token in found if token.type == "inline"]
    assert told == ["a", shown(one), "b", shown(one), shown(two), "-", "x", shown(two), shown(one)]


@FAST
@given(STRANGE)
def test_code_stays_code(text: str) -> None:
    (paragraph,) = [t for t in READER.parse(f"x {markdown_code(text)} y") if t.type == "inline"]
    code = [child.content for child in paragraph.children or () if child.type == "code_inline"]
    assert code == ([shown(text)] if shown(text) else [])
    fence, *more = READER.parse(f"{markdown_block(text)}\n\nafter")
    assert (fence.type, fence.content.rstrip("\n")) == ("fence", visible(text).rstrip("\n"))
    assert [t.content for t in more if t.type == "inline"] == ["after"]


# The model card.


@pytest.mark.parametrize("text", [*TEXTS, HALF])
def test_no_field_changes_the_form_of_a_card(text: str) -> None:
    honest, card = model_card(config_of()), model_card(config_of(lambda honest: text))
    _, head, body = card.split("---\n", 2)
    _, honest_head, honest_body = honest.split("---\n", 2)
    said, told = yaml.safe_load(head), yaml.safe_load(honest_head)
    assert said["license"] in ("other", "unknown")
    assert re.fullmatch("[a-z0-9.-]+", said.get("license_name", "x"))
    for key in (*told, *said):
        assert key in (*told, "license_name")
        assert key in said or key in ("base_model", "datasets", "pipeline_tag")
    assert kinds(body) <= kinds(honest_body)
    assert card.encode()
    assert ModelCard(card).data.model_name == f"fpt-{yaml_text(text)}"


# The table of an experiment.


@pytest.mark.parametrize("text", TEXTS)
def test_the_table_of_an_experiment_shows_texts_as_they_are(text: str, tmp_path: Path) -> None:
    def written(text: str, folder: Path) -> str:
        row = Row(f"{text}name", {"backbone": text}, {"auroc": 0.5}, f"{text}source")
        run = write_run(folder / "seed-1", {**results_of(("no", "yes"), 1), "core": {"name": f"{text}backbone"}})
        cells = [Cell(row, 1, run, row.arguments)]
        return table(Experiment("e", f"{text}title", f"{text}small", ("auroc",), (row,)), cells, ["launch"])[0]

    assert kinds(written(text, tmp_path)) <= kinds(written("honest", tmp_path))


def test_results_that_are_not_those_of_a_cell_are_one_line(tmp_path: Path) -> None:
    cell = Cell(Row("a", {}), 1, tmp_path, {})
    assert not finished(cell)
    for text in ("{", "[]", json.dumps({**results_of((), 1), "arguments": []})):
        (tmp_path / "results.json").write_text(text)
        assert not finished(cell)
        assert "results.json can't be read" in cell.damage
        assert "\n" not in cell.damage


# Pictures.


@pytest.mark.parametrize("text", [*TEXTS, HALF, "$\\frac{", "\\", "a$b$c", "$" * 9, "x" * 10_000])
def test_pictures_take_any_text(text: str) -> None:
    text = picture_text(text)

    def draw(axis) -> None:
        axis.plot([0, 1], [0, 1], label=text)
        axis.set(title=text, xlabel=text, ylabel=text)
        axis.set_xticks([0, 1], [text, text])
        axis.text(0, 0, text)
        legend = axis.legend()
        assert [entry.get_text() for entry in legend.get_texts()] == [text]

    with warnings.catch_warnings(), matplotlib.rc_context({"text.usetex": True}):
        warnings.filterwarnings("ignore", "Glyph")
        made = figure(draw, 3, 2)
    ET.fromstring(base64.b64decode(made.data))


# Names and JSON.


@pytest.mark.parametrize("text", [*TEXTS, HALF, "é" * 400, "../../etc", "a" * 5_000, "..", "con/aux"])
def test_a_name_of_a_folder(text: str, tmp_path: Path) -> None:
    (tmp_path / slug(text)).mkdir()
    (tmp_path / f"{slug(text)}.log").write_text("x")
    assert (tmp_path / slug(text)).parent == tmp_path
    assert slug(text) not in (".", "..", "")


def test_long_names_that_differ_at_the_end_stay_different() -> None:
    assert len({slug("a" * 300), slug("a" * 300 + "b"), slug("a" * 150)}) == 3


@FAST
@given(STRANGE)
def test_json_is_read_back_as_it_was(tmp_path_factory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "x.json"
    write_json(path, {text: [text]})
    assert json.loads(path.read_text(encoding="utf-8")) == {text: [text]}


def test_the_reader_of_the_tests_sees_what_is_not_escaped() -> None:
    found = {kind for text in TEXTS for kind, _ in kinds(text)}
    assert {"html_block", "link_open", "heading_open", "bullet_list_open", "fence", "blockquote_open"} <= found
    assert list(csv.reader(io.StringIO("=1")))

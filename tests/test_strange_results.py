"""Whatever a run, an experiment or its predictions say: a page that shows it as text, or one line of error."""

from __future__ import annotations

import base64
import copy
import html.parser
import json
import re
import shutil
import sys
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strange_text import HALF, TEXTS, everywhere, kinds, results_of, write_experiment, write_run

from fpt.errors import FPTError, cli
from fpt.report import build, find_runs, page
from fpt.report.__main__ import main
from fpt.report.runs import read_rows
from fpt.text.escape import visible

pytestmark = pytest.mark.filterwarnings("ignore:Glyph", "ignore:constrained_layout")


class Reader(html.parser.HTMLParser):
    """Tags with the names of their attributes, the text, and the pictures of a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: set[tuple[str, ...]] = set()
        self.texts: list[str] = []
        self.pictures: list[bytes] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add((tag, *sorted(name for name, _ in attributes)))
        for name, value in attributes:
            if name == "src":
                self.pictures.append(base64.b64decode((value or "").removeprefix("data:image/svg+xml;base64,"), validate=True))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.tags.add(("comment",))

    def unknown_decl(self, data: str) -> None:
        self.tags.add(("declaration",))


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fpt.report.predictions.DRAWS", 5)


def made(folder: Path, title: str = "Runs") -> tuple[str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        return build(find_runs([str(folder)]), title, 0, None, lambda line: None)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("honest")
    write_experiment(folder)
    return made(folder)


def check(found: tuple[str, str], honest: tuple[str, str]) -> Reader:
    read = Reader(found[0])
    assert read.tags <= Reader(honest[0]).tags
    assert kinds(found[1]) <= kinds(honest[1])
    assert found[0].encode()
    assert found[1].encode()
    for picture in read.pictures:
        ET.fromstring(picture)
    return read


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_in_every_field_is_shown_as_text(text: str, tmp_path: Path, honest: tuple[str, str]) -> None:
    names = (f"{text}no", f"{text}yes")
    write_experiment(tmp_path, lambda values: everywhere(values, text), names)
    read = check(made(tmp_path, title=text), honest)
    assert len(read.pictures) == 2
    assert text == " " or " ".join(visible(text).split()) in " ".join(" ".join(read.texts).split())


@pytest.mark.parametrize("half", [HALF, "\udfff", "x\udc80"])
def test_half_a_character_is_one_line(half: str, tmp_path: Path) -> None:
    write_experiment(tmp_path)
    results = results_of(("no", "yes"), 1)
    results["split"]["method"] = half
    (tmp_path / "row-0" / "seed-1" / "results.json").write_text(json.dumps(results))
    with pytest.raises(FPTError, match=r"results\.json can't be read"):
        made(tmp_path)


def test_nothing_of_a_page_can_run_or_be_fetched(honest: tuple[str, str]) -> None:
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in honest[0]
    assert not re.search(r"<script|https?://", re.sub(r"base64,[^\"]*", "", honest[0]))


def test_a_part_of_a_page_for_a_notebook_is_escaped_as_well() -> None:
    text = "<script>alert(1)</script>"
    blocks = [page.Heading(text), page.Paragraph(text), page.Pictures([page.Paragraph(text), page.Picture("PHN2Zy8+", text)])]
    read = Reader(page.fragment(blocks))
    assert read.tags == {("style",), ("h3",), ("p",), ("div", "class"), ("img", "alt", "src")}
    assert "".join(read.texts).count(text) == 3


def leaves(values: Any, place: tuple = ()) -> Iterator[tuple]:
    """Places of all values within values."""
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in inner:
        yield (*place, key)
        yield from leaves(value, (*place, key))


def replaced(values: Any, place: tuple, value: Any) -> Any:
    values = copy.deepcopy(values)
    inside = values
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    return values


ODD = [None, True, -1, 10**30, 1.5, -1e308, 1e308, "<img src=x>", "", [], {}, [[]], {"<b>": "<i>"}, float("nan"), float("inf")]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without pictures."""
    monkeypatch.setattr("fpt.report.page.learning_curves", lambda rows: page.Paragraph("x"))
    monkeypatch.setattr("fpt.report.page._score_pictures", lambda rows: [])


def outcome(folder: Path, honest: tuple[str, str]) -> str:
    """What comes of a folder: a page, or one line that names a file of it."""
    try:
        check(made(folder), honest)
    except FPTError as error:
        assert "\n" not in str(error)
        assert str(folder) in str(error)
        return "error"
    return "page"


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_any_value_anywhere(odd: Any, tmp_path: Path, honest: tuple[str, str], quick: None) -> None:
    values = results_of(("no", "yes"), 1, history=results_of((), 1)["history"][:1])
    counts = {"page": 0, "error": 0}
    for place in leaves(values):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        write_run(tmp_path / "run", replaced(values, place, odd))
        counts[outcome(tmp_path / "run", honest)] += 1
    assert counts["error"] > 20
    assert sum(counts.values()) > 60


def test_any_missing_value(tmp_path: Path, honest: tuple[str, str], quick: None) -> None:
    values = results_of(("no", "yes"), 1)
    for place in leaves(values):
        changed = replaced(values, place, None)
        inside = changed
        for key in place[:-1]:
            inside = inside[key]
        del inside[place[-1]]
        write_run(tmp_path / "run", changed)
        outcome(tmp_path / "run", honest)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.data())
def test_texts_in_some_fields(tmp_path_factory, honest, data) -> None:
    folder = tmp_path_factory.mktemp("some")
    values = results_of(("no", "yes"), 1)
    for place in data.draw(st.lists(st.sampled_from(list(leaves(values))), max_size=4)):
        try:
            values = replaced(values, place, data.draw(st.sampled_from([*TEXTS, HALF]) | st.text(max_size=20)))
        except (KeyError, TypeError, IndexError):
            continue  # inside of what was replaced before
    write_run(folder / "run", values)
    outcome(folder / "run", honest)


NUMBERS = [{"steps": 0}, {"steps": 2**63 - 1}, {"wall_seconds": 1e308}, {"trainable_parameters": 2**62}, {"history": []}]


@pytest.mark.parametrize("changes", NUMBERS, ids=str)
def test_pages_of_extreme_numbers(changes: dict, tmp_path: Path, honest: tuple[str, str]) -> None:
    for seed in (1, 2):
        write_run(tmp_path / str(seed), results_of(("no", "yes"), seed, **changes))
    assert outcome(tmp_path, honest) == "page"


@pytest.mark.parametrize("value", [1e308, -1e308, 1e-308, 1e20, None])
def test_curves_of_extreme_numbers(value: float | None, tmp_path: Path, honest: tuple[str, str]) -> None:
    for seed in (1, 2):
        results = results_of(("no", "yes"), seed)
        results["history"][1] |= {"train_loss": value, "valid": {"auroc": value}, "step": 2**62}
        results["metrics"]["test"]["auroc"] = value if seed == 1 else 0.5
        write_run(tmp_path / str(seed), results)
    assert outcome(tmp_path, honest) == "page"


def test_histories_of_different_lengths_are_said(tmp_path: Path, honest: tuple[str, str]) -> None:
    for seed in (1, 2):
        results = results_of(("no", "yes"), seed)
        del results["history"][seed:]
        write_run(tmp_path / str(seed), results)
    assert "FPT, gpt2, 2 layers: curves end with the shortest run, after 1 of 2 evaluations." in made(tmp_path)[0]


def test_long_histories(tmp_path: Path, honest: tuple[str, str]) -> None:
    history = [{"step": n, "train_loss": 0.5, "valid": {"auroc": n % 7 / 7}} for n in range(100_000)]
    write_run(tmp_path, results_of(("no", "yes"), 1, history=history))
    found = made(tmp_path)
    check(found, honest)
    assert len(found[0]) < 4 * 2**20
    assert "5,000 of 100,000 evaluations are drawn" in found[0]
    write_run(tmp_path, results_of(("no", "yes"), 1, history=history * 10))
    with pytest.raises(FPTError, match=r"results\.json can't be read: it has .* at most"):
        made(tmp_path)


NO_RECORDS = ["[" * 100_000, '{"a":' * 100_000, "", "null", "[]", "{", "\ufeff{}", '{"task": 1' + "0" * 5_000 + "}"]


@pytest.mark.parametrize("text", NO_RECORDS, ids=lambda text: text[:5])
@pytest.mark.parametrize("name", ["results.json", "experiment.json"])
def test_a_file_that_is_no_record_is_one_line(text: str, name: str, tmp_path: Path) -> None:
    write_experiment(tmp_path)
    path = tmp_path / ("experiment.json" if name.startswith("e") else "row-1/seed-2/results.json")
    path.write_text(text)
    with pytest.raises(FPTError, match=f"{name} can't be read: ") as caught:
        made(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("label", "other", "has no column label"),
        ("probability_yes", "probability_no", "a column is there twice"),
        ("probability_yes", "probability_<b>", "has the class 'yes', and no column of its probability"),
        ("id-3,", "id-3,a,", "has 6 cells, the header 5"),
        ("\nid-39", "\n\nid-39", "has 0 cells, the header 5"),
        (",no,", ",<img>,", "has the class '<img>'"),
        ("0.", "1.", "a probability that is not between 0 and 1"),
        ("0.", "nan", "could not convert"),
        ("id-0", "id-0,no,no,0.5,0.5\nid-0", "has 41 rows, and the test split of the run 40"),
        ("id", '"id', "can't be read as CSV"),
    ],
)
def test_predictions_that_are_not_those_of_the_run(old: str, new: str, message: str, tmp_path: Path) -> None:
    write_run(tmp_path, results_of(("no", "yes"), 1))
    path = tmp_path / "predictions.csv"
    path.write_text(path.read_text().replace(old, new, 1 if old.startswith(("id", "\n", "prob", "label")) else -1))
    with pytest.raises(FPTError, match=re.escape(message)) as caught:
        made(tmp_path)
    assert str(path) in str(caught.value)


def test_seeds_with_other_classes_are_refused(tmp_path: Path) -> None:
    for seed, names in ((1, ("no", "yes")), (2, ("no", "maybe"))):
        write_run(tmp_path / str(seed), results_of(names, seed), names)
    with pytest.raises(FPTError, match="have different classes"):
        made(tmp_path)


def test_seeds_with_other_numbers_of_samples(tmp_path: Path, honest: tuple[str, str]) -> None:
    for seed, samples in ((1, 40), (2, 30)):
        write_run(tmp_path / str(seed), results_of(("no", "yes"), seed, samples), samples=samples)
    assert outcome(tmp_path, honest) == "page"


@pytest.mark.parametrize("names", [("one",), ("a", "b", "c"), tuple(f"=c{n}" for n in range(400))])
def test_classes_of_any_number(names: tuple[str, ...], tmp_path: Path) -> None:
    write_run(tmp_path, results_of(names, 1), names)
    found = made(tmp_path)[0]
    assert ("a confusion matrix of 400 classes is not drawn" in found) == (len(names) == 400)


def test_test_samples_of_one_class(tmp_path: Path) -> None:
    write_run(tmp_path, results_of(("no", "yes"), 1))
    path = tmp_path / "predictions.csv"
    path.write_text(re.sub(r"(id-\d+),(no|yes),", r"\1,no,", path.read_text()))
    assert "all test samples are of one class, so it has no curves" in made(tmp_path)[0]


def test_rows_on_other_weights_have_other_names(tmp_path: Path) -> None:
    for number in (1, 2):
        results = results_of(("no", "yes"), 1)
        results["core"]["sha256"] = f"{number}" * 64
        write_run(tmp_path / str(number), results)
    rows = read_rows(find_runs([str(tmp_path)]))["tdc/ames"]
    assert [row.name for row in rows] == ["FPT, gpt2, 2 layers", "FPT, gpt2, 2 layers (2)"]


# The command.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run --output x.md", "--output x.md is not the name of a page"),
        ("run --output run/results.json", "is not the name of a page"),
        ("run --output run", "is not the name of a page"),
        ("run --output run/results.json/x.html", "give a name outside of it"),
        ("run --samples -1", "--samples -1 must be at least 0"),
        ("~nobody_of_this_name/x", "give the whole path"),
        ("nothing", "nothing is not a folder"),
    ],
)
def test_a_command_that_makes_no_sense(words: str, message: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", results_of(("no", "yes"), 1))
    before = sorted(p.name for p in tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["report", *words.split(" "), *([] if "--samples" in words else ["--samples", "0"])])
    with pytest.raises(SystemExit, match="2"):
        cli(main)
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert sorted(p.name for p in tmp_path.rglob("*")) == before

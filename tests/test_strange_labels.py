"""Labels, ids and names that mean something elsewhere, from a user's table to everything that a run writes."""

from __future__ import annotations

import base64
import html.parser
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest
import yaml
from strange_text import cells_of, kinds

import fpt
from fpt.args import DataArguments, ModelArguments, TrainArguments
from fpt.errors import FPTError
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.files.tables import read_csv
from fpt.report import build, find_runs
from fpt.text.escape import is_formula
from fpt.training import run

LABELS = ["=cmd|' /C calc'!A0", '<img src=x onerror="alert(1)">$\\frac{`']


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    """A folder with a table of such texts, and a run on it."""
    folder = tmp_path_factory.mktemp("labels")
    texts = [f"=word {n % 7} {n}" for n in range(80)]
    rows = {"=id": [f"@{n}" for n in range(80)], "text": texts, "label": [LABELS[n % 2] for n in range(80)]}
    rows["text"][3] = ""
    pd.DataFrame(rows).to_json(folder / "t.jsonl", orient="records", lines=True)
    data = DataArguments(dataset=f"csv:{folder / 't.jsonl'}", num_proc=1, max_bad_fraction=0.2, cache_dir=str(folder / "home"))
    data.given_options = {"input_type": "text", "input_column": "text", "label_column": "label", "id_column": "=id"}
    training = TrainArguments(output_dir=str(folder / "=run <b>"), max_steps=4, eval_steps=2, report_to="tensorboard")
    training.license = "mit\n---\nevil: yes"
    run(data, ModelArguments(backbone=str(llama_dir)), training)
    return folder


def test_files_of_a_run_hold_no_formulas(trained: Path) -> None:
    out = trained / "=run <b>"
    for name in ("predictions.csv", "rejected.csv", "split.csv"):
        assert not any(is_formula(cell) for row in cells_of(out / name) for cell in row), name
    predictions = read_csv(out / "predictions.csv")
    assert set(predictions["label"]) <= set(LABELS)
    assert {f"probability_{label}" for label in LABELS} <= set(predictions)
    assert set(read_csv(out / "split.csv")["id"]) <= {f"@{n}" for n in range(80)}


def test_the_card_of_a_run_keeps_its_form(trained: Path) -> None:
    _, head, body = (trained / "=run <b>" / "checkpoint" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert "evil" not in yaml.safe_load(head)
    assert yaml.safe_load(head)["license"] == "other"
    assert yaml.safe_load(head)["license_name"] == "mit-evil-yes"
    assert not any("html" in kind or "link" in kind for kind, _ in kinds(body))


@pytest.mark.parametrize("raw", [False, True])
def test_predictions_for_a_table(raw: bool, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("text,+note,n\n=a,@x,-1\n'=b,-0.5,+1e-3\nc,＝1,-\n")
    out = tmp_path / "out.csv"
    checkpoint = str(trained / "=run <b>")
    evaluation.run(EvaluateArguments(checkpoint, predict=str(tmp_path / "in.csv"), output=str(out), raw_cells=raw))
    rows = cells_of(out)
    given = [["text", "+note", "n"], ["=a", "@x", "-1"], ["'=b", "-0.5", "+1e-3"], ["c", "＝1", "-"]]
    safe = [["text", "'+note", "n"], ["'=a", "'@x", "-1"], ["''=b", "-0.5", "+1e-3"], ["c", "'＝1", "'-"]]
    assert [row[:3] for row in rows] == (given if raw else safe)
    if not raw:
        assert [list(read_csv(out))[:3], *read_csv(out).iloc[:, :3].to_numpy().tolist()] == given
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "as formulas" in line]
    assert said.startswith(str(out))
    assert said.endswith("they were left as they are" if raw else "an apostrophe was put before each")


def test_raw_cells_are_of_a_predicted_file(trained: Path) -> None:
    with pytest.raises(FPTError, match="--raw_cells is about the file of --predict"):
        evaluation.run(EvaluateArguments(str(trained / "=run <b>"), raw_cells=True))


def test_half_a_character_of_a_json_file_is_refused_row_by_row(trained: Path, tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": "b\ud800"}, {"text": "c", "\udfff": "x"}, {"text": "d", "note": "😀"}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out.csv"
    evaluation.run(EvaluateArguments(str(trained / "=run <b>"), predict=str(tmp_path / "in.jsonl"), output=str(out)))
    found = read_csv(out)
    assert ["half a character" in reason for reason in found["reason"]] == [False, True, True, False]
    assert found["note"].tolist() == ["", "", "", "😀"]
    (tmp_path / "all.jsonl").write_text(json.dumps(rows[1]))
    with pytest.raises(FPTError, match="row-1 is refused: half a character"):
        evaluation.run(EvaluateArguments(str(trained / "=run <b>"), predict=str(tmp_path / "all.jsonl"), output=str(out)))
    said = fpt.load(str(trained / "=run <b>")).predict(["a", "b\ud800"])
    assert [one["prediction"] is None for one in said] == [False, True]


class Page(html.parser.HTMLParser):
    pictures = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = {name: value or "" for name, value in attributes}
        assert tag not in ("script", "b")
        assert not any(name.startswith("on") for name in names)
        if tag == "img":
            ET.fromstring(base64.b64decode(names["src"].removeprefix("data:image/svg+xml;base64,"), validate=True))
            self.pictures += 1


@pytest.mark.filterwarnings("ignore:Glyph")
def test_the_page_of_a_run_looks_into_it(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPT_HOME", str(trained / "home"))
    page, _ = build(find_runs([str(trained / "=run <b>")]), "<b>", 2, None, lambda line: None)
    reader = Page()
    reader.feed(page)
    # Learning curves, scores, two samples, t-SNE where there are enough samples.
    assert reader.pictures >= 4
    assert "<h1>&lt;b&gt;</h1>" in page


def test_what_is_told_of_a_run_is_json(trained: Path) -> None:
    config = json.loads((trained / "=run <b>" / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    assert sorted(config["output"]["label_names"]) == sorted(LABELS)

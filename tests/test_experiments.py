"""Tables of runs, and the page about them."""

from __future__ import annotations

import base64
import html.parser
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import matplotlib
import numpy as np
import pytest
import yaml
from conftest import molecules, write_tdc
from rdkit import Chem
from test_modalities import write_mnist, write_speech

from fpt.args import DataArguments, ModelArguments, TrainArguments, as_dict
from fpt.checkpoint import find_checkpoint, load_checkpoint
from fpt.cli import read_training
from fpt.data.cache import prepare
from fpt.errors import FPTError
from fpt.experiment import __main__ as experiment
from fpt.experiment.runner import Cell, Row, Runner, finished
from fpt.experiment.spec import ExperimentArguments, cells_of, parse_sweep, read_experiment
from fpt.experiment.sweep import best_value
from fpt.report import build, find_runs, predictions, read_rows
from fpt.report.attention import features, look
from fpt.report.figures import colors, curves, learning_curves
from fpt.report.findings import findings, tdc_rows
from fpt.tasks.base import TASKS
from fpt.tasks.sides import is_atom
from fpt.training import run

ROOT = Path(__file__).parent.parent


def said(backbone: Path, **changes) -> dict:
    """An experiment of two rows that takes seconds."""
    return {
        "title": "Halogens",
        "metrics": ["auprc", "accuracy"],
        "arguments": {"dataset": "cyp3a4", "split_seed": 1},
        "budgets": {"small": {"max_steps": 8, "eval_steps": 4, "learning_rate": 0.01}},
        "rows": [
            {"name": "FPT", "arguments": {"backbone": str(backbone)}, "published": {"accuracy": 0.7}, "source": "a paper"},
            {"name": "ECFP4", "arguments": {"model": "morgan", "estimator": "linear"}},
        ],
        **changes,
    }


def write(path: Path, values: dict) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def arguments(file: Path, folder: Path, **changes) -> ExperimentArguments:
    return ExperimentArguments(**{"file": str(file), "seeds": 2, "output_dir": str(folder / "out"), **changes})


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    """The folder of an experiment that has been run."""
    folder = tmp_path_factory.mktemp("experiment")
    write_tdc(folder / "raw", molecules())
    file = write(folder / "halogens.yaml", said(llama_dir))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPT_HOME", str(folder / "home"))
        patch.setenv("OMP_NUM_THREADS", "1")
        assert experiment.run(arguments(file, folder, data_dir=str(folder / "raw"), jobs=2)) == 0
    return folder


def test_a_table_has_a_run_for_each_row_and_seed(table: Path) -> None:
    out = table / "out" / "halogens" / "small"
    about = json.loads((out / "experiment.json").read_text())
    assert [row["name"] for row in about["rows"]] == ["FPT", "ECFP4"]
    scores = [json.loads((out / "FPT" / f"seed-{s}" / "results.json").read_text())["metrics"]["test"]["auprc"] for s in (1, 2)]
    told = about["rows"][0]["metrics"]["test"]["auprc"]
    assert told == pytest.approx({"mean": np.mean(scores), "std": np.std(scores, ddof=1), "n": 2})
    text = (out / "table.md").read_text()
    assert f"| FPT | {about['rows'][0]['core'][0]} | 2 | 8 | {np.mean(scores):.4f} ± " in text
    assert "0.7000" in text
    assert "Published values: a paper." in text
    assert "train.py --dataset cyp3a4" in text


def test_what_is_finished_is_not_run_again(table: Path, llama_dir: Path, monkeypatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    file = table / "halogens.yaml"
    assert experiment.run(arguments(file, table, data_dir=str(table / "raw"))) == 0


def test_a_run_of_other_arguments_is_not_taken(table: Path, llama_dir: Path, tmp_path: Path) -> None:
    values = said(llama_dir)
    values["budgets"]["small"]["learning_rate"] = 0.02
    (tmp_path / "other").mkdir()
    changed = read_experiment(write(tmp_path / "other" / "halogens.yaml", values), "small")
    cell = cells_of(changed, table / "out" / "halogens" / "small", 1)[0]
    with pytest.raises(FPTError, match=r"is a run with --learning_rate 0\.01, the experiment now says 0\.02"):
        finished(cell)


def test_a_sweep_can_be_run_a_second_time(tmp_path: Path, llama_dir: Path, monkeypatch) -> None:
    def trained(command: list[str], stdout, **more) -> object:
        """A run that ends at once, with the results that train.py would write down."""
        words = command[command.index("train.py") + 1 :]
        training = read_training(words)
        folder = Path(training.training.output_dir)
        folder.mkdir(parents=True)
        score = {"auprc": 1 - training.training.learning_rate}
        results = {
            **{"task": "cyp3a4", "primary_metric": "auprc", "metrics": {"valid": score, "test": score}},
            **{"seed": training.training.seed, "steps": 1, "wall_seconds": 1.0, "history": [], "core": {"name": "core"}},
            "split": {"method": "scaffold", "seed": 1},
            "arguments": {**as_dict(training.data), **as_dict(training.model), **as_dict(training.training)},
        }
        (folder / "results.json").write_text(json.dumps(results))
        commands.append(words)
        return Mock(wait=lambda: 0)

    commands: list[list[str]] = []
    monkeypatch.setattr("fpt.experiment.sweep.logged_in", lambda: False)
    monkeypatch.setattr(subprocess, "Popen", trained)
    file = write(tmp_path / "e.yaml", said(llama_dir, rows=said(llama_dir)["rows"][:1]))
    args = arguments(file, tmp_path, sweep="learning_rate=5e-4,1e-3,0.01", seeds=1)
    assert experiment.run(args) == 0
    assert len(commands) == 4
    assert experiment.run(args) == 0
    assert len(commands) == 4


@pytest.mark.parametrize(
    ("name", "did", "same", "other"),
    [
        ("learning_rate", 0.0005, "5e-4", "6e-4"),
        ("learning_rate", 1.0, 1, 2),
        ("max_steps", 500, "0500", "501"),
        ("save_full", True, "true", "false"),
        ("save_full", False, "no", True),
        ("backbone", "smollm2", "smollm2", "gpt2"),
        ("num_layers", None, None, 2),
        ("num_layers", 2, 2, None),
        ("dropout", 0.0, None, 0.1),
    ],
)
def test_arguments_of_a_finished_run_are_compared_as_values(name: str, did, same, other, tmp_path: Path) -> None:
    results = {
        **{"task": "cyp3a4", "primary_metric": "auprc", "metrics": {s: {"auprc": 0.5} for s in ("valid", "test")}},
        **{"seed": 1, "steps": 1, "wall_seconds": 1.0, "history": [], "core": {"name": "core"}},
        **{"split": {"method": "scaffold", "seed": 1}, "arguments": {"dataset": "cyp3a4", "seed": 1, name: did}},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))

    def cell(value: object) -> Cell:
        return Cell(Row("row", {name: value}), 1, tmp_path, {name: value})

    assert finished(cell(same))
    with pytest.raises(FPTError, match=f"is a run with --{name} {did}, the experiment now says"):
        finished(cell(other))


def test_a_row_without_a_value_for_an_argument_of_all_rows_has_the_default(tmp_path: Path, llama_dir: Path) -> None:
    values = said(llama_dir)
    values["arguments"]["dropout"] = 0.3
    values["rows"][0]["arguments"]["dropout"] = None
    row = read_experiment(write(tmp_path / "e.yaml", values), "small").rows[0]
    assert row.arguments["dropout"] is None
    assert "--dropout" not in cells_of(read_experiment(tmp_path / "e.yaml", "small"), tmp_path, 1)[0].command(["x"])


def test_a_cell_that_fails_leaves_the_others(tmp_path: Path, llama_dir: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_tdc(tmp_path / "raw", molecules())
    values = said(llama_dir)
    values["rows"][0]["arguments"]["backbone"] = str(tmp_path / "nowhere")
    failed = experiment.run(arguments(write(tmp_path / "e.yaml", values), tmp_path, data_dir=str(tmp_path / "raw"), seeds=1))
    assert failed == 1
    said_ = capsys.readouterr().out
    assert re.search(r"FPT, seed 1: status 2, no results: error: backbone '.*nowhere'", said_)
    assert "ECFP4, seed 1: test auprc" in said_


def test_a_stopped_table_goes_on(tmp_path: Path, llama_dir: Path, monkeypatch) -> None:
    write_tdc(tmp_path / "raw", molecules())
    values = said(llama_dir, rows=said(llama_dir)["rows"][:1])
    values["budgets"]["small"] |= {"max_steps": 3000, "eval_steps": 50}
    file = write(tmp_path / "e.yaml", values)
    command = [sys.executable, "-m", "fpt.experiment", str(file), "--seeds", "1", "--output_dir", str(tmp_path / "out")]
    command += ["--data_dir", str(tmp_path / "raw")]
    child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True)
    folder = tmp_path / "out" / "e" / "small" / "FPT" / "seed-1"
    while not (folder / "checkpoint").exists():
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert list((folder / "state").glob("step-*"))
    assert not (folder / "results.json").exists()
    log = folder.with_suffix(".log").read_text()
    assert "stopped by a signal after step" in log
    cell = cells_of(read_experiment(file, "small"), tmp_path / "out" / "e" / "small", 1)[0]
    commands = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **k: commands.append(command) or pytest.skip.Exception)
    with pytest.raises(AttributeError):
        Runner(["x"], lambda line: None).run([cell], 1)
    assert "--resume" in commands[0]


def test_a_sweep_takes_the_best_on_validation(tmp_path: Path, llama_dir: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    write_tdc(tmp_path / "raw", molecules())
    values = said(llama_dir, rows=said(llama_dir)["rows"][:1])
    values["budgets"]["small"] = {"max_steps": 40, "eval_steps": 20, "per_device_batch_size": 32}
    file = write(tmp_path / "e.yaml", values)
    sweep = "learning_rate=1e-9,0.02"
    assert experiment.run(arguments(file, tmp_path, data_dir=str(tmp_path / "raw"), seeds=1, sweep=sweep, jobs=2)) == 0
    out = tmp_path / "out" / "e" / "small" / "FPT"
    trials = {p.parent.name: json.loads(p.read_text()) for p in (out / "sweep-learning_rate").glob("*/results.json")}
    assert set(trials) == {"1e-9", "0.02"}
    best = max(trials, key=lambda name: trials[name]["metrics"]["valid"]["auprc"])
    assert json.loads((out / "seed-1" / "results.json").read_text())["arguments"]["learning_rate"] == float(best)
    assert f"FPT: --learning_rate {best} is best on validation" in capsys.readouterr().out
    assert [run.parent.name for run in find_runs([str(out)])] == ["FPT"]


def test_a_sweep_with_a_server_is_a_wandb_sweep(tmp_path: Path, llama_dir: Path, monkeypatch) -> None:
    import wandb

    asked: dict = {}
    values = ["0.1", "0.3"]

    class Run:
        def __init__(self, value: str) -> None:
            self.config, self.logged = {"learning_rate": value}, {}

        def __enter__(self):
            return self

        def __exit__(self, *error) -> None:
            asked.setdefault("logged", []).append(self.logged)

        def log(self, values: dict) -> None:
            self.logged |= values

    def agent(sweep: str, trial, count: int, project: str) -> None:
        for value in values:
            monkeypatch.setattr(wandb, "init", lambda value=value: Run(value))
            trial()

    def ran(self, cells, jobs):
        for cell in cells:
            cell.folder.mkdir(parents=True)
            score = 1 - float(cell.arguments["learning_rate"])
            results = {
                **{"task": "cyp3a4", "primary_metric": "auprc", "metrics": {s: {"auprc": score} for s in ("valid", "test")}},
                **{"seed": 1, "steps": 1, "wall_seconds": 1.0, "history": [], "core": {"name": "core"}},
                **{"split": {"method": "scaffold", "seed": 1}, "arguments": {"dataset": "cyp3a4", "seed": 1}},
            }
            (cell.folder / "results.json").write_text(json.dumps(results))
        return []

    monkeypatch.setattr("fpt.experiment.sweep.logged_in", lambda: True)
    monkeypatch.setattr(wandb, "sweep", lambda config, project: asked.update(config=config) or "id")
    monkeypatch.setattr(wandb, "agent", agent)
    monkeypatch.setattr(Runner, "run", ran)
    row = read_experiment(write(tmp_path / "e.yaml", said(llama_dir)), "small").rows[0]
    cells = [Cell(row, 1, tmp_path / value, {"learning_rate": value}) for value in values]
    assert best_value(Runner([]), row, cells, "learning_rate", 1) == "0.1"
    assert asked["config"]["parameters"] == {"learning_rate": {"values": values}}
    assert [logged["valid"] for logged in asked["logged"]] == pytest.approx([0.9, 0.7])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tittle": "x"}, "unknown 'tittle' in the file \\(did you mean 'title'"),
        ({"rows": []}, "has no rows"),
        ({"rows": [{"arguments": {}}]}, "a row has no name"),
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "two rows have the same name"),
        (
            {"rows": [{"name": "a", "arguments": {"lerning_rate": 1}}]},
            "row 'a': unknown argument 'lerning_rate' \\(did you mean 'learning_rate'",
        ),
        ({"rows": [{"name": "a", "arguments": [1]}]}, "arguments of a row must be names with values"),
        ({"budgets": {"big": {}}}, "has no budget 'small'; it has big"),
        ({"rows": [{"name": "a", "arguments": {"seed": 4}}]}, "row 'a': each cell has its own --seed"),
    ],
)
def test_a_bad_file_is_one_line(change: dict, message: str, tmp_path: Path, llama_dir: Path) -> None:
    with pytest.raises(FPTError, match=message):
        read_experiment(write(tmp_path / "e.yaml", said(llama_dir, **change)), "small")


def test_a_file_without_budgets_needs_none(tmp_path: Path, llama_dir: Path) -> None:
    file = said(llama_dir)
    file.pop("budgets", None)
    rows = [{key: value for key, value in row.items() if key != "budgets"} for row in file["rows"]]
    table = read_experiment(write(tmp_path / "e.yaml", {**file, "rows": rows}), "small")
    assert [row.name for row in table.rows] == [row["name"] for row in rows]


def test_a_file_that_is_no_yaml_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("rows: [a: {")
    with pytest.raises(FPTError, match="can't be read as YAML"):
        read_experiment(tmp_path / "e.yaml", "small")
    (tmp_path / "e.yaml").write_text("- just\n- a list\n")
    with pytest.raises(FPTError, match="must be names with values"):
        read_experiment(tmp_path / "e.yaml", "small")


@pytest.mark.parametrize("text", ["learning_rate", "nothing=1,2", "learning_rate="])
def test_a_bad_sweep_is_one_line(text: str) -> None:
    with pytest.raises(FPTError, match=r"give an argument of train\.py and its values"):
        parse_sweep(text)


def budgets_of(file: Path) -> list[str]:
    said = yaml.safe_load(file.read_text(encoding="utf-8"))
    return sorted({name for part in (said, *said["rows"]) for name in part.get("budgets") or {}})


BUDGETS = [(file, budget) for file in sorted((ROOT / "experiments").glob("*.yaml")) for budget in budgets_of(file)]


@pytest.mark.parametrize(("file", "budget"), BUDGETS, ids=lambda value: getattr(value, "stem", value))
def test_every_experiment_of_the_project_can_be_read(file: Path, budget: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fpt.args import ModelArguments
    from fpt.models.base import MODELS

    monkeypatch.setattr("fpt.registry.missing_of", lambda packages: "")  # as if every model of the files was installed
    for row in read_experiment(file, budget).rows:
        own = {k: v for k, v in row.arguments.items() if hasattr(ModelArguments, k)}
        MODELS[str(own.get("model", "fpt"))].check(ModelArguments(**own))


# The page.


class Parser(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]


def test_the_page_has_it_all_and_needs_nothing_else(table: Path, monkeypatch) -> None:
    monkeypatch.setenv("FPT_HOME", str(table / "home"))
    folders = find_runs([str(table / "out")])
    assert len(folders) == 4
    page, text = build(folders, "Halogens & more", 3, str(table / "raw"), lambda line: None)
    parser = Parser()
    parser.feed(page)
    assert all(link.startswith("data:image/svg+xml;base64,") for link in parser.links)
    # Learning curves, scores, three molecules, t-SNE.
    assert parser.tags.count("img") == 6
    assert "Halogens &amp; more" in page
    rows = read_rows(folders)["cyp3a4"]
    assert [row.name for row in rows] == ["FPT", "ECFP4"]
    mean, deviation = rows[0].score("test", "auprc")
    assert f"{mean:.4f} ± {deviation:.4f}" in text
    assert "0.7000" in text
    assert all(row.command in text for row in rows)


@pytest.mark.parametrize("count", [1, 5, 10, 11, 20, 21, 60])
def test_rows_have_colours_of_their_own(count: int) -> None:
    found = colors(count)
    assert len(set(found)) == len(found) == count
    assert count > 20 or found[0] == "#1f77b4"


def test_pictures_show_each_row_in_its_colour_whatever_the_users_settings_are(table: Path) -> None:
    (row,) = read_rows(find_runs([str(table / "out" / "halogens" / "small" / "FPT")]))["cyp3a4"]
    rows = [replace(row, name=f"row {number}", key=f"{number}") for number in range(12)]
    found = {one.key: predictions.joined(row) for one in rows}
    with matplotlib.rc_context({"axes.prop_cycle": matplotlib.cycler(color=["#00ff00"])}):
        pictures = [learning_curves(rows), curves(rows, found)]
    for picture in pictures:
        strokes = set(re.findall("stroke: (#[0-9a-f]{6})", base64.b64decode(picture.data).decode()))
        assert set(colors(12)) <= strokes
        assert "#00ff00" not in strokes


def test_the_picture_in_the_documentation_has_the_colours_of_its_rows() -> None:
    picture = (ROOT / "docs" / "results.svg").read_text(encoding="utf-8")
    assert set(colors(5)) <= set(re.findall("stroke: (#[0-9a-f]{6})", picture))


def test_cells_of_the_tables_may_wrap(table: Path) -> None:
    """Else a table is wider than the page, and scrolls sideways."""
    page, _ = build(find_runs([str(table / "out")]), "Halogens", 0, None, lambda line: None)
    assert "nowrap" not in page


def test_runs_on_other_weights_are_rows_of_their_own(table: Path, tmp_path: Path) -> None:
    for number, source in enumerate(sorted((table / "out" / "halogens" / "small" / "FPT").glob("seed-?"))):
        results = json.loads((source / "results.json").read_text())
        results["core"]["sha256"] = f"{number}" * 64
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "results.json").write_text(json.dumps(results))
    rows = read_rows(find_runs([str(tmp_path)]))["cyp3a4"]
    assert [len(row.runs) for row in rows] == [1, 1]


def test_one_run_is_not_counted_twice(table: Path, tmp_path: Path) -> None:
    source = table / "out" / "halogens" / "small" / "FPT" / "seed-1" / "results.json"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(source.read_text())
    with pytest.raises(FPTError, match="are the same run twice"):
        read_rows(find_runs([str(tmp_path)]))


def test_findings_do_not_say_more_than_the_seeds_do(table: Path, monkeypatch) -> None:
    rows = read_rows(find_runs([str(table / "out")]))["cyp3a4"]
    for row, scores in zip(rows, ([0.80, 0.84], [0.70, 0.78]), strict=True):
        for results, score in zip(row.results, scores, strict=True):
            results.metrics["test"]["auprc"] = score
    with monkeypatch.context() as patch:
        patch.setattr("fpt.report.findings.resample", lambda row, metric: None)
        best, behind = findings(rows)
        assert best.startswith("Best on test auprc: FPT, 0.8200 ± 0.0283")
        assert behind == "ECFP4 is 0.0800 behind it: within twice the uncertainty of seeds and test samples (0.0632)."
    # Seeds that all agree are not the whole uncertainty: there are only so many test samples.
    for row, score in zip(rows, (0.80, 0.79), strict=True):
        for results in row.results:
            results.metrics["test"]["auprc"] = score
    assert "within twice the uncertainty" in findings(rows)[1]
    rows[1].runs = rows[1].runs[:1]
    assert "one seed, so little is said of the difference" in findings(rows)[1]


def test_resampling_is_centred_on_the_score(table: Path) -> None:
    row = read_rows(find_runs([str(table / "out")]))["cyp3a4"][0]
    for metric in ("auprc", "auroc", "accuracy"):
        drawn = predictions.resample(row, metric)
        assert len(drawn) == predictions.DRAWS
        assert abs(drawn.mean() - row.score("test", metric)[0]) < 0.05
        assert 0.005 < drawn.std() < 0.15
    assert predictions.resample(row, "spearman") is None


def test_attention_is_what_the_core_computes(table: Path, monkeypatch) -> None:
    monkeypatch.setenv("FPT_HOME", str(table / "home"))
    folder = find_checkpoint(str(table / "out" / "halogens" / "small" / "FPT" / "seed-1"))
    model, _, config = load_checkpoint(folder)
    from fpt.args import changed

    args = changed(config.data.arguments, data_dir=str(table / "raw"))
    prepared = prepare(TASKS["cyp3a4"], args, 1, lambda line: None)
    looked = look(model, prepared, [0, 5])
    for one in looked:
        tokens = len(prepared.splits["test"][one.index]["input_ids"])
        assert one.attention.shape == (3, 4, 1, tokens)
        assert np.allclose(one.attention.sum(-1), 1, atol=1e-5)
    # The same predictions as those that were written down, by the pruned path.
    import pandas as pd

    told = pd.read_csv(folder.parent / "predictions.csv").probability_inhibitor
    assert [one.prediction[1] for one in looked] == pytest.approx([told[0], told[5]], abs=1e-5)
    states, labels = features(model, prepared, 30)
    assert states.shape == (30, 32)
    assert labels.tolist() == prepared.splits["test"]["label"][:30]


@pytest.mark.parametrize(("dataset", "pictures"), [("bit-xor", 3), ("mnist", 3), ("speech-commands", 3), ("digit-add", 3)])
def test_the_page_shows_each_modality(dataset: str, pictures: int, llama_dir: Path, tmp_path: Path) -> None:
    writers = {"mnist": write_mnist, "speech-commands": write_speech}
    raw = str(writers[dataset](tmp_path / "raw")) if dataset in writers else None
    data = DataArguments(dataset=dataset, data_dir=raw, num_proc=1)
    training = TrainArguments(output_dir=str(tmp_path / "run"), max_steps=4, eval_steps=4)
    run(data, ModelArguments(backbone=str(llama_dir), core_dtype="bf16"), training)
    page, _ = build(find_runs([str(tmp_path / "run")]), "One", 2, raw, lambda line: None)
    parser = Parser()
    parser.feed(page)
    # Two samples, their curves, and whatever scores and t-SNE the task has.
    assert parser.tags.count("img") >= pictures
    assert "does not show its attention" not in page


def test_rows_of_the_leaderboard_of_tdc(table: Path) -> None:
    rows = read_rows(find_runs([str(table / "out")]))["cyp3a4"]
    mean, deviation = rows[0].score("test", "auprc")
    assert tdc_rows("cyp3a4", rows)[2] == f"| FPT | {rows[0].first.trainable_parameters:,} | {mean:.3f} ± {deviation:.3f} |"
    assert tdc_rows("mnist", rows) == []


def test_tokens_of_a_molecule_that_are_atoms() -> None:
    pattern = r"\[[^\]]*\]|Br|Cl|%\d\d|."
    for smiles, _ in molecules()[::40]:
        tokens = re.findall(pattern, smiles)
        assert sum(map(is_atom, tokens)) == Chem.MolFromSmiles(smiles).GetNumAtoms()
    special = "C[N+](C)(C)C[C@@H](O)c1ccc%10cc1%10"
    assert sum(map(is_atom, re.findall(pattern, special))) == 4 + 1 + 1 + 1 + 6


def test_the_command_writes_both_files(table: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fpt.report", str(table / "out"), "--output", str(tmp_path / "page.html"), "--samples", "0"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert out.returncode == 0, out.stderr
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "page.md").read_text().startswith("# Frozen pretrained transformers")
    again = subprocess.run([*command[:3], str(tmp_path / "nothing")], capture_output=True, text=True, cwd=ROOT)
    assert again.returncode == 2
    assert again.stderr.startswith("error: ")


def test_a_row_that_is_not_run_may_need_what_is_not_here(
    tmp_path: Path, llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fpt.optional._broken", {})
    monkeypatch.setitem(sys.modules, "chemprop", None)
    file = said(llama_dir)
    file["rows"] = [*file["rows"], {"name": "message passing", "arguments": {"model": "chemprop"}}]
    path, first = write(tmp_path / "e.yaml", file), file["rows"][0]["name"]
    assert [row.name for row in read_experiment(path, "small", first).rows] == [first]
    with pytest.raises(FPTError, match="needs the package chemprop"):
        read_experiment(path, "small")
    with pytest.raises(FPTError, match="--rows nothing: there is no such row"):
        read_experiment(path, "small", "nothing")

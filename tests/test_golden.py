"""What earlier versions wrote is read: checkpoints, results, runs that go on, cache entries, predictions. See tests/golden.py."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import golden
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

import fpt
from fpt.args import DataArguments
from fpt.checkpoint import add_test_metrics, read_config
from fpt.data.entry import load_entry
from fpt.data.manifest import read_made, read_manifest
from fpt.errors import FPTError
from fpt.evaluation.arguments import EvaluateArguments
from fpt.evaluation.run import run as evaluate
from fpt.files.tables import read_csv
from fpt.report.page import build
from fpt.report.runs import find_runs
from fpt.results import read_results
from fpt.tasks.base import TASKS, resolve

FINISHED = ("molecules", "numbers", "mat")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the fixtures were written, with its cache."""
    folder = shutil.copytree(golden.FOLDER, tmp_path / "golden")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FPT_HOME", str(folder / "home"))
    return folder


@pytest.mark.parametrize("name", FINISHED)
def test_checkpoints_are_read_and_scored_as_they_were(name: str, place: Path) -> None:
    config, results = read_config(place / name / "checkpoint"), json.loads((place / name / "results.json").read_text())
    assert (config.task, config.step) == (results["task"], results["best_step"])
    evaluate(EvaluateArguments(checkpoint=name, data_dir=None if name == "numbers" else "raw", output="again.json"))
    again = json.loads((place / "again.json").read_text())["metrics"]["test"]
    assert again == pytest.approx(results["metrics"]["test"], abs=1e-4)


# What later versions added, with the value that stands for a record without it.
ADDED = {
    "augment_each_epoch": False,
    "environments": None,
    "kmers": None,
    "side_buckets": 4096,
    "tokens": "all",
    "sample_vector": None,
    "vector_columns": None,
    "readout": "last",
}


def without_added(after: object, before: object) -> object:
    """A record without the keys that are new since `before`, which must say what a record without them means."""
    if not isinstance(after, dict) or not isinstance(before, dict):
        return after
    for name in set(after) - set(before):
        assert after[name] == ADDED[name], name
    return {name: without_added(value, before[name]) for name, value in after.items() if name in before}


@pytest.mark.parametrize("name", FINISHED)
def test_records_are_written_as_they_were_read(name: str) -> None:
    """Each key and value; in config.json and at the top of results.json in its order."""
    folder = golden.FOLDER / name
    before = json.loads((folder / "checkpoint" / "config.json").read_text())
    assert json.dumps(without_added(read_config(folder / "checkpoint").to_dict(), before)) == json.dumps(before)
    before, after = json.loads((folder / "results.json").read_text()), read_results(folder).to_dict()
    assert list(after) == list(before)
    assert without_added(json.loads(json.dumps(after)), before) == before


@pytest.mark.parametrize("name", FINISHED)
def test_a_process_that_has_read_nothing_else_reads_a_checkpoint(name: str) -> None:
    folder = golden.FOLDER / name / "checkpoint"
    code = f"import pathlib, fpt.checkpoint; print(fpt.checkpoint.read_config(pathlib.Path({str(folder)!r})).model)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=golden.FOLDER.parents[1], timeout=120)
    assert out.returncode == 0, out.stderr[-2000:]
    assert out.stdout.strip() == json.loads((folder / "config.json").read_text())["model"]


def test_test_scores_are_added_to_a_checkpoint_and_nothing_else_changes(tmp_path: Path) -> None:
    folder = shutil.copytree(golden.FOLDER / "numbers" / "checkpoint", tmp_path / "checkpoint")
    before = json.loads((folder / "config.json").read_text())
    add_test_metrics(folder, {"mae": 0.5})
    after = json.loads((folder / "config.json").read_text())
    wanted = {**before, "test_metrics": {"mae": 0.5}}
    assert json.dumps(without_added(after, wanted)) == json.dumps(wanted)
    assert "| mae |" in (folder / "README.md").read_text() and "0.5000" in (folder / "README.md").read_text()
    assert (folder / "model.safetensors").read_bytes() == (golden.FOLDER / "numbers/checkpoint/model.safetensors").read_bytes()


def test_predictions_are_as_they_were(place: Path) -> None:
    before, rows = read_csv(place / "predictions.csv"), pd.read_csv(place / "mine.csv")
    found = fpt.load(str(place / "numbers")).predict(rows[["a", "b"]])
    assert [one["prediction"] for one in found] == pytest.approx(before["prediction"].astype(float).tolist(), rel=1e-3)


def test_a_stopped_run_goes_on(place: Path) -> None:
    case = "cyp3a4", Path("raw"), {}, {}
    results = golden.short(case, Path("core"), Path("stopped"), eval_steps=5, resume=True)
    whole = json.loads((place / "molecules" / "results.json").read_text())
    assert [one["step"] for one in results["history"]] == [5, 10, 15, 20]
    losses = [[one["train_loss"] for one in each["history"]] for each in (results, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_stopped_run_is_not_mixed_with_another(place: Path) -> None:
    case = "cyp3a4", Path("raw"), {}, {}
    with pytest.raises(FPTError, match="was started with"):
        golden.short(case, Path("core"), Path("stopped"), eval_steps=5, resume=True, warmup_steps=3)
    weights = load_file(place / "core" / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, place / "core" / "model.safetensors", {"format": "pt"})
    with pytest.raises(FPTError, match="results of two backbones are never mixed"):
        golden.short(case, Path("core"), Path("stopped"), eval_steps=5, resume=True)


def test_runs_go_into_a_report(place: Path) -> None:
    page, text = build(find_runs([place]), "earlier runs", 4, None, lambda line: None)
    scores = [json.loads((place / name / "results.json").read_text())["metrics"]["test"] for name in FINISHED]
    assert all(f"{score.get('auprc', score.get('mae')):.4f}" in shown for score in scores for shown in (page, text))


def test_cache_entries_are_read(place: Path) -> None:
    manifests = list((place / "home").glob("arrow/*/*/manifest.json"))
    assert len(manifests) >= 2
    for path in manifests:
        manifest, written = read_manifest(path), json.loads(path.read_text())
        assert json.loads(json.dumps(manifest.to_dict())) == written
        made = read_made(path)
        assert made is not None
        assert made.request == manifest.request
        # Of a user's own table, under its name.
        dataset = manifest.request.task
        data = DataArguments(dataset=dataset)
        data.given_options = {k: v for k, v in manifest.request.options.items() if v is not None}
        found = load_entry(path.parent, *resolve(TASKS[dataset], data))
        assert {name: len(rows) for name, rows in found.splits.items()} == manifest.rows


def test_summaries_of_a_sweep_are_read(place: Path) -> None:
    summary = json.loads((place / "sweep" / "summary.json").read_text())
    assert {run["folder"] for run in summary["runs"]} == {p.parent.name for p in (place / "sweep").glob("*/checkpoint")}


def test_losses_are_as_they_were(tmp_path: Path, llama_dir: Path) -> None:
    """Of each kind of task, within what another machine may differ by; on one machine `golden.py losses` compares bits."""
    before = json.loads((golden.FOLDER / "losses.json").read_text())
    sizes, golden.fpt.tasks.base.GeneratedTask.sizes = golden.fpt.tasks.base.GeneratedTask.sizes, golden.SIZES
    try:
        found = golden.losses(llama_dir, tmp_path, ("bit-xor", "cifar10", "speech-commands", "own-smiles", "lora"), steps=3)
    finally:
        golden.fpt.tasks.base.GeneratedTask.sizes = sizes
    for name, values in found.items():
        assert values == pytest.approx(before[name][: len(values)], rel=2e-2, abs=2e-3), name

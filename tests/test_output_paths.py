"""Where outputs may go: no run, checkpoint, cache or input is ever replaced by one, under whatever name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from fpt.checkpoint.config import CONFIG, WEIGHTS
from fpt.errors import FPTError
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.experiment import __main__ as experiment
from fpt.experiment.spec import ExperimentArguments
from fpt.files.disk import temporary_folder
from fpt.files.output_paths import check_output_file, check_output_folder
from fpt.files.whole import old_folder, sha256_file, write_json, write_text
from fpt.report import __main__ as page
from fpt.training import run


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def a_run(tmp_path: Path) -> Path:
    """A folder that looks like a finished run."""
    folder = tmp_path / "runs" / "x"
    write_json(folder / "run.json", {"dataset": "cyp3a4", "max_steps": 4})
    write_json(folder / "results.json", {"metrics": {}, "arguments": {}})
    write_text(folder / "predictions.csv", "id,label\n")
    write_text(folder / "checkpoint" / WEIGHTS, "weights")
    write_json(folder / "checkpoint" / CONFIG, {})
    write_text(folder / "state" / "step-00000004" / "state.json", "{}")
    (folder / ".lock").touch()
    return folder


def refused(text: str | Path, match: str = "which is the folder of a run", **given) -> None:
    with pytest.raises(FPTError, match=match) as error:
        check_output_file("--output", text, **given)
    assert str(error.value).startswith("--output ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        *("results.json", "run.json", "predictions.csv", ".lock", "new.csv", "more/new.csv", "logs/new.csv", "checkpoint/../new"),
        *("../x/results.json", "../../runs/x/out.csv", "state/step-00000004/state.json", "state/new.json"),
    ],
)
def test_no_path_in_a_run_is_written_to(a_run: Path, name: str) -> None:
    before = contents(a_run)
    refused(a_run / name)
    assert contents(a_run) == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md", "new.csv", "deep/er/new.csv"])
def test_no_path_in_a_checkpoint_is_written_to(a_run: Path, tmp_path: Path, name: str) -> None:
    refused(a_run / "checkpoint" / name, "which is a checkpoint")
    (a_run / "checkpoint").rename(tmp_path / "alone")
    refused(tmp_path / "alone" / name, "which is a checkpoint")


def test_links_and_hard_links_into_a_run_are_seen_through(a_run: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "link").symlink_to(a_run)
    (tmp_path / "out.csv").symlink_to(a_run / "predictions.csv")
    (tmp_path / "weights").symlink_to(a_run / "checkpoint")
    (tmp_path / "new.csv").symlink_to(a_run / "not-there-yet.csv")
    for name in ("link/out.csv", "out.csv", "new.csv"):
        refused(tmp_path / name)
    refused(tmp_path / "weights" / "out.csv", "which is a checkpoint")
    os.link(a_run / "predictions.csv", tmp_path / "hard.csv")
    refused(tmp_path / "hard.csv", "is a file of the run", read={"the run": a_run})
    monkeypatch.chdir(a_run / "state")
    refused("out.csv")
    refused("../out.csv")
    monkeypatch.chdir(tmp_path)
    refused("runs/x/../x/out.csv")
    assert check_output_file("--output", "runs/x/../out.csv") == Path("runs/x/../out.csv")


def test_links_that_go_round_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for name in ("a", "a/out.csv"):
        with pytest.raises(FPTError, match="--output"):
            check_output_file("--output", tmp_path / name)


LEFT = ("run.json", "results.json", ".lock", "state/step-00000001/x", "checkpoint/config.json", "full/model.safetensors")


@pytest.mark.parametrize("left", LEFT)
def test_a_run_that_has_hardly_begun_is_one(tmp_path: Path, left: str) -> None:
    write_text(tmp_path / "run" / left, "")
    refused(tmp_path / "run" / "out.csv")


@pytest.mark.parametrize("name", ["summary.json", "table.md", "experiment.json"])
def test_the_tables_of_several_runs_are_kept(a_run: Path, name: str) -> None:
    write_text(a_run.parent / name, "{}")
    refused(a_run.parent / name, "is the table of the runs in")
    write_text(a_run.parents[1] / name, "{}")
    refused(a_run.parents[1] / name, "is the table of the runs in")


def test_half_made_folders_are_not_followed(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "checkpoint") as being_made:
        refused(being_made / "out.csv", "another process is writing")
    refused(being_made / "out.csv", "another process is writing")
    refused(old_folder(tmp_path / "checkpoint") / CONFIG, "another process is writing")


def test_ordinary_places_are_free(a_run: Path, tmp_path: Path, home: Path, monkeypatch) -> None:
    """Folders that merely have names like ours in them, and what we wrote there before."""
    write_json(tmp_path / "results.json", {"metrics": {"test": {}}, "model_sha256": "0"})
    write_text(tmp_path / ".lock", "1234")
    (tmp_path / "state").mkdir()
    write_text(tmp_path / "state" / "notes.txt", "")
    write_json(tmp_path / "config.json", {})
    write_json(tmp_path / "run.json", {"name": "of another tool"})
    for name in ("out.csv", "results.json", "new/folder/out.csv", "x.csv", "runs/out.csv", "runs/x.csv"):
        check_output_file("--output", tmp_path / name, {"the raw data": tmp_path, "nothing": None})
    # A cache that is kept where one works.
    monkeypatch.setenv("FPT_HOME", str(tmp_path))
    check_output_file("--output", tmp_path / "out.csv")
    assert not (tmp_path / "new").exists()
    assert check_output_folder("--output_dir", a_run) == a_run
    assert check_output_folder("--output_dir", tmp_path / "runs" / "y").name == "y"


def test_what_is_read_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    write_text(file, "smiles\nCCO\n")
    os.link(file, tmp_path / "hard.csv")
    (tmp_path / "link.csv").symlink_to(file)
    for name in ("mine.csv", "hard.csv", "link.csv", "../" + tmp_path.name + "/mine.csv"):
        refused(tmp_path / name, "is the file to predict", read={"the file to predict": file})
    raw = tmp_path / "raw"
    write_text(raw / "tdc" / "cyp3a4_veith.tab", "Drug_ID\tDrug\tY\n")
    refused(raw / "tdc" / "cyp3a4_veith.tab", "is a file of the raw data", read={"the raw data": raw})
    os.link(raw / "tdc" / "cyp3a4_veith.tab", tmp_path / "raw.csv")
    refused(tmp_path / "raw.csv", "is a file of the raw data", read={"the raw data": raw})
    # Predictions that were written there before may be written again.
    write_text(raw / "out.csv", "smiles,prediction,probability_1,reason\n")
    check_output_file("--output", raw / "out.csv", {"the raw data": raw})
    check_output_file("--output", raw / "new.csv", {"the raw data": raw})


def test_caches_are_not_written_to(tmp_path: Path, home: Path, monkeypatch) -> None:
    (tmp_path / "to-cache").symlink_to(home)
    for name in ("home/arrow/cyp3a4/key/manifest.json", "home/arrow/new.json", "to-cache/cores/x", "home/raw/tdc/x.tab"):
        refused(tmp_path / name, "is in the cache")
    refused(tmp_path / "other" / "arrow" / "x", "is in the cache", cache_dir=tmp_path / "other")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("hf/token", "hf/hub/models--gpt2/refs/main", "hub/x.csv"):
        refused(tmp_path / name, "the cache of the Hub")
    with pytest.raises(FPTError, match="is in the cache"):
        check_output_folder("--output_dir", tmp_path / "home" / "arrow" / "run")


def test_what_is_no_file_is_refused(tmp_path: Path, monkeypatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-null").symlink_to("/dev/null")
    for name in (tmp_path / "pipe", tmp_path / "to-null", "/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        refused(name, "is not a regular file")
    monkeypatch.chdir(tmp_path)
    for name in (tmp_path, ".", "/", tmp_path / "..", ""):
        refused(name, "is a folder; give the name of a file")
    write_text(tmp_path / "file", "")
    refused(tmp_path / "file" / "out.csv", "is a file, not a folder")
    refused(tmp_path / "file" / "more" / "out.csv", "is a file, not a folder")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    refused(tmp_path / "dangling" / "out.csv", "is a link that leads nowhere")
    refused(tmp_path / ("n" * 300 + ".csv"), "File name too long")
    refused(tmp_path / ("n" * 300) / "out.csv", "File name too long")
    refused("/".join([str(tmp_path), *["n" * 200] * 30]), "File name too long")
    refused("~nobody-here/out.csv", "is not known")


def test_what_may_not_be_written_is_refused(tmp_path: Path, monkeypatch) -> None:
    """As another user than root sees it."""
    write_text(tmp_path / "kept.csv", "kept")
    may, denied = os.access, [tmp_path / "kept.csv"]
    monkeypatch.setattr(os, "access", lambda path, mode, **more: Path(path) not in denied and may(path, mode, **more))
    refused(tmp_path / "kept.csv", "is write-protected")
    denied.append(tmp_path)
    refused(tmp_path / "out.csv", "is not writable")
    refused(tmp_path / "new" / "folder" / "out.csv", "is not writable")
    with pytest.raises(FPTError, match="is not writable"):
        check_output_folder("--output_dir", tmp_path / "run")


@pytest.mark.parametrize("place", ["runs/x/y", "runs/x/checkpoint", "runs/x/checkpoint/y", "runs/x/state/y", "link/y"])
def test_no_run_starts_in_another(settings, a_run: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "link").symlink_to(a_run)
    before = contents(a_run)
    with pytest.raises(FPTError, match=r"which is (the folder of a run|a checkpoint)"):
        run(*settings(output_dir=str(tmp_path / place), overwrite=True))
    assert contents(a_run) == before
    with pytest.raises(FPTError, match=r"which is (the folder of a run|a checkpoint)"):
        experiment.run(ExperimentArguments("experiments/cyp3a4.yaml", output_dir=str(tmp_path / place)))
    assert contents(a_run) == before


def test_an_evaluation_refuses_before_it_loads_anything(settings, tmp_path: Path, monkeypatch) -> None:
    run(*settings(max_steps=4))
    write_text(tmp_path / "mine.csv", "smiles\nCCO\n")
    os.link(tmp_path / "run" / "results.json", tmp_path / "hard.json")
    monkeypatch.setattr(evaluation, "load_members", lambda *args: pytest.fail("a model was loaded"))
    before = contents(tmp_path)
    for name in ("run/results.json", "run/checkpoint/model.safetensors", "run/new.csv", "hard.json", "home/arrow/x", "raw/tdc"):
        for more in ({}, {"predict": str(tmp_path / "mine.csv")}):
            with pytest.raises(FPTError, match="--output"):
                given = {"output": str(tmp_path / name), "data_dir": str(tmp_path / "raw"), **more}
                evaluation.run(EvaluateArguments(checkpoint=str(tmp_path / "run"), **given))
    with pytest.raises(FPTError, match="is the file to predict"):
        given = {"predict": str(tmp_path / "mine.csv"), "output": f"{tmp_path}/raw/../mine.csv"}
        evaluation.run(EvaluateArguments(checkpoint=str(tmp_path / "run"), **given))
    assert contents(tmp_path) == before


def report(*arguments: str | Path) -> None:
    sys.argv[1:] = [str(a) for a in arguments]
    page.main()


def test_a_report_replaces_nothing_but_a_report(a_run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fpt.report"])
    monkeypatch.setattr(page, "build", lambda *args: ("<html>", "# text"))
    for name in ("README.md", "table.md", "experiment.json", "summary.json"):
        write_text(a_run.parent / name, "mine")
    before = contents(tmp_path)
    for name, match in [
        ("x/report.html", "give a name outside of it, such as report.html"),
        ("x/results.html", "which is the folder of a run"),
        ("README.html", "the Markdown beside it would replace"),
        ("README.md", "give one that ends in .html"),
        ("table.html", "the Markdown beside it"),
        ("x", "is not the name of a page"),
    ]:
        with pytest.raises(FPTError, match=match):
            report(a_run, "--output", a_run.parent / name)
    assert contents(tmp_path) == before
    for _ in range(2):
        report(a_run, "--output", a_run.parent / "page.html")
    assert (a_run.parent / "page.md").read_text() == "# text"

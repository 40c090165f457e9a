"""Trackers and consoles may fail: training goes on, and what there is to save is saved before anything is said."""

from __future__ import annotations

import io
import json
import signal
import sys
from pathlib import Path

import psutil
import pytest
from accelerate import Accelerator

from fpt.text.console import consoles
from fpt.training import Run, resume, run, validation
from fpt.training.monitor import Bar


class Closed(io.StringIO):
    """A console whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def finished(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_all_is_saved_before_anything_is_printed_or_tracked(settings, tmp_path: Path, monkeypatch) -> None:
    seen: list[str] = []

    def note(what: str) -> None:
        seen.append(what)
        folders = sorted(p.name for p in (tmp_path / "run").glob("*/state/step-*"))
        steps = int(folders[-1].removeprefix("step-")) if folders else 0
        assert [f for f in folders if f.endswith(f"{steps:08d}")] == [f"step-{steps:08d}"] * 2, (what, folders)
        assert len(list((tmp_path / "run").glob("*/checkpoint/config.json"))) == 2

    monkeypatch.setattr(Bar, "write", lambda self, line: note(line))
    monkeypatch.setattr(Accelerator, "log", lambda self, values, step: note("log"))
    run(*settings(seeds="1,2", report_to="tensorboard", max_steps=8))
    assert sum("step" in line for line in seen) == 4 and seen.count("log") >= 4


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_console_that_is_gone_ends_nothing(stream: str, settings, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, stream, Closed())
        with consoles():  # as every command
            run(*settings(max_steps=8))
    assert finished(tmp_path / "run")["steps"] == 8


def test_a_console_that_goes_away_in_between(settings, tmp_path: Path, monkeypatch) -> None:
    score = validation.score

    def gone(self: Run, split: str):
        monkeypatch.setattr(sys, "stdout", Closed())
        monkeypatch.setattr(sys, "stderr", Closed())
        return score(self, split)

    monkeypatch.setattr(validation, "score", gone)
    run(*settings(max_steps=12))
    assert finished(tmp_path / "run")["steps"] == 12


@pytest.mark.parametrize("where", ["init_trackers", "log", "end"])
def test_a_tracker_that_fails_is_one_warning(where: str, settings, tmp_path: Path, monkeypatch, capsys) -> None:
    def fails(self, *args, **named):
        raise RuntimeError("the service process is gone\nTraceback of it")

    if where == "end":
        from accelerate.tracking import TensorBoardTracker

        monkeypatch.setattr(TensorBoardTracker, "finish", fails)
    else:
        monkeypatch.setattr(Accelerator, where, fails)
    run(*settings(report_to="tensorboard", max_steps=8))
    assert finished(tmp_path / "run")["steps"] == 8
    out = capsys.readouterr().out
    assert out.count("warning: --report_to tensorboard failed (the service process is gone)") == 1


def test_logs_that_can_not_be_written_are_one_warning(settings, tmp_path: Path, monkeypatch, capsys) -> None:
    def denied(self, *args, **named):
        raise PermissionError(13, "Permission denied", str(self))

    mkdir = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", lambda self, *a, **k: denied(self) if self.name == "logs" else mkdir(self, *a, **k))
    run(*settings(report_to="tensorboard", max_steps=4))
    assert "warning: --report_to tensorboard failed" in capsys.readouterr().out


def test_wandb_that_is_not_installed_is_one_warning(settings, monkeypatch, capsys) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    monkeypatch.setattr("accelerate.tracking._available_trackers", [], raising=False)
    run(*settings(report_to="tensorboard", max_steps=4))
    assert "warning: --report_to tensorboard failed (the package is not installed)" in capsys.readouterr().out


def test_training_outlives_the_process_of_wandb(settings, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    save, killed = resume.save_state, []

    def kill(self: Run) -> None:
        save(self)
        for child in psutil.Process().children(recursive=True):
            if not killed and "wandb" in " ".join(child.cmdline()):
                child.send_signal(signal.SIGKILL)
                child.wait(10)
                killed.append(child.pid)

    monkeypatch.setattr(resume, "save_state", kill)
    run(*settings(report_to="wandb", max_steps=12))
    assert killed, "wandb had no process of its own"
    assert finished(tmp_path / "run")["steps"] == 12
    assert capsys.readouterr().out.count("warning: --report_to wandb failed") == 1

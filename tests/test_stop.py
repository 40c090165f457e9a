"""Ctrl-C and SIGTERM: the step ends, the state is saved, and the status says how it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import molecules, short_run, write_tdc
from safetensors.torch import load_file

from fpt.launch import _status
from fpt.training import Run, loop, resume, run
from fpt.training.stop import Stop

ROOT = Path(__file__).parent.parent


def press(monkeypatch, step: int, *numbers: int) -> None:
    """Send signals to this process in the middle of a step."""
    update, left = loop.update, [numbers]

    def signalled(self: Run) -> None:
        update(self)
        if self.progress.step == step and left:
            for number in left.pop():
                signal.raise_signal(number)

    monkeypatch.setattr(loop, "update", signalled)


@pytest.mark.parametrize("seeds", [None, "1,2"])
def test_ctrl_c_saves_the_state_and_it_goes_on_bitwise(seeds, settings, tmp_path: Path, monkeypatch, capfd) -> None:
    shared = {"seeds": seeds, "save_steps": 100}
    run(*settings(output_dir=str(tmp_path / "whole"), **shared))
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        press(patch, 6, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            run(*settings(output_dir=str(tmp_path / "run"), **shared))
    out, errors = capfd.readouterr()
    assert "Ctrl-C once more stops at once" in errors
    assert "stopped by Ctrl-C after step 6; the state is saved, go on with --resume" in out
    assert signal.getsignal(signal.SIGINT) is before
    run(*settings(output_dir=str(tmp_path / "run"), resume=True, **shared))
    for inside in ("seed-1", "seed-2") if seeds else (".",):
        first, second = (load_file(tmp_path / n / inside / "checkpoint" / "model.safetensors") for n in ("whole", "run"))
        assert all(first[name].equal(second[name]) for name in first)


def test_a_second_ctrl_c_stops_at_once(settings, tmp_path: Path, monkeypatch) -> None:
    press(monkeypatch, 2, signal.SIGINT, signal.SIGINT)
    monkeypatch.setattr(resume, "save_state", lambda self: pytest.fail("it was saved"))
    with pytest.raises(KeyboardInterrupt):
        run(*settings(max_steps=3))
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN


def test_a_second_sigterm_changes_nothing(settings, tmp_path: Path, monkeypatch, capsys) -> None:
    press(monkeypatch, 2, signal.SIGTERM, signal.SIGTERM)
    term = signal.getsignal(signal.SIGTERM)
    try:
        assert run(*settings()) is None
    finally:
        signal.signal(signal.SIGTERM, term)
    assert "stopped by a signal after step 2" in capsys.readouterr().out
    assert (tmp_path / "run" / "state" / "step-00000002").is_dir()


def test_ctrl_c_is_left_alone_where_it_is_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with (stop := Stop()).watching():
            signal.raise_signal(signal.SIGINT)
        assert stop.signal is None
    finally:
        signal.signal(signal.SIGINT, before)


def launched(tmp_path: Path, backbone: Path, config: str, processes: int) -> subprocess.Popen:
    """A long run under `fpt.launch`, in a session of its own."""
    data, model, training = short_run(write_tdc(tmp_path / "raw", molecules()), backbone, tmp_path / "run")
    command = [sys.executable, "-m", "fpt.launch", "--config_file", f"accelerate_configs/{config}.yaml"]
    command += ["--num_processes", str(processes), "--main_process_port", "0", "train.py"]
    command += ["--data_dir", data.data_dir, "--backbone", model.backbone, "--output_dir", training.output_dir]
    command += ["--max_steps", "5000", "--eval_steps", "20", "--save_steps", "4000", "--learning_rate", "1e-3"]
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "run" / "checkpoint").exists():
        assert child.poll() is None, child.communicate()[1][-3000:]
        time.sleep(0.05)
    return child


@pytest.mark.parametrize(("config", "processes", "terminal"), [("cpu", 1, True), ("multi_cpu", 2, False)])
def test_ctrl_c_under_a_launcher(config: str, processes: int, terminal: bool, tmp_path: Path, llama_dir: Path) -> None:
    child = launched(tmp_path, llama_dir, config, processes)
    # A terminal sends it to all processes in front of it; `kill -INT` to the launcher alone.
    (os.killpg if terminal else os.kill)(child.pid, signal.SIGINT)
    out, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors[-3000:]
    assert "the state is saved, go on with --resume" in out
    assert "Traceback" not in errors
    assert list((tmp_path / "run" / "state").glob("step-*"))
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_second_ctrl_c_ends_a_launched_run_at_once(tmp_path: Path, llama_dir: Path) -> None:
    child = launched(tmp_path, llama_dir, "cpu", 1)
    os.kill(child.pid, signal.SIGINT)
    time.sleep(0.1)  # two at once are one
    os.kill(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors[-3000:]


def test_a_status_of_several_processes() -> None:
    assert _status([-9, 2]) == 2
    assert _status([-9]) == 137
    assert _status([]) == 1
    assert _status([-15], [signal.SIGINT]) == 130

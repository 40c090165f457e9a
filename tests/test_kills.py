"""Runs that are killed at a call to the file system, and go on: nothing is lost, nothing is left, and all ends bitwise the same.

FPT_KILLS sets how many kills there are (10); `FPT_KILLS=50 pytest tests/test_kills.py tests/test_parallel.py` is the long way.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import molecules, short_run, write_tdc
from safetensors.torch import load_file

import fpt.files.whole
from fpt.checkpoint import find_checkpoint, read_config
from fpt.errors import FPTError
from fpt.files.disk import is_temporary
from fpt.files.whole import read_stably, write_text
from fpt.training import run, state
from fpt.training.run_dir import LOCK, OUTPUTS, remove_outputs, repair

KILLS = int(os.environ.get("FPT_KILLS", "10"))
# Calls of `os` that change what is on the disk, or make sure of it.
CALLS = ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync", "link")
CONTEXT = multiprocessing.get_context("forkserver")
# What a run imports on its way, so that no child has to.
PRELOADED = ("fpt.training", "fpt.tasks.tdc", "fpt.backbones.llama", "sklearn.metrics", "sklearn.preprocessing", "scipy.stats")
PRELOADED += ("tdc.utils", "rdkit.Chem.Scaffolds.MurckoScaffold", "rich.console", "pytest", "http.server")
PRELOADED += ("transformers.models.llama.modeling_llama", "transformers.models.gpt2.modeling_gpt2")
CONTEXT.set_forkserver_preload(list(PRELOADED))


@dataclass
class Place:
    """Raw data and a backbone, and what an uninterrupted run of `processes` does there.

    Attributes:
        calls: how many calls its main process makes.
    """

    folder: Path
    core: Path
    processes: int
    calls: int = 0


@dataclass
class Kill:
    """When a process ends itself: at the call of this number, before it or after it.

    Attributes:
        in_steps: folders are swapped in two steps, as on file systems that can't do it in one.
    """

    at: int
    after: bool
    in_steps: bool


def _patch(do: Callable[[Any, Any, Any], Any]) -> None:
    """Have `do` make each call to the file system, given the call and its arguments."""
    for owner, name in [*((os, name) for name in CALLS), (fpt.files.whole, "exchange")]:
        call = getattr(owner, name)
        setattr(owner, name, lambda *args, _call=call, **options: do(_call, args, options))


def _train(place: Place, name: str, flags: dict[str, Any], kill: Kill | None, rank: int, port: str) -> None:
    """A process that trains; it counts its calls, and kills itself at one of them."""
    torch.set_num_threads(1)
    os.environ["FPT_HOME"] = str(place.folder / f"home-{name}")
    if place.processes > 1:
        known = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": place.processes, "LOCAL_WORLD_SIZE": place.processes}
        os.environ.update({k: str(v) for k, v in known.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    sys.stdout = open(place.folder / f"{name}-{rank}.log", "a")  # noqa: SIM115
    sys.stderr = sys.stdout
    counter = itertools.count(1)

    def do(call: Any, args: Any, options: Any) -> Any:
        number = next(counter)
        if kill and number == kill.at and not kill.after:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return call(*args, **options)
        finally:
            if kill and number == kill.at:
                os.kill(os.getpid(), signal.SIGKILL)

    if kill and kill.in_steps:
        fpt.files.whole.exchange = lambda one, two: False
    _patch(do)
    groups = short_run(place.folder / "raw", place.core, place.folder / name)
    changes = {"max_steps": 8, "eval_steps": 2, "save_steps": 2, "per_device_batch_size": 32 // place.processes, **flags}
    for key, value in changes.items():
        setattr(groups[2], key, value)
    run(*groups)
    if rank == 0:
        (place.folder / f"{name}.calls").write_text(str(next(counter) - 1))


def start(place: Place, name: str, kill: Kill | None = None, **flags: Any) -> bool:
    """Train in processes of their own; returns whether the main one ended well."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    children = [
        CONTEXT.Process(target=_train, args=(place, name, flags, kill if rank == 0 else None, rank, port))
        for rank in range(place.processes)
    ]
    for child in children:
        child.start()
    children[0].join(120)
    for child in children[1:]:
        # As a launcher does when a process of its job has died.
        child.join(120 if children[0].exitcode == 0 else 0)
    for child in children:
        child.kill()
        child.join()
    assert children[0].exitcode in (0, -signal.SIGKILL), (place.folder / f"{name}-0.log").read_text()[-2000:]
    return children[0].exitcode == 0


@pytest.fixture(scope="module", params=[1, 2], ids=["one-process", "two-processes"])
def place(request, tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Place:
    folder = tmp_path_factory.mktemp(f"kills-{request.param}")
    write_tdc(folder / "raw", molecules()[::4])
    made = Place(folder, llama_dir, request.param)
    assert start(made, "whole")
    made.calls = int((folder / "whole.calls").read_text())
    return made


def last_step(folder: Path) -> int:
    return max((int(p.name[5:]) for p in (folder / "state").glob("step-*")), default=0)


def read(folder: Path) -> bool:
    """Read as an evaluation does; returns whether there is a checkpoint."""
    try:
        found = find_checkpoint(str(folder))
    except FPTError as error:
        assert "is not there" in str(error) or "is no checkpoint" in str(error)
        return False
    read_stably(found, read_config)
    assert all(torch.isfinite(t).all() for t in load_file(found / "model.safetensors").values())
    return True


def go_on(folder: Path) -> dict[str, bool]:
    """The flags of the next command: go on where there is a state, start again where there is none."""
    if last_step(folder) and (folder / "run.json").exists():
        assert state.latest(folder / "state", print) is not None
        return {"resume": True}
    return {"overwrite": True}


def check_ended_alike(place: Place, name: str) -> None:
    """All that the killed run has written is what the whole run has, and nothing else is there."""
    whole, killed = place.folder / "whole", place.folder / name
    for file in ("checkpoint/model.safetensors", "state/step-00000008/state.safetensors"):
        first, second = load_file(whole / file), load_file(killed / file)
        assert set(first) == set(second)
        assert all(torch.equal(first[n], second[n]) for n in first), file
    for file in ("predictions.csv", "rejected.csv", "checkpoint/tokenizer.json"):
        assert (whole / file).read_bytes() == (killed / file).read_bytes(), file
    first, second = (json.loads((f / "results.json").read_text()) for f in (whole, killed))
    for key in ("metrics", "history", "best_step", "steps"):
        assert first[key] == second[key], key
    assert read_config(killed / "checkpoint")
    assert {p.name for p in killed.iterdir()} <= {*OUTPUTS, LOCK}
    left = [p for root in (killed, place.folder / f"home-{name}") for p in root.rglob("*") if is_temporary(p.name)]
    left += [p for p in killed.rglob("*.old")] + [p for p in (place.folder / f"home-{name}" / "work").iterdir()]
    assert not left


def test_kills_at_any_call_lose_nothing(place: Place) -> None:
    rng, kills, steps = random.Random(place.processes), 0, 0
    wanted = KILLS * 17 // 20 if place.processes == 1 else KILLS - KILLS * 17 // 20
    for number in itertools.count():
        if kills >= wanted and steps:
            break
        assert number < 20, "no run went on"
        name, folder = f"killed-{number}", place.folder / f"killed-{number}"
        flags: dict[str, bool] = {}
        reached, had_checkpoint = 0, False
        # Killed at any call of the whole run, then at the calls of its continuations; each chain is then let end.
        for at in (rng.randint(1, place.calls), *rng.sample(range(1, place.calls // 2), 4)):
            ended = start(place, name, Kill(at, rng.random() < 0.5, number % 3 == 2), **flags)
            kills += not ended
            if ended:
                break
            flags = go_on(folder)
            there = read(folder)
            # Nothing that was reached is lost, unless it was to be overwritten.
            if flags == {"resume": True}:
                assert there or not had_checkpoint
                assert last_step(folder) >= reached
                reached, had_checkpoint = last_step(folder), there
                steps += 1
        else:
            assert start(place, name, **flags)
        check_ended_alike(place, name)


def test_a_kill_while_a_run_is_overwritten_leaves_no_half_of_it(tmp_path: Path) -> None:
    """Half a run must not be taken for a run: after any call of the deletion, it is whole, or it has no record to go on with."""
    files = ("run.json", "results.json", "predictions.csv", "notes.txt", "checkpoint/config.json", "state/step-00000001/x")
    for at in itertools.count(1):
        output = tmp_path / f"run-{at}"
        for name in files:
            write_text(output / name, name)
        child = os.fork()
        if not child:
            counter = itertools.count(1)

            def do(call: Any, args: Any, options: Any, counter: Any = counter, at: int = at) -> Any:
                if next(counter) == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **options)

            _patch(do)
            remove_outputs(output)
            os._exit(0)
        ended = os.waitpid(child, 0)[1] == 0
        there = {str(p.relative_to(output)) for p in output.rglob("*") if p.is_file() and ".trash." not in str(p)}
        assert "run.json" not in there or there == set(files)
        repair(output)
        remove_outputs(output)
        assert [p.name for p in output.iterdir()] == ["notes.txt"]
        if ended:
            break
    assert at > 5

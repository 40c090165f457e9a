"""A reader beside a writer: it sees one version or another, whole, and it never changes anything."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from safetensors.torch import load_file, save_file

import fpt.checkpoint.config
import fpt.files.disk
import fpt.files.whole
from fpt import hub
from fpt.checkpoint import find_checkpoint, load_checkpoint
from fpt.checkpoint.config import CONFIG, WEIGHTS
from fpt.data.cache_folders import manifests
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.files.disk import exchange, temporary_folder
from fpt.files.whole import new_folder, old_folder, read_stably, sha256_file, write_json, write_text
from fpt.hub import snapshot
from fpt.report import find_runs
from fpt.training import run

READS = int(os.environ.get("FPT_READS", "2000"))


def write_version(folder: Path, number: int) -> None:
    """A small checkpoint, whose files fit together only if they are of one version."""
    with new_folder(folder) as new:
        save_file({"x": torch.full((64,), float(number))}, new / WEIGHTS)
        write_json(new / CONFIG, {"number": number, "sha256": sha256_file(new / WEIGHTS)})


def read_version(folder: Path) -> int:
    config = json.loads((folder / CONFIG).read_text())
    assert sha256_file(folder / WEIGHTS) == config["sha256"], "the files are of two versions"
    assert load_file(folder / WEIGHTS)["x"].tolist() == [config["number"]] * 64
    return config["number"]


def _write(folder: Path, stop: Path, in_steps: bool) -> None:
    torch.set_num_threads(1)
    if in_steps:
        fpt.files.whole.exchange = lambda one, two: False
    number = 0
    while not stop.exists():
        number += 1
        write_version(folder, number)


@pytest.fixture(params=[False, True], ids=["in-one-step", "in-two-steps"])
def writer(request, tmp_path: Path) -> Iterator[Path]:
    """The folder of a run whose checkpoint another process replaces without a pause."""
    folder, stop = tmp_path / "run" / "checkpoint", tmp_path / "stop"
    write_version(folder, 0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fpt.files.whole", "safetensors.torch"])
    process = context.Process(target=_write, args=(folder, stop, request.param))
    process.start()
    yield folder.parent
    stop.touch()
    process.join(30)
    assert process.exitcode == 0, "the writer was disturbed"


def test_every_read_is_of_one_version(writer: Path) -> None:
    seen, deadline = [], time.monotonic() + 60
    while len(seen) < READS or len(set(seen)) < 3:
        assert time.monotonic() < deadline
        seen.append(read_stably(find_checkpoint(str(writer)), read_version))
    assert seen == sorted(seen)


def test_a_push_takes_one_version(writer: Path) -> None:
    for _ in range(50):
        with snapshot(writer / "checkpoint", (WEIGHTS, CONFIG, "README.md")) as copy:
            read_version(copy)
            assert sorted(p.name for p in copy.iterdir()) == sorted([WEIGHTS, CONFIG])
    assert not copy.exists()


def test_every_door_reads_one_version(settings, tmp_path: Path, monkeypatch) -> None:
    """The run writes its next checkpoint while the first is read, at whatever file of it."""
    run(*settings(max_steps=4, eval_steps=4))
    folder = tmp_path / "run" / "checkpoint"
    run(*settings(max_steps=4, eval_steps=4, seed=2, output_dir=str(tmp_path / "other")))
    versions = [
        shutil.copytree(place / "checkpoint", tmp_path / f"v-{place.name}") for place in (tmp_path / "run", tmp_path / "other")
    ]
    hashed, left = fpt.checkpoint.config.sha256_file, []

    def replaced_before(path: Path) -> str:
        if left and path.parent == folder:
            with new_folder(folder) as new:
                shutil.copytree(versions[left.pop() % 2], new, dirs_exist_ok=True)
        return hashed(path)

    monkeypatch.setattr(fpt.checkpoint.config, "sha256_file", replaced_before)
    for door in (
        lambda: evaluation.run(EvaluateArguments(checkpoint=str(tmp_path / "run"), data_dir=str(tmp_path / "raw"))),
        lambda: fpt.load(str(tmp_path / "run")).predict(["CCO"]),
        lambda: load_checkpoint(folder),
    ):
        left[:] = range(4)
        door()
        assert not left


def test_results_are_whole_beside_their_writer(tmp_path: Path) -> None:
    path, stop = tmp_path / "results.json", threading.Event()
    write_json(path, {"n": 0})

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            write_json(path, {"n": number, "more": "x" * 5000})

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(500):
            json.loads(path.read_text())
    finally:
        stop.set()
        thread.join()


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in folder.rglob("*") if p.is_file()}


def test_a_reader_changes_nothing_beside_a_killed_swap(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoint"
    write_version(checkpoint, 1)
    checkpoint.rename(old_folder(checkpoint))
    (tmp_path / "run" / ".checkpoint.new.abcd1234").mkdir()
    before = contents(tmp_path)
    for given in ("run", "run/checkpoint"):
        assert read_stably(find_checkpoint(str(tmp_path / given)), read_version) == 1
    assert contents(tmp_path) == before
    assert not checkpoint.exists()
    # Once its owner has put it back, whoever found the old place reads the new one.
    found = find_checkpoint(str(tmp_path / "run"))
    old_folder(checkpoint).rename(checkpoint)
    assert read_stably(found, read_version) == 1


def test_an_evaluation_reads_what_a_killed_swap_left(settings, tmp_path: Path) -> None:
    run(*settings(max_steps=4))
    checkpoint = tmp_path / "run" / "checkpoint"
    checkpoint.rename(old_folder(checkpoint))
    before = contents(tmp_path / "run")
    evaluation.run(EvaluateArguments(checkpoint=str(tmp_path / "run"), output=str(tmp_path / "out.json")))
    assert contents(tmp_path / "run") == before
    assert json.loads((tmp_path / "out.json").read_text())["metrics"]["test"]


def test_a_read_that_fails_on_a_folder_that_stays_is_not_repeated(tmp_path: Path) -> None:
    write_version(tmp_path / "checkpoint", 1)
    calls = []

    def read(folder: Path) -> None:
        calls.append(folder)
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        read_stably(tmp_path / "checkpoint", read)
    assert len(calls) == 1
    with pytest.raises(FileNotFoundError):
        read_stably(tmp_path / "nowhere", read_version)


def test_a_read_is_repeated_when_a_folder_of_the_same_number_came(tmp_path: Path) -> None:
    """File systems give the number of a deleted folder to the next one; versions must not be mixed by that."""
    folder, seen = tmp_path / "checkpoint", []
    write_version(folder, 1)

    def read(place: Path) -> int:
        first = json.loads((place / CONFIG).read_text())["number"]
        if len(seen) < 3:
            shutil.rmtree(place)
            write_version(folder, first + 1)
        seen.append(first)
        return first

    assert read_stably(folder, read) == 4
    assert seen == [1, 2, 3, 4]


def test_a_version_that_goes_while_it_is_read_is_not_damaged(tmp_path: Path) -> None:
    """Between the two steps of a swap the version before is read; its files go one by one once the new one is there."""
    folder = tmp_path / "checkpoint"
    write_version(folder, 1)
    folder.rename(old_folder(folder))
    places = []

    def read(place: Path) -> int:
        places.append(place)
        if place != folder:
            write_version(tmp_path / "new", 2)
            (tmp_path / "new").rename(folder)
            (place / WEIGHTS).unlink()
        return read_version(place)

    assert read_stably(folder, read) == 2
    assert places == [old_folder(folder), folder]


def test_a_folder_that_is_replaced_for_ever_is_one_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fpt.files.whole, "READS", 4)
    write_version(tmp_path / "checkpoint", 1)
    with pytest.raises(fpt.files.whole.FPTError, match="is replaced again and again"):
        read_stably(tmp_path / "checkpoint", lambda place: write_version(place, 2))


def test_a_swap_is_one_step_where_the_system_can(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for place in (one, two):
        write_text(place / "name", place.name)
    if not exchange(one, two):
        pytest.skip("this system or file system swaps in two steps")
    assert ((one / "name").read_text(), (two / "name").read_text()) == ("two", "one")
    with pytest.raises(FileNotFoundError):
        exchange(one, tmp_path / "none")


def test_a_swap_in_two_steps_is_undone_when_the_second_fails(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fpt.files.whole, "exchange", lambda one, two: False)
    folder = tmp_path / "checkpoint"
    write_version(folder, 1)
    rename = os.rename

    def fail(source, target) -> None:
        if ".new." in str(source):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(fpt.files.whole.FPTError, match="No space left on device; make room"):
        write_version(folder, 2)
    assert read_version(folder) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_entries_that_are_being_made_are_not_found(tmp_path: Path) -> None:
    write_json(tmp_path / "key" / "manifest.json", {})
    with temporary_folder(tmp_path / "other") as being_made:
        write_json(being_made / "manifest.json", {})
        assert manifests(tmp_path) == [tmp_path / "key" / "manifest.json"]


def test_a_report_passes_over_what_is_being_deleted(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "results.json", {})
    write_json(tmp_path / ".overwritten.trash.abcd1234" / "results.json", {})
    write_json(tmp_path / "b" / ".x.new.abcd1234" / "results.json", {})
    assert find_runs([str(tmp_path)]) == [tmp_path / "a"]


def test_a_push_while_the_run_goes_on(here: HubServer, settings, tmp_path: Path, monkeypatch) -> None:
    run(*settings(max_steps=4))
    checkpoint = tmp_path / "run" / "checkpoint"
    before = sha256_file(checkpoint / WEIGHTS)
    push = hub.push

    def replaced_meanwhile(folder: Path, *args, **kwargs) -> str:
        shutil.rmtree(checkpoint)
        write_version(checkpoint, 1)
        return push(folder, *args, **kwargs)

    monkeypatch.setattr(hub, "push", replaced_meanwhile)
    monkeypatch.setattr("sys.argv", ["fpt.hub", str(tmp_path / "run"), "me/pushed"])
    hub.main()
    evaluation.run(EvaluateArguments(checkpoint="me/pushed", output=str(tmp_path / "out.json")))
    assert json.loads((tmp_path / "out.json").read_text())["model_sha256"] == before


def test_temporaries_of_the_living_stay_and_of_the_dead_go(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "thing") as living:
        dead = tmp_path / ".thing.new.dead0000"
        (dead / "inner").mkdir(parents=True)
        (tmp_path / ".other.new.dead0000").touch()
        (tmp_path / ".thing.new").touch()
        (tmp_path / ".thing.newer.dead0000").touch()
        fpt.files.disk.sweep_beside(tmp_path / "thing")
        assert living.exists()
        assert not dead.exists()
        assert {p.name for p in tmp_path.iterdir()} == {living.name, ".other.new.dead0000", ".thing.new", ".thing.newer.dead0000"}
    assert not living.exists()


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    write_version(tmp_path / "kept", 1)
    for target in ("kept", "nowhere"):
        link = tmp_path / f"to-{target}"
        link.symlink_to(tmp_path / target)
        write_version(link, 2)
        assert not link.is_symlink()
        assert read_version(link) == 2
    assert read_version(tmp_path / "kept") == 1
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]

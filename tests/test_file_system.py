"""The file system refuses something: it is said in one line, nothing is half deleted, and nothing is lost."""

from __future__ import annotations

import builtins
import errno
import json
import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fpt.args import DataArguments
from fpt.data.cache import prepare
from fpt.errors import FPTError
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.files.disk import is_temporary, reason, refusals
from fpt.files.whole import alone, cache_home, new_folder, sha256_file, user_path, write_json, write_text
from fpt.report import find_runs
from fpt.tasks.base import TASKS
from fpt.training import run
from fpt.training.run_dir import remove_outputs, repair


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def temporaries(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if is_temporary(p.name) or p.name.startswith("tmp")]


@pytest.fixture
def read_only(monkeypatch) -> Callable[[Path], None]:
    """Returns a function that makes a folder read-only, for root as well."""

    def make(folder: Path) -> None:
        def refuse(name: str, writes: Callable[..., bool]) -> None:
            call = getattr(owner, name)

            def checked(path, *args, **options):
                if isinstance(path, (str, Path)) and Path(path).is_relative_to(folder) and writes(*args, **options):
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
                return call(path, *args, **options)

            monkeypatch.setattr(owner, name, checked)

        owner = os
        refuse("open", lambda flags, *args, **options: bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "link"):
            refuse(name, lambda *args, **options: True)
        owner = builtins
        refuse("open", lambda mode="r", *args, **options: any(letter in mode for letter in "wax+"))

    return make


def test_a_read_only_cache_gives_what_it_has(settings, tmp_path: Path, home: Path, read_only) -> None:
    run(*settings(max_steps=4))
    before = contents(home)
    shutil.rmtree(home / "locks")
    read_only(home)
    evaluation.run(EvaluateArguments(checkpoint=str(tmp_path / "run")))
    evaluation.run(EvaluateArguments(checkpoint=str(tmp_path / "run"), data_dir=str(tmp_path / "raw")))
    run(*settings(max_steps=4, output_dir=str(tmp_path / "again")))
    with pytest.raises(FPTError, match=r"Read-only file system; change the permissions") as error:
        run(*settings(max_steps=4, output_dir=str(tmp_path / "other"), max_length=50))
    assert "\n" not in str(error.value)
    assert {k: v for k, v in contents(home).items() if not k.startswith("locks")} == {
        k: v for k, v in before.items() if not k.startswith("locks")
    }


def test_a_file_system_without_locks_is_said_and_used(settings, tmp_path: Path, home: Path, monkeypatch, capsys) -> None:
    import fcntl

    for number in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):

        def refuse(handle: int, how: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", refuse)
        shutil.rmtree(home, ignore_errors=True)
        (tmp_path / "run" / "state").mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / "state" / ".step-00000004.new.abcd1234").mkdir()
        run(*settings(max_steps=4, overwrite=True))
        said = capsys.readouterr().out
        assert f"{tmp_path / 'run'} is on a file system without locks" in said
        assert f"{home / 'locks'} is on a file system without locks" in said
        assert not temporaries(tmp_path)
        assert list((home / "work").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_lock_that_fails_otherwise_is_one_line(tmp_path: Path, monkeypatch, number: int) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path))

    monkeypatch.setattr("filelock._unix.UnixFileLock._acquire", refuse)
    with pytest.raises(FPTError, match=os.strerror(number)), alone(tmp_path / ".lock", lambda: None):
        pass


def test_overwriting_deletes_links_and_not_what_they_lead_to(settings, tmp_path: Path) -> None:
    run(*settings(max_steps=4))
    output, kept = tmp_path / "run", tmp_path / "kept"
    for name in ("state", "checkpoint"):
        shutil.move(output / name, kept / name)
        (output / name).symlink_to(kept / name)
    (output / "logs").symlink_to(tmp_path / "nowhere")
    (output / "predictions.csv").unlink()
    (output / "predictions.csv").symlink_to(kept / "state" / "step-00000004" / "state.json")
    before = contents(kept)
    run(*settings(max_steps=4, overwrite=True))
    assert contents(kept) == before
    assert not [p for p in output.iterdir() if p.is_symlink()]
    assert load_file(output / "checkpoint" / "model.safetensors")


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EACCES, errno.EXDEV])
def test_overwriting_deletes_all_or_nothing(settings, tmp_path: Path, monkeypatch, number: int) -> None:
    run(*settings(max_steps=4))
    output, rename = tmp_path / "run", os.rename
    before = contents(output)

    def refuse(source, target) -> None:
        if Path(source).name == "predictions.csv":
            raise OSError(number, os.strerror(number), str(source))
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        with pytest.raises(FPTError, match=r"predictions\.csv: .*; nothing was deleted"):
            run(*settings(max_steps=4, overwrite=True))
    assert contents(output) == before
    assert not temporaries(tmp_path)
    run(*settings(max_steps=4, overwrite=True))


def test_what_can_not_be_deleted_is_told(tmp_path: Path, monkeypatch) -> None:
    write_text(tmp_path / "run" / "results.json", "{}")
    write_text(tmp_path / "run" / "state" / "step-1" / "x", "{}")
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, **options: None)
        remove_outputs(tmp_path / "run", said.append)
    assert "can't be deleted; delete it by hand" in said[0]
    assert all(is_temporary(p.name) for p in (tmp_path / "run").iterdir())
    repair(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_a_run_does_not_go_on_with_states_of_nowhere_or_of_another(settings, tmp_path: Path) -> None:
    run(*settings(max_steps=4, output_dir=str(tmp_path / "other")))
    run(*settings(max_steps=4))
    own, other = tmp_path / "run" / "state", tmp_path / "other" / "state"
    before = contents(tmp_path / "other")
    shutil.move(own, tmp_path / "big" / "states")
    for target, match in ((tmp_path / "nowhere", "is not a folder; put the states back"), (other, "which is another run")):
        own.symlink_to(target)
        with pytest.raises(FPTError, match=match):
            run(*settings(max_steps=4, resume=True))
        with pytest.raises(FPTError, match="already holds a run"):
            run(*settings(max_steps=4))
        own.unlink()
    assert contents(tmp_path / "other") == before
    # Moved to where there is more room.
    own.symlink_to(tmp_path / "big" / "states")
    assert run(*settings(max_steps=4, resume=True)).steps == 4


def test_an_output_folder_that_can_not_be_made_is_refused_at_once(settings, tmp_path: Path, monkeypatch) -> None:
    write_text(tmp_path / "file", "")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr("fpt.training.setup.prepare", lambda *args: pytest.fail("the data was read"))
    for place, match in {
        "file": "is a file; give a folder",
        "file/run": "is a file; give a folder",
        "dangling": "is a link that leads nowhere",
        "dangling/run": "is a link that leads nowhere",
        "n" * 300: "File name too long; give a shorter name",
        "ü" * 128 + "/run": "File name too long; give a shorter name",
    }.items():
        with pytest.raises(FPTError, match=match) as error:
            run(*settings(output_dir=str(tmp_path / place)))
        assert "\n" not in str(error.value)
    monkeypatch.undo()
    with pytest.raises(FPTError, match="can't be"):
        run(*settings(output_dir="/proc/run"))


@pytest.mark.parametrize("place", ["n" * 300, "loop/x"])
def test_a_path_that_can_not_be_looked_at_is_one_line(settings, tmp_path: Path, place: str) -> None:
    run(*settings(max_steps=4))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "mine.csv").write_text("smiles\nCCO\n")
    path, checkpoint, out = str(tmp_path / place), str(tmp_path / "run"), str(tmp_path / "out.csv")
    commands: dict[str, Callable[[], object]] = {
        name: lambda name=name: run(*settings(overwrite=True, **{name: path})) for name in ("data_dir", "cache_dir", "backbone")
    }
    for kind in ("csv", "imagefolder", "audiofolder"):
        commands[kind] = lambda kind=kind: run(*settings(overwrite=True, dataset=f"{kind}:{path}", data_dir=None))
    for name in ("predict", "data_dir", "cache_dir", "backbone", "output"):
        given = {"predict": str(tmp_path / "mine.csv"), "output": out, name: path}
        given |= {} if name in ("predict", "output") else {"predict": None}
        commands[f"evaluate {name}"] = lambda given=given: evaluation.run(EvaluateArguments(checkpoint=checkpoint, **given))
    commands["evaluate checkpoint"] = lambda: evaluation.run(EvaluateArguments(checkpoint=path))
    commands["report"] = lambda: find_runs([path])
    before = contents(tmp_path / "run")
    for name, command in commands.items():
        with pytest.raises(FPTError) as error:
            command()
        assert "\n" not in str(error.value), name
    assert contents(tmp_path / "run") == before


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("n" * 255, "ü" * 127):
        write_text(tmp_path / name, "text")
        with new_folder(tmp_path / name[1:]) as new:
            write_text(new / "x", "text")
    assert not temporaries(tmp_path)


def test_no_home_folder_is_one_line(settings, tmp_path: Path, monkeypatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "FPT_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FPTError, match="set FPT_HOME to a folder"):
        cache_home()
    with pytest.raises(FPTError, match="set FPT_HOME to a folder"):
        run(*settings())
    for name in ("~", "~/x", "~nobody-here/x"):
        with pytest.raises(FPTError, match="is not known; give the whole path"):
            user_path(name)
    # A folder that has that name.
    (tmp_path / "~odd").mkdir()
    assert user_path("~odd/x") == Path("~odd/x")
    monkeypatch.setenv("FPT_HOME", str(tmp_path / "home"))
    run(*settings(max_steps=4))
    evaluation.run(EvaluateArguments(checkpoint=str(tmp_path / "run")))


def test_what_a_kill_left_is_swept_by_the_next_run(settings, tmp_path: Path, home: Path) -> None:
    run(*settings(max_steps=4))
    output = tmp_path / "run"
    left = [".checkpoint.new.abcd1234/x", ".results.json.new.abcd1234", "state/.step-00000004.new.abcd1234/x"]
    left += [".overwritten.trash.abcd1234/state/x", ".full.new.abcd1234/x"]
    users = [".notes.new.abcd1234", ".checkpoint.newer", "state/mine"]
    for flags in ({"resume": True, "save_steps": 1}, {"overwrite": True}):
        for name in left + users:
            write_text(output / name, "left")
        # As long as another run has the folder, nothing of it is touched.
        with alone(output / ".lock", lambda: None), pytest.raises(FPTError, match="another run is writing"):
            run(*settings(max_steps=4, **flags))
        assert all((output / name).exists() for name in left)
        run(*settings(max_steps=4, **flags))
        assert {p.name for p in temporaries(output)} <= {".notes.new.abcd1234"}
        assert (output / ".notes.new.abcd1234").exists()
    # In the cache.
    work = home / "work" / f"cyp3a4-{next((home / 'arrow' / 'cyp3a4').iterdir()).name}"
    write_text(work / "train-000000000.arrow", "shard")
    evaluation.run(EvaluateArguments(checkpoint=str(output)))
    assert not work.exists()


def test_a_damaged_cache_entry_is_one_line_or_made_again(data_dir: Path, home: Path) -> None:
    def make() -> None:
        prepare(TASKS["cyp3a4"], DataArguments(data_dir=str(data_dir)), 1, lambda line: None)

    make()
    entry = next((home / "arrow" / "cyp3a4").iterdir())
    for text in ("{", "[]", "{}", '{"request": 1}'):
        write_text(entry / "manifest.json", text)
        make()
        assert json.loads((entry / "manifest.json").read_text())["rows"]
    for damage in (
        lambda: shutil.rmtree(entry / "valid"),
        lambda: (entry / "rejected.csv").unlink(),
        lambda: (entry / "rejected.csv").write_text("row,id,text\n"),
        lambda: (entry / "test" / "state.json").write_text("[]"),
        lambda: (entry / "test" / "state.json").write_text("{}"),
        lambda: (entry / "test" / "dataset_info.json").write_text("[]"),
        lambda: next((entry / "train").glob("*.arrow")).write_bytes(b"no arrow"),
        lambda: write_json(entry / "manifest.json", {**json.loads((entry / "manifest.json").read_text()), "rows": None}),
    ):
        damage()
        with pytest.raises(FPTError, match="delete that folder, it is made again") as error:
            make()
        assert "\n" not in str(error.value)
        shutil.rmtree(entry)
        make()


def test_a_bug_is_not_reported_as_a_damaged_cache_entry(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise AttributeError("a bug")

    monkeypatch.setattr("fpt.data.cache.build_entry", lambda *args: None)
    monkeypatch.setattr("fpt.data.entry.read_manifest", broken)
    with pytest.raises(AttributeError, match="a bug"):
        prepare(TASKS["cyp3a4"], DataArguments(data_dir=str(data_dir)), 1, lambda line: None)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x"), "No space left on device; make room and run it again"),
        (Exception("No space left on device (os error 28)"), "No space left on device; make room and run it again"),
        (OSError("[Errno 28] Error writing bytes to file"), "No space left on device; make room and run it again"),
        (PermissionError(errno.EACCES, "x"), "Permission denied; change the permissions, or give another place"),
        (OSError(errno.EIO, "x"), "Input/output error"),
    ],
)
def test_refusals_are_told_in_words(error: Exception, said: str) -> None:
    assert reason(error) == said
    with pytest.raises(FPTError, match=f"it: {said}"), refusals("it"):
        raise error


@pytest.mark.parametrize("error", [ValueError("x"), ConnectionRefusedError(errno.ECONNREFUSED, "x"), OSError("of the Hub")])
def test_other_errors_are_left_as_they_are(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)), refusals("it"):
        raise error
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "x"):
        Path("/not/there").read_text()
    assert not list(tmp_path.iterdir())

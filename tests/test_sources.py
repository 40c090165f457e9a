"""Where raw data is looked for: one order for every task, each step reported, and one line when it is nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fpt.args import DataArguments
from fpt.errors import FPTError
from fpt.tasks.base import Source
from fpt.tasks.sources import Download, Ladder, Package

ADVICE = "put a.txt into DIR and give --data_dir DIR, or `pip install --no-deps digits-data`"


def find(root: Path) -> list[Path]:
    found = [root / name for name in ("a.txt", "b.txt")]
    return found if all(path.is_file() for path in found) else []


def read(files: Sequence[Path], origin: str) -> Source:
    return Source([path.read_text() for path in files], origin, "0")


def write(folder: Path, text: str, names: str = "ab") -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture
def ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ladder:
    """Has a package that is installed; nothing is in the other places."""
    write(tmp_path / "package", "package")
    monkeypatch.setattr("fpt.tasks.sources.package_folder", lambda name: tmp_path / "package")
    monkeypatch.setattr("fpt.tasks.sources.metadata.version", lambda name: "1.0")
    package = Package("digits-data", find)
    return Ladder("digits", find, read, "a.txt into DIR", folder="sub", downloads="d", package=package, users_own=True)


def test_the_first_place_that_has_all_files_is_read(ladder: Ladder, tmp_path: Path, home: Path) -> None:
    args = DataArguments(data_dir=str(tmp_path / "raw"))
    assert ladder.locate(args, print) == Source(["package"] * 2, "package digits-data 1.0", "0")
    write(home / "raw" / "d", "earlier")
    assert ladder.locate(args, print) == Source(["earlier"] * 2, "download", "0")
    half = write(tmp_path / "raw" / "sub", "given", "a")
    assert ladder.locate(args, print).rows == ["earlier"] * 2
    (half / "b.txt").write_text("given")
    assert ladder.locate(args, print) == Source(["given"] * 2, "--data_dir", "0", users_own=True)
    assert ladder.locate(DataArguments(), print).users_own is False


def test_each_step_is_reported(ladder: Ladder, tmp_path: Path, home: Path) -> None:
    lines: list[str] = []
    ladder.locate(DataArguments(), lines.append)
    assert lines == ["--data_dir not given", f"download in {home}/raw/d: not there", f"package digits-data: {tmp_path}/package"]


def test_the_line_at_the_end_lists_what_was_tried(ladder: Ladder, tmp_path: Path, home: Path, monkeypatch) -> None:
    monkeypatch.setattr("fpt.tasks.sources.package_folder", lambda name: None)

    def fetch() -> Source:
        raise ConnectionError("no route")

    args, download = DataArguments(data_dir="raw"), Download("download with x", fetch)
    with pytest.raises(FPTError) as caught:
        ladder.locate(args, print, download)
    places = f"--data_dir raw, download in {home}/raw/d, package digits-data"
    why = "the download failed (ConnectionError: no route)"
    assert str(caught.value) == f"no data for digits (tried {places}, download with x): {why}; {ADVICE}"
    assert isinstance(caught.value.__cause__, ConnectionError)
    with pytest.raises(FPTError) as caught:
        ladder.locate(args, print)
    assert str(caught.value) == f"no data for digits (tried {places}): {ADVICE}"


def test_a_download_that_lacks_a_file_is_not_read(ladder: Ladder, home: Path, monkeypatch) -> None:
    monkeypatch.setattr("fpt.tasks.sources.package_folder", lambda name: None)

    def fetch() -> Source:
        write(ladder.download_folder, "half", "a")
        return ladder.downloaded("x")

    with pytest.raises(FPTError, match="the download does not hold the files that are needed; put"):
        ladder.locate(DataArguments(), print, Download("download with x", fetch))


def test_a_bug_in_a_download_is_shown_as_one(ladder: Ladder, home: Path, monkeypatch) -> None:
    monkeypatch.setattr("fpt.tasks.sources.package_folder", lambda name: None)

    def fetch() -> Source:
        raise KeyError("img")

    with pytest.raises(KeyError):
        ladder.locate(DataArguments(), print, Download("download with x", fetch))
    with pytest.raises(FPTError, match="KeyError"):
        ladder.locate(DataArguments(), print, Download("download with x", fetch, (KeyError,)))

"""Files are read by name or address or refused with a reason; tasks on pictures check their options before any file."""

from __future__ import annotations

import io
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dill
import numpy as np
import pytest
from PIL import Image

from fpt.args import DataArguments
from fpt.errors import FPTError
from fpt.tasks.base import TASKS
from fpt.tasks.images import ImageTask, PatchOptions, patch_option, read_file


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


# Files.


def test_files_by_name_and_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a b, «ü» 猫%20#?.png", os.fsdecode(b"caf\xe9.png"), "~tilde.png"):
        (tmp_path / name).write_bytes(name.encode("utf-8", "surrogateescape"))
        for way in (str(tmp_path / name), (tmp_path / name).as_uri(), (tmp_path / name).as_uri().replace("//", "//localhost", 1)):
            assert read_file(way) == (tmp_path / name).read_bytes()
    monkeypatch.chdir(tmp_path)
    assert read_file("~/~tilde.png") == read_file("~tilde.png") == b"~tilde.png"


def test_files_that_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    reasons = {
        str(tmp_path / "gone.png"): "no such file",
        (tmp_path / "gone.png").as_uri(): "no such file",
        str(tmp_path): "is a folder",
        str(tmp_path / "pipe"): "is not a regular file",
        "/dev/zero": "is not a regular file",
        str(tmp_path / "link"): "a broken link",
        str(tmp_path / "loop"): "too many levels of symbolic links",
        "": "no file name",
        "a\0b": "null",
        "x" * 5000: "file name too long",
        "https://example.com/a.png": "download the file",
        "file://elsewhere/a.png": "on another machine",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=rf"can't be read \(.*{reason}"):
            read_file(name)

    def denied(path: Any, *_: Any) -> None:
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "a.png").touch()
    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(ValueError, match="permission denied"):
        read_file(str(tmp_path / "a.png"))


# The task.


class Small(ImageTask):
    """Gray pictures of 8 by 8."""

    name = "small"
    height, width, channels = 8, 8, 1
    locate = split = None  # type: ignore[assignment]


Small.__abstractmethods__ = frozenset()


@dataclass
class BackgroundOptions(PatchOptions):
    """Patches of 4 by 4 before a background."""

    patch_size: int = 4
    background: str = "white"


def arguments(**options: Any) -> DataArguments:
    args = DataArguments(dataset="small")
    args.options = (BackgroundOptions if "background" in options else patch_option("small", 4))(**options)
    return args


def test_background_of_a_task() -> None:
    rows = {"image": [png(np.zeros((8, 8, 4), np.uint8))]}
    for options, value in (({}, 255), ({"background": "white"}, 255), ({"background": "black"}, 0)):
        out = Small().encode(rows, arguments(**options), None)
        assert out["length"] == [4] and (out["values"][0] == value).all()


BAD = [{"patch_size": 0}, {"patch_size": -4}, {"patch_size": 3}, {"patch_size": 16}, {"patch_overlap": 9}, {"background": "red"}]


@pytest.mark.parametrize("options", [*BAD, {"patch_overlap": -1}, {"background": None}])
def test_options_are_checked_before_files(options: dict[str, Any]) -> None:
    with pytest.raises(FPTError, match="--" + next(iter(options))):
        Small().dim(arguments(**options))


def test_no_pixels_and_too_many_numbers() -> None:
    task = Small()
    task.width = 0
    with pytest.raises(FPTError, match="no pixels"):
        task.dim(arguments())
    task.width = task.height = 1024
    with pytest.raises(FPTError, match="numbers for a picture"):
        task.dim(arguments(patch_overlap=1024))


def test_a_file_as_long_as_raw_pixels_is_a_file() -> None:
    task = Small()
    task.raw, task.height, task.width = True, 8, 20
    data = png(np.full((8, 20), 200, np.uint8))
    task.width = len(data)
    task.height = 1
    out = task.encode({"image": [data, bytes(len(data)), None]}, arguments(patch_size=1), None)
    assert (out["values"][0] == 200).all() and (out["values"][1] == 0).all()
    assert out["reason"][:2] == ["", ""] and "empty" in out["reason"][2]


def test_arrow_files_of_earlier_code_are_not_used_again() -> None:
    assert {TASKS[name].code_version for name in ("cifar10", "cifar10-gray", "mnist", "mnist-add", "imagefolder:x")} == {2}


def test_options_go_to_another_process() -> None:
    options = TASKS["cifar10"].options(patch_size=8)
    assert pickle.loads(pickle.dumps(options)) == dill.loads(dill.dumps(options)) == options

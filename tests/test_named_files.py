"""Files that a table names: pictures and sounds are found, opened and refused by one rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from fpt.files.named import open_named
from fpt.tasks.images import read_file
from fpt.tasks.sound_files import read_clip


def test_a_path_and_an_address_mean_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a b%.bin"
    path.write_bytes(b"x")
    for name in (str(path), path.as_uri(), path.as_uri().replace("file://", "FILE://localhost")):
        with open_named(name) as file:
            assert file.read() == b"x"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "no file name"),
        ("s3://bucket/a.wav", r"an address \(s3://\); download the file and give its path"),
        ("https://a.b/c.png", r"an address \(https://\)"),
        ("file://elsewhere/a.png", "a file on another machine"),
        ("{}/link", "a broken link"),
        ("{}/none", "no such file"),
        ("{}", "is a folder"),
    ],
)
@pytest.mark.parametrize("read", [read_file, read_clip])
def test_pictures_and_sounds_are_refused_alike(read, name: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "none")
    with pytest.raises(ValueError, match=rf"^can't be read \({why}"):
        read(name.format(tmp_path))

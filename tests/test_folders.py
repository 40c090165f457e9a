"""Folders of pictures and sounds as datasets reads them: classes, splits, metadata, links, litter, and what is counted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from own_data import labels_of, picture, pictures, prepared, sounds, told, write

from fpt.errors import FPTError, RejectedRows

SMALL = {"image_size": 16}


def read(folder: Path, **options):
    return prepared(f"imagefolder:{folder}", {**SMALL, **options})


@pytest.mark.parametrize(
    ("folders", "rows", "method"),
    [
        (["train", "val", "test"], (24, 24, 24), "given"),
        (["Training", "Testing"], (22, 2, 24), "given; valid cut from train (stratified)"),
        (["train", "val"], (19, 24, 5), "given; test cut from train (stratified)"),
        (["pets/train", "pets/test"], (22, 2, 24), "given; valid cut from train (stratified)"),
    ],
)
def test_folders_of_splits(tmp_path: Path, folders: list[str], rows: tuple, method: str) -> None:
    for number, name in enumerate(folders):
        pictures(tmp_path / "set" / name, seed=number)
    found = read(tmp_path / "set")
    assert (tuple(found.manifest.rows.values()), found.split_method) == (rows, method)
    assert found.output.label_names == ("cats", "dogs")
    for part in found.splits.values():
        assert {("cats", "dogs")[y] in i for i, y in zip(part["id"], part["label"], strict=True)} == {True}


def test_classes_may_hold_the_splits(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        for split in ("train", "test"):
            pictures(tmp_path / "set" / name, (split,), seed=len(split) + len(name) * (name == "cats"))
    found = read(tmp_path / "set")
    assert found.output.label_names == ("cats", "dogs")
    assert found.manifest.rows["test"] == 24


def test_an_outer_folder_and_a_test_folder_without_classes(tmp_path: Path) -> None:
    pictures(tmp_path / "set" / "train")
    for i in range(5):
        picture(tmp_path / "set" / "test" / f"{i}.png", 0, seed=99 + i)
    found = read(tmp_path / "set")
    assert "the split 'test' has 5 rows and no labels: it is not used" in told(found)
    assert (sum(found.manifest.rows.values()), len(found.rejected)) == (24, 5)
    pictures(tmp_path / "wrapped" / "PetImages")
    assert read(tmp_path / "wrapped").output.label_names == ("cats", "dogs")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("split", [True, False])
def test_metadata_names_the_labels(tmp_path: Path, kind: str, split: bool) -> None:
    for part in ("train", "test") if split else ("",):
        folder = tmp_path / "set" / part
        rows = [
            (picture(folder / f"{i:03d}.png", i % 2, seed=i + 100 * len(part)).name, ["cats", "dogs"][i % 2]) for i in range(30)
        ]
        if kind == "csv":
            write(folder / "metadata.csv", ["file_name", "label"], [*rows, ("none.png", "cats")])
        else:
            (folder / "metadata.jsonl").write_text("".join(f'{{"file_name": "{f}", "label": "{y}"}}\n' for f, y in rows))
        picture(folder / "unlisted.png", 0, seed=7)
    found = prepared(f"imagefolder:{tmp_path / 'set'}", SMALL, max_bad_fraction=0.05)
    assert found.output.label_names == ("cats", "dogs")
    assert found.split_method == ("given; valid cut from train (stratified)" if split else "stratified")
    assert f"{1 + split} files without a row in metadata" in told(found)
    assert all(y == ("cats", "dogs")[int(i[-7:-4]) % 2] for i, y in labels_of(found).items())
    assert list(found.rejected.reason) == ["can't be read (No such file or directory)"] * (0 if kind == "jsonl" else 1 + split)


def test_metadata_may_hold_numbers_and_leads_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    rows = [(picture(folder / f"{i}.png", i % 2, seed=i).name, i * 0.5) for i in range(40)]
    write(folder / "metadata.csv", ["file_name", "age"], [*rows, ("../../outside.png", 1.0)])
    picture(tmp_path / "outside.png", 0)
    with pytest.raises(FPTError, match="give --label_column, one of"):
        read(folder)
    found = read(folder, label_column="age")
    assert labels_of(found)["7.png"] == "3.5"
    assert "1 rows of metadata that name a file outside of the folder" in told(found)


def test_links_are_followed_once(tmp_path: Path) -> None:
    pictures(tmp_path / "real", ("birds",))
    pictures(tmp_path / "set")
    os.symlink(tmp_path / "real" / "birds", tmp_path / "set" / "birds")
    os.symlink(tmp_path / "nowhere.png", tmp_path / "set" / "cats" / "broken.png")
    found = read(tmp_path / "set")
    assert found.output.label_names == ("birds", "cats", "dogs")
    assert "1 broken links" in told(found)
    os.symlink(tmp_path / "set", tmp_path / "set" / "cats" / "again")
    assert "links to folders that were read already" in told(read(tmp_path / "set"))


def test_what_is_not_read_is_counted(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "set")
    for name in ("__MACOSX/cats/._000.png", ".ipynb_checkpoints/x.png", "cats/._000.png", "cats/.DS_Store", "dogs/notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "cats" / "000.png", folder / name)
    (folder / "cats" / "Thumbs.db").write_bytes(b"x")
    (folder / "cats" / "IMG_1.HEIC").write_bytes(b"x")
    found = read(folder)
    assert found.output.label_names == ("cats", "dogs")
    assert sum(found.manifest.rows.values()) == 24
    for line in (
        "1 hidden folders (.ipynb_checkpoints)",
        "1 hidden folders (__MACOSX)",
        "2 hidden files",
        "1 files of other kinds (.txt)",
        "1 files of other kinds (.db)",
        "1 files of other kinds (.heic)",
    ):
        assert line in told(found)


def test_a_class_without_a_readable_file_is_refused(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "set")
    (folder / "birds").mkdir()
    for i in range(9):
        (folder / "birds" / f"{i}.heic").write_bytes(b"x")
    with pytest.raises(FPTError, match="the folder 'birds' has 9 files and none that can be read"):
        read(folder)


def test_a_class_of_one_file_is_named_and_numbered_classes_are_names(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "set")
    picture(folder / "birds" / "only.png", 0)
    with pytest.raises(FPTError, match=r"'birds' .1 row."):
        read(folder)
    names = tuple(f"{i:05d}" for i in range(25))
    found = read(pictures(tmp_path / "signs", names, count=11))
    assert found.output.label_names == names


def test_nested_folders_are_asked_for(tmp_path: Path) -> None:
    for outer in ("cats", "dogs"):
        pictures(tmp_path / "set" / outer, ("day", "night"), seed=len(outer) + (outer == "cats"))
    with pytest.raises(FPTError, match=r"folders are nested .*--class_level first or --class_level last"):
        read(tmp_path / "set")
    assert read(tmp_path / "set", class_level="first").output.label_names == ("cats", "dogs")
    assert read(tmp_path / "set", class_level="last").output.label_names == ("day", "night")


def test_noise_of_speech_commands_is_no_word(tmp_path: Path) -> None:
    folder = sounds(tmp_path / "set")
    sounds(folder, ("_background_noise_",), count=3)
    found = prepared(f"audiofolder:{folder}", {"seconds": 0.25})
    assert found.output.label_names == ("high", "low")
    assert "3 files in _background_noise_, which is not a class (--skip_folders)" in told(found)
    assert prepared(f"audiofolder:{folder}", {"seconds": 0.25, "skip_folders": ""}).output.size == 3


def test_a_file_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "set")
    try:
        shutil.copy(folder / "cats" / "000.png", os.fsencode(folder / "cats") + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    found = read(folder)
    assert "cats/caf\\xe9.png" in labels_of(found)
    assert found.manifest.rejected == 0


def test_broken_pictures_are_listed_and_the_folder_itself_may_be_named_by_a_dot(tmp_path: Path, monkeypatch) -> None:
    folder = pictures(tmp_path / "set", count=60)
    (folder / "cats" / "000.png").write_bytes(b"")
    monkeypatch.chdir(folder)
    found = prepared("imagefolder:.", SMALL)
    assert found.task.name == "imagefolder:set"
    assert list(found.rejected.id) == ["cats/000.png"]
    (folder / "dogs" / "001.png").write_bytes((folder / "dogs" / "001.png").read_bytes()[:90])
    with pytest.raises(RejectedRows, match="2 of 120 rows of imagefolder:set can't be used"):
        prepared("imagefolder:.", SMALL)


def test_the_same_picture_twice_is_counted(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "set")
    for i in range(6):
        shutil.copy(folder / "cats" / f"{i:03d}.png", folder / "dogs" / f"copy{i}.png")
    line = next(line for line in told(read(folder)).splitlines() if "repeat" in line)
    assert "6 samples repeat the input of another one" in line and "6 inputs have different labels" in line
    assert sum(read(folder, deduplicate=True).manifest.rows.values()) == 18


def test_a_hub_dataset_of_pictures_is_pictures(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "test")):
        pictures(tmp_path / "set" / name, seed=number)
    found = prepared(f"hub:{tmp_path / 'set'}", {**SMALL, "label_column": "label"})
    assert (found.input.dim, found.manifest.rows["test"]) == (48, 24)
    assert found.output.label_names == ("cats", "dogs")
    with pytest.raises(FPTError, match="column 'image' of hub:set holds names of image files; pass --input_type image"):
        prepared(f"hub:{tmp_path / 'set'}", {**SMALL, "label_column": "label", "input_type": "text", "input_column": "image"})


def test_a_table_of_file_names(tmp_path: Path) -> None:
    rows = [(f"img/{picture(tmp_path / 'img' / f'{i}.png', i % 2, seed=i).name}", i % 2) for i in range(30)]
    path = write(tmp_path / "x.csv", ["file", "label"], [*rows, ("img/none.png", 1)])
    found = prepared(f"csv:{path}", {**SMALL, "input_type": "image", "input_column": "file"}, max_bad_fraction=0.1)
    assert sum(found.manifest.rows.values()) == 30
    assert len(found.rejected) == 1


def test_argument_errors_come_before_files_are_hashed(tmp_path: Path, monkeypatch) -> None:
    folder = pictures(tmp_path / "set")
    monkeypatch.setattr("fpt.data.folders.sha256_file", lambda path: pytest.fail("a file was hashed"))
    with pytest.raises(FPTError, match="--patch_size 5 must divide"):
        read(folder, patch_size=5)
    with pytest.raises(FPTError, match="--missing 'maybe' must be drop, error or mean"):
        read(folder, missing="maybe")

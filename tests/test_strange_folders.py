"""Folders, metadata, Hub datasets and command lines that look ordinary and can be misread or crash."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from own_data import TEXT, labels_of, picture, pictures, predict, prepared, scored, texts, told, train, values_of, write

import fpt
from fpt.args import DataArguments
from fpt.cli import parse
from fpt.errors import FPTError

SMALL = {"image_size": 16}
FILES = {**SMALL, "input_type": "image", "input_column": "file", "label_column": "label"}
ROOT = Path(__file__).parents[1]


def read(folder: Path, **options):
    return prepared(f"imagefolder:{folder}", {**SMALL, **options})


def listed(folder: Path, seed: int = 0, count: int = 30) -> Path:
    rows = [(picture(folder / "img" / f"{i}.png", i % 2, seed=seed * 100 + i).name, i % 2) for i in range(count)]
    return write(folder / "x.csv", ["file", "label"], [(f"img/{name}", y) for name, y in rows])


def test_another_picture_under_the_same_name_is_another_sample(tmp_path: Path) -> None:
    first = prepared(f"csv:{listed(tmp_path / 'a')}", FILES)
    second = prepared(f"csv:{listed(tmp_path / 'b', seed=1)}", FILES)
    assert first.manifest.data_sha256 != second.manifest.data_sha256
    assert values_of(first) != values_of(second)
    again = prepared(f"csv:{listed(tmp_path / 'c')}", FILES)
    assert again.manifest.data_sha256 == first.manifest.data_sha256


def test_the_same_picture_under_two_names_is_one_sample(tmp_path: Path) -> None:
    path = listed(tmp_path)
    for i in range(5):
        shutil.copy(tmp_path / "img" / f"{2 * i}.png", tmp_path / "img" / f"copy{i}.png")
    with path.open("a") as file:
        file.write("".join(f"img/copy{i}.png,1\n" for i in range(5)))
    assert "5 samples repeat the input of another one" in told(prepared(f"csv:{path}", FILES))
    assert sum(prepared(f"csv:{path}", {**FILES, "deduplicate": True}).manifest.rows.values()) == 25


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (["mask_file_name", "file_name", "label"], lambda i: (f"m{i}.png", f"{i}.png", "ab"[i % 2]), None),
        (["file_name", "image", "label"], lambda i: (f"{i}.png", f"/elsewhere/{i}.png", "ab"[i % 2]), None),
        (["file_name", "label"], lambda i: (f"{i}.PNG", "ab"[i % 2]), "none of 30 rows of metadata names a file"),
        (["a_file_name", "b_file_name", "label"], lambda i: (f"{i}.png", f"{i}.png", "a"), "no column 'file_name'"),
        (["file_name", "age", "name"], lambda i: (f"{i}.png", i, "x"), "give --label_column, one of file_name, age, name"),
    ],
)
def test_metadata_names_its_own_files_only(tmp_path: Path, header: list[str], rows, message: str | None) -> None:
    folder = tmp_path / "set"
    for i in range(30):
        picture(folder / f"{i}.png", i % 2, seed=i)
    write(folder / "metadata.csv", header, [rows(i) for i in range(30)])
    if message:
        with pytest.raises(FPTError, match=message):
            read(folder)
        return
    found = read(folder)
    assert all(y == "ab"[int(Path(i).stem) % 2] for i, y in labels_of(found).items())
    assert sum(found.manifest.rows.values()) == 30


def test_two_metadata_files_and_none_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for i in range(9):
        picture(folder / f"{i}.png", 0, seed=i)
    with pytest.raises(FPTError, match=r"no file is in a folder of its class; expected set/CLASS/FILE, or metadata.csv"):
        read(folder)
    write(folder / "metadata.csv", ["file_name", "label"], [("1.png", "a")])
    (folder / "metadata.jsonl").write_text('{"file_name": "1.png", "label": "b"}\n')
    with pytest.raises(FPTError, match=r"holds both metadata.csv and metadata.jsonl; keep one"):
        read(folder)


def test_folders_of_splits_without_classes_are_no_classes(tmp_path: Path) -> None:
    pictures(tmp_path / "set", ("train", "test"))
    with pytest.raises(FPTError, match=r"the folders test, train hold files and no folders of classes"):
        read(tmp_path / "set")
    assert read(pictures(tmp_path / "own", ("control", "test"))).output.label_names == ("control", "test")


@pytest.mark.parametrize("lone", ["unknown", "images"])
def test_a_test_split_of_other_classes_is_not_scored(tmp_path: Path, lone: str) -> None:
    pictures(tmp_path / "set" / "train")
    pictures(tmp_path / "set" / "test", (lone,), seed=5)
    found = read(tmp_path / "set")
    assert found.output.label_names == ("cats", "dogs")
    assert f"the split 'test' has no class of train, only {lone}: it is not used" in told(found)
    pictures(tmp_path / "more" / "train")
    pictures(tmp_path / "more" / "test", ("cats", "dogs", "fish"), seed=7)
    assert "the class 'fish' has 12 rows in test and none in train" in told(read(tmp_path / "more"))


def test_given_splits_without_train_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate(("valid", "test")):
        pictures(tmp_path / "set" / name, seed=number)
    with pytest.raises(FPTError, match=r"no labelled training rows .found: test, valid."):
        read(tmp_path / "set")


@pytest.mark.parametrize("outer", [("cancer", "healthy"), ("a", "b")])
def test_patients_are_not_taken_for_classes(tmp_path: Path, outer: tuple[str, str]) -> None:
    for number, name in enumerate(outer):
        pictures(tmp_path / "set" / name, (f"p{2 * number}", f"p{2 * number + 1}"), seed=number)
    with pytest.raises(FPTError, match=r"folders are nested .*--class_level first or --class_level last"):
        read(tmp_path / "set")
    assert set(read(tmp_path / "set", class_level="first").output.label_names) == set(outer)


def test_class_folders_in_two_spellings(tmp_path: Path) -> None:
    pictures(tmp_path / "set", ("cat", "cat ", "dog"))
    assert "1 names differ from others in white space or Unicode form only: one class" in told(read(tmp_path / "set"))
    pictures(tmp_path / "case", ("Cat", "dog"))
    pictures(tmp_path / "case", ("cat",), seed=3)
    with pytest.raises(FPTError, match=r"differ in case only: 'Cat' .12 rows. and 'cat'"):
        read(tmp_path / "case")
    assert read(pictures(tmp_path / "prices", ("1,000", "0.5", "1,5"))).output.size == 3


def test_a_pipe_among_pictures_does_not_hang(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "set")
    os.mkfifo(folder / "cats" / "zz.png")
    (folder / "cats" / "x.png").mkdir()
    (folder / "fish").mkdir()
    found = read(folder)
    assert "1 things that are no files" in told(found)
    assert "1 empty folders (fish)" in told(found)


def test_few_rows_are_cut_all_the_same(tmp_path: Path) -> None:
    found = read(pictures(tmp_path / "set", count=4))
    assert found.manifest.rows == {"train": 5, "valid": 1, "test": 2}
    for number, name in enumerate(("train", "test")):
        pictures(tmp_path / "ten" / name, tuple(f"c{i}" for i in range(10)), count=5, seed=number)
    found = read(tmp_path / "ten")
    assert found.manifest.rows == {"train": 45, "valid": 5, "test": 50}


def test_hub_files_whose_classes_are_in_another_order(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name, classes in (("train", ["cat", "dog"]), ("test", ["dog", "cat"])):
        features = Features({"text": Value("string"), "label": ClassLabel(names=classes)})
        rows = {"text": [f"{name} {i}" for i in range(40)], "label": [i % 2 for i in range(40)]}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / f"{name}.parquet")
    with pytest.raises(
        FPTError, match=r"the classes of column 'label' are cat, dog in train.parquet and dog, cat in test.parquet"
    ):
        prepared(f"hub:{tmp_path / 'set'}", TEXT)


def test_labels_that_are_withheld_in_part(tmp_path: Path) -> None:
    rows = [
        (t, -1 if s == "test" and i % 4 else int(y == "pos"), s)
        for i, (t, y) in enumerate(texts(120))
        for s in [("train", "val", "test")[i // 40]]
    ]
    found = prepared(f"csv:{write(tmp_path / 'x.csv', ['text', 'label', 'split'], rows)}", TEXT)
    assert (found.output.label_names, found.manifest.rows["test"]) == (("0", "1"), 10)
    assert "30 rows: no label (-1)" in told(found)


def test_names_of_pictures_are_not_text(tmp_path: Path) -> None:
    with pytest.raises(FPTError, match=r"column 'file' of csv:x.csv holds names of image files; pass --input_type image"):
        prepared(f"csv:{listed(tmp_path)}", {"input_column": "file", "label_column": "label"})


def test_predictions_for_lists_of_files(tmp_path: Path, llama_dir: Path) -> None:
    folder = pictures(tmp_path / "set")
    train(f"imagefolder:{folder}", SMALL, llama_dir, tmp_path / "run")
    (tmp_path / "list.csv").write_text("".join(f"{folder / 'cats' / f'{i:03d}.png'}\n" for i in range(5)))
    with pytest.raises(FPTError, match=r"has no header: its first line"):
        predict(tmp_path / "run", tmp_path / "list.csv")
    odd = write(
        tmp_path / "odd.csv", ["file", "n"], [("~nobody/x.png", 1), ("x" * 400 + ".png", 2), ("", 3), ("cats/000.png", 4)]
    )
    shutil.copytree(folder / "cats", tmp_path / "cats")
    out = predict(tmp_path / "run", odd)
    assert list(out.prediction != "") == [False, False, False, True]
    model = fpt.load(str(tmp_path / "run"))
    path = folder / "cats" / "000.png"
    by_name, by_path, by_bytes = model.predict([str(path), path, path.read_bytes()])
    assert by_name == by_path == by_bytes
    assert by_name["prediction"] in ("cats", "dogs")
    for wrong in ("x.png", path, None):
        with pytest.raises(FPTError, match=r"predict takes a list"):
            model.predict(wrong)
    with pytest.raises(FPTError, match=r"batch_size -1 must be at least 1"):
        model.predict([path], batch_size=-1)
    test = scored(tmp_path / "run")
    write(folder / "metadata.csv", ["file_name", "label"], [(i, "x") for i in test.index])
    again = predict(tmp_path / "run", folder / "metadata.csv")
    assert (again.prediction != "").all()


def test_another_locale_reads_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    rows = [(picture(folder / f"bild_ü{i}.png", i % 2, seed=i).name, ["猫", "chien été"][i % 2]) for i in range(30)]
    write(folder / "metadata.csv", ["file_name", "label"], rows)
    code = (
        "from own_data import prepared, labels_of\n"
        f"found = prepared('imagefolder:{folder}', {SMALL!r})\n"
        f"again = prepared('imagefolder:{folder}', {SMALL!r})\n"
        "assert labels_of(found) == labels_of(again) and len(labels_of(found)) == 30\n"
        "print(ascii(sorted(set(labels_of(found).values()))))\n"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "FPT_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == ascii(["chien été", "猫"])


def test_a_mistyped_argument_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--max_lenght", "5"])
    with pytest.raises(FPTError, match=r"unknown argument '--max_lenght' .did you mean '--max_length'"):
        parse("", DataArguments)


def test_a_continued_run_names_the_one_argument_that_differs(tmp_path: Path, llama_dir: Path) -> None:
    folder = pictures(tmp_path / "set")
    train(f"imagefolder:{folder}", SMALL, llama_dir, tmp_path / "run")
    with pytest.raises(FPTError, match=r"was started with --background white \(now black\);"):
        train(f"imagefolder:{folder}", {**SMALL, "background": "black"}, llama_dir, tmp_path / "run", resume=True)
    before = json.loads((tmp_path / "run" / "run.json").read_text())
    del before["data_key"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(before))
    # The state names the data as well.
    assert train(f"imagefolder:{folder}", SMALL, llama_dir, tmp_path / "run", resume=True).steps == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(FPTError, match="file is a file; give a folder"):
        train(f"imagefolder:{folder}", SMALL, llama_dir, tmp_path / "file" / "run")


def test_folds_are_no_classes_and_a_folder_below_each_class_is_passed_over(tmp_path: Path) -> None:
    with pytest.raises(FPTError, match=r"fold1, fold2, … look like folds, not like classes"):
        read(pictures(tmp_path / "folds", ("fold1", "fold2")))
    for number, name in enumerate(("n01", "n02")):
        pictures(tmp_path / "set" / "train" / name, ("images",), seed=number)
    assert read(tmp_path / "set").output.label_names == ("n01", "n02")


def test_a_dataset_that_was_saved_to_disk(tmp_path: Path) -> None:
    rows = {"text": [t for t, _ in texts()], "label": [y for _, y in texts()]}
    Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    assert prepared(f"hub:{tmp_path / 'set'}", TEXT).output.label_names == ("neg", "pos")

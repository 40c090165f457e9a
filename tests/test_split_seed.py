"""The seed of a split: of no meaning to the cache where the splits are published or given, and kept in what a run writes down."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from own_data import TEXT, arguments, texts, write
from test_modalities import write_proteins, write_speech

from fpt.args import DataArguments, ModelArguments, TrainArguments
from fpt.data.cache import prepare
from fpt.data.prepared import Prepared
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.tasks.base import TASKS
from fpt.tasks.own import OwnTask
from fpt.training import run
from fpt.training.run_dir import data_key


def with_seed(args: DataArguments, seed: int) -> Prepared:
    return prepare(TASKS[args.dataset], args, seed, lambda line: None)


def entries(home: Path) -> list[Path]:
    return list(home.glob("arrow/*/*/manifest.json"))


def own_texts(folder: Path, names: list[str]) -> DataArguments:
    rows = [(text, label, names[i % len(names)]) for i, (text, label) in enumerate(texts(120))]
    path = write(folder / "x.csv", ["text", "label", "split"], rows)
    return arguments(f"csv:{path}", {**TEXT, "split_column": "split"})


def lra_listops(folder: Path) -> DataArguments:
    for part in ("train", "val", "test"):
        rows = "".join(f"( ( [MAX {i % 10} ) 1 ) ] )\t{max(i % 10, 1)}\n" for i in range(20))
        (folder / f"basic_{part}.tsv").write_text(f"Source\tTarget\n{rows}")
    return arguments("listops", {}, data_dir=str(folder))


def speech(folder: Path) -> DataArguments:
    return arguments("speech-commands", {}, data_dir=str(write_speech(folder)))


def proteins(folder: Path) -> DataArguments:
    return arguments("remote-homology", {}, data_dir=str(write_proteins(folder / "remote_homology", "json")))


def as_before(patch: pytest.MonkeyPatch) -> None:
    """Name and describe entries by the seed, as earlier versions did for all splits."""
    split = OwnTask.split
    patch.setattr(OwnTask, "split", lambda *args: replace(split(*args), seeded=True))


def given(folder: Path) -> DataArguments:
    return own_texts(folder, ["train", "train", "valid", "test"])


@pytest.mark.parametrize("make", [speech, proteins, given, lra_listops])
def test_published_and_given_splits_are_prepared_once_for_all_seeds(make, home: Path, tmp_path: Path, monkeypatch) -> None:
    args = make(tmp_path)
    first = with_seed(args, 1)
    monkeypatch.setattr("fpt.data.features._encode", lambda *a, **k: pytest.fail("the data was prepared again"))
    second = with_seed(args, 2)
    assert len(entries(home)) == 1
    assert {name: rows["id"] for name, rows in first.splits.items()} == {n: rows["id"] for n, rows in second.splits.items()}
    # What a run writes down and is compared with is as it was.
    assert [data_key(one)["split_seed"] for one in (first, second)] == [1, 2]


def test_an_entry_of_any_seed_is_found_without_the_raw_data(home: Path, tmp_path: Path, monkeypatch) -> None:
    args = speech(tmp_path)
    with_seed(args, 1)
    args.data_dir = None
    monkeypatch.setattr(type(TASKS["speech-commands"]), "locate", lambda *a: pytest.fail("the raw data was read"))
    assert with_seed(args, 7).manifest.request.split_seed == 7


@pytest.mark.parametrize("names", [["train", "train", "test"], ["train"]])
def test_splits_that_are_cut_are_those_of_the_seed(names: list[str], home: Path, tmp_path: Path) -> None:
    args = own_texts(tmp_path, names)
    first, second = with_seed(args, 1), with_seed(args, 2)
    assert len(entries(home)) == 2
    assert first.splits["train"]["id"] != second.splits["train"]["id"]


def test_an_entry_of_an_earlier_version_is_found(home: Path, tmp_path: Path, monkeypatch) -> None:
    args = given(tmp_path)
    with monkeypatch.context() as patch:
        as_before(patch)
        with_seed(args, 3)
    (entry,) = entries(home)
    assert json.loads(entry.read_text())["request"]["split_seed"] == 3
    monkeypatch.setattr("fpt.data.features._encode", lambda *a, **k: pytest.fail("the data was prepared again"))
    assert with_seed(args, 3).manifest.request.split_seed == 3
    assert entries(home) == [entry]


def test_a_checkpoint_of_another_seed_is_scored_with_the_one_entry(home: Path, llama_dir: Path, tmp_path: Path) -> None:
    args = given(tmp_path)
    scores = []
    for seed in (1, 2):
        args.split_seed = seed
        training = TrainArguments(output_dir=str(tmp_path / f"seed-{seed}"), max_steps=4, eval_steps=4)
        results = run(args, ModelArguments(backbone=str(llama_dir)), training)
        assert results.split.seed == seed
        output = tmp_path / f"{seed}.json"
        evaluation.run(EvaluateArguments(checkpoint=training.output_dir, output=str(output), num_proc=1))
        scores.append((json.loads(output.read_text())["metrics"]["test"], results.metrics["test"]))
    assert len(entries(home)) == 1
    assert all(found == pytest.approx(before, abs=1e-5) for found, before in scores)
    assert scores[0] == scores[1]


def test_a_run_of_an_earlier_version_goes_on(home: Path, llama_dir: Path, tmp_path: Path, monkeypatch) -> None:
    args = given(tmp_path)
    args.split_seed = 5
    training = {"output_dir": str(tmp_path / "run"), "max_steps": 8, "eval_steps": 4}
    with monkeypatch.context() as patch:
        as_before(patch)
        run(args, ModelArguments(backbone=str(llama_dir)), TrainArguments(**training))
    (tmp_path / "run" / "results.json").unlink()
    for path in entries(home):
        shutil.rmtree(path.parent)  # made again, for any seed
    results = run(args, ModelArguments(backbone=str(llama_dir)), TrainArguments(**training, resume=True))
    assert results.steps == 8

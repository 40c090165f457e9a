"""What a user may ask for by mistake: one line that says what is wrong, and nothing that is left behind."""

from __future__ import annotations

import shlex
import shutil
import sys
import tarfile
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import molecules, write_tdc
from datasets import Dataset
from test_modalities import arguments, jpeg, quiet, write_cifar10, write_mnist, write_proteins, write_speech, write_table

from fpt import inspect, plan
from fpt.checkpoint.remote import pull
from fpt.cli import parse, parse_training
from fpt.errors import FPTError, cli
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.experiment import __main__ as experiment
from fpt.report.__main__ import main as report
from fpt.results import RunResults
from fpt.tasks.base import TASKS, resolve
from fpt.training import run, state
from fpt.training.run_dir import repair


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, llama_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with some files that are not what they should be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr("fpt.tasks.base.GeneratedTask.sizes", {"train": 32, "valid": 16, "test": 16})
    write_tdc(tmp_path / "raw", molecules()[:80])
    write_speech(tmp_path / "raw")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty.csv").write_text("text,label\n")
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)))
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "pictures" / name / f"{i}.jpg").write_bytes(jpeg((20 * i, 2, 3)))
    (tmp_path / "core").symlink_to(llama_dir)
    write_table(tmp_path / "numbers.csv", [{"x": i, "y": i % 2} for i in range(60)])
    return tmp_path


def train(words: str, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setattr(sys, "argv", ["train.py", *shlex.split(words)])
    return run(*parse_training(""))


NUMBERS = "--dataset csv:numbers.csv --input_type numbers --input_column x --label_column y"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--output_dir file", "--output_dir file: file is a file; give a folder"),
        ("--resume True --overwrite True", "exclude each other"),
        ("--dropout 1.5", "--dropout 1.5 must be at least 0 and below 1"),
        ("--model morgan --save_full True", "--save_full, --max_steps are not read|--max_steps, --save_full are not read"),
        ("--model morgan --seeds 1,2", "--seeds.* not read: --model morgan is fitted at once"),
        ("--seeds 1,2 --mixed_precision fp16", "needs a GPU|needs --mixed_precision no or bf16"),
        ("--seeds 1,2 --push_to_hub user/repo", "gives several checkpoints"),
        ("--input_positions sometimes", "unknown --input_positions 'sometimes'"),
        ("--input_positions learned", "it is for patches of numbers; .*cyp3a4.* is made of text"),
        ("--dataset csv:nothing.csv", "there is no such file"),
        ("--dataset csv:nothing.csv --data_dir raw", "there is no such file"),
        ("--dataset csv:empty.csv --input_column text --label_column label", "has a header line and no rows"),
        ("--dataset csv:bytes.csv", "can't be read as a table"),
        (f"{NUMBERS} --numbers_per_token 0", "--numbers_per_token 0 must be between 1 and 1,048,576"),
        ("--dataset imagefolder:nothing", "there is no such folder"),
        ("--dataset imagefolder:nothing --data_dir raw", "there is no such folder"),
        ("--dataset imagefolder:folder", "holds no files"),
        ("--dataset imagefolder:pictures --image_size 0", "--image_size 0 must be between 1 and 1024"),
        ("--dataset mnist-add --num_digits 0", "--num_digits 0 must be at least 1"),
        ("--dataset listops --max_depth 1", "--max_depth 1 must be at least 2"),
        ("--dataset listops --max_length 8", "too short for an expression"),
        (
            "--dataset speech-commands --data_dir raw --num_mels 0",
            "--num_mels, --frames_per_token and --patch_size must",
        ),
        ("--dataset digit-add --num_digits 0", "--num_digits"),
        ("--backbone run:nothing", "is not there; give the --output_dir of a finished run"),
    ],
)
def test_a_run_that_makes_no_sense(words: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "--dataset" not in words:
        words += " --dataset cyp3a4 --data_dir raw"
    if "--backbone" not in words and "morgan" not in words:
        words += " --backbone core"
    with pytest.raises(FPTError, match=message) as caught:
        train(f"{words} --max_steps 1", monkeypatch)
    assert "\n" not in str(caught.value)
    assert not list(Path().glob("runs/*/results.json"))


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (plan.main, "--backbone gpt2 --dataset bit-memory --gpus 0", "--gpus 0 must be at least 1"),
        (plan.main, "--backbone gpt2 --dataset bit-memory --gpu z9", "unknown --gpu 'z9'"),
        (inspect.main, "--backbone run:runs/x --dataset bit-memory", "is inspected by the backbone that it started from"),
        (report, "folder", "no finished run"),
        (experiment.main, "--file folder/nothing.yaml", "nothing.yaml"),
        (experiment.main, "--file ROOT/experiments/cyp3a4.yaml --seeds 0", "--seeds 0 must be at least 1"),
        (experiment.main, "--file ROOT/experiments/cyp3a4.yaml --rows nothing", "there is no such row; there are"),
    ],
)
def test_a_command_that_makes_no_sense(main, words: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parent.parent
    monkeypatch.setattr(sys, "argv", ["script", *shlex.split(words.replace("ROOT", str(root)))])
    with pytest.raises(FPTError, match=message):
        main()
    assert not Path("runs").exists()


def test_a_hub_name_that_is_none() -> None:
    with pytest.raises(FPTError, match="no name of a repository"):
        pull("nothing")


def test_interrupted_at_the_keyboard(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        cli(main)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_generated_tasks_predict_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    train("--dataset bit-memory --backbone core --max_steps 1 --output_dir run", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--checkpoint", "run", "--predict", "numbers.csv", "--output", "out.csv"])
    with pytest.raises(FPTError, match="bit-memory is generated, it has no inputs in files"):
        evaluation.run(*parse("", EvaluateArguments))
    assert not Path("out.csv").exists()


def test_a_baseline_is_no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = "--dataset imagefolder:pictures --image_size 16 --max_steps 1"
    train(f"{pictures} --model cnn --output_dir cnn", monkeypatch)
    with pytest.raises(FPTError, match="is a run of --model cnn, which has no backbone"):
        train(f"{pictures} --backbone run:cnn --output_dir run", monkeypatch)


def test_long_sequences_are_cut_and_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--dataset cyp3a4 --data_dir raw --backbone core --max_length 8 --augment 2 --max_steps 1 --output_dir run"
    results = train(words, monkeypatch)
    cut = results.data["cut_to_max_length"]
    assert sum(cut.values()) == 80
    assert f"{sum(cut.values())} sequences were cut to 8 tokens" in capsys.readouterr().out
    write_table(Path("mine.csv"), [{"smiles": "CCO"}, {"smiles": "c1ccccc1CCCCCCCO"}])
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--checkpoint", "run", "--predict", "mine.csv", "--output", "out.csv"])
    evaluation.run(*parse("", EvaluateArguments))
    assert [line.split(",")[-1] for line in Path("out.csv").read_text().splitlines()[1:]] == ["", "cut to 8 tokens"]
    # Augmentation is for training alone: each molecule of the split is scored once, as it was written.
    evaluate = ["evaluate.py", "--checkpoint", "run", "--split", "train", "--data_dir", "raw", "--output", "metrics.json"]
    monkeypatch.setattr(sys, "argv", evaluate)
    evaluation.run(*parse("", EvaluateArguments))
    assert Path("metrics.json").is_file()


def test_a_run_outside_the_main_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals belong to the main thread; a notebook or a server may train in another."""
    found: list[RunResults] = []
    words = "--dataset bit-memory --backbone core --max_steps 1 --output_dir run"
    thread = threading.Thread(target=lambda: found.append(train(words, monkeypatch)))
    thread.start()
    thread.join()
    assert found[0].steps == 1


def test_what_a_killed_write_left_is_put_right(tmp_path: Path) -> None:
    import torch

    assert state.latest(tmp_path / "nothing", print) is None
    for step in (1, 2):
        state.save(tmp_path / "state", step, {"x": torch.full((2,), float(step))}, {"progress": {}}, 2)
    # Killed between the two renames of a write, and in the middle of another.
    (tmp_path / "state" / "step-00000002").rename(tmp_path / "state" / ".step-00000002.old")
    (tmp_path / "state" / ".step-00000003.new.abcd1234").mkdir()
    repair(tmp_path)
    found = state.latest(tmp_path / "state", print)
    assert found is not None
    assert found[0]["x"].tolist() == [2.0, 2.0]
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == ["step-00000001", "step-00000002"]


# Downloads: by the loaders of the field, here replaced by ones that find the files at once.


def test_pictures_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_cifar10(tmp_path / "hub") / "cifar10" / "plain_text"
    seen = []

    def load(name: str, split: str) -> Dataset:
        seen.append((name, split))
        return Dataset(pq.read_table(folder / f"{split}-00000-of-00001.parquet"))

    monkeypatch.setattr("fpt.tasks.cifar10.load_dataset", load)
    task = TASKS["cifar10"]
    args = arguments("cifar10", options={"patch_size": 4, "patch_overlap": 0})
    found = task.locate(args, quiet)
    here = task.locate(arguments("cifar10", tmp_path / "hub", options=args.given_options), quiet)
    assert [split for _, split in seen] == ["train", "test"]
    assert found.sha256 == here.sha256
    assert len(found.rows["train"]) == 200


def test_digits_by_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(root: str, download: bool) -> None:
        shutil.copytree(write_mnist(tmp_path / "web") / "mnist", root, dirs_exist_ok=True)

    monkeypatch.setattr("torchvision.datasets.MNIST", load)
    found = TASKS["mnist"].locate(arguments("mnist"), quiet)
    assert found.origin.startswith("torchvision")
    assert len(found.rows["train"][1]) == 60
    again = TASKS["mnist"].locate(arguments("mnist"), quiet)
    assert again.origin.startswith("download")
    assert again.sha256 == found.sha256


def test_clips_by_torchaudio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(root: str, download: bool) -> None:
        shutil.copytree(write_speech(tmp_path / "web") / "speech_commands", root, dirs_exist_ok=True)

    monkeypatch.setattr("torchaudio.datasets.SPEECHCOMMANDS", load)
    found = TASKS["speech-commands"].locate(arguments("speech-commands"), quiet)
    assert found.origin.startswith("torchaudio")
    assert len(found.rows) == 24


def test_proteins_from_the_archive_of_tape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_proteins(tmp_path / "web" / "remote_homology", "json")

    def fetch(url: str, path: Path) -> None:
        assert url.endswith("/remote_homology.tar.gz")
        with tarfile.open(path, "w:gz") as tar:
            tar.add(tmp_path / "web" / "remote_homology", "remote_homology")

    monkeypatch.setattr("urllib.request.urlretrieve", fetch)
    _, args = resolve(TASKS["remote-homology"], arguments("remote-homology", options={"holdout": "fold"}))
    assert len(TASKS["remote-homology"].locate(args, quiet).rows) == 42
    with pytest.raises(FPTError, match="unknown --holdout 'nothing'; known: fold, superfamily, family"):
        TASKS["remote-homology"].options(holdout="nothing")


def test_an_archive_that_leads_elsewhere_writes_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str, path: Path) -> None:
        with tarfile.open(path, "w:gz") as tar:
            tar.addfile(tarfile.TarInfo("../../../../elsewhere"))

    monkeypatch.setattr("urllib.request.urlretrieve", fetch)
    before = {p for p in tmp_path.rglob("*")}
    with pytest.raises(FPTError, match="the download failed"):
        TASKS["remote-homology"].locate(resolve(TASKS["remote-homology"], arguments("remote-homology"))[1], quiet)
    left = {p for p in tmp_path.rglob("*")} - before
    assert not [p for p in left if p.is_file()]


@pytest.mark.parametrize("name", ["mnist", "speech-commands", "remote-homology", "cifar10"])
def test_without_a_network_the_line_says_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **more: object) -> None:
        raise ConnectionError("no route")

    for loader in ("torchvision.datasets.MNIST", "torchaudio.datasets.SPEECHCOMMANDS", "urllib.request.urlretrieve"):
        monkeypatch.setattr(loader, broken)
    monkeypatch.setattr("fpt.tasks.cifar10.load_dataset", broken)
    task, args = resolve(TASKS[name], arguments(name))
    with pytest.raises(FPTError, match=r"no data for .*ConnectionError.* and give --data_dir DIR"):
        task.locate(args, quiet)

"""`train.py --config FILE`: a run again from its record, or from a file of one's own."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fpt.args import as_dict
from fpt.cli import parse_training
from fpt.errors import FPTError
from fpt.flags.config_file import read_configuration
from fpt.training import run

SMALL = "--dataset bit-xor --num_bits 4 --backbone random:gpt2 --num_layers 1 --eval_steps 2 --max_steps 2 --learning_rate 1e-3"


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fpt.tasks.base.GeneratedTask.sizes", {"train": 32, "valid": 16, "test": 16})
    return tmp_path


def train(words: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, Any]:
    monkeypatch.setattr(sys, "argv", ["train.py", *shlex.split(words)])
    return parse_training("")  # type: ignore[return-value]


@pytest.mark.slow
def test_a_run_starts_again_from_its_record(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(*train(f"{SMALL} --output_dir runs/a --overwrite", monkeypatch))
    before = {path: path.read_bytes() for path in Path("runs/a").rglob("*") if path.is_file()}
    for record in ("run.json", "results.json"):
        groups = train(f"--config runs/a/{record} --output_dir runs/{record}", monkeypatch)
        assert not groups[2].overwrite
        again = run(*groups)
        assert again.metrics == first.metrics
        assert [h["train_loss"] for h in again.history] == [h["train_loss"] for h in first.history]
    shown = capsys.readouterr().out
    assert "arguments from runs/a/run.json (the record of a run); not taken: --overwrite\n" in shown
    assert "config: from the command line --output_dir=runs/run.json\n" in shown
    assert {path: path.read_bytes() for path in before} == before
    # Without a folder of its own it would go to the usual one, never over the run that it is a record of.
    assert train("--config runs/a/run.json", monkeypatch)[2].output_dir is None
    assert train("--config runs/a/run.json --overwrite", monkeypatch)[2].output_dir is None
    assert train("--config runs/a/run.json --resume", monkeypatch)[2].output_dir == "runs/a"


def test_flags_override_a_record(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    groups = train(f"{SMALL} --output_dir runs/a --push_to_hub a/b --hub_private", monkeypatch)
    values = {name: value for group in groups for name, value in as_dict(group).items()}
    Path("run.json").write_text(json.dumps({**values, "global_batch_size": 16, "data_key": {"sha256": "x"}}), encoding="utf-8")
    data, model, training = train("--config run.json --max_steps 7 --num_bits=3", monkeypatch)
    assert (data.dataset, data.given_options["num_bits"], model.num_layers) == ("bit-xor", 3, 1)
    assert (training.max_steps, training.learning_rate, training.push_to_hub) == (7, 1e-3, None)
    shown = capsys.readouterr().out
    assert "--push_to_hub, --hub_private" in shown
    assert "from the command line --max_steps=7 --num_bits=3; instead of max_steps 2, num_bits 4" in shown
    data, _, training = train("--config run.json --dataset digit-add --seeds 1,2", monkeypatch)
    assert data.given_options == {"num_numbers": 2, "num_digits": 1}
    assert training.seeds == "1,2"
    assert "--num_bits" in capsys.readouterr().out
    with pytest.raises(FPTError, match="--vocab_size is not read"):
        train("--config run.json --vocab_size 100", monkeypatch)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "lerning_rate: 1", "a.yaml: unknown argument 'lerning_rate' (did you mean 'learning_rate'"),
        ("a.yaml", "max_steps: abc", "a.yaml: --max_steps 'abc' is not a whole number; --max_steps: Optimizer steps."),
        ("a.yaml", "max_steps: 5.5", "--max_steps '5.5' is not a whole number"),
        ("a.yaml", "max_steps: 0", "--max_steps 0 must be at least 1"),
        ("a.yaml", "max_steps: [1, 2]", "max_steps must be one value, not list"),
        ("a.yaml", "mixed_precision: no", 'put it in quotes, mixed_precision: "no"'),
        ("a.yaml", "max_steps: 1\nmax_steps: 2", "'max_steps' is there twice"),
        ("a.json", '{"max_steps": 1, "max_steps": 2}', "'max_steps' is there twice"),
        ("a.json", '{"learning_rate": NaN}', "--learning_rate nan must be a finite number"),
        ("a.json", '{"max_steps": %s}' % ("9" * 5000), "a.json"),
        ("a.json", '{"max_steps": 5', "can't be read as JSON"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.yaml", "[" * 5_000, "a.yaml"),
        ("a.json", "[1, 2]", "is not a list of arguments"),
        ("a.json", '{"arguments": {}}', "has no arguments"),
        ("a.json", '{"options": 5}', "is not a list of arguments"),
        ("a.yaml", "1: 2", "is not a list of arguments"),
        ("a.yaml", "", "is not a list of arguments"),
        ("a.yaml", "!!python/object/apply:os.mkdir [pwned]", "can't be read as YAML"),
        ("a.yaml", "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]", "unknown argument 'a'"),
        ("a.yaml", "vocab_size: 100", "--vocab_size is not read: it is for --tokenizer bpe"),
        ("a.json", "\udcff", "is not UTF-8"),
        ("a.json", " " * 2**20 * 65, "too many for a list of arguments"),
        ("a.yaml", "dataset: mnits", "unknown dataset 'mnits' (did you mean 'mnist'"),
        ("a.yaml", "\x1b[2J: 1", "a.yaml"),
    ],
    ids=lambda value: value[:20] if len(value) < 200 else "large",
)
def test_a_bad_file_is_one_line(name: str, text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(name).write_bytes(text.encode("utf-8", "surrogateescape"))
    started = time.monotonic()
    with pytest.raises(FPTError) as caught:
        train(f"--config {name}", monkeypatch)
    assert message in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1_000
    assert not Path("pwned").exists() and not Path("runs").exists()
    assert time.monotonic() - started < 5


def test_what_is_no_file_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo("pipe")
    Path("folder").mkdir()
    for path, message in (
        ("nothing.json", "is not a file"),
        ("pipe", "is not a file"),
        ("/dev/zero", "is not a file"),
        ("folder", "is a folder; give a file, such as folder/run.json"),
        ("''", "a folder"),
    ):
        with pytest.raises(FPTError, match=message):
            train(f"--config {path}", monkeypatch)
    with pytest.raises(FPTError, match="--config has no value; --config: Take arguments from FILE"):
        train("--config", monkeypatch)


def test_a_file_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "dataset: csv:größe.csv\nlabel_column: größe\nlearning-rate: 1e-3\noutput_dir: runs/x\nresume: true\nseed:\n"
    Path("a.yml").write_text(text, encoding="utf-8")
    data, _, training = train("--config a.yml --max_steps 3", monkeypatch)
    assert data.given_options["label_column"] == "größe"
    assert (training.learning_rate, training.output_dir, training.resume) == (1e-3, "runs/x", True)
    assert not read_configuration("a.yml").is_record

"""The disk is full: it is said in one line, whatever is being written, and what was there stays."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import golden
import pandas as pd
import pytest
import torch

from fpt.args import DataArguments
from fpt.checkpoint import Scored, read_config, save
from fpt.data.tokenizers import build_tokenizer
from fpt.errors import FPTError
from fpt.files.disk import is_temporary
from fpt.files.tables import write_csv
from fpt.files.whole import new_folder, sha256_file
from fpt.training import run, state


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def temporaries(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if is_temporary(p.name) or p.name.startswith("tmp")]


WRITTEN = [
    *("run.json", "rejected.csv", "checkpoint/model.safetensors", "checkpoint/config.json", "checkpoint/README.md"),
    *("checkpoint/tokenizer.json", "state/state.safetensors", "state/state.json", "predictions.csv", "results.json"),
    *("full/model.safetensors", "manifest.json", "train/data-00000-of-00001.arrow", "summary.json"),
]


@pytest.mark.parametrize(("number", "file"), [*((errno.ENOSPC, file) for file in WRITTEN), (errno.EDQUOT, "results.json")])
def test_a_full_disk_is_one_line_whatever_is_written(settings, tmp_path: Path, monkeypatch, number: int, file: str) -> None:
    """The system says so when a file is written out, if not before."""
    folder, _, name = file.rpartition("/")
    sync, refused = os.fsync, []

    def full(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if folder in path and Path(path).name.removeprefix(".").split(".new.")[0] == name:
            refused.append(path)
            raise OSError(number, os.strerror(number))
        sync(handle)

    changes = {"max_steps": 4, "save_full": folder == "full"} | ({"seeds": "1,2"} if file == "summary.json" else {})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FPTError, match=f"{os.strerror(number)}; make room and run it again") as error:
            run(*settings(**changes))
    assert refused
    assert "\n" not in str(error.value)
    assert not temporaries(tmp_path)
    # Nothing is lost: once there is room it goes on, or starts.
    states = list((tmp_path / "run").rglob("step-*"))
    run(*settings(**changes, **({"resume": True} if states and "seeds" not in changes else {"overwrite": True})))
    assert list((tmp_path / "run").rglob("results.json"))


def in_a_small_room(limit: int, do: Callable[[], None]) -> str:
    """What `do` says in a process that may not write a file of more than `limit` bytes."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            do()
            said = "done"
        except FPTError as error:
            said = f"FPTError: {error}"
        except BaseException as error:
            said = f"fault: {error!r}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as file:
        return file.read()


@pytest.mark.parametrize("limit", [0, 50, 400, 1500, 20_000])
def test_what_is_there_stays_when_there_is_no_room(tmp_path: Path, limit: int) -> None:
    """With a real limit, for each library that writes files."""
    tokenizer = build_tokenizer(["CCO"], DataArguments(tokenizer="atom"))
    config, scored = read_config(golden.FOLDER / "molecules" / "checkpoint"), Scored(1, {"loss": 0.5})
    tensors = {"x": torch.zeros(8000)}

    def conversion() -> None:
        from transformers import GPT2Config, GPT2Model

        with new_folder(tmp_path / "core") as new:
            GPT2Model(GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=1, n_head=2)).save_pretrained(new)

    writers: dict[str, Callable[[], None]] = {
        "state": lambda: state.save(tmp_path / "state", 1, tensors, {}, 1),
        "csv": lambda: write_csv(pd.DataFrame({"a": range(20_000)}), tmp_path / "csv"),
        "core": conversion,
        "tokenizer": lambda: _save_tokenizer(tokenizer, tmp_path / "tokenizer"),
        "checkpoint": lambda: save.save_checkpoint(tmp_path / "checkpoint", tensors, config, scored, tokenizer),
    }
    save.model_card, card = (lambda config: "card"), save.model_card
    try:
        for name, writer in writers.items():
            writer()
            before = contents(tmp_path)
            said = in_a_small_room(limit, writer)
            if not (name == "tokenizer" and limit == 20_000):
                assert "can't be written: File too large; make room and run it again" in said, name
                assert said.startswith("FPTError: ")
                assert contents(tmp_path) == before
            assert not temporaries(tmp_path)
    finally:
        save.model_card = card


def _save_tokenizer(tokenizer, folder: Path) -> None:
    with new_folder(folder) as new:
        tokenizer.save_pretrained(new)

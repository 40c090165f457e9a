"""Each key of a checkpoint's config.json: where it is missing, one line names it, or it is not needed."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from own_data import TEXT, arguments, texts, write

from fpt.args import ModelArguments, TrainArguments
from fpt.checkpoint.config import parse_config
from fpt.errors import FPTError
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.training import run

# Records whose keys are of any name.
WHOLE = ("core_config", "valid_metrics", "test_metrics", "libraries", "rows", "cut_to_max_length", "with_unknown_tokens")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    """A run on texts of a user's own, with its config.json whole."""
    folder = tmp_path_factory.mktemp("keys")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPT_HOME", str(folder / "home"))
        data = arguments(f"csv:{write(folder / 'x.csv', ['text', 'label'], texts(80))}", TEXT)
        training = TrainArguments(output_dir=str(folder / "run"), max_steps=2, eval_steps=2)
        run(data, ModelArguments(backbone=str(llama_dir)), training)
    return folder / "run" / "checkpoint"


def paths(values: dict[str, Any], start: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*start, key)
        if isinstance(value, dict) and key not in WHOLE:
            yield from paths(value, (*start, key))


def without(values: dict[str, Any], *path: str) -> dict[str, Any]:
    out = copy.deepcopy(values)
    place = out
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return out


NEEDED = [
    *("task", "input", "output", "core", "data", "training", "model_sha256", "full", "eval_batch_size", "step", "valid_metrics"),
    *("tokenizer_sha256", "input.kind", "input.vocab_size", "input.pad_id", "output.kind", "core.name", "core.sha256"),
    *("data.arguments", "data.data_sha256", "data.request", "data.request.split_seed", "training.seed"),
]
# Without these the model or its data would be another one; they have defaults, since earlier versions did not write them.
MEANT = ("tuning", "core", "input", "output", "data.arguments", "data.schema")


@pytest.mark.parametrize("key", NEEDED)
def test_a_missing_key_that_is_read_is_named(key: str, checkpoint: Path) -> None:
    values = json.loads((checkpoint / "config.json").read_text())
    with pytest.raises(FPTError, match=rf"config\.json: .*{key.rpartition('.')[2]}.*; copy the checkpoint again"):
        parse_config(without(values, *key.split(".")), "config.json")


def test_no_other_key_is_needed(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPT_HOME", str(checkpoint.parent.parent / "home"))
    folder = shutil.copytree(checkpoint, tmp_path / "run" / "checkpoint")
    bare = values = json.loads((folder / "config.json").read_text())
    for path in list(paths(values)):
        key = ".".join(path)
        meant = any(key == one or key.startswith(f"{one}.") for one in MEANT)
        if key not in NEEDED and not meant and not any(one.startswith(f"{key}.") for one in MEANT):
            with contextlib.suppress(KeyError):  # a part of what is gone
                bare = without(bare, *path)
    assert len(list(paths(bare))) < len(list(paths(values)))
    (folder / "config.json").write_text(json.dumps(bare))
    (tmp_path / "in.csv").write_text("text\na good film\n")
    here, out = str(folder), str(tmp_path / "out.csv")
    evaluation.run(EvaluateArguments(checkpoint=here, predict=str(tmp_path / "in.csv"), output=out))
    evaluation.run(EvaluateArguments(checkpoint=here, output=str(tmp_path / "out.json"), num_proc=1))
    assert json.loads((tmp_path / "out.json").read_text())["task"] == values["task"]

"""A stranger's checkpoint, through evaluate.py, fpt.load and fpt.report: a result or one line; nothing is run, asked or fetched.

Some 3,000 checkpoints here, each through one or several doors; 10,000 damaged files of other kinds are in `test_damaged_files`.
FPT_HOSTILE=10 tries ten times as many.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import molecules, short_run, write_tdc
from hostile import SEED, VALUES, places, put, survives, with_hashes
from own_data import write
from safetensors.torch import load_file, save_file

import fpt
from fpt.args import DataArguments, ModelArguments, TrainArguments
from fpt.checkpoint import load_checkpoint, read_config, trained_backbone
from fpt.errors import FPTError, cli
from fpt.evaluation.arguments import EvaluateArguments
from fpt.evaluation.run import run as evaluate
from fpt.training import run

TIMES = int(os.environ.get("FPT_HOSTILE", "1"))
Door = Callable[[Path], Any]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path, gpt2_dir: Path) -> Path:
    """Checkpoints to be damaged: of tokens and of the whole model, of a table of numbers, and of a baseline."""
    folder = tmp_path_factory.mktemp("hostile")
    write_tdc(folder / "raw", molecules())
    rows = [[i % 7, i * 0.5, 2.0 * i + 1] for i in range(60)]
    write(folder / "numbers.csv", ["a", "b", "y"], rows)
    write(folder / "smiles.csv", ["smiles"], [["CCO"], ["c1ccccc1"], ["nonsense("], ["C" * 40]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPT_HOME", str(folder / "home"))
        groups = short_run(folder / "raw", llama_dir, folder / "run")
        groups[2].save_full = True
        run(*groups)
        data = DataArguments(dataset=f"csv:{folder / 'numbers.csv'}")
        data.given_options = {"input_type": "numbers", "label_column": "y", "label_type": "number"}
        options = {"max_steps": 2, "eval_steps": 2, "warmup_steps": 0}
        run(data, ModelArguments(backbone=f"random:{gpt2_dir}"), TrainArguments(output_dir=str(folder / "numbers"), **options))
        hours = [{"date": str(hour), "load": hour % 5} for hour in range(80)]
        write(folder / "load.csv", ["date", "load"], [list(row.values()) for row in hours])
        data = DataArguments(dataset=f"forecast:{folder / 'load.csv'}")
        data.given_options = {"horizon": 3, "lookback": 8, "patch_size": 4, "patch_stride": 2}
        run(data, ModelArguments(backbone="none"), TrainArguments(output_dir=str(folder / "forecast"), **options))
        linear = ModelArguments(model="dlinear")
        run(data, linear, TrainArguments(output_dir=str(folder / "dlinear"), **options))
        model = ModelArguments(model="mat")
        model.given_options = {"mat_width": 16, "mat_layers": 2, "mat_heads": 2}
        run(DataArguments(data_dir=str(folder / "raw")), model, TrainArguments(output_dir=str(folder / "mat"), **options))
    return folder


KINDS = {"checkpoint": "run/checkpoint", "full": "run/full"} | {
    kind: f"{kind}/checkpoint" for kind in ("numbers", "mat", "forecast", "dlinear")
}


@pytest.fixture
def doors(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Door]:
    """Ways in which a user opens a checkpoint. Nothing is asked, and nothing is fetched, on any of them."""
    monkeypatch.setenv("FPT_HOME", str(good / "home"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    for name in ("huggingface_hub.snapshot_download", "huggingface_hub.hf_hub_download"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("something was fetched"))

    def once(door: Door) -> Door:
        def do(folder: Path) -> Any:
            AcceleratorState._reset_state(reset_partial_state=True)
            return door(folder)

        return do

    def predict(folder: Path) -> None:
        file, output = str(good / "smiles.csv"), str(tmp_path / "out.csv")
        evaluate(EvaluateArguments(checkpoint=str(folder), predict=file, output=output, num_proc=1))

    def score(folder: Path) -> None:
        evaluate(EvaluateArguments(checkpoint=str(folder), data_dir=str(good / "raw"), num_proc=1))

    def load(folder: Path) -> None:
        model = fpt.load(str(folder))
        numbers = "csv:" in model.config.task
        if model.config.task.startswith("forecast:"):
            model.predict([{"date": hour, "load": hour % 5} for hour in range(20)])
            return
        model.predict([{"a": 1, "b": 2.5}] if numbers else ["CCO", "c1ccccc1"])

    return {name: once(door) for name, door in (("predict", predict), ("score", score), ("load", load))}


def goes_through(door: Door, folder: Path, what: Any) -> bool:
    """Whether a checkpoint is opened; else it is refused in one line."""
    try:
        door(folder)
        return True
    except FPTError as error:
        assert str(error).strip() and "\n" not in str(error), f"{what}: {str(error)!r}"
        return False
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize(
    ("kind", "door", "count"),
    [
        *(("checkpoint", "load", 400), ("checkpoint", "predict", 150), ("checkpoint", "score", 80)),
        *(
            ("full", "load", 300),
            ("full", "predict", 100),
            ("numbers", "load", 300),
            ("mat", "load", 250),
            ("mat", "predict", 80),
            ("forecast", "load", 200),
            ("dlinear", "load", 120),
        ),
    ],
)
def test_any_value_anywhere(
    kind: str, door: str, count: int, good: Path, tmp_path: Path, doors: dict[str, Door], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(good / KINDS[kind], folder)
    original = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # What is only shown may be anything: a few of these places.
    shown = ("command", "notes", "libraries", "valid_metrics", "test_metrics", "rows", "cut_to_max_length", "versions")
    found = places(original)
    used = [p for p in found if not any(part in shown for part in p)] * 3 + found
    cases = list(itertools.product(used, VALUES))
    random.Random(f"{SEED} {kind} {door}").shuffle(cases)
    opened = 0
    for place, value in cases[: count * TIMES]:
        (folder / "config.json").write_text(json.dumps(put(original, place, value)), encoding="utf-8")
        opened += goes_through(doors[door], folder, (place, str(value)[:50]))
        capsys.readouterr()
    assert 0 < opened < count * TIMES


@pytest.mark.parametrize("kind", ["checkpoint", "full"])
@pytest.mark.parametrize(("name", "count"), [("model.safetensors", 300), ("tokenizer.json", 150), ("config.json", 300)])
def test_damaged_files(kind: str, name: str, count: int, good: Path, tmp_path: Path, doors: dict[str, Door]) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(good / KINDS[kind], folder)
    data, config = (folder / name).read_bytes(), (folder / "config.json").read_bytes()

    def read(copy: bytes) -> None:
        (folder / "config.json").write_bytes(config)
        (folder / name).write_bytes(copy)
        if name != "config.json":
            with_hashes(folder)
        doors["load"](folder)

    _, bad = survives(read, data, count * TIMES, FPTError)
    assert bad > 0


# Memory.


def in_a_child(do: Callable[[], None]) -> tuple[bool, int]:
    """Whether `do` was refused, and the most memory (KiB) of the process that did it, which may take no more than 2 GiB."""
    read, write = os.pipe()
    if not (pid := os.fork()):
        refused = b"?"
        try:
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + 2 * 2**30,) * 2)
            do()
            refused = b"0"
        except FPTError:
            refused = b"1"
        finally:
            os.write(write, refused + str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    assert said[:1] in (b"0", b"1"), "it ended in another error"
    return said[:1] == b"1", int(said[1:])


def greedy() -> Iterator[tuple[str, dict[str, Any]]]:
    """Configurations that ask for far more than their weights fill."""
    big = 10**9
    for name in ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size", "num_attention_heads", "head_dim"):
        # A vocabulary of 20,000 is possible: the table of the backbone is no part of a checkpoint.
        for size in (10**8 if name == "vocab_size" else 20_000, 10**8, big, 10**12):
            yield "full", {f"core_config.{name}": size}
    for size in (10**6, big, 10**12):
        yield "checkpoint", {"input.vocab_size": size}
        yield "checkpoint", {"tuning.input_layers": [size]}
        yield "checkpoint", {"tuning.readout_layers": [size // 100] * 5}
        yield "checkpoint", {"tuning.parts": ["lora", "in", "out"], "tuning.lora_rank": size}
        yield "checkpoint", {"output": {"kind": "bits", "size": size, "tokens": 1}}
        yield "numbers", {"input.positions": size}
        yield "numbers", {"input.dim": size, "data.schema": None}
        yield "mat", {"network.options.mat_width": size}
        yield "mat", {"network.options.mat_layers": size}
    yield "checkpoint", {"output.label_names": [str(i) for i in range(300_000)]}
    yield "checkpoint", {"tuning.readout_layers": [20_000, 20_000]}
    yield "checkpoint", {"tuning.readout_layers": [1] * 100_000}
    yield "full", {"output.label_names": [str(i) for i in range(300_000)]}
    for name in ("random:gpt2-xl", "random:gpt2-large", "random:bert", "random:smollm2", "random:lstm"):
        yield "checkpoint", {"core.name": name, "core.num_layers": None, "core.seed": 1}
        yield "numbers", {"core.name": name, "core.num_layers": None}
    yield "checkpoint", {"core_config": [[] for _ in range(900_000)]}


def test_a_refusal_takes_no_memory(good: Path, tmp_path: Path, doors: dict[str, Door]) -> None:
    honest = {}
    for kind, place in KINDS.items():
        doors["load"](good / place)  # what is imported is there
        refused, honest[kind] = in_a_child(lambda place=place: doors["load"](good / place))  # type: ignore[misc]
        assert not refused
    too_much = []
    for number, (kind, changes) in enumerate(greedy()):
        folder = tmp_path / f"{number}"
        shutil.copytree(good / KINDS[kind], folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for name, value in changes.items():
            config = put(config, tuple(name.split(".")), value)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        refused, most = in_a_child(lambda folder=folder: doors["load"](folder))  # type: ignore[misc]
        if not refused or most > 1.2 * honest[kind]:
            too_much.append((kind, str(changes)[:80], refused, round(most / honest[kind], 2)))
        shutil.rmtree(folder)
    assert not too_much


def test_a_header_of_gigabytes(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "run" / "checkpoint", tmp_path / "copy")
    path = tmp_path / "copy" / "model.safetensors"
    for size in (2**40, 2**25):
        path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])
        with_hashes(tmp_path / "copy")
        with pytest.raises(FPTError, match="no whole safetensors file"):
            load_checkpoint(tmp_path / "copy")


# What is not the fault of a checkpoint.


@pytest.mark.parametrize("bug", [KeyError("lost"), AttributeError("lost"), TypeError("lost"), IndexError("lost")], ids=repr)
@pytest.mark.parametrize("place", ["fpt.checkpoint.load.build_model", "fpt.evaluation.predictor.predict_file"])
def test_a_bug_of_ours_is_not_called_a_damaged_file(
    place: str, bug: Exception, good: Path, doors: dict[str, Door], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise bug

    monkeypatch.setattr(place, broken)
    with pytest.raises(type(bug), match="lost"):
        doors["load"](good / "run" / "checkpoint")
    with pytest.raises(SystemExit):
        cli(lambda: doors["load"](good / "run" / "checkpoint"))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"unexpected {type(bug).__name__} at " in line and "FPT_DEBUG=1" in line and "report" in line
    assert "copy the checkpoint" not in line


def test_a_missing_attribute_of_a_model_is_a_bug(good: Path, doors: dict[str, Door], monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch raises it, but it is our code that asks."""
    monkeypatch.setattr("fpt.checkpoint.load.build_model", lambda backbone, *_: backbone.model.no_such_part)
    with pytest.raises(AttributeError, match="no_such_part"):
        doors["load"](good / "run" / "checkpoint")


# What a checkpoint may not do.


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float, good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "run" / "checkpoint", tmp_path / "copy")
    tensors = load_file(tmp_path / "copy" / "model.safetensors")
    tensors["readout.weight"][0, 0] = value
    save_file(tensors, tmp_path / "copy" / "model.safetensors")
    with_hashes(tmp_path / "copy")
    with pytest.raises(FPTError, match=r"readout\.weight has numbers that are not finite"):
        load_checkpoint(tmp_path / "copy")


def test_whole_numbers_for_weights_are_refused(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "run" / "checkpoint", tmp_path / "copy")
    tensors = load_file(tmp_path / "copy" / "model.safetensors")
    tensors["readout.weight"] = tensors["readout.weight"].to(torch.int64)
    save_file(tensors, tmp_path / "copy" / "model.safetensors")
    with_hashes(tmp_path / "copy")
    with pytest.raises(FPTError, match="of a wrong type"):
        load_checkpoint(tmp_path / "copy")


def test_predictions_that_are_not_finite_are_refused(good: Path, tmp_path: Path, doors: dict[str, Door]) -> None:
    shutil.copytree(good / "run" / "full", tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "copy" / "config.json").write_text(json.dumps(put(config, ("core_config", "rms_norm_eps"), -1e9)))
    for door in doors.values():
        with pytest.raises(FPTError, match="predicts numbers that are not finite"):
            door(tmp_path / "copy")


def test_names_that_lead_elsewhere_write_nothing_there(good: Path, tmp_path: Path, doors: dict[str, Door]) -> None:
    shutil.copytree(good / "run" / "checkpoint", tmp_path / "copy")
    original = json.loads((tmp_path / "copy" / "config.json").read_text(encoding="utf-8"))
    before = set(tmp_path.rglob("*"))
    names = (
        "../../x",
        "/etc/passwd",
        "csv:../../../etc/passwd",
        "run:../../x",
        "a\0b",
        "random:../x",
        "x" * 5000,
    )
    for name, place in itertools.product(names, (("task",), ("core", "name"))):
        (tmp_path / "copy" / "config.json").write_text(json.dumps(put(original, place, name)))
        assert not goes_through(doors["load"], tmp_path / "copy", name)
    assert set(tmp_path.rglob("*")) == before


def test_a_chain_of_runs_has_an_end(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "run" / "checkpoint", tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "copy" / "config.json").write_text(json.dumps(put(config, ("core", "name"), f"run:{tmp_path / 'copy'}")))
    with pytest.raises(FPTError, match="more than 8 runs start from one another's backbone"):
        load_checkpoint(tmp_path / "copy")
    with pytest.raises(FPTError, match="more than 8 runs"):
        trained_backbone(str(tmp_path / "copy"), print)


def test_a_core_of_a_damaged_run(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "run" / "checkpoint", tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text("{}")
    with pytest.raises(FPTError, match="lacks task, input"):
        trained_backbone(str(tmp_path / "copy"), print)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, "[1" + ",1" * 1_100_000 + "]", "[NaN]", "[1e999]", f"[{'1' * 5000}]", '"\\ud800"', "\ufeff"]
)
def test_a_configuration_that_no_reader_should_take(text: str, good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "run" / "checkpoint", tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(FPTError, match="can't be read"):
        read_config(tmp_path / "copy")


def test_a_dataset_of_the_hub_is_fetched_only_when_the_user_says_so(
    good: Path, tmp_path: Path, doors: dict[str, Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []
    monkeypatch.setattr("datasets.load_dataset", lambda *names, **_: fetched.append(names) or pytest.fail("fetched"))
    folder = tmp_path / "copy"
    shutil.copytree(good / "run" / "checkpoint", folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["task"] = config["data"]["arguments"]["dataset"] = "hub:stranger/data"
    config["data"]["arguments"]["split"] = None
    for options in ({}, {"input_type": None}):
        (folder / "config.json").write_text(json.dumps(put(config, ("data", "arguments", "options"), options)))
        for door in doors.values():
            assert not goes_through(door, folder, options)
    options = {"input_type": "smiles", "input_column": "smiles", "label_column": "y"}
    (folder / "config.json").write_text(json.dumps(put(config, ("data", "arguments", "options"), options)))
    doors["load"](folder)
    with pytest.raises(FPTError, match=r"stranger/data of the Hub.*pass --fetch_data"):
        doors["score"](folder)
    assert not fetched
    with pytest.raises(pytest.fail.Exception, match="fetched"):
        evaluate(EvaluateArguments(checkpoint=str(folder), fetch_data=True))
    assert fetched == [("stranger/data", None)]


@pytest.mark.parametrize("value", [2, 2**31, 2**62])
def test_tokens_of_other_numbers_than_the_model_has_take_no_memory(
    value: int, good: Path, tmp_path: Path, doors: dict[str, Door]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(good / KINDS["numbers"], folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["data"]["arguments"]["options"]["numbers_per_token"] = value
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(FPTError, match=r"numbers_per_token|tokens of 2 numbers, the model 1"):
        doors["load"](folder)

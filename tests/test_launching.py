"""Environments in which processes can't find each other or their device: one line, before anything is set up."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest
import torch
import yaml

from fpt import launch
from fpt.errors import FPTError
from fpt.launching import environment as launch_checks
from fpt.launching.environment import DEEPSPEED_FILE, check_launch

ROOT = Path(__file__).parent.parent
TWO = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*TWO, DEEPSPEED_FILE, "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_TORCH_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc', not a whole number; unset it, and start the script with accelerate launch"),
        ({"WORLD_SIZE": "1.5"}, "WORLD_SIZE is '1.5', not a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0, not between"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE is -2, not between"),
        ({"RANK": "x"}, "RANK is 'x', not a whole number"),
        ({"LOCAL_RANK": "-7"}, "LOCAL_RANK is -7, not between"),
        ({"LOCAL_RANK": "zero"}, "LOCAL_RANK is 'zero', not a whole number"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK is 0, but WORLD_SIZE, RANK, MASTER_ADDR, MASTER_PORT are not set"),
        ({**TWO, "MASTER_ADDR": ""}, "WORLD_SIZE is 2, but MASTER_ADDR is not set"),
        ({**TWO, "MASTER_PORT": "http"}, "MASTER_PORT is 'http', not a whole number"),
        ({**TWO, "MASTER_PORT": "99999"}, "MASTER_PORT is 99999, not between 1 and 65535"),
        ({**TWO, "RANK": "2"}, "RANK is 2, but WORLD_SIZE is 2: ranks go from 0 to 1"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not set"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "ACCELERATE_USE_DEEPSPEED is on, but no launcher has started this process"),
        ({"ACCELERATE_USE_DEEPSPEED": "1"}, "ACCELERATE_USE_DEEPSPEED is on, but no launcher"),
        ({"ACCELERATE_USE_FSDP": "True"}, "ACCELERATE_USE_FSDP is on, but no launcher"),
        ({"ACCELERATE_TORCH_DEVICE": "abc"}, "ACCELERATE_TORCH_DEVICE 'abc' is not the name of a device"),
        ({"ACCELERATE_TORCH_DEVICE": "cuda:x"}, "is not the name of a device"),
        ({"ACCELERATE_TORCH_DEVICE": "cuda:7"}, "'cuda:7' is not there: this machine has 0 devices of that kind"),
        ({"ACCELERATE_TORCH_DEVICE": "meta"}, "'meta' is not there"),
        ({"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES is 7, but 0 of these GPUs can be used"),
        (
            {**TWO, "ACCELERATE_USE_DEEPSPEED": "true", DEEPSPEED_FILE: "nowhere/z.json"},
            "the DeepSpeed file nowhere/z.json .* is not there, seen from",
        ),
    ],
    ids=str,
)
def test_a_bad_environment_is_one_line(variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FPTError, match=message) as caught:
        check_launch()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "variables", [{}, TWO, {"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "-1"}, {"LOCAL_RANK": "-1"}]
)
def test_good_environments_pass(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    check_launch()


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in TWO.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FPTError, match="process 1 of this machine has no GPU: there are 1; give --num_processes 1"):
        check_launch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,99")
    with pytest.raises(FPTError, match="CUDA_VISIBLE_DEVICES is 0,99, but 1 of these GPUs"):
        check_launch()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    check_launch()


def test_deepspeed_says_where_its_file_is_and_that_it_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**TWO, "LOCAL_RANK": "0", "RANK": "0", "ACCELERATE_USE_DEEPSPEED": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(DEEPSPEED_FILE, "ds_configs/zero2.json")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    said: list[str] = []
    check_launch(said.append)
    assert os.environ[DEEPSPEED_FILE] == str(ROOT / "ds_configs/zero2.json")
    assert "taken from" in said[0]
    assert "compiling a part of itself" in said[1] and "happens once" in said[1]
    (tmp_path / "extensions" / "deepspeed_shm_comm").mkdir(parents=True)
    (tmp_path / "extensions" / "deepspeed_shm_comm" / "deepspeed_shm_comm.so").touch()
    check_launch(said.append)
    assert len(said) == 2
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "others"))
    monkeypatch.setattr(launch_checks.shutil, "which", lambda name: None)
    with pytest.raises(FPTError, match="there is no C\\+\\+ compiler"):
        check_launch(said.append)


def launcher(*words: str) -> argparse.Namespace:
    args = launch.launch_command_parser().parse_args([*words])
    launch.check(args)
    return args


def test_the_launcher_finds_the_deepspeed_file_from_anywhere(tmp_path: Path) -> None:
    config = str(ROOT / "accelerate_configs" / "deepspeed_zero2.yaml")
    args = launcher("--config_file", config, str(ROOT / "train.py"))
    assert args.deepspeed_config_file == str(ROOT / "ds_configs" / "zero2.json")
    said = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    said["deepspeed_config"]["deepspeed_config_file"] = "own.json"
    (tmp_path / "set" / "accelerate").mkdir(parents=True)
    own = tmp_path / "set" / "accelerate" / "a.yaml"
    own.write_text(yaml.safe_dump(said), encoding="utf-8")
    with pytest.raises(FPTError, match=r"the DeepSpeed file own\.json .* is not there"):
        launcher("--config_file", str(own), str(ROOT / "train.py"))
    for place in (tmp_path / "set", own.parent, tmp_path):
        (place / "own.json").touch()
        assert Path(launcher("--config_file", str(own), str(ROOT / "train.py")).deepspeed_config_file) == place / "own.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "--config_file a.yaml is not a file"),
        ("a: [b", "is not a configuration of accelerate"),
        ("hello", "is not a configuration of accelerate"),
        ("", "is not a configuration of accelerate"),
        ("{distributed_type: x}", "is not a configuration of accelerate"),
        ('{distributed_type: "NO", nonsense: 1, use_cpu: true}', "nonsense"),
        ('{distributed_type: "NO", num_processes: two, use_cpu: true}', "must be whole numbers"),
        ('{distributed_type: "NO", num_machines: 0, use_cpu: true}', "must be whole numbers"),
        ("{distributed_type: DEEPSPEED, deepspeed_config: 5, num_processes: 1, use_cpu: false}", "must be names with values"),
        ("\x00", "is not a configuration of accelerate"),
    ],
)
def test_a_configuration_that_is_wrong(text: str | None, message: str) -> None:
    if text is not None:
        Path("a.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(FPTError, match=message) as caught:
        launcher("--config_file", "a.yaml", str(ROOT / "train.py"))
    assert "\n" not in str(caught.value)


def test_a_launch_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = str(ROOT / "accelerate_configs" / "cpu.yaml")
    with pytest.raises(FPTError, match=r"there is no script 'trian\.py' here"):
        launcher("--config_file", cpu, "trian.py")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(FPTError, match="8 processes on 1 machines, but 2 GPUs on this one; give --num_processes 2"):
        launcher("--config_file", str(ROOT / "accelerate_configs" / "multi_gpu.yaml"), str(ROOT / "train.py"))
    for words, message in (
        (["--num_proceses", "2", "train.py"], r"--num_proceses \(did you mean '--num_processes'"),
        (["--num_processes", "abc", "train.py"], "invalid int value: 'abc'"),
        ([], "training_script"),
    ):
        monkeypatch.setattr(sys, "argv", ["launch", *words])
        with pytest.raises(FPTError, match=message):
            launch.main()

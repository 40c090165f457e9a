"""Where a launcher or a DeepSpeed file says other than the arguments, a run is refused; what was done is what is reported."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from fpt.args import ModelArguments, TrainArguments
from fpt.checkpoint import read_config
from fpt.errors import FPTError
from fpt.launching.launched import check_launcher
from fpt.parallel import make_accelerator
from fpt.training import run

ROOT = Path(__file__).parent.parent
STEPS, CLIPPING = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_GRADIENT_CLIPPING"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever starts the tests."""
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))]:
        monkeypatch.delenv(name)


def check(**changes) -> None:
    check_launcher(TrainArguments(**changes), ModelArguments())


def refused(match: str, **changes) -> None:
    with pytest.raises(FPTError, match=match) as error:
        check(**changes)
    assert "\n" not in str(error.value)


def deepspeed(monkeypatch, tmp_path: Path, **values) -> Path:
    """Ask for DeepSpeed with a file like those of ds_configs/."""
    config = json.loads((ROOT / "ds_configs" / "zero2.json").read_text())
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({k: v for k, v in {**config, **values}.items() if v is not None}))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(path))
    return path


def test_other_accumulation_steps_of_the_launcher_are_refused(monkeypatch, settings, tmp_path: Path) -> None:
    monkeypatch.setenv(STEPS, "4")
    refused(f"{STEPS} is 4, --gradient_accumulation_steps is 2", gradient_accumulation_steps=2)
    with pytest.raises(FPTError, match="--gradient_accumulation_steps is 1"):
        run(*settings())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("said", ["x", "2.0", "0", "-1", "1e0"])
def test_accumulation_steps_that_are_no_number_are_refused_everywhere(said: str, monkeypatch) -> None:
    monkeypatch.setenv(STEPS, said)
    refused(f"{STEPS} is '{said}'; give a whole number from 1 up")
    with pytest.raises(FPTError, match="give a whole number"):
        make_accelerator()


@pytest.mark.parametrize("said", ["2", "auto", "AUTO", ""])
def test_the_launcher_may_say_the_same_or_leave_it_to_the_flag(said: str, monkeypatch, settings) -> None:
    monkeypatch.setenv(STEPS, said)
    results = run(*settings(gradient_accumulation_steps=2, max_steps=2))
    assert results.gradient_accumulation_steps == 2


def test_what_accelerate_reads_elsewhere_is_found_before_the_first_step(settings, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fpt.training.setup.check_launcher", lambda *a: None)
    monkeypatch.setenv(STEPS, "4")
    with pytest.raises(FPTError, match="configuration makes it 4 where --gradient_accumulation_steps is 1"):
        run(*settings())


@pytest.mark.parametrize(
    ("said", "good"), [("1.0", True), ("1", True), ("auto", True), ("0.5", False), ("none", False), ("nan", False)]
)
def test_clipping_of_the_launcher(said: str, good: bool, monkeypatch) -> None:
    monkeypatch.setenv(CLIPPING, said)
    if good:
        check(max_grad_norm=1.0)
    else:
        refused(f"{CLIPPING} is {said}, --max_grad_norm is 1.0", max_grad_norm=1.0)


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "ds_configs").glob("*.json")))
def test_the_files_of_the_project_leave_all_to_the_flags(name: str, monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(ROOT / "ds_configs" / name))
    check(gradient_accumulation_steps=3, max_grad_norm=0.7, per_device_batch_size=5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps of .*ds.json is 4, --gradient_accumulation_steps is 2"),
        ({"gradient_accumulation_steps": None}, "not in it, so DeepSpeed's own value. is 1, --gradient_accumulation_steps is 2"),
        ({"gradient_accumulation_steps": "four"}, "is four, --gradient_accumulation_steps is 2"),
        ({"gradient_accumulation_steps": True}, "is True"),
        ({"gradient_accumulation_steps": 2.0}, "is 2.0"),
        ({"gradient_clipping": 1.0}, "gradient_clipping of .* is 1.0, --max_grad_norm is 0.5"),
        ({"train_micro_batch_size_per_gpu": 8}, "train_micro_batch_size_per_gpu of .* is 8, --per_device_batch_size is 16"),
        ({"train_batch_size": 16}, "train_batch_size of .* is 16, --per_device_batch_size 16 times 2 batches"),
        ({"bf16": {"enabled": True}}, "has 'bf16': it would take trainable parameters out of fp32; give --mixed_precision"),
        ({"fp16": {"enabled": "true"}}, "has 'fp16'"),
        ({"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}, "has 'torch_autocast'"),
        ({"optimizer": {"type": "Adam", "params": {"lr": 1}}}, "has 'optimizer': the optimizer is AdamW with --learning_rate"),
        ({"scheduler": {"type": "WarmupLR", "params": {}}}, "has 'scheduler': the schedule is that of --lr_scheduler"),
        ({"progressive_layer_drop": {"enabled": True}}, "has 'progressive_layer_drop': it may change what is trained"),
        ({"curiculum": 3}, "has 'curiculum'"),
        ({"zero_optimization": {"stage": 5}}, "stage is 5; give 0, 1, 2 or 3"),
        ({"zero_optimization": None}, "has no zero_optimization"),
    ],
)
def test_a_deepspeed_file_that_says_other_than_the_flags(values, words, monkeypatch, tmp_path: Path) -> None:
    deepspeed(monkeypatch, tmp_path, **values)
    refused(words, gradient_accumulation_steps=2, max_grad_norm=0.5, per_device_batch_size=16)


def test_a_deepspeed_file_that_says_the_same(monkeypatch, tmp_path: Path) -> None:
    same = {"gradient_accumulation_steps": 2, "gradient_clipping": 0.5, "train_micro_batch_size_per_gpu": 16}
    more = {"train_batch_size": 32, "bf16": {"enabled": "auto"}, "fp16": {"enabled": False}, "steps_per_print": 10}
    offload = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    deepspeed(monkeypatch, tmp_path, **same, **more, **offload)
    check(gradient_accumulation_steps=2, max_grad_norm=0.5, per_device_batch_size=16)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, ""])
def test_a_deepspeed_file_that_can_not_be_read(text: str, monkeypatch, tmp_path: Path) -> None:
    deepspeed(monkeypatch, tmp_path).write_text(text)
    refused("the DeepSpeed file .*ds.json")


@pytest.mark.parametrize("precision", ["abc", "fp8", "fp32", "bf-16"])
def test_an_unknown_precision_is_refused_up_front(precision: str, monkeypatch, settings, tmp_path: Path) -> None:
    with pytest.raises(FPTError, match=f"unknown --mixed_precision '{precision}'.*known: no, bf16, fp16"):
        run(*settings(mixed_precision=precision))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    with pytest.raises(FPTError, match=f"unknown ACCELERATE_MIXED_PRECISION '{precision}'"):
        run(*settings())
    assert not (tmp_path / "run").exists()


def test_the_precision_that_was_used_is_reported(monkeypatch, settings, tmp_path: Path) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "BF16")  # which accelerate takes for none
    results = run(*settings(max_steps=1))
    assert results.mixed_precision == read_config(tmp_path / "run" / "checkpoint").mixed_precision == "bf16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has fp16")
def test_fp16_on_a_cpu_is_refused(monkeypatch, settings, tmp_path: Path) -> None:
    with pytest.raises(FPTError, match="fp16 needs a GPU"):
        run(*settings(mixed_precision="fp16"))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(FPTError, match="fp16 needs a GPU"):
        run(*settings())
    assert not (tmp_path / "run").exists()
    # A checkpoint of a GPU can be scored on a CPU all the same.
    make_accelerator("fp16")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ACCELERATE_DYNAMO_BACKEND", "fast", "unknown ACCELERATE_DYNAMO_BACKEND 'fast'"),
        ("ACCELERATE_DYNAMO_MODE", "fast", "unknown ACCELERATE_DYNAMO_MODE 'fast'"),
        ("ACCELERATE_DOWNCAST_BF16", "true", "is for TPUs"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "which this project does not do"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "1", "which this project does not do"),
        ("ACCELERATE_USE_FSDP", "perhaps", "ACCELERATE_USE_FSDP is 'perhaps'; give true or false"),
        ("ACCELERATE_USE_DEEPSPEED", "2", "ACCELERATE_USE_DEEPSPEED is '2'; give true or false"),
    ],
)
def test_what_a_launcher_can_ask_for_and_is_not_done(name: str, value: str, words: str, monkeypatch) -> None:
    monkeypatch.setenv(name, value)
    refused(words)
    with pytest.raises(FPTError, match=words):
        make_accelerator()


@pytest.mark.parametrize("said", ["True", "1", "yes", "ON"])
def test_a_switch_is_on_however_it_is_written(said: str, monkeypatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("FSDP would be used on this machine")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", said)
    with pytest.raises(FPTError, match="ACCELERATE_USE_FSDP is on, but no launcher has started this process"):
        make_accelerator()


def test_recomputing_that_fsdp_asks_for_is_held_against_the_flag(monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_ACTIVATION_CHECKPOINTING", "true")
    refused("FSDP_ACTIVATION_CHECKPOINTING is True, --activation_checkpointing is False")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_grad_norm": -1.0}, "--max_grad_norm -1.0 must be at least 0"),
        ({"learning_rate": float("nan")}, "--learning_rate nan must be above 0"),
        ({"save_steps": 0}, "--save_steps 0 must be at least 1"),
        ({"warmup_steps": -1}, "--warmup_steps -1"),
        ({"lr_scheduler": "reduce_lr_on_plateau"}, "needs settings that there are no flags for"),
        ({"lr_scheduler": "warmup_stable_decay"}, "needs settings that there are no flags for"),
    ],
)
def test_settings_that_make_no_sense(changes: dict, words: str, settings, tmp_path: Path) -> None:
    with pytest.raises(FPTError, match=words):
        run(*settings(**changes))
    assert not (tmp_path / "run").exists()

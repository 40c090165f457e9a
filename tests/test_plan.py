"""The planner: its arithmetic, and what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fpt.args import DataArguments, ModelArguments, TrainArguments
from fpt.backbones.base import BackboneSpec
from fpt.errors import FPTError
from fpt.inputs import Patches
from fpt.inspect import empty_backbone, empty_model, inspect
from fpt.models.tuning import PRESETS, Tuning
from fpt.outputs import Classes
from fpt.plan import GIB, ONE, STRATEGIES, Activations, Model, PlanArguments, advice, measure, plan, saved, table

ROOT = Path(__file__).parent.parent
DDP, ZERO1, ZERO2, ZERO3, OFFLOADED = STRATEGIES
# 8 GiB of frozen weights, 1 MiB trainable, blocks of 0.1 GiB, 0.5 GiB a sample.
MODEL = Model(8 * GIB, 2.0**20, 0.1 * GIB, Activations(0.0, 0.5 * GIB, 0.0), 1e12)


def test_memory_is_spread_as_the_stages_say() -> None:
    memory = {s.name: s and MODEL.memory(s, 4, batch=2) for s in STRATEGIES}
    assert memory["DDP"] == {"weights": 8 * GIB + 2**20, "gradients": 2**20, "optimizer": 2**21, "activations": GIB}
    assert memory["ZeRO-1"] == {**memory["DDP"], "optimizer": 2**19}
    assert memory["ZeRO-2"] == {**memory["ZeRO-1"], "gradients": 2**18}
    assert memory["ZeRO-3 / FSDP"]["weights"] == pytest.approx((8 * GIB + 2**20) / 4 + 0.2 * GIB)
    assert memory["ZeRO-3, offloaded"]["weights"] == pytest.approx(0.2 * GIB)


def test_the_largest_batch_is_the_largest() -> None:
    for strategy in STRATEGIES:
        batch = MODEL.largest_batch(strategy, 4, 12 * GIB)
        assert sum(MODEL.memory(strategy, 4, batch).values()) <= 12 * GIB < sum(MODEL.memory(strategy, 4, batch + 1).values())
    assert MODEL.largest_batch(DDP, 4, 4 * GIB) == 0


def test_only_spread_weights_are_sent() -> None:
    assert MODEL.sent(DDP, 4) == MODEL.sent(ZERO2, 4) == 0.75 * 2 * 2**20
    assert MODEL.sent(ZERO3, 4) == pytest.approx(0.75 * (2 * 2**20 + 2 * (8 * GIB + 2**20)))


@pytest.mark.parametrize(("memory", "expected"), [(24, DDP), (8, ZERO3), (3, OFFLOADED), (1.5, None)])
def test_the_simplest_strategy_that_fits_is_taken(memory: float, expected) -> None:
    rows, best = table(MODEL, 4, memory * GIB, batch=2, peak=1e14)
    assert best == expected
    assert rows.count("does not fit") == (len(STRATEGIES) if expected is None else STRATEGIES.index(expected))


def test_what_zero_brings_to_a_frozen_core_is_said() -> None:
    assert "They bring nothing." in advice(MODEL, DDP, 8, 2)
    everything = Model(0.0, 8 * GIB, 0.1 * GIB, MODEL.activations, 1e12)
    assert "nothing" not in advice(everything, ZERO1, 8, 2)
    assert "--core_dtype bf16" in advice(MODEL, None, 8, 2)


def test_kept_tensors_are_counted_once_and_weights_are_not() -> None:
    model = empty_model(empty_backbone(BackboneSpec("random:gpt2", num_layers=2)), Patches(48), Classes(("a", "b")), Tuning())
    one, largest = saved(model, Patches(48), 4, 64)
    two, _ = saved(model, Patches(48), 8, 64)
    states = 4 * 64 * 768 * 4
    assert two == pytest.approx(2 * one, rel=0.01)
    assert largest == 4 * states
    # Of the first block ten times the size of its states; of the last one, which reads one token, a few.
    assert 13 * states < one < 16 * states
    empty = empty_backbone(BackboneSpec("random:gpt2", num_layers=2))
    full, _ = saved(
        empty_model(empty, Patches(48), Classes(("a", "b")), Tuning(PRESETS["all"])),
        Patches(48), 4, 64,
    )  # fmt: skip
    assert full > one


def test_a_lower_precision_keeps_less() -> None:
    def total(dtype: str) -> float:
        model = empty_model(
            empty_backbone(BackboneSpec("random:gpt2", num_layers=3, dtype=dtype)), Patches(48), Classes(("a", "b")), Tuning()
        )
        found = measure(model, Patches(48), 64)
        return sum(found.memory(ONE, 1, 16).values())

    assert 0.4 * total("fp32") < total("bf16") < 0.75 * total("fp32")


def test_the_memory_of_a_step_is_as_planned() -> None:
    from fpt.backbones.loading import load_backbone
    from fpt.models.fpt import build_model

    output, inputs = Classes(("a", "b")), Patches(48)
    spec = BackboneSpec("random:gpt2", num_layers=3, seed=0)
    planned, _ = saved(empty_model(empty_backbone(spec), inputs, output, Tuning()), inputs, 4, 64)
    model = build_model(load_backbone(spec), inputs, output).train()
    own = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = model(torch.randn(4, 64, 48), torch.ones(4, 64, dtype=torch.long)).sum()
    # Attention on the CPU copies its inputs; kernels of GPUs do not.
    assert planned == pytest.approx(sum(kept.values()), rel=0.08)
    loss.backward()


def test_plan_as_a_user_calls_it(data_dir: Path) -> None:
    command = [sys.executable, "-m", "fpt.plan", "--backbone", "gpt2-xl", "--data_dir", str(data_dir)]
    out = subprocess.run([*command, "--gpus", "8", "--gpu_memory", "24"], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert out.returncode == 0, out.stderr
    assert "Take accelerate_configs/multi_gpu.yaml with --num_processes 8." in out.stdout
    assert "They bring nothing." in out.stdout
    out = subprocess.run([*command, "--gpu", "a1000"], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert out.returncode == 2
    assert "unknown --gpu 'a1000'" in out.stderr


@pytest.mark.parametrize("name", ["smollm2", "gpt2", "bert", "t5-small", "vit", "none:gpt2"])
def test_every_family_is_planned(name: str) -> None:
    """Rotary embeddings keep tensors that are neither parameters nor buffers."""
    out = plan(DataArguments(dataset="bit-xor"), ModelArguments(backbone=name), TrainArguments(), PlanArguments())
    assert "Take accelerate_configs/single_gpu.yaml." in out


def test_what_depends_on_the_batch_can_not_be_planned() -> None:
    with pytest.raises(FPTError, match="a backbone of type LongformerModel can't be planned"):
        plan(DataArguments(dataset="bit-xor"), ModelArguments(backbone="longformer"), TrainArguments(), PlanArguments())


@pytest.mark.parametrize("path", sorted((ROOT / "accelerate_configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_configurations_are_read_by_accelerate_and_point_to_files(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert path.read_text().startswith("# ")
    assert config.num_processes >= config.num_machines
    if config.distributed_type == "DEEPSPEED":
        import json

        file = ROOT / config.deepspeed_config["deepspeed_config_file"]
        stage = json.loads(file.read_text())["zero_optimization"]["stage"]
        assert str(stage) in path.stem


def test_blocks_that_are_computed_again_keep_less_and_take_longer() -> None:
    output, inputs = Classes(("a", "b")), Patches(48)

    def planned(checkpointed: bool):
        backbone = empty_backbone(BackboneSpec("random:gpt2", num_layers=6, seed=0))
        model = empty_model(backbone, inputs, output, Tuning())
        return measure(model, inputs, 64, backbone if checkpointed else None)

    whole, again = planned(False), planned(True)
    one_block = whole.activations.each / 6
    # The inputs of five blocks, the last block, and one that is computed again.
    assert 1.5 * one_block < again.activations.each < 3 * one_block
    assert 1.1 * whole.flops < again.flops < 1.6 * whole.flops
    assert (again.frozen, again.trainable) == (whole.frozen, whole.trainable)


def test_commands_read_activation_checkpointing_and_the_model(data_dir: Path, gpt2_dir: Path) -> None:
    data = DataArguments(data_dir=str(data_dir))
    plain, again = [
        plan(data, ModelArguments(backbone=str(gpt2_dir), activation_checkpointing=on), TrainArguments(), PlanArguments())
        for on in (False, True)
    ]
    assert plain != again
    full = inspect(data, ModelArguments(backbone=str(gpt2_dir), model="full"), TrainArguments())
    assert "trainable: 100.000% of the parameters" in full

"""The work of a step, counted: operations, padding, what is kept, what waits. Timings are in `benchmarks/`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from test_together import Alone, batch, logits_of, models
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from fpt.backbones.base import Backbone, BackboneSpec, Family
from fpt.data.batches import LengthGroupedBatchSampler, padding_waste, random_batches
from fpt.flops import matmul_peak, on_meta, step_flops
from fpt.inputs import Patches, Tokens
from fpt.inspect import empty_backbone, empty_model
from fpt.models.fpt import FPT
from fpt.models.tuning import Tuning
from fpt.outputs import Classes
from fpt.plan import saved
from fpt.training import results as results_of_runs
from fpt.training import run
from fpt.training.shared_backbone import Together

TEN = Classes(tuple("0123456789"))


class Operations(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def shape(name: str, tuning: Tuning | None = None) -> tuple[Backbone, FPT]:
    backbone = empty_backbone(BackboneSpec(f"random:{name}", seed=1))
    return backbone, empty_model(backbone, Patches(48), TEN, tuning or Tuning())


def test_the_last_block_computes_what_is_read_and_no_more() -> None:
    _, model = shape("gpt2")
    own = sum(step_flops(model, Patches(48), 16, 64))
    model.family = Family()  # the whole of transformers' forward
    whole = sum(step_flops(model, Patches(48), 16, 64))
    # Of the twelfth block keys and values remain: a sixth of its products, there and back.
    assert 1 - own / whole == pytest.approx(1 / 12 * 5 / 6, abs=0.01)


def test_no_work_is_done_for_gradients_of_frozen_weights() -> None:
    _, model = shape("gpt2")
    forward, backward = step_flops(model, Patches(48), 16, 64)
    assert backward < 1.05 * forward
    _, everything = shape("gpt2", tuning=Tuning(("ln", "pos", "attn", "ff", "other", "in", "out")))
    assert sum(step_flops(everything, Patches(48), 16, 64)) > 1.4 * (forward + backward)


def test_grouping_by_length_leaves_little_padding() -> None:
    lengths = np.clip(np.random.default_rng(0).gamma(6, 7, 8629).astype(int), 4, 128)  # much as molecules are
    grouped = padding_waste(lengths, iter(LengthGroupedBatchSampler(lengths, 16, 1)))
    assert grouped < 0.05 < 0.3 < padding_waste(lengths, random_batches(len(lengths), 16, 1))


def test_what_a_block_keeps_for_the_way_back() -> None:
    """In numbers a token and unit of width; GELU in eight operations would keep 28 more."""
    backbone, model = shape("gpt2")
    tokens, width = 64, backbone.hidden_size
    one, two = (saved(model, Patches(48), rows, tokens)[0] for rows in (1, 2))
    blocks = len(backbone.family.blocks(backbone.model)) - 1
    kept = (two - one) / (4 * tokens * width * blocks)
    # Two norms' inputs, queries, keys, values and their sum, and four times the width before the GELU.
    assert kept == pytest.approx(2 + 4 + 4, abs=0.6)


def test_recomputing_keeps_the_states_between_blocks_alone() -> None:
    from fpt.backbones.base import checkpoint_blocks

    backbone, model = shape("gpt2")
    before = saved(model, Patches(48), 2, 64)[0]
    checkpoint_blocks(backbone)
    after = saved(model, Patches(48), 2, 64)[0]
    assert after < before / 4


def test_recomputed_gradients_are_the_same(settings, tmp_path: Path) -> None:
    plain = run(*settings(output_dir=str(tmp_path / "plain")))
    again = run(*settings(output_dir=str(tmp_path / "again"), activation_checkpointing=True))
    assert again.metrics == plain.metrics
    assert again.history == plain.history


def test_five_runs_side_by_side_take_few_more_operations_than_one(gpt2_dir: Path) -> None:
    """On a device that waits for its next operation, what counts is how many there are."""
    inputs = Tokens(20, 0)
    made = models(str(gpt2_dir), inputs, count=5)
    loops = [Alone(model) for model in made]
    forward = Together(made).on(Accelerator(cpu=True))
    batches = [batch(inputs, 4, 9, seed) for seed in range(5)]
    logits_of(forward, loops, batches)

    def count(call) -> Counter[str]:
        with Operations() as operations:
            sum(logits.sum() for logits in call()).backward()
        return operations.seen

    joint = count(lambda: logits_of(forward, loops, batches))
    alone = count(lambda: [m(b["inputs"], b["attention_mask"]) for m, b in zip(made, batches, strict=True)])
    products = ("addmm", "mm", "_scaled_dot_product_flash_attention_for_cpu")
    # Two blocks' products once, and readouts one by one.
    assert sum(joint[name] for name in products) < sum(alone[name] for name in products) / 3
    assert joint["native_layer_norm"] * 5 == alone["native_layer_norm"]


def test_a_step_waits_for_nothing(settings, tmp_path: Path, monkeypatch) -> None:
    """Numbers that are read back from the device hold it up; a step reads none."""
    from fpt.training import loop as training

    learn, seen = training.learn, Counter()

    def counted(*args):
        with Operations() as operations:
            done = learn(*args)
        seen.update(operations.seen)
        return done

    monkeypatch.setattr(training, "learn", counted)
    run(*settings(dropout=0.0))
    assert seen["mm"] + seen["addmm"] > 100
    assert seen["_fused_adamw_"] > 0
    assert seen["_local_scalar_dense"] == 0


def test_results_tell_how_much_of_the_peak_was_used(settings) -> None:
    results = run(*settings())
    assert 0 < results.mfu <= 1
    assert results.runs_side_by_side == 1
    per_token = results.flops_per_token
    # Twice the weights of linear layers forward, as much backward; attention and the readout come on top.
    linear = 3 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64)
    assert 0.6 * 4 * linear < per_token < 1.6 * 4 * linear


def test_the_share_of_the_peak_is_of_the_best_that_was_measured(settings, monkeypatch) -> None:
    peaks = iter((4e15, 1e15))  # a machine that is busy at the end
    monkeypatch.setattr(results_of_runs, "matmul_peak", lambda *args: next(peaks))
    results = run(*settings())
    reached = results.flops_per_token * results.tokens_per_second
    assert results.mfu == round(reached / 4e15, 4)
    assert next(peaks, None) is None


def test_a_share_above_the_peak_is_left_out_with_the_reason(settings, monkeypatch, capsys) -> None:
    monkeypatch.setattr(results_of_runs, "matmul_peak", lambda *args: 1e3)
    results = run(*settings())
    assert results.mfu is None
    assert "busy machine" in results.mfu_left_out
    assert "tokens/s (MFU left out: training was faster than the matmul peak" in capsys.readouterr().out
    assert results_of_runs.mfu(1.0, 3.0, 3.0) == results_of_runs.Flops(1.0, 1.0)


def test_the_peak_is_that_of_plain_products() -> None:
    before = torch.get_rng_state()
    peak = matmul_peak(torch.device("cpu"), torch.float32, 256, 256)
    assert 1e8 < peak < 1e15
    assert torch.equal(torch.get_rng_state(), before)


def test_a_copy_without_memory_leaves_the_model_alone(gpt2_dir: Path) -> None:
    model = models(str(gpt2_dir), Tokens(20, 0), count=1)[0]
    shell = on_meta(model)
    assert all(p.is_meta for p in shell.parameters())
    assert not any(p.is_meta for p in model.parameters())
    assert [p.requires_grad for p in shell.parameters()] == [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("seeds", [None, "1,2"])
def test_a_compiled_run_is_the_same_run(seeds: str | None, settings, tmp_path: Path, monkeypatch) -> None:
    """`accelerate launch --dynamo_backend ...`: the same numbers, and a checkpoint that knows nothing of it."""
    shared = {"max_steps": 6, "eval_steps": 3, "dropout": 0.0, "seeds": seeds}
    run(*settings(output_dir=str(tmp_path / "plain"), **shared))
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "eager")
    AcceleratorState._reset_state(reset_partial_state=True)
    counters.clear()
    run(*settings(output_dir=str(tmp_path / "compiled"), **shared))
    assert counters["frames"]["ok"] > 0
    inside = Path("seed-2" if seeds else "")
    plain, compiled = (load_file(tmp_path / name / inside / "checkpoint" / "model.safetensors") for name in ("plain", "compiled"))
    assert set(plain) == set(compiled)
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, atol=1e-4, rtol=1e-3)

"""What a run needs, before it is started: `python -m fpt.plan --backbone gpt2-xl --dataset cifar10 --gpus 8 --gpu_memory 24`.

For each strategy: memory of a device (weights, gradients, optimizer, activations), the largest batch that fits, what is sent in
a step, and how long it takes. Nothing is loaded: a step is taken on tensors without numbers, and what it would keep is added up.

Sources: the memory of ZeRO stages is that of Rajbhandari et al. (arXiv 1910.02054, section 3), with frozen weights, which have
neither gradients nor optimizer state. Peak speeds are the makers' for dense bf16 (fp16 for V100).
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional as F

from fpt.args import DataArguments, ModelArguments, TrainArguments, arg
from fpt.backbones.base import Backbone, checkpoint_blocks
from fpt.cli import parse_training
from fpt.errors import FPTError, cli
from fpt.flags.checks import Range, check_known, check_ranges
from fpt.inputs import Input, Tokens
from fpt.inspect import NOT_READ, empty_run, rows_of, step_flops
from fpt.models.fpt import FPT
from fpt.text.table import plain_table

GIB = 2**30
# Dense bf16 TFLOP/s.
GPUS = {
    "v100": 125,
    "t4": 65,
    "l4": 121,
    "a10": 125,
    "a100": 312,
    "h100": 989,
    "h200": 989,
    "b200": 2250,
    "rtx3090": 71,
    "rtx4090": 165,
}
# Share of the peak that a step of a few thousand tokens reaches.
EFFICIENCY = 0.4
# Context, kernels and workspaces on a GPU.
OVERHEAD = 0.8 * GIB
# Bytes a second between GPUs of a machine without NVLink.
LINK = 20e9


@dataclass
class PlanArguments:
    """The machine."""

    _argument_group_name = "machine"
    gpus: int = arg(1, "GPUs, over all machines.")
    gpu_memory: float = arg(24.0, "Memory of each, in GiB.")
    gpu: str = arg("a100", f"Kind of GPU, for the time of a step: {', '.join(GPUS)}.")

    def __post_init__(self) -> None:
        check_ranges(self, gpus=Range(1, 10**6), gpu_memory=Range(1, 10**6, above=True))
        check_known(self, gpu=GPUS)


@dataclass(frozen=True)
class Activations:
    """Bytes that a step keeps for its way back: ``fixed + batch * each``, and at most `largest` * batch of one tensor."""

    fixed: float
    each: float
    largest: float

    def bytes(self, batch: int) -> float:
        """Of a batch, with what the way back needs for a moment: a gradient in, one out and one between."""
        return self.fixed + batch * (self.each + 3 * self.largest)


@dataclass(frozen=True)
class Strategy:
    """One way to spread a run over devices: which of its parts are spread, and the configuration that does so."""

    name: str
    config: str
    weights: bool = False
    gradients: bool = False
    optimizer: bool = False
    offload: bool = False


STRATEGIES = (
    Strategy("DDP", "multi_gpu.yaml"),
    Strategy("ZeRO-1", "deepspeed_zero1.yaml", optimizer=True),
    Strategy("ZeRO-2", "deepspeed_zero2.yaml", optimizer=True, gradients=True),
    Strategy("ZeRO-3 / FSDP", "deepspeed_zero3.yaml", optimizer=True, gradients=True, weights=True),
    Strategy("ZeRO-3, offloaded", "deepspeed_zero3_offload.yaml", optimizer=True, gradients=True, weights=True, offload=True),
)
ONE = Strategy("one GPU", "single_gpu.yaml")


@dataclass(frozen=True)
class Model:
    """What the arithmetic needs to know of a model.

    Attributes:
        frozen, trainable: bytes of the weights; trainable ones are fp32.
        block: bytes of the largest block.
        activations: of a step.
        flops: of a step on one sample.
    """

    frozen: float
    trainable: float
    block: float
    activations: Activations
    flops: float

    def memory(self, strategy: Strategy, devices: int, batch: int) -> dict[str, float]:
        """Bytes on a device, by what they are for."""

        def share(spread: bool, size: float) -> float:
            return size / devices if spread else size

        weights = share(strategy.weights, self.frozen + self.trainable)
        if strategy.weights:
            # The block at hand and the one that is fetched ahead are whole.
            weights = (0.0 if strategy.offload else weights) + 2 * self.block
        return {
            "weights": weights,
            "gradients": share(strategy.gradients, self.trainable),
            "optimizer": share(strategy.optimizer, 2 * self.trainable),
            "activations": self.activations.bytes(batch),
        }

    def largest_batch(self, strategy: Strategy, devices: int, room: float) -> int:
        """Samples on a device that fit into `room` bytes; 0 when not even one does."""
        memory = self.memory(strategy, devices, 0)
        left = room - sum(memory.values())
        return max(0, math.floor(left / (self.activations.each + 3 * self.activations.largest)))

    def sent(self, strategy: Strategy, devices: int) -> float:
        """Bytes that a device sends in a step: gradients (twice their size), and with ZeRO-3 the weights, there and back."""
        part = (devices - 1) / devices
        return part * (2 * self.trainable + (2 * (self.frozen + self.trainable) if strategy.weights else 0))


def measure(model: FPT, inputs: Input, tokens: int, checkpointed: Backbone | None = None) -> Model:
    """Describe a model from `fpt.inspect.empty_model`.

    Args:
        checkpointed: its backbone, where blocks are to be computed again for the backward pass; this is done to it here.
    """
    rows = rows_of(model)
    blocks = model.family.blocks(model.core)
    if checkpointed is None:
        one, two = (saved(model, inputs, batch, tokens) for batch in (1, 2))
    else:
        one, two = _recomputed(model, checkpointed, inputs, tokens)
    each = two[0] - one[0]
    return Model(
        frozen=sum(r.frozen_bytes for r in rows),
        trainable=4.0 * sum(r.trainable for r in rows),
        block=max((sum(p.nbytes for p in block.parameters()) for block in blocks), default=0),
        activations=Activations(max(0.0, one[0] - each), each, two[1] - one[1]),
        flops=sum(step_flops(model, inputs, 1, tokens)),
    )


def _recomputed(model: FPT, backbone: Backbone, inputs: Input, tokens: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """As `saved` of one and of two samples, with blocks that keep their inputs alone (arXiv 1604.06174).

    At its largest a step has the inputs of all blocks, all of the last block, which is not computed again, and of the one that is
    being computed again.
    """
    whole = [saved(model, inputs, batch, tokens) for batch in (1, 2)]
    checkpoint_blocks(backbone)
    kept = [saved(model, inputs, batch, tokens) for batch in (1, 2)]
    count = len(model.family.blocks(model.core)) - 1
    state = 4.0 * tokens * model.width
    found = []
    for batch, (all_of_it, largest), (without, _) in zip((1, 2), whole, kept, strict=True):
        block = (all_of_it - without) / max(count, 1)
        found.append((without + count * batch * state + block, largest))
    return found[0], found[1]


def saved(model: FPT, inputs: Input, batch: int, tokens: int) -> tuple[float, float]:
    """Bytes of the tensors that a forward pass in training keeps for the backward pass: of all, and of the largest; no weights.

    Raises:
        FPTError: that depends on what a batch holds.
    """
    kept: dict[int, int] = {}
    held: list[Any] = []  # so that no number is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held.append(storage)
        kept[storage._cdata] = max(kept.get(storage._cdata, 0), storage.nbytes())
        return tensor

    shape = (batch, tokens) if isinstance(inputs, Tokens) else (batch, tokens, inputs.dim)  # type: ignore[attr-defined]
    twin = copy.deepcopy(model)  # outside of the mode, which can't copy every tensor
    # Tensors that are said to be on a CPU: unlike those of the meta device they know mixed precision.
    with FakeTensorMode(allow_non_fake_inputs=True), _fused_attention():
        _without_numbers(twin)
        twin.train()
        own = {p.untyped_storage()._cdata for p in twin.parameters()}
        values = torch.zeros(shape, dtype=torch.long if isinstance(inputs, Tokens) else torch.float32)
        mask = torch.ones((batch, tokens), dtype=torch.long)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            try:
                result = twin(values, mask)
            except DataDependentOutputException as error:
                kind = type(model.core).__name__
                raise FPTError(
                    f"a backbone of type {kind} can't be planned: what it does depends on the numbers of a batch"
                ) from error
        sizes = [size for storage, size in kept.items() if storage not in own]
        del result
    return float(sum(sizes)), float(max(sizes))


def _without_numbers(model: FPT) -> None:
    """Let a model on the meta device have its tensors as the fake CPU has them."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            value = torch.empty(parameter.shape, dtype=parameter.dtype)
            setattr(module, name, torch.nn.Parameter(value, requires_grad=parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor):  # neither of the two, as rotary embeddings keep their first frequencies
                setattr(module, name, torch.empty(value.shape, dtype=value.dtype))


@contextlib.contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention as the fused kernels compute it: nothing of the size of tokens x tokens is kept."""

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            out = torch.empty_like(query)
            ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
            return out

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
            raise NotImplementedError

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return Fused.apply(query, key, value)

    with mock.patch.object(F, "scaled_dot_product_attention", attention):
        yield


def table(model: Model, devices: int, memory: float, batch: int, peak: float) -> tuple[str, Strategy | None]:
    """The table of all strategies, and the first one whose batch fits."""
    ways = STRATEGIES if devices > 1 else (ONE, *(s for s in STRATEGIES if s.offload))
    room = memory - OVERHEAD
    head = ["strategy", "weights", "grads", "optim.", "activ.", "GiB/GPU", "max batch", "sent MB", "step s"]
    lines = []
    best = None
    for way in ways:
        parts = model.memory(way, devices, batch)
        total = sum(parts.values()) + OVERHEAD
        fits = total <= memory
        largest = model.largest_batch(way, devices, room)
        sent = model.sent(way, devices)
        moved = sent + (2 * model.frozen if way.offload else 0)
        seconds = max(batch * model.flops / (peak * EFFICIENCY), moved / LINK if way.weights else 0) + (
            0 if way.weights else sent / LINK
        )
        best = best or (way if fits else None)
        memories = [f"{size / GIB:.2f}" for size in (*parts.values(), total)]
        times = [f"{largest:,}", f"{sent / 1e6:,.1f}", f"{seconds:.3f}"]
        lines.append([way.name, *memories, *times, "" if fits else "does not fit"])
    return plain_table(head, lines, [20, 9, 8, 8, 8, 9, 11, 9, 9]), best


def advice(model: Model, best: Strategy | None, devices: int, batch: int) -> str:
    """What to take, in words."""
    if best is None:
        return (
            f"No strategy has room for {batch} samples on a device: take a smaller --per_device_batch_size, or --core_dtype bf16."
        )
    share = model.trainable / (model.trainable + model.frozen)
    lines = [f"Take accelerate_configs/{best.config}" + (f" with --num_processes {devices}" if devices > 1 else "") + "."]
    if devices > 1:
        saved_bytes = (1 - 1 / devices) * 3 * model.trainable
        lines.append(
            f"ZeRO-1 and ZeRO-2 spread gradients and optimizer state: {saved_bytes / 2**20:,.0f} MiB of a device here, as"
            f" {share:.2%} of the weights are trainable" + (". They bring nothing." if saved_bytes < 0.02 * model.frozen else ".")
        )
    return "\n".join(lines)


def plan(data: DataArguments, model_args: ModelArguments, args: TrainArguments, machine: PlanArguments) -> str:
    """What the command prints.

    Raises:
        FPTError: as `fpt.inspect.empty_run`.
    """
    run, batch = empty_run(data, model_args, args), args.per_device_batch_size
    found = measure(run.model, run.inputs, run.tokens, run.core if run.checkpointed else None)
    peak = GPUS[machine.gpu]
    rows, best = table(found, machine.gpus, machine.gpu_memory * GIB, batch, peak * 1e12)
    return "\n".join(
        [
            f"{run.core.spec.name} ({run.core.spec.dtype}) on {run.prepared.task.name}, --tune {run.tuning.label}, batches of"
            f" {batch} x {run.tokens} tokens on each of {machine.gpus} x {machine.gpu} with {machine.gpu_memory:g} GiB",
            rows,
            f"A step: {batch * found.flops / 1e12:,.2f} TFLOPs on each GPU, timed at {EFFICIENCY:.0%} of {peak} TFLOP/s and"
            f" {LINK / 1e9:g} GB/s between GPUs; GiB with {OVERHEAD / GIB:g} for the GPU's own use.",
            advice(found, best, machine.gpus, batch),
        ]
    )


def main() -> None:
    """Read the arguments of ``train.py`` and the machine's, and print."""
    print(plan(*parse_training(__doc__ or "", PlanArguments, unread=NOT_READ, why="nothing is trained here")))


if __name__ == "__main__":
    cli(main)

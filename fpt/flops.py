"""Floating-point operations: of a training step, counted on the operations that are taken, and what a device can do at best."""

from __future__ import annotations

import copy
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fpt.backbones.weights import draw
from fpt.inputs import Input, Tokens
from fpt.models.fpt import FPT
from fpt.side_tokens import SideTokens

# Seconds that the matmul peak is measured for, each time.
PEAK_SECONDS = 0.1


def on_meta(model: nn.Module) -> nn.Module:
    """A copy of `model` without memory for its weights, in fp32."""
    shells: dict[int, torch.Tensor] = {
        id(p): nn.Parameter(torch.empty(p.shape, device="meta"), requires_grad=p.requires_grad) for p in model.parameters()
    }
    shells |= {id(b): torch.empty_like(b, device="meta") for b in model.buffers()}
    shell = copy.deepcopy(model, memo=shells)
    if hasattr(shell, "core_dtype"):
        shell.core_dtype = torch.float32  # type: ignore[assignment]
    return shell


def step_flops(model: nn.Module, inputs: Input, batch_size: int, tokens: int) -> tuple[int, int]:
    """Floating-point operations of a training step on a batch without padding, forward and backward.

    Counted on the operations that are really taken, so that what is left out (gradients of frozen weights, most of the last
    block) does not count. A multiplication and an addition are two.

    Args:
        model: from `fpt.inspect.empty_model` or `on_meta`; its precision plays no part.

    Raises:
        RuntimeError: it can't run on tensors without numbers, and not on ones with numbers either.
    """
    model = on_meta(model)
    shape: tuple[int, ...] = (batch_size, tokens)
    carried = inputs.vector
    if isinstance(inputs, SideTokens):
        shape = (*shape, inputs.columns)
    elif not isinstance(inputs, Tokens):
        shape = (*shape, inputs.dim)
    kind = torch.long if isinstance(inputs, Tokens) else torch.float32

    def count(shape: tuple[int, ...]) -> tuple[int, int]:
        device = next(model.parameters()).device
        values = torch.zeros(shape, dtype=kind, device=device)
        mask = torch.ones(shape[:2], dtype=torch.long, device=device)
        given = [values, mask]
        if carried is not None:  # it is the first token
            given = [values[:, 1:], mask, torch.zeros(len(values), carried.dim, device=device)]
        # The plain formula of attention has operations that can be counted.
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            with FlopCounterMode(display=False) as forward:
                loss = model(*given).sum()
            with FlopCounterMode(display=False) as backward:
                loss.backward()
        return forward.get_total_flops(), backward.get_total_flops()

    try:
        return count(shape)
    except RuntimeError:  # some models look at the numbers of a mask, so there must be some
        if not isinstance(model, FPT):
            raise
        draw(model.core, model.core)
        for part in (model.input, model.vector, model.pooling, model.readout):
            if part is not None:
                part.to_empty(device="cpu")
        forward, backward = count((1, *shape[1:]))
        return batch_size * forward, batch_size * backward


def matmul_peak(device: torch.device, dtype: torch.dtype, rows: int, width: int) -> float:
    """FLOPs a second of plain matrix products of a transformer's shapes, the best of some: (rows, width) by (width, 4 width)."""
    rows = max(1, min(rows, 8192))
    own = torch.Generator(device).manual_seed(0)  # the random numbers of a run stay as they are
    left = torch.randn(rows, width, device=device, generator=own).to(dtype)
    right = torch.randn(width, 4 * width, device=device, generator=own).to(dtype)

    def once() -> float:
        _wait(device)
        start = time.perf_counter()
        left @ right
        _wait(device)
        return time.perf_counter() - start

    once()
    until = time.perf_counter() + PEAK_SECONDS
    best = once()
    while time.perf_counter() < until:
        best = min(best, once())
    return 2 * rows * width * 4 * width / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""Weights of a backbone: hashed, brought to the precision that they are kept in, or initialised at random."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from fpt.files.whole import release_pages


class Weights:
    """Hashes each weight of a backbone once, then brings it to the precision it is kept in.

    Both are done weight by weight, so that there are never two copies of a backbone.
    """

    def __init__(self, dtype: torch.dtype, keep_fp32: set[str]) -> None:
        self.dtype, self.keep_fp32 = dtype, keep_fp32
        self.digests: dict[str, bytes] = {}

    @torch.no_grad()
    def settle(self, module: nn.Module, parts: Mapping[str, str], prefix: str = "") -> None:
        """Hash and convert what has not been yet; `prefix` is what comes before the names of `module` in the backbone's."""
        for name, parameter in module.named_parameters(prefix=prefix):
            if name in self.digests:
                continue
            digest = hashlib.sha256(f"{tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().float().cpu().contiguous().numpy().data)
            self.digests[name] = digest.digest()
            parameter.requires_grad_(False)
            if parts[name] not in self.keep_fp32 and parameter.dtype != self.dtype:
                before = parameter.data
                parameter.data = before.to(self.dtype)
                release_pages(before)

    def sha256(self, model: Any) -> str:
        """Hash of names, shapes and fp32 bytes of all weights of `model`."""
        digest = hashlib.sha256()
        for name, _ in sorted(model.named_parameters()):
            digest.update(name.encode() + self.digests[name])
        return digest.hexdigest()


@torch.no_grad()
def draw(part: nn.Module, model: PreTrainedModel) -> None:
    """Give memory to what is still without in `part`, and initialise it as `model` does."""
    new = []
    for module in part.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                value = torch.full(parameter.shape, torch.nan, dtype=torch.float32)
                value = nn.Parameter(value, requires_grad=parameter.requires_grad)
                setattr(module, name, value)
                new.append(value)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype))
    part.apply(model._initialize_weights)
    for value in new:
        if value.isnan().any():  # transformers leaves it to the constructor
            value.normal_(std=0.02)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield

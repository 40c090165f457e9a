"""GPT-2, the backbone of the paper: learned positions, LayerNorm with bias. https://huggingface.co/openai-community/gpt2"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from transformers import GPT2Config, PreTrainedConfig

from fpt.backbones.base import FAMILIES
from fpt.backbones.stack import Stack

# layers, width, heads (Radford et al. 2019, table 2)
SHAPES = {
    "gpt2": (12, 768, 12),
    "gpt2-medium": (24, 1024, 16),
    "gpt2-large": (36, 1280, 20),
    "gpt2-xl": (48, 1600, 25),
}


class GPT2(Stack):
    """gpt2, gpt2-medium, gpt2-large and gpt2-xl."""

    model_types = ("gpt2",)
    hub_ids = MappingProxyType({name: f"openai-community/{name}" for name in SHAPES})

    def random_config(self, name: str) -> GPT2Config:
        """The published shape of `name`."""
        layers, width, heads = SHAPES[name]
        return GPT2Config(n_layer=layers, n_embd=width, n_head=heads)

    def max_tokens(self, config: PreTrainedConfig) -> int:
        """Its learned positions."""
        return config.max_position_embeddings

    def start(self, model: Any, embeds: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """Positions are added to the inputs."""
        return model.drop(embeds + model.wpe(positions)), {}

    def keys_values(self, block: Any, states: torch.Tensor, position_embeddings: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """One layer gives queries, keys and values."""
        attn = block.attn
        _, keys, values = attn.c_attn(block.ln_1(states)).split(attn.split_size, dim=2)
        keys, values = (part.unflatten(2, (attn.num_heads, attn.head_dim)).transpose(1, 2) for part in (keys, values))
        return keys, values

    def finish(self, model: Any, states: torch.Tensor) -> torch.Tensor:
        """The last norm."""
        return model.ln_f(states)


FAMILIES.register("gpt2")(GPT2())

"""GPT-NeoX: attention and MLP side by side, rotary positions on a part of each head. Pythia (arXiv 2304.01373, table 1)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from transformers import GPTNeoXConfig
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb

from fpt.backbones.base import FAMILIES
from fpt.backbones.stack import Stack

# layers, width, heads
SHAPES = {"pythia-70m": (6, 512, 8), "pythia-160m": (12, 768, 12), "pythia-410m": (24, 1024, 16), "pythia-1b": (16, 2048, 8)}


class GPTNeoX(Stack):
    """Pythia and other GPT-NeoX models."""

    model_types = ("gpt_neox",)
    hub_ids = MappingProxyType({name: f"EleutherAI/{name}" for name in SHAPES})
    cache = "layer_past"

    def random_config(self, name: str) -> GPTNeoXConfig:
        """The published shape of `name`."""
        layers, width, heads = SHAPES[name]
        return GPTNeoXConfig(
            vocab_size=50304,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
        )

    def start(self, model: Any, embeds: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """Rotary positions."""
        return model.emb_dropout(embeds), {"position_embeddings": model.rotary_emb(embeds, position_ids=positions[None])}

    def keys_values(self, block: Any, states: torch.Tensor, position_embeddings: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """One layer gives queries, keys and values, head by head."""
        attn = block.attention
        heads = attn.query_key_value(block.input_layernorm(states)).unflatten(2, (-1, 3 * attn.head_size)).transpose(1, 2)
        queries, keys, values = heads.chunk(3, dim=-1)
        return apply_rotary_pos_emb(queries, keys, *position_embeddings)[1], values

    def finish(self, model: Any, states: torch.Tensor) -> torch.Tensor:
        """The last norm."""
        return model.final_layer_norm(states)


FAMILIES.register("gpt_neox")(GPTNeoX())

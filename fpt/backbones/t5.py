"""The encoder of T5 (arXiv 1910.10683): relative positions as a trainable bias of the attention, RMSNorm."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from transformers import T5Config, T5EncoderModel

from fpt.backbones.base import FAMILIES, Family, take

# layers, width, heads, width of the feed-forward layers
SHAPES = {"t5-small": (6, 512, 8, 2048), "t5-base": (12, 768, 12, 3072), "t5-large": (24, 1024, 16, 4096)}


class T5(Family):
    """The encoders of T5."""

    model_types = ("t5",)
    hub_ids = MappingProxyType({name: f"google-t5/{name}" for name in SHAPES})
    model_class = T5EncoderModel

    def random_config(self, name: str) -> T5Config:
        """The published shape of `name`."""
        layers, width, heads, inner = SHAPES[name]
        return T5Config(num_layers=layers, d_model=width, num_heads=heads, d_kv=64, d_ff=inner)

    def take_table(self, model: Any) -> torch.Tensor:
        """The table is known under two names."""
        table = model.shared.weight.detach()
        model.shared = model.encoder.embed_tokens = None
        return table

    def states(self, model: Any, embeds: torch.Tensor, attention_mask: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """As `Family.states`."""
        # Added to the bias of the positions; the model would ask whether it is all ones, which waits for the device.
        unseen = torch.zeros_like(attention_mask, dtype=embeds.dtype).masked_fill(attention_mask == 0, -1e9)
        return take(model(inputs_embeds=embeds, attention_mask=unseen[:, None, None]).last_hidden_state, read)


FAMILIES.register("t5")(T5())

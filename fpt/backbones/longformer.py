"""Longformer (arXiv 2004.05150): a RoBERTa whose tokens see a window, and a few of them everything.

The tokens that the readout reads are the ones that see everything, and are seen by all: what the paper does with the first
token for classification.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional as F
from transformers import LongformerConfig, PreTrainedConfig

from fpt.backbones.base import FAMILIES, Family, take


class Longformer(Family):
    """Longformer base."""

    model_types = ("longformer",)
    hub_ids = MappingProxyType({"longformer": "allenai/longformer-base-4096"})
    model_options = MappingProxyType({"add_pooling_layer": False})

    def random_config(self, name: str) -> LongformerConfig:
        """The published shape of Longformer base."""
        return LongformerConfig(
            vocab_size=50265,
            max_position_embeddings=4098,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            attention_window=[512] * 12,
            pad_token_id=1,
        )

    def max_tokens(self, config: PreTrainedConfig) -> int:
        """Positions behind the padding's."""
        return config.max_position_embeddings - config.pad_token_id - 1

    def states(self, model: Any, embeds: torch.Tensor, attention_mask: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """As `Family.states`. The model would fill up windows with the padding's embedding, which it no longer has."""
        window = max(model.config.attention_window)
        more = -embeds.shape[1] % window
        sees_all = torch.zeros_like(attention_mask).scatter(1, read, 1)
        whole = model(
            inputs_embeds=F.pad(embeds, (0, 0, 0, more)),
            attention_mask=F.pad(attention_mask, (0, more)),
            global_attention_mask=F.pad(sees_all, (0, more)),
        ).last_hidden_state
        return take(whole, read)


FAMILIES.register("longformer")(Longformer())

"""Vision Transformer (arXiv 2010.11929): a backbone of another modality. https://huggingface.co/google/vit-base-patch16-224-in21k

Its patch embedding and class token are left out: tokens come through the trainable input layer. Positions are those of its
patches; sequences of more tokens get positions in between, linearly.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional as F
from transformers import ViTConfig

from fpt.backbones.base import FAMILIES, Family, take


class ViT(Family):
    """ViT base, pretrained on ImageNet-21k."""

    model_types = ("vit",)
    hub_ids = MappingProxyType({"vit": "google/vit-base-patch16-224-in21k"})
    model_options: Any = MappingProxyType({"add_pooling_layer": False})

    def random_config(self, name: str) -> ViTConfig:
        """The published shape of ViT base."""
        return ViTConfig()

    def take_table(self, model: Any) -> None:
        """It reads pictures, so there is no table of tokens."""
        model.embeddings.patch_embeddings = model.embeddings.cls_token = None

    def input_std(self, model: Any, table: torch.Tensor | None) -> float:
        """Patches and their positions are of one scale."""
        return float(model.embeddings.position_embeddings.detach().float().std())

    def states(self, model: Any, embeds: torch.Tensor, attention_mask: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """As `Family.states`."""
        tokens = embeds.shape[1]
        positions = model.embeddings.position_embeddings[:, 1:]
        if tokens > positions.shape[1]:
            positions = F.interpolate(positions.transpose(1, 2), tokens, mode="linear", align_corners=True).transpose(1, 2)
        states = model.embeddings.dropout(embeds + positions[:, :tokens])
        for block in model.layers:
            states = block(states, attention_mask[:, None, None, :].bool())
        return model.layernorm(take(states, read))


FAMILIES.register("vit")(ViT())

"""No backbone: states go from the input layer to the readout as they are. A control: what a backbone brings is what is above it.

arXiv 2406.16964 asks this of language models for time series. ``--backbone none`` has GPT-2's width, ``none:NAME`` that of the
backbone NAME.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from fpt.backbones.base import FAMILIES, Family, take


class NoneConfig(PreTrainedConfig):
    """Its width."""

    model_type = "fpt_none"
    hidden_size: int = 768


class NoneModel(PreTrainedModel):
    """No block and no weight."""

    config_class = NoneConfig
    base_model_prefix = "none"

    def __init__(self, config: NoneConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList()
        self.post_init()


class NoBackbone(Family):
    """States as they come."""

    model_types = ("fpt_none",)
    model_class = NoneModel
    pretrained = False

    def names(self) -> list[str]:
        """One."""
        return ["none"]

    def is_here(self, name: str) -> bool:
        """There is nothing to load."""
        return True

    def random_config(self, name: str) -> NoneConfig:
        """GPT-2's width."""
        return NoneConfig()

    def take_table(self, model: Any) -> None:
        """It has no table."""

    def input_std(self, model: Any, table: torch.Tensor | None) -> float:
        """The readout takes the states as they are; this is the scale of SmolLM2's input table."""
        return 0.14

    def states(self, model: Any, embeds: torch.Tensor, attention_mask: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """As `Family.states`."""
        return take(embeds, read)


AutoConfig.register("fpt_none", NoneConfig)
AutoModel.register(NoneConfig, NoneModel)
FAMILIES.register("none")(NoBackbone())

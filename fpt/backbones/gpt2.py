"""GPT-2, the core of the paper: learned positions, LayerNorm with bias. https://huggingface.co/openai-community/gpt2"""

from __future__ import annotations

from types import MappingProxyType

from transformers import GPT2Config

from fpt.backbones import FAMILIES, Family

# layers, width, heads (Radford et al. 2019, table 2)
SHAPES = {
    "gpt2": (12, 768, 12),
    "gpt2-medium": (24, 1024, 16),
    "gpt2-large": (36, 1280, 20),
    "gpt2-xl": (48, 1600, 25),
}


class GPT2(Family):
    """gpt2, gpt2-medium, gpt2-large and gpt2-xl."""

    model_types = ("gpt2",)
    hub_ids = MappingProxyType({name: f"openai-community/{name}" for name in SHAPES})

    def random_config(self, name: str) -> GPT2Config:
        """The published shape of `name`."""
        layers, width, heads = SHAPES[name]
        return GPT2Config(n_layer=layers, n_embd=width, n_head=heads)


FAMILIES.register("gpt2")(GPT2())

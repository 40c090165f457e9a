"""What families share whose blocks are a plain stack: the last block computes only the positions that are read out.

All tokens are needed as keys and values of the last attention; its queries, its output and its MLP are needed where the
readout reads, one token of a sequence as a rule. The rest has no influence on the result and is left out, forward and backward.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from transformers import PreTrainedConfig

from fpt.backbones import Family, take


class Stack(Family):
    """A family with a plain stack of blocks.

    Attributes:
        causal: whether a token sees only those before it. Right padding is then never seen and needs no mask.
        cache: the blocks' name for the argument that holds earlier keys and values.
    """

    causal: bool = True
    cache: str = "past_key_values"

    @abstractmethod
    def start(self, model: Any, embeds: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """The states that go into the first block, and what the blocks are told of positions."""

    @abstractmethod
    def keys_values(self, block: Any, states: torch.Tensor, position_embeddings: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (batch, heads, tokens, head size) of a block's attention."""

    def finish(self, model: Any, states: torch.Tensor) -> torch.Tensor:
        """The last norm, where there is one."""
        return states

    def fits(self, config: PreTrainedConfig, tokens: int) -> bool:
        """Whether `states` knows all that the configuration asks for."""
        window = getattr(config, "sliding_window", None)
        return config._attn_implementation == "sdpa" and (not window or tokens <= window)

    def states(self, model: Any, embeds: torch.Tensor, attention_mask: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """As `Family.states`."""
        tokens = embeds.shape[1]
        if not self.fits(model.config, tokens):
            return super().states(model, embeds, attention_mask, read)
        *early, last = self.blocks(model)
        seen = attention_mask[:, None, None, :].bool()
        states, around = self.start(model, embeds)
        for block in early:
            states = block(states, attention_mask=None if self.causal else seen, **around)
        held = _Held(*self.keys_values(last, states, around.get("position_embeddings")))
        if self.causal:
            seen = torch.arange(tokens, device=read.device) <= read[:, None, :, None]
        if "position_embeddings" in around:
            around = {**around, "position_embeddings": tuple(part[0][read] for part in around["position_embeddings"])}
        states = last(take(states, read), attention_mask=seen, **{self.cache: held}, **around)
        return self.finish(model, states)


class _Held:
    """Keys and values of the whole sequence, in place of a cache of earlier ones."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.held = keys, values

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What a block's attention asks for: the new keys and values are among those that are held."""
        return self.held

"""What families share whose blocks are a plain stack: the last block computes only the positions that are read out.

All tokens are needed as keys and values of the last attention; its queries, its output and its MLP are needed where the
readout reads, one token of a sequence as a rule. The rest has no influence on the result and is left out, forward and backward.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig

from fpt.backbones.base import Family, take
from fpt.backbones.packed import Piece, merged


class Stack(Family):
    """A family with a plain stack of blocks.

    Attributes:
        causal: whether a token sees only those before it. Right padding is then never seen and needs no mask.
        cache: the blocks' name for the argument that holds earlier keys and values.
    """

    causal: bool = True
    cache: str = "past_key_values"

    @abstractmethod
    def start(self, model: Any, embeds: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """The states that go into the first block, and what the blocks are told of positions.

        Args:
            positions: (tokens,) where in its sequence each token is.
        """

    @abstractmethod
    def keys_values(self, block: Any, states: torch.Tensor, position_embeddings: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (batch, heads, tokens, head size) of a block's attention."""

    def finish(self, model: Any, states: torch.Tensor) -> torch.Tensor:
        """The last norm, where there is one."""
        return states

    def fits(self, config: PreTrainedConfig, tokens: int) -> bool:
        """Whether `states`, and so `packed`, know all that the configuration asks for."""
        window = getattr(config, "sliding_window", None)
        return config._attn_implementation == "sdpa" and (not window or tokens <= window)

    def states(self, model: Any, embeds: torch.Tensor, attention_mask: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """As `Family.states`."""
        tokens = embeds.shape[1]
        if not self.fits(model.config, tokens):
            return super().states(model, embeds, attention_mask, read)
        early, late = self._seen(attention_mask, read)
        positions = torch.arange(tokens, device=embeds.device)
        return self._run(model, embeds, positions, read, {"attention_mask": early}, {"attention_mask": late})

    def packed(
        self, model: Any, embeds: Sequence[torch.Tensor], masks: Sequence[torch.Tensor], reads: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Run the backbone on several batches in one row; its attention is that of `fpt.backbones.packed`.

        Args:
            embeds, masks, reads: of each batch, as `states` takes them.

        Returns:
            The states of each batch, as `states` gives them.
        """
        early, late, positions, flat, start = [], [], [], [], 0
        for states, mask, read in zip(embeds, masks, reads, strict=True):
            samples, tokens = states.shape[:2]
            before, last = self._seen(mask, read)
            early.append(Piece(samples, tokens, tokens, before))
            late.append(Piece(samples, tokens, read.shape[1], last))
            positions.append(torch.arange(tokens, device=read.device).repeat(samples))
            first = start + tokens * torch.arange(samples, device=read.device)
            flat.append((first[:, None] + read).flatten())
            start += samples * tokens
        row = torch.cat([states.flatten(0, 1) for states in embeds])[None]
        found = self._run(
            model,
            row,
            torch.cat(positions),
            torch.cat(flat)[None],
            {"attention_mask": None, "pieces": merged(early)},
            {"attention_mask": None, "pieces": merged(late)},
        )
        parts = found[0].split([read.numel() for read in reads])
        return [part.unflatten(0, read.shape) for part, read in zip(parts, reads, strict=True)]

    def _seen(self, attention_mask: torch.Tensor, read: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Masks of all tokens, None for what was before, and of those that are read: (batch, 1, 1 or wanted, tokens)."""
        if not self.causal:
            seen = attention_mask[:, None, None, :].bool()
            return seen, seen
        return None, torch.arange(attention_mask.shape[1], device=read.device) <= read[:, None, :, None]

    def _run(
        self,
        model: Any,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        read: torch.Tensor,
        early: dict[str, Any],
        late: dict[str, Any],
    ) -> torch.Tensor:
        """Run all blocks; `early` is what the last one isn't told, `late` what it is."""
        *blocks, last = self.blocks(model)
        states, around = self.start(model, embeds, positions)
        for block in blocks:
            states = block(states, **early, **around)
        held = _Held(*self.keys_values(last, states, around.get("position_embeddings")))
        if "position_embeddings" in around:
            around = {**around, "position_embeddings": tuple(part[0][read] for part in around["position_embeddings"])}
        states = last(take(states, read), **late, **{self.cache: held}, **around)
        return self.finish(model, states)


class _Held:
    """Keys and values of the whole sequence, in place of a cache of earlier ones."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.held = keys, values

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What a block's attention asks for: the new keys and values are among those that are held."""
        return self.held

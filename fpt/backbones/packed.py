"""Batches of several runs as one row of tokens, without padding between them.

Layers that work token by token see one long row; attention looks at each batch by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# What a backbone's configuration calls this attention.
PACKED = "fpt_packed"


@dataclass(frozen=True)
class Piece:
    """A batch in the row.

    Attributes:
        samples, tokens, queries: it has so many samples, each of so many tokens, of which so many ask.
        mask: (samples, 1, 1 or queries, tokens), true where a token is seen; None for all before the one that asks, or all.
    """

    samples: int
    tokens: int
    queries: int
    mask: torch.Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """What samples of batches must share to be attended to in one."""
        return self.tokens, self.queries


def merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbours of one shape as one piece: fewer operations for the same numbers."""
    out = []
    for (tokens, queries), alike in groupby(pieces, key=lambda piece: piece.shape):
        parts = list(alike)
        masks = [part.mask for part in parts if part.mask is not None]
        out.append(Piece(sum(part.samples for part in parts), tokens, queries, torch.cat(masks) if masks else None))
    return out


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    pieces: Sequence[Piece],
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each piece, as transformers' ``sdpa`` does it.

    Args:
        query: (1, heads, all queries, head size).
        key, value: (1, key heads, all tokens, head size).

    Returns:
        (1, all queries, heads, head size).
    """
    asked = [piece.samples * piece.queries for piece in pieces]
    held = [piece.samples * piece.tokens for piece in pieces]
    out = []
    for piece, *parts in zip(pieces, query.split(asked, 2), key.split(held, 2), value.split(held, 2), strict=True):
        queries, keys, values = (part[0].unflatten(1, (piece.samples, -1)).transpose(0, 1) for part in parts)
        seen, _ = sdpa_attention_forward(module, queries, keys, values, piece.mask, **options)
        out.append(seen.flatten(0, 1))
    return torch.cat(out)[None], None


ALL_ATTENTION_FUNCTIONS.register(PACKED, attend)

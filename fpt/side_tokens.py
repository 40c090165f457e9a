"""Tokens that carry further ids besides their own: a Morgan environment of an atom, the k-mer around a residue.

Each kind of further id (a side) has an embedding table; the sides of a token are concatenated, go through one linear layer and
are added to the token's own embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from fpt.inputs import INPUTS, Tokens

MOST_SIDES, MOST_BUCKETS, WIDEST = 64, 1 << 22, 1 << 14


class SideEmbedding(nn.Module):
    """The sum of a token's embedding and of its sides' embeddings after a linear layer.

    Args:
        tokens: embeds ids (batch, tokens) as states (batch, tokens, hidden).
        dropout: probability that a side of a token is left out in training.
    """

    def __init__(self, tokens: nn.Module, sides: int, buckets: int, width: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.tokens, self.sides, self.buckets = tokens, sides, buckets
        self.table = nn.Embedding(sides * buckets, width)
        self.mix = nn.Linear(sides * width, hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Embed inputs (batch, tokens, 1 + sides) int64: a token's id, then its sides, 0 where it has none."""
        ids, sides = inputs[..., 0], inputs[..., 1:]
        first = torch.arange(self.sides, device=inputs.device) * self.buckets
        there = self.dropout((sides > 0).to(self.table.weight.dtype))
        found = self.table((sides - 1).clamp(min=0) + first) * there.unsqueeze(-1)
        return self.tokens(ids) + self.mix(found.flatten(2))


@dataclass(frozen=True)
class SideTokens(Tokens):
    """Token ids (tokens * (1 + sides),), each followed by its sides: numbers from 1 to `buckets`, 0 for none.

    Args:
        width: of a side's embedding.
        dropout: probability that a side of a token is left out in training.
    """

    sides: int = 1
    buckets: int = 4096
    width: int = 64
    dropout: float = 0.0
    kind: ClassVar[str] = "side_tokens"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in (("sides", MOST_SIDES), ("buckets", MOST_BUCKETS), ("width", WIDEST)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} {getattr(self, name)} is not between 1 and {most:,}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} is not at least 0 and below 1")

    @property
    def columns(self) -> int:
        """Numbers of a token."""
        return 1 + self.sides

    def of_data(self) -> SideTokens:
        plain = SideTokens(self.vocab_size, self.pad_id, self.sides, self.buckets, vector=self.vector)
        return replace(plain, vector=self.vector and self.vector.of_data())

    def module(self, hidden_size: int, widths: tuple[int, ...] = ()) -> SideEmbedding:
        return SideEmbedding(super().module(hidden_size, widths), self.sides, self.buckets, self.width, hidden_size, self.dropout)

    def pad(self, sequences: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = [len(s) // self.columns for s in sequences]
        inputs = np.zeros((len(sequences), max(lengths), self.columns), dtype=np.int64)
        inputs[..., 0] = self.pad_id
        for row, sequence, length in zip(inputs, sequences, lengths, strict=True):
            row[:length] = np.asarray(sequence).reshape(length, self.columns)
        return torch.from_numpy(inputs), (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


INPUTS[SideTokens.kind] = SideTokens

"""What the readout reads of a sequence's states: its last tokens, the mean over its tokens, or a mean weighted by attention."""

from __future__ import annotations

import torch
from torch import nn

from fpt.args import READOUTS
from fpt.errors import FPTError


class Pooling(nn.Module):
    """Which states are computed, and how they become those that the readout takes.

    Args:
        how: one of `READOUTS`. ``last`` lets the last block compute a token or a few of each sequence; the others need
            all tokens.
        reads: last tokens that are read; with ``mean`` and ``attention`` it must be 1.
        width: of the states.

    Raises:
        FPTError: the answer is read at several tokens, and `how` gives one state.
    """

    def __init__(self, how: str, reads: int, width: int) -> None:
        super().__init__()
        if how not in READOUTS:
            raise FPTError(f"unknown readout {how!r:.50}; known: {', '.join(READOUTS)}")
        if how != "last" and reads != 1:
            raise FPTError(
                f"--readout {how} gives one state of a sample; this task reads one at each of {reads} tokens: use last"
            )
        self.how, self.reads = how, reads
        self.score = nn.Linear(width, 1) if how == "attention" else None

    def positions(self, attention_mask: torch.Tensor) -> torch.Tensor:
        """Positions (batch, wanted) of the states that are read, of a mask (batch, tokens)."""
        if self.how != "last":
            return torch.arange(attention_mask.shape[1], device=attention_mask.device).expand(len(attention_mask), -1)
        end = attention_mask.sum(dim=1, keepdim=True)
        return end - torch.arange(self.reads, 0, -1, device=end.device)

    def forward(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """States (batch, reads, hidden) that the readout takes, of those (batch, wanted, hidden) at `positions`."""
        if self.how == "last":
            return states
        real = attention_mask.unsqueeze(-1)
        if self.score is None:
            weights = real / real.sum(dim=1, keepdim=True)
        else:
            weights = self.score(states).float().masked_fill(real == 0, -torch.inf).softmax(dim=1)
        return (states * weights.to(states.dtype)).sum(dim=1, keepdim=True)

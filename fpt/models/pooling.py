"""What the readout reads of a sequence's states: its last tokens, a mean over its tokens, or all of them side by side."""

from __future__ import annotations

import torch
from torch import nn

from fpt.args import READOUTS
from fpt.errors import FPTError


class Pooling(nn.Module):
    """Which states are computed, and how they become those that the readout takes.

    Args:
        how: one of `READOUTS`. ``last`` lets the last block compute a token or a few of each sequence; the others need
            all tokens. ``all`` joins them, so that every sequence must have the same number.
        reads: last tokens that are read; with any other than ``last`` it must be 1.
        width: of the states.
        tokens: of every sequence, None where they may differ.

    Raises:
        FPTError: the answer is read at several tokens, and `how` gives one state; or sequences differ where all are joined.
    """

    def __init__(self, how: str, reads: int, width: int, tokens: int | None = None) -> None:
        super().__init__()
        if how not in READOUTS:
            raise FPTError(f"unknown readout {how!r:.50}; known: {', '.join(READOUTS)}")
        if how != "last" and reads != 1:
            raise FPTError(
                f"--readout {how} gives one state of a sample; this task reads one at each of {reads} tokens: use last"
            )
        if how == "all" and tokens is None:
            raise FPTError("--readout all joins the tokens of a sample, and only those of forecasts are always as many; use mean")
        self.how, self.reads = how, reads
        self.width = width * (tokens or 1) if how == "all" else width
        self.score = nn.Linear(width, 1) if how == "attention" else None

    def positions(self, attention_mask: torch.Tensor) -> torch.Tensor:
        """Positions (batch, wanted) of the states that are read, of a mask (batch, tokens)."""
        if self.how != "last":
            return torch.arange(attention_mask.shape[1], device=attention_mask.device).expand(len(attention_mask), -1)
        end = attention_mask.sum(dim=1, keepdim=True)
        return end - torch.arange(self.reads, 0, -1, device=end.device)

    def forward(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """States (batch, reads, `width`) that the readout takes, of those (batch, wanted, hidden) at `positions`."""
        if self.how == "last":
            return states
        if self.how == "all":
            return states.flatten(1).unsqueeze(1)
        real = attention_mask.unsqueeze(-1)
        if self.score is None:
            weights = real / real.sum(dim=1, keepdim=True)
        else:
            weights = self.score(states).float().masked_fill(real == 0, -torch.inf).softmax(dim=1)
        return (states * weights.to(states.dtype)).sum(dim=1, keepdim=True)

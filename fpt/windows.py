"""Windows of a series: patches of its last values, normalised by the window's own mean and deviation.

Patches as in PatchTST (arXiv 2211.14730, section 3.1) and GPT4TS (arXiv 2302.11939); normalisation and its way back are those of
RevIN (Kim et al., ICLR 2022) without trainable parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from fpt.inputs import INPUTS, Input, PatchEmbedding, Patches

# Added to the variance of a window, as the code of RevIN does.
EPSILON = 1e-5
LONGEST_WINDOW = 1 << 18


@dataclass(frozen=True)
class Windows(Patches):
    """The last `lookback` values of a series, standardised, in patches of `dim` values.

    Args:
        lookback: values of a window.
        stride: values from the start of one patch to that of the next.
        normalise: whether a window is normalised by its own mean and deviation, and the answer put back.
    """

    lookback: int = 336
    stride: int = 16
    normalise: bool = True
    kind: ClassVar[str] = "windows"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.dim <= self.lookback <= LONGEST_WINDOW:
            raise ValueError(f"patches of {self.dim} values do not fit into a look-back of {self.lookback}")
        if not 1 <= self.stride <= self.dim:
            raise ValueError(f"a patch stride of {self.stride} is not between 1 and the {self.dim} values of a patch")

    @property
    def front(self) -> int:
        """Times that the first value is repeated before the window, so that the last patch ends with the last value."""
        return (self.dim - self.lookback) % self.stride

    @property
    def tokens(self) -> int:
        """Patches of a window."""
        return (self.lookback + self.front - self.dim) // self.stride + 1

    def of_data(self) -> Windows:
        return replace(self, positions=0)

    def module(self, hidden_size: int, widths: tuple[int, ...] = ()) -> WindowEmbedding:
        return WindowEmbedding(self, widths, hidden_size)

    def pad(self, sequences: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Windows (lookback,) of values as patches (batch, tokens, dim), and a mask of ones."""
        whole = np.pad(np.stack(sequences).astype(np.float32), ((0, 0), (self.front, 0)), mode="edge")
        patches = np.lib.stride_tricks.sliding_window_view(whole, self.dim, axis=1)[:, :: self.stride]
        return torch.from_numpy(np.array(patches)), torch.ones(patches.shape[:2], dtype=torch.long)

    def values(self, patches: torch.Tensor) -> torch.Tensor:
        """The values (batch, lookback) of windows that `pad` cut into patches (batch, tokens, dim)."""
        joined = torch.cat([patches[:, :, : self.stride].flatten(1), patches[:, -1, self.stride :]], dim=1)
        return joined[:, self.front :]

    def moments(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation (batch, 1) of each window; 0 and 1 where windows are not normalised."""
        values = self.values(patches).float()
        if not self.normalise:
            return torch.zeros_like(values[:, :1]), torch.ones_like(values[:, :1])
        variance, mean = torch.var_mean(values, dim=1, keepdim=True, correction=0)
        return mean, torch.sqrt(variance + EPSILON)

    def restored(self, answers: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Answers (batch, horizon) in units of the window, put back into those of the series, in fp32."""
        mean, std = self.moments(patches)
        return answers.float() * std + mean


class WindowEmbedding(PatchEmbedding):
    """Normalises windows, then embeds their patches."""

    def __init__(self, inputs: Windows, widths: tuple[int, ...], hidden_size: int) -> None:
        super().__init__(inputs.dim, widths, hidden_size, inputs.positions)
        self.windows = inputs

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """States (batch, tokens, hidden) of patches (batch, tokens, dim)."""
        mean, std = self.windows.moments(patches)
        return super().forward((patches - mean.unsqueeze(-1)) / std.unsqueeze(-1))


def window_tokens(inputs: Input) -> int | None:
    """Tokens of every sample, None where samples may differ."""
    return inputs.tokens if isinstance(inputs, Windows) else None


INPUTS[Windows.kind] = Windows

"""DLinear (arXiv 2205.13504, section 4): a window is its moving average and the rest; a linear layer on each, and their sum.

As in the paper's code one pair of layers serves all series, they start at the mean of the window, and windows are not normalised.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from fpt.args import arg
from fpt.errors import FPTError
from fpt.flags import checks
from fpt.flags.checks import check_ranges
from fpt.models.base import MODELS, Network
from fpt.models.forecasters import Forecaster, OwnNorm
from fpt.windows import Windows

MOST_WEIGHTS, LONGEST_AVERAGE = 1 << 28, 1 << 16


@dataclass
class DLinearOptions(OwnNorm):
    """Shape of the network."""

    _argument_group_name = "dlinear"
    moving_average: int = arg(25, "Values of the moving average that is the trend of a window.")

    def __post_init__(self) -> None:
        check_ranges(self, moving_average=checks.COUNT)


class DLinearNetwork(Network):
    """Two linear layers.

    Args:
        average: values of the moving average.
    """

    def __init__(self, inputs: Windows, horizon: int, average: int) -> None:
        super().__init__()
        self.inputs, self.average = inputs, average
        self.trend, self.rest = (nn.Linear(inputs.lookback, horizon) for _ in range(2))
        for layer in (self.trend, self.rest):
            nn.init.constant_(layer.weight, 1 / inputs.lookback)

    def forward(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Standardised values (batch, horizon) of patches (batch, tokens, dim)."""
        values = self.inputs.values(inputs)
        front = (self.average - 1) // 2
        around = F.pad(values.unsqueeze(1), (front, self.average - 1 - front), mode="replicate")
        trend = F.avg_pool1d(around, self.average, stride=1).squeeze(1)
        return (self.trend(trend) + self.rest(values - trend)).float()


class DLinear(Forecaster):
    """DLinear, trained as a whole."""

    name = "dlinear"
    source = "arXiv 2205.13504"
    options = DLinearOptions

    def forecaster(self, windows: Windows, horizon: int, options: DLinearOptions, dropout: float) -> DLinearNetwork:
        """The network for windows and a horizon."""
        if windows.lookback * horizon > MOST_WEIGHTS or options.moving_average > LONGEST_AVERAGE:
            raise FPTError(
                f"--model dlinear: a look-back of {windows.lookback:,}, a horizon of {horizon:,} or a"
                f" --moving_average of {options.moving_average:,} is too large"
            )
        return DLinearNetwork(windows, horizon, options.moving_average)


MODELS.register("dlinear")(DLinear())

"""PatchTST (arXiv 2211.14730): a transformer on patches of each series, trained from scratch, as transformers has it.

The default shape is that of the paper's scripts for ETTh1 (3 layers of width 16; its dropout is 0.3). The model itself normalises
windows by their mean and deviation. Norms are layer norms, the paper's code has batch norms: a score must not depend on
which windows were in a batch, and a checkpoint is what is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fpt.args import arg
from fpt.flags import checks
from fpt.flags.checks import WIDTH, check_heads, check_ranges
from fpt.models.base import MODELS, Network
from fpt.models.forecasters import Forecaster, OwnNorm
from fpt.windows import Windows


@dataclass
class PatchTSTOptions(OwnNorm):
    """Shape of the network."""

    _argument_group_name = "patchtst"
    patchtst_width: int = arg(16, "Width of the states.")
    patchtst_layers: int = arg(3, "Layers.")
    patchtst_heads: int = arg(4, "Attention heads.")
    patchtst_ff: int = arg(128, "Width of the hidden layer of a block.")

    def __post_init__(self) -> None:
        check_ranges(self, patchtst_width=WIDTH, patchtst_layers=checks.Range(1, 1000), patchtst_heads=WIDTH, patchtst_ff=WIDTH)
        check_heads(self.patchtst_width, self.patchtst_heads, "--patchtst_width", "--patchtst_heads")


class PatchTSTNetwork(Network):
    """The model of transformers on windows."""

    def __init__(self, model: Any, inputs: Windows) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Standardised values (batch, horizon) of patches (batch, tokens, dim)."""
        return self.model(past_values=self.inputs.values(inputs).unsqueeze(-1)).prediction_outputs.squeeze(-1).float()


class PatchTST(Forecaster):
    """PatchTST, trained as a whole."""

    name = "patchtst"
    source = "arXiv 2211.14730"
    options = PatchTSTOptions

    def forecaster(self, windows: Windows, horizon: int, options: PatchTSTOptions, dropout: float) -> PatchTSTNetwork:
        """The network for windows and a horizon."""
        # Imported late: not every run needs it.
        from transformers import PatchTSTConfig, PatchTSTForPrediction

        config = PatchTSTConfig(
            num_input_channels=1,
            context_length=windows.lookback,
            prediction_length=horizon,
            patch_length=windows.dim,
            patch_stride=windows.stride,
            d_model=options.patchtst_width,
            num_hidden_layers=options.patchtst_layers,
            num_attention_heads=options.patchtst_heads,
            ffn_dim=options.patchtst_ff,
            ff_dropout=dropout,
            positional_dropout=dropout,
            path_dropout=0.0,
            attention_dropout=0.0,
            head_dropout=0.0,
            norm_type="layernorm",
            # All patches side by side, as the paper; the mean over them, the default, forgets what comes last.
            pooling_type=None,
            scaling="std",
            loss="mse",
        )
        return PatchTSTNetwork(PatchTSTForPrediction(config), windows)


MODELS.register("patchtst")(PatchTST())

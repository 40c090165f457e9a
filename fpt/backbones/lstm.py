"""The paper's recurrent backbone (arXiv 2103.05247, section 3.3): an LSTM with layer norms, 3 layers of width 768.

Norms are on the gates' inputs and on the cell (Ba, Kiros and Hinton, arXiv 1607.06450, appendix). Nobody has trained it:
its weights are drawn from ``--backbone_seed`` like those of a random backbone. Weights on a layer's input count as its
feed-forward part, those on its own last state, the way from token to token, as its attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from fpt.backbones.base import FAMILIES, Family, take


class LstmConfig(PreTrainedConfig):
    """Shape of the LSTM."""

    model_type = "fpt_lstm"
    hidden_size: int = 768
    num_hidden_layers: int = 3


class LstmLayer(nn.Module):
    """One layer of LSTM cells with layer norms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, 4 * width)
        self.recurrent = nn.Linear(width, 4 * width, bias=False)
        self.input_norm, self.recurrent_norm = nn.LayerNorm(4 * width), nn.LayerNorm(4 * width)
        self.cell_norm = nn.LayerNorm(width)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) to the same."""
        ahead = self.input_norm(self.input(states))  # of all tokens at once
        hidden = cell = states.new_zeros(len(states), states.shape[2])
        out = []
        for token in ahead.unbind(dim=1):
            gates = token + self.recurrent_norm(self.recurrent(hidden))
            keep, write, read, new = gates.chunk(4, dim=-1)
            # The bias of 1 lets a fresh cell remember.
            cell = torch.sigmoid(keep + 1) * cell + torch.sigmoid(write) * torch.tanh(new)
            hidden = torch.sigmoid(read) * torch.tanh(self.cell_norm(cell))
            out.append(hidden)
        return torch.stack(out, dim=1)


class LstmModel(PreTrainedModel):
    """A stack of LSTM layers; takes and gives states."""

    config_class = LstmConfig
    base_model_prefix = "lstm"

    def __init__(self, config: LstmConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList([LstmLayer(config.hidden_size) for _ in range(config.num_hidden_layers)])
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight)


class Lstm(Family):
    """The LSTM of the paper."""

    model_types = ("fpt_lstm",)
    model_class = LstmModel
    attention_names = ("recurrent",)
    feed_forward_names = ("input",)
    pretrained = False

    def names(self) -> list[str]:
        """One backbone, drawn from the seed."""
        return ["lstm"]

    def is_here(self, name: str) -> bool:
        """There is nothing to load."""
        return True

    def random_config(self, name: str) -> LstmConfig:
        """The paper's shape."""
        return LstmConfig()

    def take_table(self, model: Any) -> None:
        """It has no table."""

    def input_std(self, model: Any, table: torch.Tensor | None) -> float:
        """Norms come first, so any scale does."""
        return 1.0

    def states(self, model: Any, embeds: torch.Tensor, attention_mask: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """As `Family.states`; what comes after a token is not seen by it, padding included."""
        states = embeds
        for layer in model.layers:
            states = layer(states)
        return take(states, read)


AutoConfig.register("fpt_lstm", LstmConfig)
AutoModel.register(LstmConfig, LstmModel)
FAMILIES.register("lstm")(Lstm())

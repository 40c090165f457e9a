"""The Frozen Pretrained Transformer (arXiv 2103.05247, section 2): new input and readout around a frozen backbone.

Trainable, unless ``--tune`` says otherwise: the input layer, the backbone's norms and learned positions, the readout. Frozen:
attention and MLP blocks.
"""

from __future__ import annotations

import contextlib

import torch
from torch import nn
from transformers import PreTrainedModel

from fpt.backbones.base import DTYPES, Backbone, Family
from fpt.errors import FPTError
from fpt.inputs import Input
from fpt.models.base import Network
from fpt.models.pooling import Pooling
from fpt.models.tuning import Tuning, add_lora, perceptron
from fpt.outputs import Output
from fpt.sample_vectors import VectorToken
from fpt.windows import WindowEmbedding, window_tokens

# Of a readout; an ordinary one of a forecast has some millions.
MOST_WEIGHTS = 1 << 30


class FPT(Network):
    """A new input and readout around a backbone.

    Args:
        backbone: the backbone's module; `tuning` says which of its parameters are trainable, all else is frozen.
        family: runs it.
        inputs: what goes into the backbone: token ids or patches of numbers.
        output: what is asked for, and at how many of the last tokens.
        tuning: what is trained.
        dropout: probability, on the input layer and before the readout.
        core_dtype: precision that the frozen weights are kept in, and computed in when it is not fp32.

    Attributes:
        core_dropout: whether the backbone's own dropout acts in training. Frozen weights have nothing to overfit with, and on a
            CPU the random numbers cost a sixth of a step, so it does not.
    """

    core_dropout = False

    def __init__(
        self,
        backbone: PreTrainedModel,
        family: Family,
        inputs: Input,
        output: Output,
        tuning: Tuning | None = None,
        dropout: float = 0.0,
        core_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        tuning = tuning or Tuning()
        hidden = backbone.config.hidden_size
        self.input = inputs.module(hidden, tuning.input_layers)
        self.vector = VectorToken(inputs.vector, hidden) if inputs.vector else None
        self.core, self.family, self.core_dtype = backbone, family, core_dtype
        self.pooling, self.width = Pooling(tuning.readout, output.tokens, hidden, window_tokens(inputs)), hidden
        if self.pooling.width * output.size > MOST_WEIGHTS:
            raise FPTError(
                f"--readout {tuning.readout} would have {self.pooling.width * output.size:,} weights; a larger"
                " --patch_stride gives fewer tokens"
            )
        self.readout = perceptron(self.pooling.width, tuning.readout_layers, output.size)
        self.dropout = nn.Dropout(dropout)
        for layer in self.readout.modules():
            if isinstance(layer, nn.Linear):
                # Of many tokens side by side less each, so that a forecast starts near the mean of its window.
                nn.init.normal_(layer.weight, std=0.02 * hidden / self.pooling.width)
                nn.init.zeros_(layer.bias)
        parts = family.parts(backbone)
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(parts[name] in tuning.parts)
        if "lora" in tuning.parts:
            add_lora(backbone, tuning)
        for name, parameter in self.input.named_parameters():
            parameter.requires_grad_(("pos" if name == "positions" else "in") in tuning.parts)
        if self.vector is not None:
            self.vector.requires_grad_("in" in tuning.parts)
        for part in (self.readout, self.pooling):
            part.requires_grad_("out" in tuning.parts)

    def forward(self, inputs: torch.Tensor, attention_mask: torch.Tensor, vector: torch.Tensor | None = None) -> torch.Tensor:
        """Read sequences that are padded on the right.

        Args:
            inputs: token ids (batch, tokens) int64, or patches (batch, tokens, dim) float.
            attention_mask: (batch, tokens), 1 for real tokens and 0 for padding.
            vector: (batch, numbers) fp32 of each sample, its first token, which the mask counts; None where samples have none.

        Returns:
            Logits (batch, read tokens * output size) in fp32, read as --readout says.
        """
        with self.precision(attention_mask.device.type):
            states = self.family.states(self.core, self.embed(inputs, vector), attention_mask, self.read(attention_mask))
            return self.logits(states, attention_mask, inputs)

    @property
    def draws(self) -> bool:
        """Whether its input or its readout draws random numbers in training."""
        around = (self.dropout, *self.input.modules(), *(self.vector.modules() if self.vector is not None else ()))
        return any(module.p > 0 for module in around if isinstance(module, nn.Dropout))

    def embed(self, inputs: torch.Tensor, vector: torch.Tensor | None = None) -> torch.Tensor:
        """What goes into the backbone, (batch, tokens, hidden)."""
        states = self.input(inputs)
        if self.vector is not None:
            states = torch.cat([self.vector(vector).to(states.dtype), states], dim=1)
        return self.dropout(states)

    def read(self, attention_mask: torch.Tensor) -> torch.Tensor:
        """Positions (batch, wanted) of the states that are read; see `Pooling`."""
        return self.pooling.positions(attention_mask)

    def logits(self, states: torch.Tensor, attention_mask: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Logits (batch, read tokens * output size) in fp32 of the backbone's states (batch, wanted, hidden) at `read`.

        Those of windows, which the input layer has normalised, are put back by the `inputs` that they came from.
        """
        logits = self.readout(self.dropout(self.pooling(states, attention_mask))).flatten(1).float()
        return self.input.windows.restored(logits, inputs) if isinstance(self.input, WindowEmbedding) else logits

    def train(self, mode: bool = True) -> FPT:
        """Set the mode; see `core_dropout`."""
        super().train(mode)
        self.core.train(mode and self.core_dropout)
        return self

    def precision(self, device: str) -> contextlib.AbstractContextManager:
        """Frozen weights of a lower precision are multiplied in it."""
        if self.core_dtype == torch.float32 or torch.is_autocast_enabled(device):
            return contextlib.nullcontext()
        return torch.autocast(device, self.core_dtype)

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """What the backbone alone can't give back, so a checkpoint holds it: trainable parameters, input layer and readout."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad or not name.startswith("core.")}

    def roles(self) -> dict[str, str]:
        """As `Network.roles`."""
        positions = {f"core.{name}" for name, part in self.family.parts(self.core).items() if part == "pos"} | {"input.positions"}
        inputs = {f"input.{name}": "input" for name, _ in self.input.named_parameters()}
        inputs |= {name: "input" for name, _ in self.named_parameters() if name.startswith("vector.")}
        return {**inputs, **dict.fromkeys(positions, "position")}


def build_model(backbone: Backbone, inputs: Input, output: Output, tuning: Tuning | None = None, dropout: float = 0.0) -> FPT:
    """Return an FPT around `backbone`.

    Raises:
        FPTError: nothing would be trained.
    """
    model = FPT(backbone.model, backbone.family, inputs, output, tuning, dropout, DTYPES[backbone.spec.dtype])
    if not model.trainable_parameters():
        raise FPTError(
            f"backbone {backbone.spec.name!r} ({type(backbone.model).__name__}) has none of the parts that --tune names"
        )
    return model

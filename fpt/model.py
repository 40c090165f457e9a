"""The Frozen Pretrained Transformer (arXiv 2103.05247, section 2): new input and readout around a frozen core.

Tuned: the input embedding, the core's norms and learned positions, the readout. Frozen: attention and MLP blocks.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fpt.backbones import DTYPES, Core
from fpt.errors import FPTError
from fpt.inputs import Input, PatchEmbedding, Patches
from fpt.outputs import Output

# Position embeddings start at this share of the core's scale.
POSITION_SHARE = 0.5


class FPT(nn.Module):
    """A new input and readout around a frozen core.

    Args:
        core: the core's module; its norms and positions are tuned, all else is frozen.
        tuned: names of the core's parameters that are tuned.
        hidden_size: width of the core's states.
        inputs: what goes into the core: token ids or patches of numbers.
        output: what is asked for, and at how many of the last tokens.
        dropout: probability, on the input embedding and before the readout.
    """

    def __init__(
        self, core: PreTrainedModel, tuned: set[str], hidden_size: int, inputs: Input, output: Output, dropout: float
    ) -> None:
        super().__init__()
        self.input = inputs.module(hidden_size)
        self.core = core
        self.readout = nn.Linear(hidden_size, output.size)
        self.read_tokens = output.tokens
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.readout.weight, std=0.02)
        nn.init.zeros_(self.readout.bias)
        for name, parameter in core.named_parameters():
            parameter.requires_grad_(name in tuned)

    def forward(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Read sequences that are padded on the right.

        Args:
            inputs: token ids (batch, tokens) int64, or patches (batch, tokens, dim) float.
            attention_mask: (batch, tokens), 1 for real tokens and 0 for padding.

        Returns:
            Logits (batch, read tokens * output size) in fp32, read at the last real tokens of each sequence.
        """
        states = self.core(
            inputs_embeds=self.dropout(self.input(inputs)), attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        end = attention_mask.sum(dim=1, keepdim=True)
        wanted = end - torch.arange(self.read_tokens, 0, -1, device=end.device)
        read = states[torch.arange(len(states), device=states.device)[:, None], wanted]
        return self.readout(self.dropout(read).to(self.readout.weight.dtype)).flatten(1).float()

    def tuned_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes and a checkpoint holds, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def count(self) -> tuple[int, int]:
        """Number of tuned and of all parameters."""
        return sum(p.numel() for p in self.tuned_parameters().values()), sum(p.numel() for p in self.parameters())


def build_model(core: Core, inputs: Input, output: Output, dropout: float = 0.0) -> FPT:
    """Return an FPT around `core`, the frozen weights kept in the precision of the core's spec.

    Raises:
        FPTError: the core has no norms to tune.
    """
    tuned = {*core.family.norms(core.model), *core.family.positions(core.model)}
    if not tuned:
        raise FPTError(f"backbone {core.spec.name!r} ({type(core.model).__name__}) has no normalisation layers to tune")
    for name, parameter in core.model.named_parameters():
        if name not in tuned:
            parameter.data = parameter.data.to(DTYPES[core.spec.dtype])
    return FPT(core.model, tuned, core.hidden_size, inputs, output, dropout)


def with_positions(inputs: Input, core: Core, how: str, longest: int) -> Input:
    """Patches get tuned position embeddings where the core has no learned positions of its own.

    Rotary positions tell the frozen attention how far apart two tokens are. Where on a picture or in a clip a patch is, only a
    tuned vector can say.

    Args:
        how: "learned", "none", or "auto", which is "learned" for a core without learned positions.
        longest: tokens of the longest sample.

    Raises:
        FPTError: `how` is none of the three, or positions are wanted for text.
    """
    if how not in ("auto", "learned", "none"):
        raise FPTError(f"unknown --input_positions {how!r}; known: auto, learned, none")
    if not isinstance(inputs, Patches):
        if how == "learned":
            raise FPTError("--input_positions learned is for patches of numbers; this task is made of text")
        return inputs
    learned = how == "learned" or (how == "auto" and not core.family.positions(core.model))
    return replace(inputs, positions=longest if learned else 0)


@torch.no_grad()
def init_input(model: FPT, core: Core, tokenizer: PreTrainedTokenizerBase | None, how: str, scale: float) -> str:
    """Start the input layer where the core expects its inputs.

    For tokens, ``core`` gives each one the mean of the core's own embeddings of its text ("C", "[nH]", ...), so that the
    frozen blocks see states they know; ``normal`` draws from a normal distribution with the standard deviation of the
    core's embedding. A random core, or one without a tokenizer, has no embedding of a text: there ``core`` means ``normal``.

    Patches have no text either: their linear layer starts orthogonal (section 2 of the paper), with the gain that gives
    standardised patches states of the core's scale.

    Returns:
        What was done, in words.

    Raises:
        FPTError: `how` is neither of the two.
    """
    if how not in ("core", "normal"):
        raise FPTError(f"unknown --input_init {how!r}; known: core, normal")
    table = core.token_embedding.float()
    std = float(table.std())
    if isinstance(model.input, PatchEmbedding):
        dim, hidden = model.input.in_features, model.input.out_features
        nn.init.orthogonal_(model.input.weight, gain=scale * std * math.sqrt(hidden / min(dim, hidden)))
        nn.init.zeros_(model.input.bias)
        if model.input.positions is not None:
            model.input.positions.normal_(std=POSITION_SHARE * scale * std)
        return f"an orthogonal layer that gives states of std {scale * std:.4f}"
    model.input.weight.normal_(std=std)
    from_core = how == "core" and core.tokenizer is not None and tokenizer is not None
    if from_core:
        for token, index in tokenizer.get_vocab().items():
            model.input.weight[index] = _meaning(token, tokenizer, core.tokenizer, table)
    model.input.weight.mul_(scale)
    start = "the core's embedding of each token's text" if from_core else f"a normal with std {std:.4f}"
    return start if scale == 1 else f"{start}, times {scale:g}"


def _meaning(token: str, tokenizer: PreTrainedTokenizerBase, core: PreTrainedTokenizerBase, table: torch.Tensor) -> torch.Tensor:
    """The core's embedding (hidden,) of a token: special tokens by their role, others by their text."""
    if token in tokenizer.all_special_tokens:
        roles = {tokenizer.bos_token: core.bos_token_id, tokenizer.eos_token: core.eos_token_id}
        index = roles.get(token)
        return table.mean(dim=0) if index is None else table[index]
    text = tokenizer.convert_tokens_to_string([token])
    ids = core(text, add_special_tokens=False)["input_ids"]
    return table[ids].mean(dim=0) if ids else table.mean(dim=0)

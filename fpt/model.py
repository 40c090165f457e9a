"""The Frozen Pretrained Transformer (arXiv 2103.05247, section 2): new input and readout around a frozen core.

Tuned: the input embedding, the core's norms and learned positions, the readout. Frozen: attention and MLP blocks.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fpt.backbones import DTYPES, Core
from fpt.errors import FPTError


class FPT(nn.Module):
    """A sequence classifier around a frozen core.

    Args:
        core: the core's module; its norms and positions are tuned, all else is frozen.
        tuned: names of the core's parameters that are tuned.
        hidden_size: width of the core's states.
        vocab_size: tokens that the input embedding knows.
        num_labels: classes.
        dropout: probability, on the input embedding and before the readout.
    """

    def __init__(
        self, core: PreTrainedModel, tuned: set[str], hidden_size: int, vocab_size: int, num_labels: int, dropout: float
    ) -> None:
        super().__init__()
        self.input = nn.Embedding(vocab_size, hidden_size)
        self.core = core
        self.readout = nn.Linear(hidden_size, num_labels)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.readout.weight, std=0.02)
        nn.init.zeros_(self.readout.bias)
        for name, parameter in core.named_parameters():
            parameter.requires_grad_(name in tuned)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Classify sequences that are padded on the right.

        Args:
            input_ids: (batch, tokens) int64.
            attention_mask: (batch, tokens), 1 for real tokens and 0 for padding.

        Returns:
            Logits (batch, num_labels) in fp32, read at the last real token of each sequence.
        """
        states = self.core(
            inputs_embeds=self.dropout(self.input(input_ids)), attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        last = attention_mask.sum(dim=1) - 1
        read = states[torch.arange(len(states), device=states.device), last]
        return self.readout(self.dropout(read).to(self.readout.weight.dtype)).float()

    def tuned_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes and a checkpoint holds, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def count(self) -> tuple[int, int]:
        """Number of tuned and of all parameters."""
        return sum(p.numel() for p in self.tuned_parameters().values()), sum(p.numel() for p in self.parameters())


def build_model(core: Core, vocab_size: int, num_labels: int, dropout: float = 0.0) -> FPT:
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
    return FPT(core.model, tuned, core.hidden_size, vocab_size, num_labels, dropout)


@torch.no_grad()
def init_input(model: FPT, core: Core, tokenizer: PreTrainedTokenizerBase, how: str, scale: float) -> str:
    """Start the input embedding where the core expects its inputs.

    ``core`` gives each token the mean of the core's own embeddings of its text ("C", "[nH]", ...), so that the frozen
    blocks see states they know; ``normal`` draws from a normal distribution with the standard deviation of the core's
    embedding. A random core, or one without a tokenizer, has no embedding of a text: there ``core`` means ``normal``.

    Returns:
        What was done, in words.

    Raises:
        FPTError: `how` is neither of the two.
    """
    if how not in ("core", "normal"):
        raise FPTError(f"unknown --input_init {how!r}; known: core, normal")
    table = core.token_embedding.float()
    model.input.weight.normal_(std=float(table.std()))
    from_core = how == "core" and core.tokenizer is not None
    if from_core:
        for token, index in tokenizer.get_vocab().items():
            model.input.weight[index] = _meaning(token, tokenizer, core.tokenizer, table)
    model.input.weight.mul_(scale)
    start = "the core's embedding of each token's text" if from_core else f"a normal with std {float(table.std()):.4f}"
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

"""How the new input layer starts: where the backbone expects its inputs (arXiv 2103.05247, section 2)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from fpt.backbones.base import Backbone
from fpt.data.open_tokenizer import native
from fpt.errors import FPTError
from fpt.inputs import Input, PatchEmbedding, Patches
from fpt.models.fpt import FPT
from fpt.side_tokens import SideEmbedding, SideTokens

# Position embeddings start at this share of the backbone's scale.
POSITION_SHARE = 0.5


# Patches start larger than the backbone's own inputs, so that what its blocks add does not drown them (docs/tuning.md).
PATCH_SCALE = 4.0


def with_sides(inputs: Input, width: int, dropout: float) -> Input:
    """The inputs with the model's own settings of what tokens and samples carry."""
    if inputs.vector is not None:
        inputs = replace(inputs, vector=replace(inputs.vector, dropout=dropout))  # type: ignore[type-var]
    return replace(inputs, width=width, dropout=dropout) if isinstance(inputs, SideTokens) else inputs


def with_positions(inputs: Input, backbone: Backbone, how: str, longest: int) -> Input:
    """Patches get trainable position embeddings where the backbone has no learned positions of its own.

    Rotary positions tell the frozen attention how far apart two tokens are. Where on a picture or in a clip a patch is, only a
    trainable vector can say.

    Args:
        how: "learned", "none", or "auto", which is "learned" for a backbone without learned positions.
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
    learned = how == "learned" or (how == "auto" and "pos" not in backbone.family.parts(backbone.model).values())
    return replace(inputs, positions=longest if learned else 0)


@torch.no_grad()
def init_input(
    model: FPT,
    backbone: Backbone,
    tokenizer: PreTrainedTokenizerBase | None,
    how: str = "core",
    scale: float | None = None,
    gain: float | None = None,
) -> str:
    """Start the input layer where the backbone expects its inputs.

    For tokens, ``core`` gives each one the mean of the backbone's own embeddings of its text ("C", "[nH]", ...), so that the
    frozen blocks see states they know; ``normal`` draws from a normal distribution with the standard deviation of the
    backbone's embedding. A random backbone, or one without a tokenizer, has no embedding of a text: there ``core`` means
    ``normal``.

    Patches have no text either: their linear layers start orthogonal (section 2 of the paper), the last one with the gain that
    gives standardised patches states of the backbone's scale times `PATCH_SCALE`, or all with the `gain` that is given (the
    paper's code has 1.41).

    Returns:
        What was done, in words.

    Raises:
        FPTError: `how` is neither of the two.
    """
    if how not in ("core", "normal"):
        raise FPTError(f"unknown --input_init {how!r}; known: core, normal")
    std = backbone.input_std
    if model.vector is not None:
        model.vector.layer.weight.normal_(std=std / model.vector.length)
        model.vector.layer.bias.zero_()
    if isinstance(model.input, SideEmbedding):
        std = _init_sides(model.input, std, 1.0 if scale is None else scale)
        if isinstance(model.input.tokens, nn.Embedding):
            start = _init_table(model.input.tokens, backbone, tokenizer, how, 1.0 if scale is None else scale)
            return f"{start}; sides start at a normal with std {std:.4f}"
    if isinstance(model.input, nn.Embedding):
        return _init_table(model.input, backbone, tokenizer, how, 1.0 if scale is None else scale)
    if scale is None:
        scale = PATCH_SCALE if isinstance(model.input, PatchEmbedding) else 1.0
    around = model.input.tokens if isinstance(model.input, SideEmbedding) else model.input
    linear = [layer for layer in around.modules() if isinstance(layer, nn.Linear)]
    for layer in linear:
        dim, hidden = layer.in_features, layer.out_features
        # An orthogonal matrix keeps lengths, so the numbers shrink where there are more of them. ReLU halves squares.
        keep = math.sqrt(hidden / min(dim, hidden)) * (1.0 if layer is linear[0] else math.sqrt(2.0))
        own = keep * scale * std if layer is linear[-1] else keep
        nn.init.orthogonal_(layer.weight, gain=own if gain is None else gain)
        nn.init.zeros_(layer.bias)
    if isinstance(model.input, PatchEmbedding) and model.input.positions is not None:
        model.input.positions.normal_(std=POSITION_SHARE * scale * std)
    if gain is not None:
        return f"orthogonal layers of gain {gain:g}"
    return f"orthogonal layers that give states of std {scale * std:.4f}"


def _init_sides(embedding: SideEmbedding, std: float, scale: float) -> float:
    """Let the sum of a token's sides start at the scale of the backbone's own inputs; returns its standard deviation."""
    embedding.table.weight.normal_(std=1.0)
    embedding.mix.weight.normal_(std=std * scale / math.sqrt(embedding.mix.in_features))
    embedding.mix.bias.zero_()
    return std * scale


def _init_table(
    embedding: nn.Embedding, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None, how: str, scale: float
) -> str:
    embedding.weight.normal_(std=backbone.input_std)
    table = backbone.token_embedding
    from_backbone = how == "core"
    if not from_backbone or backbone.tokenizer is None or tokenizer is None or table is None:
        from_backbone = False
    else:
        table = table.float()
        try:
            with native():
                for token, index in tokenizer.get_vocab().items():
                    embedding.weight[index] = _meaning(token, tokenizer, backbone.tokenizer, table)
        except ValueError as error:
            raise FPTError(
                f"the tokenizer of backbone {backbone.spec.name!r} fails on the text of a token ({error}); give"
                " --input_init normal"
            ) from error
    embedding.weight.mul_(scale)
    start = "the backbone's embedding of each token's text" if from_backbone else f"a normal with std {backbone.input_std:.4f}"
    return start if scale == 1 else f"{start}, times {scale:g}"


def _meaning(
    token: str, tokenizer: PreTrainedTokenizerBase, backbone: PreTrainedTokenizerBase, table: torch.Tensor
) -> torch.Tensor:
    """The backbone's embedding (hidden,) of a token: special tokens by their role, others by their text."""
    if token in tokenizer.all_special_tokens:
        roles = {tokenizer.bos_token: backbone.bos_token_id, tokenizer.eos_token: backbone.eos_token_id}
        index = roles.get(token)
        return table.mean(dim=0) if index is None else table[index]
    text = tokenizer.convert_tokens_to_string([token])
    # A token of bytes that are part of a character decodes to the replacement character: it has no text.
    ids = [] if "\ufffd" in text else backbone(text, add_special_tokens=False)["input_ids"]
    return table[ids].mean(dim=0) if ids else table.mean(dim=0)

"""Audio Spectrogram Transformer (arXiv 2104.01778) of transformers, on the log-mel spectrogram of any task on sound.

From scratch in the shape that is asked for (DeiT tiny by default: a few thousand clips are little), or from a checkpoint
(``--ast_checkpoint MIT/ast-finetuned-audioset-10-10-0.4593 --num_mels 128``), whose readout is new. Its own features are Kaldi's
filter banks; ours are log-mel frames, standardised by band, so a checkpoint adapts to these first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NotRequired

import torch
from torch.nn import functional as F
from typing_extensions import TypedDict

from fpt.args import arg
from fpt.data.prepared import Prepared
from fpt.errors import FPTError
from fpt.flags.checks import WIDTH, Range, check_heads, check_ranges
from fpt.inputs import Input
from fpt.models.base import MODELS, Network, NetworkModel
from fpt.options import options_of
from fpt.outputs import Output
from fpt.tasks.audio import AudioOptions, AudioTask
from fpt.untrusted.bounded_json import short
from fpt.untrusted.pretrained import config_from_dict, fetch, open_model, read_config

SHAPE = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "hidden_dropout_prob"),
    *("attention_probs_dropout_prob", "layer_norm_eps", "qkv_bias", "max_length", "num_mel_bins", "patch_size"),
    *("frequency_stride", "time_stride"),
)


@dataclass
class AstOptions:
    """Shape of the network."""

    _argument_group_name = "ast"
    ast_checkpoint: str | None = arg(None, "Hub id or folder of a trained AST to start from; from scratch when not given.")
    ast_width: int = arg(192, "Width of the states, from scratch.")
    ast_layers: int = arg(12, "Blocks, from scratch.")
    ast_heads: int = arg(3, "Attention heads, from scratch.")

    def __post_init__(self) -> None:
        check_ranges(self, ast_width=WIDTH, ast_layers=Range(1, 1_000), ast_heads=Range(1, 1_000))
        check_heads(self.ast_width, self.ast_heads, "ast_width", "ast_heads")

    def unread(self, given: Collection[str]) -> dict[str, str]:
        """Why flags have no meaning beside the others."""
        if not self.ast_checkpoint:
            return {}
        names = ("ast_width", "ast_layers", "ast_heads")
        return {name: "--ast_checkpoint has its own shape" for name in names if name in given}


class AstShape(TypedDict):
    """Frames of a clip and bands of a frame; of a checkpoint, its whole configuration."""

    frames: int
    bands: int
    config: NotRequired[dict[str, Any]]


class AstNetwork(Network):
    """AST on tokens of whole frames."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.frames, self.bands = model.config.max_length, model.config.num_mel_bins

    def described(self) -> dict[str, Any]:
        """The whole configuration: a trained AST has its own shape."""
        config = self.model.config.to_dict()
        return {"config": {k: config[k] for k in SHAPE}}

    def forward(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (batch, size) of tokens (batch, tokens, frames * bands)."""
        frames = inputs.flatten(1).unflatten(1, (-1, self.bands))
        frames = F.pad(frames[:, : self.frames], (0, 0, 0, max(0, self.frames - frames.shape[1])))
        return self.model(frames).logits.float()


class Ast(NetworkModel):
    """AST, trained as a whole."""

    name = "ast"
    source = "arXiv 2104.01778"
    options = AstOptions
    sources = ("ast_checkpoint",)
    shape_type = AstShape

    def shape(self, prepared: Prepared) -> dict[str, Any]:
        """Frames of a clip and bands of a frame; of a checkpoint, its whole configuration."""
        task = prepared.task
        own = options_of(prepared.args, AudioOptions) if isinstance(task, AudioTask) else None
        if own is None or own.features != "mel":
            raise FPTError(f"--model ast reads log-mel spectrograms; {task.name} has none (of sound: --features mel)")
        tokens = int(prepared.samples("train").lengths.max())
        return {"frames": tokens * own.frames_per_token, "bands": own.num_mels}

    def network(self, inputs: Input, output: Output, options: AstOptions, shape: Mapping[str, Any], dropout: float) -> AstNetwork:
        """The network for a task."""
        # Imported late: not every run needs it.
        from transformers import ASTConfig, ASTForAudioClassification

        made: Any = ASTConfig
        if "config" in shape:  # of a checkpoint of ours
            if missing := [name for name in SHAPE if name not in shape["config"]]:
                raise FPTError(f"network.shape.config.{missing[0]} is missing")
            known: Any = config_from_dict({**{k: shape["config"][k] for k in SHAPE}, "model_type": ASTConfig.model_type})
            known.num_labels = output.size
            return AstNetwork(ASTForAudioClassification(known))
        config = made(
            hidden_size=options.ast_width,
            num_hidden_layers=options.ast_layers,
            num_attention_heads=options.ast_heads,
            intermediate_size=4 * options.ast_width,
            hidden_dropout_prob=dropout,
            max_length=shape["frames"],
            num_mel_bins=shape["bands"],
            num_labels=output.size,
        )
        checkpoint = options.ast_checkpoint
        network = AstNetwork(_trained(checkpoint, output.size) if checkpoint else ASTForAudioClassification(config))
        if network.bands != shape["bands"]:
            raise FPTError(f"--ast_checkpoint reads {network.bands} bands, not {shape['bands']}; give --num_mels {network.bands}")
        return network


def _trained(where: str, labels: int) -> Any:
    """A trained AST of a folder or the Hub, with a new readout of so many labels.

    Raises:
        FPTError: it is not there, or no AST.
    """
    from transformers import ASTConfig, ASTForAudioClassification

    try:
        found = fetch(where)
        config = read_config(found)
        if not isinstance(config, ASTConfig):
            raise ValueError(f"a model of the type {config.model_type}, not an AST")
        config.num_labels = labels
        return open_model(found, ASTForAudioClassification, config, new="classifier.")
    except (OSError, ValueError) as error:
        raise FPTError(f"--ast_checkpoint {where}: {short(error)}") from error


MODELS.register("ast")(Ast())

"""Write a checkpoint."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from fpt.checkpoint.card import model_card
from fpt.checkpoint.config import CARD, CONFIG, TOKENIZER, WEIGHTS
from fpt.files.whole import new_folder, sha256_file, write_json, write_text
from fpt.models.base import Network
from fpt.models.fpt import FPT
from fpt.version import __version__


def save_checkpoint(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    config: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase | None,
    full_of: Network | None = None,
) -> None:
    """Write a checkpoint in one step; an earlier one in `folder` stays until the new one is whole.

    Args:
        tensors: the trainable tensors by name.
        config: task, input, output, backbone and whatever else describes the run.
        tokenizer: of tasks on text.
        full_of: write this model's frozen tensors as well, so that it loads without its backbone.
    """
    if isinstance(full_of, FPT):
        tensors = {**full_of.state_dict(), **tensors}
        config = {**config, "core_config": _plain_config(full_of)}
    with new_folder(folder) as new:
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, new / WEIGHTS, metadata={"format": "pt"})
        if tokenizer is not None:
            tokenizer.save_pretrained(new)
        config = {
            "fpt_version": __version__,
            **config,
            "full": isinstance(full_of, FPT),
            "model_sha256": sha256_file(new / WEIGHTS),
            "tokenizer_sha256": sha256_file(new / TOKENIZER) if tokenizer is not None else None,
        }
        write_json(new / CONFIG, config)
        write_text(new / CARD, model_card(config))


def add_test_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write the scores of the test split into the configuration and the model card, both in one step."""
    config = {**json.loads((folder / CONFIG).read_text(encoding="utf-8")), "test_metrics": metrics}
    with new_folder(folder) as new:
        shutil.copytree(folder, new, symlinks=True, copy_function=_link_or_copy, dirs_exist_ok=True)
        write_json(new / CONFIG, config)
        write_text(new / CARD, model_card(config))


def _link_or_copy(source: str, target: str) -> None:
    """The same content under another name; nothing is ever written into a file that is there."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _plain_config(model: FPT) -> dict[str, Any]:
    """The backbone's architecture as JSON values, without where it came from."""
    config = model.core.config.to_dict()
    for key in ("_name_or_path", "quantization_config", "transformers_version"):
        config.pop(key, None)
    return json.loads(json.dumps(config, default=str))

"""Write a checkpoint."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from fpt.checkpoint.card import model_card
from fpt.checkpoint.config import CARD, CONFIG, TOKENIZER, WEIGHTS, CheckpointConfig, ModelRecord, parse_config
from fpt.files.whole import new_folder, sha256_file, write_json, write_text
from fpt.metrics import Scores
from fpt.models.base import Network
from fpt.models.fpt import FPT
from fpt.results import Calibration
from fpt.untrusted.typed import read_json
from fpt.version import __version__


@dataclass(frozen=True)
class Scored:
    """A model of a run: the step that it is of, its scores on the validation split, and how its probabilities are calibrated."""

    step: int
    metrics: Scores
    calibration: Calibration | None = None


def save_checkpoint(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    record: ModelRecord,
    scored: Scored,
    tokenizer: PreTrainedTokenizerBase | None,
    full_of: Network | None = None,
) -> None:
    """Write a checkpoint in one step; an earlier one in `folder` stays until the new one is whole.

    Args:
        tensors: the trainable tensors by name.
        record: of the run.
        scored: the step of the tensors, and their scores.
        tokenizer: of tasks on text.
        full_of: write this model's frozen tensors as well, so that it loads without its backbone.
    """
    if isinstance(full_of, FPT):
        tensors = {**full_of.state_dict(), **tensors}
    with new_folder(folder) as new:
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, new / WEIGHTS, metadata={"format": "pt"})
        if tokenizer is not None:
            tokenizer.save_pretrained(new)
        config = CheckpointConfig(
            **{one.name: getattr(record, one.name) for one in fields(ModelRecord)},
            fpt_version=__version__,
            step=scored.step,
            valid_metrics=scored.metrics,
            calibration=scored.calibration,
            core_config=_plain_config(full_of) if isinstance(full_of, FPT) else None,
            full=isinstance(full_of, FPT),
            model_sha256=sha256_file(new / WEIGHTS),
            tokenizer_sha256=sha256_file(new / TOKENIZER) if tokenizer is not None else None,
        )
        _describe(new, config)


def add_test_metrics(folder: Path, metrics: Scores) -> None:
    """Write the scores of the test split into the configuration and the model card, both in one step.

    Raises:
        FPTError: the configuration there can't be read.
    """
    _change(folder, test_metrics=metrics)


def add_calibration(folder: Path, calibration: Calibration, metrics: Scores) -> None:
    """Write a calibration, and the scores of the validation split with it, as `add_test_metrics` does.

    Raises:
        FPTError: the configuration there can't be read.
    """
    _change(folder, calibration=calibration, valid_metrics=metrics)


def _change(folder: Path, **values: Any) -> None:
    """Give the configuration of a checkpoint other values, and write the model card anew."""
    config = replace(parse_config(read_json(folder / CONFIG), str(folder / CONFIG)), **values)
    with new_folder(folder) as new:
        shutil.copytree(folder, new, symlinks=True, copy_function=_link_or_copy, dirs_exist_ok=True)
        _describe(new, config)


def _describe(folder: Path, config: CheckpointConfig) -> None:
    write_json(folder / CONFIG, config.to_dict())
    write_text(folder / CARD, model_card(config))


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

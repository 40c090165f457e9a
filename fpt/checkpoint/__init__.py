"""Frozen-core checkpoints: the trainable tensors in safetensors, with everything needed to find the frozen ones again.

A checkpoint is a folder::

    model.safetensors   trainable tensors, input layer and readout, fp32, by their names in `FPT`
    config.json         task, labels, input, backbone (name, revision, seed, sha256 of its weights), what is trained, how, hashes
    tokenizer.json, tokenizer_config.json
    README.md           model card

Nothing in it is pickled.
"""

from fpt.checkpoint.config import CARD, CONFIG, TOKENIZER, WEIGHTS, CheckpointConfig, ModelRecord, read_config
from fpt.checkpoint.load import find_checkpoint, load_checkpoint, load_checkpoints, load_trainable, trained_backbone
from fpt.checkpoint.save import Scored, add_calibration, add_test_metrics, save_checkpoint

__all__ = [
    "CARD",
    "CONFIG",
    "TOKENIZER",
    "WEIGHTS",
    "CheckpointConfig",
    "ModelRecord",
    "Scored",
    "add_calibration",
    "add_test_metrics",
    "find_checkpoint",
    "load_checkpoint",
    "load_checkpoints",
    "load_trainable",
    "read_config",
    "save_checkpoint",
    "trained_backbone",
]

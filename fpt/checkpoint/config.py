"""What ``config.json`` of a checkpoint says, and whether it may be believed."""

from __future__ import annotations

import json
from pathlib import Path
from types import NoneType
from typing import Any

from fpt.errors import FPTError
from fpt.files import sha256_file

WEIGHTS, CONFIG, CARD, TOKENIZER = "model.safetensors", "config.json", "README.md", "tokenizer.json"
MISSING = object()
# What a configuration must have, and of which type.
REQUIRED: dict[str, Any] = {
    **{"task": str, "input": dict, "output": dict, "core": dict, "core.name": str, "core.dtype": str, "full": bool},
    **{"model_sha256": str, "tokenizer_sha256": (str, NoneType), "eval_batch_size": int, "training": dict, "training.seed": int},
    **{"data": dict, "data.arguments": dict, "data.request": dict, "data.request.split_seed": int, "data.data_sha256": str},
}
# What it may have.
OPTIONAL: dict[str, Any] = {"tuning": dict, "network": dict, "model": str, "mixed_precision": str, "core_config": dict}


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json``, and check the hashes that it gives of the other files.

    Raises:
        FPTError: a file is missing, truncated or changed.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FPTError(f"{folder / CONFIG} can't be read: {error}; copy the checkpoint again") from None
    missing = [name for name in REQUIRED if _entry(config, name) is MISSING]
    if missing:
        raise FPTError(f"{folder / CONFIG} lacks {', '.join(missing)}; it was not written by train.py")
    for name, kind in {**REQUIRED, **OPTIONAL}.items():
        value = _entry(config, name)
        if value is not MISSING and (not isinstance(value, kind) or (kind is int and not 0 <= value < 2**63)):
            raise FPTError(f"{folder / CONFIG}: {name} is {str(value)[:50]!r}, which makes no sense; copy the checkpoint again")
    for name, key in ((WEIGHTS, "model_sha256"), (TOKENIZER, "tokenizer_sha256")):
        if config[key] is None and name == TOKENIZER:
            continue  # a task on numbers has none
        if not (folder / name).is_file():
            raise FPTError(f"{folder} has no {name}; copy the checkpoint again")
        if sha256_file(folder / name) != config[key]:
            raise FPTError(f"{folder / name} is truncated or was changed: its sha256 is not the one in {CONFIG}")
    return config


def _entry(config: Any, name: str) -> Any:
    """The value at ``a.b.c``, or MISSING."""
    for part in name.split("."):
        if not isinstance(config, dict) or part not in config:
            return MISSING
        config = config[part]
    return config

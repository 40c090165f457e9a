"""The models that predict together: one checkpoint, or several of the same data, which share a backbone in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from fpt.calibration import temperature_of
from fpt.checkpoint import CheckpointConfig, find_checkpoint, load_checkpoints
from fpt.errors import FPTError
from fpt.models.base import Network
from fpt.text.log import Log

# What must be the same for predictions to be of the same thing: of a checkpoint's configuration, and in words.
ALIKE = {
    "task": "the task",
    "output": "the labels",
    "tokenizer_sha256": "the tokenizer",
    "mixed_precision": "the precision",
}


@dataclass(frozen=True)
class Members:
    """Models and the first one's tokenizer; `configs` and `folders` are of each."""

    models: list[Network]
    tokenizer: PreTrainedTokenizerBase | None
    configs: list[CheckpointConfig]
    folders: list[Path]

    @property
    def config(self) -> CheckpointConfig:
        """The configuration of the first one; those of the others say the same of the data."""
        return self.configs[0]

    @property
    def temperatures(self) -> list[float | None]:
        """Of each, None of one that is not calibrated."""
        return [temperature_of(config.calibration) for config in self.configs]

    @property
    def calibrated(self) -> str:
        """How they are calibrated, in words that follow a comma; empty where none is."""
        if not any(self.temperatures):
            return ""
        shown = ", ".join("none" if value is None else f"{value:.4g}" for value in self.temperatures)
        return f", calibrated by {'the temperature' if len(self.configs) == 1 else 'the temperatures'} {shown}"


def find_members(checkpoints: Sequence[str], log: Log) -> list[Path]:
    """The folder of each checkpoint.

    Raises:
        FPTError: there is none, one is not there, or one is named twice.
    """
    if not checkpoints:
        raise FPTError("no checkpoint was given; give one or several")
    folders = [find_checkpoint(checkpoint, log) for checkpoint in checkpoints]
    for number, folder in enumerate(folders):
        if any(folder.samefile(other) for other in folders[:number]):
            raise FPTError(f"--checkpoint names {folder} twice; a model counts once")
    return folders


def load_members(folders: Sequence[Path], log: Log, backbone: str | None = None) -> Members:
    """Load the models.

    Raises:
        FPTError: as `load_checkpoint`, or they were not trained on the same data.
    """
    models, tokenizer, configs = load_checkpoints(folders, log, backbone)
    check_alike(configs, folders)
    return Members(models, tokenizer, configs, list(folders))


def check_alike(configs: Sequence[CheckpointConfig], folders: Sequence[Path]) -> None:
    """Refuse models whose predictions can't be averaged, or were trained on rows that others are scored on.

    Raises:
        FPTError: they were trained on other data, another split, or other features of it.
    """
    first = configs[0]
    for config, folder in zip(configs[1:], folders[1:], strict=True):
        of_data: dict[str, tuple[object, object]] = {}
        of_data |= {"the data": (first.data.data_sha256, config.data.data_sha256)}
        of_data |= {"the split": (first.data.split_seed, config.data.split_seed)}
        of_data |= {"the inputs": (first.input.of_data(), config.input.of_data())}
        of_data |= {words: (getattr(first, name), getattr(config, name)) for name, words in ALIKE.items()}
        if other := [words for words, (a, b) in of_data.items() if a != b]:
            raise FPTError(f"{folders[0]} and {folder} can't predict together: {', '.join(other)} differ")

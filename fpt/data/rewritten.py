"""Texts that can be written in several ways (SMILES), written anew each time they are read; nothing of that is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments
from fpt.data.samples import ArrowSamples
from fpt.errors import FPTError
from fpt.inputs import Input
from fpt.tasks.sides import encode_tokens
from fpt.tasks.text import Smiles, Text


class Rewritten(ArrowSamples):
    """An Arrow split of molecules, each as a random SMILES that its place, `seed` and the epoch decide.

    Where a SMILES can't be tokenized, the sample stays as it is stored. `lengths` are those of the stored samples.

    Raises:
        FPTError: the task has no SMILES.
    """

    def __init__(
        self, rows: Dataset, inputs: Input, seed: int, task: Any, args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
    ) -> None:
        self.modality = smiles_of(task)
        super().__init__(rows, inputs, seed)
        assert tokenizer is not None
        self.texts, self.args, self.tokenizer = rows["text"], args, tokenizer

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        samples = super().__getitems__(indices)
        seeds = [int(np.random.default_rng([self.seed, self.epoch, index]).integers(2**31)) for index in indices]
        written = [write(self.modality, self.texts[i], 1, seed)[0] for i, seed in zip(indices, seeds, strict=True)]
        encoded = encode_tokens(written, self.tokenizer, self.args)
        for sample, tokens, reason in zip(samples, encoded.inputs, encoded.reasons, strict=True):
            if not reason:
                sample[self.column] = np.asarray(tokens)
        return samples


def smiles_of(task: Any) -> Text:
    """What writes the molecules of a task.

    Raises:
        FPTError: it has none.
    """
    modality = getattr(task, "modality", None)
    if not isinstance(modality, Smiles):
        raise FPTError(f"only SMILES can be written in several ways; {task.name} has none")
    return modality


def write(modality: Text, text: str, count: int, seed: int) -> Sequence[str]:
    """Return `count` ways to write a text; the text itself where it has no others."""
    return modality.variants(text, count, seed) or [text] * count

"""What goes into the backbone: token ids through an embedding, or patches of numbers through a linear layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from fpt.models.tuning import perceptron
from fpt.sample_vectors import SampleVector


class Input(ABC):
    """Sequences of one kind. `column` is where a sample has them; `vector` is what a sample carries as its first token."""

    kind: ClassVar[str]
    column: ClassVar[str]
    dim: int = 0
    vector: SampleVector | None = None

    @abstractmethod
    def module(self, hidden_size: int, widths: tuple[int, ...] = ()) -> nn.Module:
        """The trainable layer, behind hidden layers of `widths`, that makes (batch, tokens, hidden) of a batch from `pad`."""

    @abstractmethod
    def pad(self, sequences: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Make a batch, padded on the right to the longest sequence.

        Returns:
            The inputs of `module`, and a mask (batch, tokens) int64 with 1 for real tokens and 0 for padding.
        """

    def of_data(self) -> Input:
        """The input as the data decides it, without what a model adds to it."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """JSON values that `input_from_dict` reads."""
        values = {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]
        return {name: value for name, value in values.items() if value is not None or name != "vector"}


@dataclass(frozen=True)
class Tokens(Input):
    """Token ids (tokens,), looked up in an embedding."""

    vocab_size: int
    pad_id: int
    vector: SampleVector | None = field(default=None, kw_only=True)
    kind: ClassVar[str] = "tokens"
    column: ClassVar[str] = "input_ids"

    def __post_init__(self) -> None:
        if not 0 <= self.pad_id < self.vocab_size:
            raise ValueError(f"pad_id {self.pad_id} is not one of the {self.vocab_size} tokens")

    def of_data(self) -> Tokens:
        return replace(self, vector=self.vector and self.vector.of_data())

    def module(self, hidden_size: int, widths: tuple[int, ...] = ()) -> nn.Module:
        if not widths:
            return nn.Embedding(self.vocab_size, hidden_size)
        return nn.Sequential(nn.Embedding(self.vocab_size, widths[0]), perceptron(widths[0], widths[1:], hidden_size))

    def pad(self, sequences: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = [len(s) for s in sequences]
        inputs = np.full((len(sequences), max(lengths)), self.pad_id, dtype=np.int64)
        for row, sequence in zip(inputs, sequences, strict=True):
            row[: len(sequence)] = sequence
        return torch.from_numpy(inputs), _mask(lengths)


class PatchEmbedding(nn.Module):
    """A linear layer or several on patches (batch, tokens, dim), plus a trainable vector for each position if there are any."""

    def __init__(self, dim: int, widths: tuple[int, ...], hidden_size: int, positions: int) -> None:
        super().__init__()
        self.layers = perceptron(dim, widths, hidden_size)
        self.positions = nn.Parameter(torch.zeros(positions, hidden_size)) if positions else None

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        states = self.layers(patches)
        if self.positions is None:
            return states
        # What is longer than any sample of the training data shares the last position.
        wanted = torch.arange(patches.shape[1], device=patches.device).clamp(max=len(self.positions) - 1)
        return states + self.positions[wanted]


@dataclass(frozen=True)
class Patches(Input):
    """Patches (tokens * dim,) of numbers, standardised and sent through a linear layer.

    Args:
        dim: numbers in a token.
        mean: subtracted from each number of a token; one for all, or `dim` of them.
        std: divided by, likewise.
        positions: trainable position embeddings that are added, for a backbone that has none of its own (0: none).
    """

    dim: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    positions: int = 0
    kind: ClassVar[str] = "patches"
    column: ClassVar[str] = "values"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if self.dim < 1 or self.positions < 0:
            raise ValueError(f"dim {self.dim} is below 1, or positions {self.positions} below 0")
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if len(numbers) not in (1, self.dim) or not np.isfinite(numbers).all():
                raise ValueError(f"{name} is not one finite number, or {self.dim} of them")
        if min(self.std) <= 0:
            raise ValueError("a std is not above 0")

    def of_data(self) -> Patches:
        return replace(self, positions=0)

    def module(self, hidden_size: int, widths: tuple[int, ...] = ()) -> PatchEmbedding:
        return PatchEmbedding(self.dim, widths, hidden_size, self.positions)

    def pad(self, sequences: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = [len(s) // self.dim for s in sequences]
        inputs = np.zeros((len(sequences), max(lengths), self.dim), dtype=np.float32)
        for row, sequence, length in zip(inputs, sequences, lengths, strict=True):
            row[:length] = np.asarray(sequence, dtype=np.float32).reshape(length, self.dim)
            row[:length] -= np.asarray(self.mean, dtype=np.float32)
            row[:length] /= np.asarray(self.std, dtype=np.float32)
        return torch.from_numpy(inputs), _mask(lengths)


INPUTS: dict[str, type[Input]] = {kind.kind: kind for kind in (Tokens, Patches)}


def input_from_dict(values: dict[str, Any]) -> Input:
    """The input that `Input.to_dict` described.

    Raises:
        KeyError, TypeError: the values are not those of an input.
    """
    values = dict(values)
    if values.get("vector") is not None:
        values["vector"] = SampleVector(**values["vector"])
    return INPUTS[values.pop("kind")](**values)


def _mask(lengths: Sequence[int]) -> torch.Tensor:
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()

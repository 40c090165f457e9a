"""A vector of numbers that a sample carries besides its tokens: it goes through a trainable layer and becomes the first token."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

COLUMN = "vector"
# Farther from the mean one odd number would decide by itself.
FARTHEST = 10.0
WIDEST = 1 << 20


@dataclass(frozen=True)
class SampleVector:
    """Numbers of a sample: first some that stay as they are, then some that are standardised; nan where one has no value.

    Attributes:
        plain: how many stay as they are (logarithms of counts, which are 0 in most samples).
        mean, std: of each of the others on the training split.
        length: root of the mean square of a vector's length on the training split, as `prepared` gives it.
        dropout: probability that a number is left out in training.
    """

    plain: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    length: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.plain < 0 or not 1 <= self.dim <= WIDEST or len(self.mean) != len(self.std):
            raise ValueError(f"a vector of {self.plain} numbers, {len(self.mean)} means and {len(self.std)} deviations")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std, default=1.0) <= 0:
            raise ValueError("a mean is not finite, or a deviation not above 0")
        if not 0 < self.length < math.inf or not 0 <= self.dropout < 1:
            raise ValueError(f"length {self.length} is not above 0, or dropout {self.dropout} not at least 0 and below 1")

    @property
    def dim(self) -> int:
        """How many numbers there are."""
        return self.plain + len(self.mean)

    def of_data(self) -> SampleVector:
        """The vector as the data decides it."""
        return replace(self, dropout=0.0)


class VectorToken(nn.Module):
    """Makes vectors (batch, dim) a token (batch, 1, hidden)."""

    def __init__(self, vector: SampleVector, hidden_size: int) -> None:
        super().__init__()
        self.layer, self.dropout = nn.Linear(vector.dim, hidden_size), nn.Dropout(vector.dropout)
        self.length = vector.length
        zeros, ones = [0.0] * vector.plain, [1.0] * vector.plain
        self.register_buffer("mean", torch.tensor([*zeros, *vector.mean]), persistent=False)
        self.register_buffer("std", torch.tensor([*ones, *vector.std]), persistent=False)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the token; a number without a value counts as the mean."""
        return self.layer(self.dropout(standardised(vectors, self.mean, self.std))).unsqueeze(1)


def standardised(vectors: torch.Tensor, mean: Any, std: Any) -> torch.Tensor:
    """Vectors (batch, dim) fp32 without nan, none of its numbers farther than `FARTHEST` deviations from the mean."""
    return ((vectors - mean) / std).nan_to_num(0.0, posinf=FARTHEST, neginf=-FARTHEST).clamp(-FARTHEST, FARTHEST)


def measured(read: Callable[[], Iterable[np.ndarray]], plain: int) -> SampleVector:
    """Return the record of the training split's vectors, of which those after `plain` numbers are standardised.

    Args:
        read: gives them in batches (samples, dim) fp32, each time anew; memory does not grow with their number.
    """
    from sklearn.preprocessing import StandardScaler

    scaler, dim = StandardScaler(), 0
    for batch in read():
        dim = batch.shape[1]
        if dim == plain:
            continue
        # A number that no sample of a batch has is no reason to warn.
        with np.errstate(invalid="ignore", divide="ignore"):
            scaler.partial_fit(batch[:, plain:].astype(np.float64))
    mean, std = np.zeros(0), np.ones(0)
    if dim > plain:
        mean, std = np.nan_to_num(scaler.mean_), np.sqrt(np.nan_to_num(scaler.var_))
        # A number that never changes says nothing, whatever it is divided by.
        std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, 1.0)
    means, stds = torch.tensor([*[0.0] * plain, *mean]), torch.tensor([*[1.0] * plain, *std])
    count, squares = 0, 0.0
    for batch in read():
        count += len(batch)
        squares += float(standardised(torch.from_numpy(batch), means, stds).double().square().sum())
    return SampleVector(plain, tuple(mean.tolist()), tuple(std.tolist()), math.sqrt(squares / count) or 1.0)

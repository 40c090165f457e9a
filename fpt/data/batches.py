"""Batches of like lengths: which samples are in one, and how they are padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from fpt.inputs import Input
from fpt.outputs import Output
from fpt.sample_vectors import COLUMN

Lengths = Sequence[int] | np.ndarray


# Of the order of samples of the same length in evaluation.
TIES_SEED = 0


def collate(samples: Sequence[dict[str, Any]], inputs: Input, output: Output | None = None) -> dict[str, Any]:
    """Pad on the right to the longest sample.

    Returns:
        ``inputs`` (batch, tokens) int64 or (batch, tokens, dim) fp32 and ``attention_mask`` (batch, tokens) int64, 1 for
        real tokens; where samples carry a vector, ``vector`` (batch, numbers) fp32, and the mask has a token more for it; when
        the samples have labels ``labels``: a tensor as the loss of `output` takes it, or without an output the list of them as
        they are, in their own unit.
    """
    padded, mask = inputs.pad([s[inputs.column] for s in samples])
    batch: dict[str, Any] = {"inputs": padded, "attention_mask": mask}
    if inputs.vector is not None:
        batch[COLUMN] = torch.from_numpy(np.stack([s[COLUMN] for s in samples]).astype(np.float32))
        batch["attention_mask"] = torch.nn.functional.pad(mask, (1, 0), value=1)
    if "label" in samples[0]:
        labels = [s["label"] for s in samples]
        batch["labels"] = labels if output is None else output.labels(labels)
    return batch


def fed(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """What a network takes of a batch."""
    return tuple(batch[name] for name in ("inputs", "attention_mask", COLUMN) if name in batch)


class LengthGroupedBatchSampler(Sampler[list[int]]):
    """Batches of samples of like length, in a random order that `seed` and the epoch decide.

    The shuffled data is cut into pools of 50 batches, each pool sorted by length and cut into batches: as random as
    the pools are large, with little padding. The last, smaller batch is kept.

    Args:
        lengths: (samples,) tokens of each.
        batch_size: samples of a batch over all processes; how many these are changes no batch.
        rank, processes: which of how many processes this one is; it gets its share of each batch.
    """

    POOL = 50

    def __init__(self, lengths: Lengths, batch_size: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size, self.seed, self.rank, self.processes = batch_size, seed, rank, processes
        self.start_epoch(0)

    def start_epoch(self, epoch: int, skip: int = 0) -> None:
        """Choose the epoch whose order the next iteration gives, without its first `skip` batches."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.lengths))
        pool = self.POOL * self.batch_size
        batches: list[np.ndarray] = []
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        self.batches = [batches[i] for i in rng.permutation(len(batches))]
        self.skip = skip

    def weight(self, number: int) -> float:
        """What the mean loss of this process's part of batch `number` counts, so that all processes' mean is the batch's."""
        batch = self.batches[number]
        return len(batch[self.rank :: self.processes]) * self.processes / len(batch)

    def tokens(self, number: int) -> int:
        """Real tokens of batch `number`, over all processes."""
        return int(self.lengths[self.batches[number]].sum())

    def __len__(self) -> int:
        return len(self.batches) - self.skip

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches[self.skip :]:
            part = batch[self.rank :: self.processes]
            # A last batch of fewer samples than processes: the others take part in the step, with a weight of 0.
            yield (part if len(part) else batch[:1]).tolist()


class SortedBatchSampler(Sampler[list[int]]):
    """Every sample once, longest first, so that a batch too large for the memory fails at once; for evaluation.

    Samples of the same length are in an order that depends on nothing but how many samples there are: rows of a file are often
    sorted by their label, and a batch of one label would let the noise of batches look like knowledge.

    With several processes each takes every n-th batch. All take the same number of them, as some strategies need; what a
    process takes beyond its own is not counted.

    Attributes:
        own: how many of its batches count.
    """

    def __init__(self, lengths: Lengths, batch_size: int, rank: int = 0, processes: int = 1) -> None:
        lengths = np.asarray(lengths)
        order = np.lexsort((np.random.default_rng(TIES_SEED).permutation(len(lengths)), -lengths))
        batches = [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
        self.batches = batches[rank::processes]
        self.own = len(self.batches)
        self.batches += [batches[-1]] * (-(-len(batches) // processes) - self.own)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def make_loader(samples: Any, batch_sampler: Sampler[list[int]], inputs: Input, output: Output | None = None) -> DataLoader:
    """A loader of batches as `collate` makes them. Its own generator keeps it off the random state that dropout uses."""
    return DataLoader(
        samples,
        batch_sampler=batch_sampler,
        collate_fn=lambda batch: collate(batch, inputs, output),
        generator=torch.Generator(),
    )


def padding_waste(lengths: Lengths, batches: Iterator[Any]) -> float:
    """Share of positions that are padding when each batch is padded to its longest sample."""
    lengths = np.asarray(lengths)
    real = padded = 0
    for batch in batches:
        part = lengths[list(batch)]
        real += int(part.sum())
        padded += int(part.max()) * len(part)
    return 1 - real / padded


def random_batches(count: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Batches in a random order, without regard to length: what `LengthGroupedBatchSampler` is compared with."""
    order = np.random.default_rng(seed).permutation(count)
    return (order[i : i + batch_size] for i in range(0, count, batch_size))

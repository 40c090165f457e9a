"""Random numbers of runs that share a process: each draws what it would draw alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RandomState:
    """Where PyTorch's random numbers are: of the CPU, and of the current GPU where there is one."""

    cpu: torch.Tensor
    cuda: torch.Tensor | None = None

    @classmethod
    def now(cls) -> RandomState:
        """The process's state."""
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None)

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> RandomState:
        """What `tensors` gave."""
        return cls(tensors["random"], tensors.get("cuda"))

    def tensors(self) -> dict[str, torch.Tensor]:
        """By the names that a state has."""
        return {"random": self.cpu} if self.cuda is None else {"random": self.cpu, "cuda": self.cuda}

    def put_back(self) -> None:
        """Make it the process's state."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.cuda)


class OwnRandom:
    """The random numbers of one run among several in a process; they begin where those of the process are now."""

    def __init__(self) -> None:
        self.state = RandomState.now()

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """What is drawn inside is drawn from the run's numbers; those of the process stay where they are."""
        outside = RandomState.now()
        self.state.put_back()
        try:
            yield
        finally:
            self.state = RandomState.now()
            outside.put_back()


def drawing(own: OwnRandom | None) -> contextlib.AbstractContextManager[None]:
    """`OwnRandom.drawing`; nothing for a run that has the process to itself."""
    return own.drawing() if own else contextlib.nullcontext()

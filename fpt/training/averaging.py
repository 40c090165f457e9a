"""An exponential moving average of the trainable parameters (``--ema``): what is evaluated, and what a checkpoint holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fpt.errors import FPTError

PREFIX = "average."


class Average:
    """The average of parameters over the steps so far.

    Args:
        parameters: by name.
        decay: share of the average that stays in a step. The first steps count more: after n of them it is at most
            (1 + n) / (10 + n), so that the initial weights are soon forgotten.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = dict(parameters), decay
        self.means = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take the parameters in as they are after so many steps."""
        move = get_ema_multi_avg_fn(min(self.decay, (1 + steps) / (10 + steps)))
        move(list(self.means.values()), [p.detach() for p in self.parameters.values()], steps)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters are their averages inside."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.data, self.means[name] = self.means[name], parameter.data

    def tensors(self) -> dict[str, torch.Tensor]:
        """Copies on the CPU, for a state."""
        return {f"{PREFIX}{name}": tensor.detach().cpu().clone() for name, tensor in self.means.items()}

    @torch.no_grad()
    def put_back(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take the averages of a state, by name."""
        for name, mean in self.means.items():
            mean.copy_(tensors[name])


def average_of(parameters: Mapping[str, nn.Parameter], decay: float, accelerator: Accelerator) -> Average | None:
    """The average that a run keeps, None where it keeps none.

    Raises:
        FPTError: its parameters are spread over processes.
    """
    if not decay:
        return None
    plugin = accelerator.state.deepspeed_plugin if accelerator.distributed_type == DistributedType.DEEPSPEED else None
    if accelerator.distributed_type == DistributedType.FSDP or (plugin is not None and plugin.zero_stage == 3):
        raise FPTError("--ema needs whole parameters in each process: use DDP or ZeRO up to stage 2, or leave --ema out")
    return Average(parameters, decay)

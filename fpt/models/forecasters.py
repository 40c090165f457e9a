"""What the baselines of forecasts share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fpt.errors import FPTError
from fpt.forecasts import Forecast
from fpt.inputs import Input
from fpt.models.base import Network, NetworkModel
from fpt.outputs import Output
from fpt.tasks.base import GeneratedTask, Task
from fpt.tasks.forecast import ForecastTask
from fpt.windows import Windows


@dataclass
class OwnNorm:
    """Options of a network that normalises as its paper does."""

    def unread(self, given: Collection[str]) -> dict[str, str]:
        """Why flags have no meaning beside the others."""
        names = {"window_norm": "the model normalises as its paper does"}
        return {name: why for name, why in names.items() if name in given}


class Forecaster(NetworkModel):
    """A network that forecasts windows, trained as a whole."""

    def view(self, task: Task | GeneratedTask) -> Task | GeneratedTask:
        """As it is, when it is a forecast."""
        return forecasts_only(self.name, task)

    def network(self, inputs: Input, output: Output, options: Any, shape: Mapping[str, Any], dropout: float) -> Network:
        """The network for a task."""
        windows, forecast = windows_of(inputs, output)
        return self.forecaster(windows, forecast.horizon, options, dropout)

    @abstractmethod
    def forecaster(self, windows: Windows, horizon: int, options: Any, dropout: float) -> Network:
        """The network for windows and a horizon; arguments as those of `NetworkModel.network`."""


def forecasts_only(model: str, task: Task | GeneratedTask) -> Task | GeneratedTask:
    """A task as it is, when it is a forecast.

    Raises:
        FPTError: it is none.
    """
    if not isinstance(task, ForecastTask):
        raise FPTError(f"--model {model} forecasts series; {task.name} is no forecast (forecast:FILE, ett/ETTh1)")
    return task


def windows_of(inputs: Input, output: Output) -> tuple[Windows, Forecast]:
    """Inputs and output of a forecast.

    Raises:
        FPTError: they are of another kind, in a checkpoint that was changed.
    """
    if not isinstance(inputs, Windows) or not isinstance(output, Forecast):
        raise FPTError("the model forecasts series, and the input or output of the checkpoint is of another kind")
    return inputs, output

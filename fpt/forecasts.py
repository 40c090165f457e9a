"""What a forecast is: the next values of a series. Scores are those of the field, on standardised values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from fpt.metrics import RESOLUTION, Scores
from fpt.outputs import OUTPUTS, Output
from fpt.text.predictions import decimals, number_text

LOSSES = ("mse", "mae")
LONGEST_HORIZON = 1 << 16
MOST_SERIES = 1 << 20


@dataclass(frozen=True)
class Forecast(Output):
    """The next `horizon` values of a series.

    A label is an array (horizon + 2,) float64: the values in the unit of the series, then the mean and the deviation by which the
    series is standardised, those of its training rows. A prediction has the same form. Networks see standardised values.

    Args:
        horizon: values ahead.
        series: names.
        means, deviations: by which each is standardised, those of its training rows.
        frequency: of the time stamps, as pandas names it; a whole number of steps where they are numbers.
        time_column: name of the column of time stamps in the user's file.
        loss_name: mse or mae.
    """

    horizon: int
    series: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    frequency: str
    time_column: str = "date"
    loss_name: str = "mse"
    kind: ClassVar[str] = "forecast"
    default_metric: ClassVar[str] = "mse"  # type: ignore[misc]
    default_readout: ClassVar[str | None] = "all"

    def __post_init__(self) -> None:
        for name in ("series", "means", "deviations"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 1 <= self.horizon <= LONGEST_HORIZON:
            raise ValueError(f"a horizon of {self.horizon} is not between 1 and {LONGEST_HORIZON:,}")
        if not 1 <= len(self.series) <= MOST_SERIES or len(set(self.series)) < len(self.series):
            raise ValueError("series are none, too many, or two of one name")
        if not len(self.means) == len(self.deviations) == len(self.series):
            raise ValueError("not as many means and deviations as series")
        if not (np.isfinite(self.means).all() and np.isfinite(self.deviations).all() and min(self.deviations) > 0):
            raise ValueError("a mean is not finite, or a deviation not above 0")
        if self.loss_name not in LOSSES:
            raise ValueError(f"the loss {self.loss_name!r:.50} is not one of {', '.join(LOSSES)}")

    @property
    def size(self) -> int:  # type: ignore[override]
        return self.horizon

    def labels(self, values: Sequence[Any]) -> torch.Tensor:
        return torch.from_numpy(self.standardised(np.asarray(values, dtype=np.float64)).astype(np.float32))

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """Labels or predictions (samples, horizon + 2) as standardised values (samples, horizon)."""
        return (values[:, : self.horizon] - values[:, -2:-1]) / values[:, -1:]

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(logits, labels) if self.loss_name == "mse" else F.l1_loss(logits, labels)

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        """Standardised values (batch, horizon); the samples put them back into their unit, see `fpt.data.windows`."""
        return logits.double()

    def metrics(self, labels: np.ndarray, predictions: np.ndarray, resolution: float = RESOLUTION) -> Scores:
        """Mean over all windows, series and steps: mse and mae of standardised values; mae_units in the unit of each series."""
        errors = np.abs(self.standardised(predictions) - self.standardised(labels))
        mse, mae = float(np.square(errors).mean()), float(errors.mean())
        units = float((errors * labels[:, -1:]).mean())
        return {"loss": mse if self.loss_name == "mse" else mae, "mse": mse, "mae": mae, "mae_units": units}

    def describe(self, labels: np.ndarray) -> str:
        return f"windows, {self.horizon:,} values ahead"

    def columns(self) -> list[str]:
        return ["prediction"]

    def cells(self, prediction: np.ndarray) -> list[str]:
        return [" ".join(self.texts(prediction))]

    def texts(self, values: np.ndarray) -> list[str]:
        """The values of a label or prediction (horizon + 2,) with the digits that a network's fp32 carries."""
        places = decimals(float(values[-1]), 6)
        return [number_text(round(float(value), places)) for value in values[: self.horizon]]

    def shown(self, label: Any) -> str:
        return " ".join(self.texts(np.asarray(label)))


def restored(predictions: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Standardised predictions (samples, horizon) in the unit of their series, as `Forecast` has them.

    Args:
        moments: mean and deviation (samples, 2) of each one's series.
    """
    return np.concatenate([predictions * moments[:, 1:] + moments[:, :1], moments], axis=1)


OUTPUTS[Forecast.kind] = Forecast

"""What a task asks for: a class, a number, or bits. Each output knows its readout, its loss and its scores.

A new kind of output is one class here that is named in `OUTPUTS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from fpt.results import bit_metrics, classification_metrics, regression_metrics


class Output(ABC):
    """Labels of one kind.

    Attributes:
        tokens: how many of the last real tokens of a sequence the readout reads.
        size: numbers that it gives for each of them; logits are (batch, tokens * size).
    """

    kind: ClassVar[str]
    tokens: int = 1
    size: int

    @property
    @abstractmethod
    def default_metric(self) -> str:
        """The metric that picks the model where the task has none of its own."""

    @abstractmethod
    def labels(self, values: Sequence[Any]) -> torch.Tensor:
        """The labels of a batch, as `loss` takes them."""

    @abstractmethod
    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean training loss of a batch, a scalar."""

    @abstractmethod
    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        """Predictions (batch, columns) float64, as `metrics` takes them."""

    @abstractmethod
    def metrics(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float | None]:
        """Scores by name; ``loss`` is always one of them."""

    @abstractmethod
    def describe(self, labels: np.ndarray) -> str:
        """What the labels of a split are like, in a few words."""

    @abstractmethod
    def columns(self) -> list[str]:
        """Columns of a file of predictions."""

    @abstractmethod
    def cells(self, prediction: np.ndarray) -> list[str]:
        """One prediction, a text for each of `columns`."""

    @abstractmethod
    def shown(self, label: Any) -> str:
        """A label as `cells` would write it."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values that `output_from_dict` reads."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Classes(Output):
    """One of several classes; cross-entropy.

    Args:
        label_names: of the classes, in the order of the logits.
        counts: the class numbers are quantities (a sum of digits), so a mean absolute error is told as well.
    """

    label_names: tuple[str, ...]
    counts: bool = False
    kind: ClassVar[str] = "classes"

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_names", tuple(self.label_names))

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.label_names)

    @property
    def default_metric(self) -> str:
        return "auroc" if self.size == 2 else "accuracy"

    def labels(self, values: Sequence[Any]) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.int64))

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels)

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.double().softmax(dim=-1)

    def metrics(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float | None]:
        metrics = classification_metrics(labels, predictions)
        if self.counts:
            metrics["mae"] = float(np.abs(predictions.argmax(axis=1) - labels).mean())
        return metrics

    def describe(self, labels: np.ndarray) -> str:
        shares = np.bincount(labels.astype(np.int64), minlength=self.size) / max(len(labels), 1)
        if self.size <= 5:
            return "/".join(f"{s:.0%}" for s in shares)
        return f"{self.size} classes of {shares.min():.1%} to {shares.max():.1%}"

    def columns(self) -> list[str]:
        return ["prediction", *(f"probability_{name}" for name in self.label_names)]

    def cells(self, prediction: np.ndarray) -> list[str]:
        return [self.label_names[int(prediction.argmax())], *(f"{p:.8f}" for p in prediction)]

    def shown(self, label: Any) -> str:
        return self.label_names[int(label)]


@dataclass(frozen=True)
class Value(Output):
    """A number; mean squared error in units of the training labels' standard deviation.

    Args:
        mean: of the training labels.
        std: of the training labels.
        unit: of the labels, for people.
    """

    mean: float
    std: float
    unit: str = ""
    kind: ClassVar[str] = "value"
    size: ClassVar[int] = 1  # type: ignore[misc]
    default_metric: ClassVar[str] = "mae"  # type: ignore[misc]

    def labels(self, values: Sequence[Any]) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float32))

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(logits[:, 0], (labels - self.mean) / self.std)

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.double() * self.std + self.mean

    def metrics(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float | None]:
        metrics = regression_metrics(labels, predictions[:, 0])
        return {"loss": (float(metrics["rmse"] or 0) / self.std) ** 2, **metrics}

    def describe(self, labels: np.ndarray) -> str:
        return f"{labels.mean():.3g} ± {labels.std():.3g}{f' {self.unit}' if self.unit else ''}"

    def columns(self) -> list[str]:
        return ["prediction"]

    def cells(self, prediction: np.ndarray) -> list[str]:
        return [f"{prediction[0]:.8g}"]

    def shown(self, label: Any) -> str:
        return f"{label:.8g}"


@dataclass(frozen=True)
class Bits(Output):
    """`size` bits at each of the last `tokens` tokens; binary cross-entropy.

    A label is an array of tokens * size bits, 0 or 1.
    """

    size: int
    tokens: int = 1
    kind: ClassVar[str] = "bits"
    default_metric: ClassVar[str] = "accuracy"  # type: ignore[misc]

    def labels(self, values: Sequence[Any]) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float32))

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels)

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.double().sigmoid()

    def metrics(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float | None]:
        return bit_metrics(labels, predictions)

    def describe(self, labels: np.ndarray) -> str:
        return f"{self.tokens * self.size} bits each"

    def columns(self) -> list[str]:
        return ["prediction"]

    def cells(self, prediction: np.ndarray) -> list[str]:
        return ["".join("1" if p > 0.5 else "0" for p in prediction)]

    def shown(self, label: Any) -> str:
        return "".join(str(int(bit)) for bit in label)


OUTPUTS: dict[str, type[Output]] = {kind.kind: kind for kind in (Classes, Value, Bits)}


def output_from_dict(values: dict[str, Any]) -> Output:
    """The output that `Output.to_dict` described.

    Raises:
        KeyError, TypeError: the values are not those of an output.
    """
    values = dict(values)
    return OUTPUTS[values.pop("kind")](**values)

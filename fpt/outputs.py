"""What a task asks for: a class, several labels, a number, or bits. Each output knows its readout, its loss and its scores.

A new kind of output is one class here that is named in `OUTPUTS`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from fpt.errors import FPTError
from fpt.metrics import RESOLUTION, Scores, bit_metrics, classification_metrics, constant, multilabel_metrics, regression_metrics
from fpt.text.predictions import counts_text, decimals, number_text, only_text, probability_text

# Bits of one sample.
MOST_BITS = 1_000_000


class Output(ABC):
    """Labels of one kind.

    Attributes:
        tokens: how many of the last real tokens of a sequence the readout reads.
        size: numbers that it gives for each of them; logits are (batch, tokens * size).
        default_readout: what ``--readout`` is where it is not given; None leaves that to the backbone.
    """

    kind: ClassVar[str]
    default_readout: ClassVar[str | None] = None
    tokens: int = 1
    size: int

    @property
    @abstractmethod
    def default_metric(self) -> str:
        """The metric that picks the model where the task has none of its own."""

    @abstractmethod
    def labels(self, values: Sequence[Any]) -> torch.Tensor:
        """The labels of a batch as a task has them, in their own unit, made a tensor that `loss` takes."""

    @abstractmethod
    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean training loss of a batch, a scalar; `labels` are those that the method of this name gives."""

    @abstractmethod
    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        """Predictions (batch, columns) float64, as `metrics` takes them."""

    @abstractmethod
    def metrics(self, labels: np.ndarray, predictions: np.ndarray, resolution: float = RESOLUTION) -> Scores:
        """Scores by name; ``loss`` is always one of them.

        Args:
            labels: (samples, ...) as the task has them, in their own unit.
            predictions: (samples, columns) as `predict` gives them.
            resolution: what the precision of the model carries; predictions that are nearer to each other are ties to scores
                that rank. See `fpt.metrics.tied`.
        """

    def undefined(self, metric: str, labels: np.ndarray) -> str | None:
        """Why `metric` can't be computed on these labels, whatever is predicted; None when it can."""
        return None

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
        _check_names(self.label_names)

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.label_names)

    @property
    def default_metric(self) -> str:
        return "auroc" if self.size == 2 else "accuracy"

    def labels(self, values: Sequence[Any]) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.int64))

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.smoothed_loss(logits, labels, 0.0)

    def smoothed_loss(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
        """As `loss`; `smoothing` is the share of a label that is spread over all classes (arXiv 1512.00567, section 7)."""
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.double().softmax(dim=-1)

    def metrics(self, labels: np.ndarray, predictions: np.ndarray, resolution: float = RESOLUTION) -> Scores:
        metrics = classification_metrics(labels, predictions, resolution)
        if self.counts:
            metrics["mae"] = float(np.abs(predictions.argmax(axis=1) - labels).mean())
        return metrics

    def undefined(self, metric: str, labels: np.ndarray) -> str | None:
        if metric not in ("auroc", "auprc"):
            return None
        if self.size != 2:
            return f"{metric} is a score of two classes, and there are {self.size}"
        present = np.unique(labels)
        if len(present) == 2:
            return None
        return f"{metric} needs both classes, and {only_text([self.label_names[int(n)] for n in present], len(labels))}"

    def describe(self, labels: np.ndarray) -> str:
        counts = np.bincount(np.asarray(labels).astype(np.int64), minlength=self.size)
        return counts_text(self.label_names, counts, "classes")

    def columns(self) -> list[str]:
        return ["prediction", *(f"probability_{name}" for name in self.label_names)]

    def cells(self, prediction: np.ndarray) -> list[str]:
        return [self.label_names[int(prediction.argmax())], *(probability_text(p) for p in prediction)]

    def shown(self, label: Any) -> str:
        return self.label_names[int(label)]


class Decisions(Output):
    """Several numbers that are 0 or 1, each decided by itself; binary cross-entropy, predictions are probabilities of a 1."""

    def labels(self, values: Sequence[Any]) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float32))

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels)

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.double().sigmoid()


@dataclass(frozen=True)
class MultiLabel(Decisions):
    """Each of several labels or not; the mean over labels of their binary cross-entropy.

    A label of a sample is an array of `size` numbers, 0 or 1.

    Args:
        label_names: of the labels, in the order of the logits.

    Raises:
        FPTError: a name would make a cell of a file of predictions ambiguous.
    """

    label_names: tuple[str, ...]
    kind: ClassVar[str] = "multilabel"
    # Its chance level is 0.5 for every label, so that a mean over labels says something. That of AUPRC is how frequent a label
    # is, and frequent labels would decide the mean. The loss falls with calibration as well, which is not asked for.
    default_metric: ClassVar[str] = "auroc"  # type: ignore[misc]
    SEPARATOR: ClassVar[str] = "|"
    NONE: ClassVar[str] = "(none)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_names", tuple(self.label_names))
        _check_names(self.label_names)
        for name in self.label_names:
            if not name or name == self.NONE or self.SEPARATOR in name:
                raise FPTError(
                    f"a label can't be named {name!r} where samples have several: a cell of predictions joins names with"
                    f" {self.SEPARATOR!r}, and is {self.NONE!r} for a sample without labels. Rename it"
                )

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.label_names)

    def metrics(self, labels: np.ndarray, predictions: np.ndarray, resolution: float = RESOLUTION) -> Scores:
        return multilabel_metrics(labels, predictions, resolution)

    def undefined(self, metric: str, labels: np.ndarray) -> str | None:
        labels = np.asarray(labels) > 0.5
        if metric == "f1" and not labels.any():
            return "f1 needs a sample that has a label, and there is none"
        if metric in ("auroc", "auprc") and not (labels.any(axis=0) & ~labels.all(axis=0)).any():
            return f"{metric} needs a label that some samples have and some do not, and there is none"
        return None

    def describe(self, labels: np.ndarray) -> str:
        marked = np.asarray(labels).reshape(-1, self.size) > 0.5
        without = int((~marked.any(axis=1)).sum())
        counts = counts_text(self.label_names, marked.sum(axis=0), "labels")
        return f"{counts}; {without:,} without a label" if without else counts

    def columns(self) -> list[str]:
        return ["prediction", *(f"probability_{name}" for name in self.label_names)]

    def cells(self, prediction: np.ndarray) -> list[str]:
        return [self.shown(prediction), *(probability_text(p) for p in prediction)]

    def shown(self, label: Any) -> str:
        names = [name for name, value in zip(self.label_names, label, strict=True) if value > 0.5]
        return self.SEPARATOR.join(names) or self.NONE


@dataclass(frozen=True)
class Value(Output):
    """A number; mean squared error in units of the training labels' standard deviation.

    Networks see labels less their mean, over their deviation, in fp32. What is scored and written is float64 in the labels' unit.

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

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0 < self.std < math.inf):
            raise ValueError(f"mean {self.mean} is not finite, or std {self.std} not above 0")

    def labels(self, values: Sequence[Any]) -> torch.Tensor:
        standardised = (np.asarray(values, dtype=np.float64) - self.mean) / self.std
        return torch.as_tensor(standardised.astype(np.float32))

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(logits[:, 0], labels)

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.double() * self.std + self.mean

    def metrics(self, labels: np.ndarray, predictions: np.ndarray, resolution: float = RESOLUTION) -> Scores:
        metrics = regression_metrics(labels, predictions[:, 0], resolution, self.mean, self.std)
        return {"loss": (float(metrics["rmse"] or 0) / self.std) ** 2, **metrics}

    def undefined(self, metric: str, labels: np.ndarray) -> str | None:
        if metric in ("r2", "spearman", "pearson") and constant(labels):
            return f"{metric} needs labels that differ, and {only_text([self.shown(y) for y in labels[:1]], len(labels))}"
        return None

    def describe(self, labels: np.ndarray) -> str:
        labels = np.asarray(labels, dtype=np.float64)
        mean, std = float(labels.mean()), float(labels.std())
        # Three digits, and more where the deviation is far smaller than the mean.
        text = f"{mean:.3g}" if abs(mean) < 100 * std or constant(labels) else number_text(round(mean, decimals(std, 2)))
        return f"{text} ± {std:.3g}{f' {self.unit}' if self.unit else ''}"

    def columns(self) -> list[str]:
        return ["prediction"]

    def cells(self, prediction: np.ndarray) -> list[str]:
        # A network's fp32 carries no more digits than these.
        return [number_text(round(float(prediction[0]), decimals(self.std, 8)))]

    def shown(self, label: Any) -> str:
        return number_text(label)


@dataclass(frozen=True)
class Bits(Decisions):
    """`size` bits at each of the last `tokens` tokens; binary cross-entropy.

    A label is an array of tokens * size bits, 0 or 1.
    """

    size: int
    tokens: int = 1
    kind: ClassVar[str] = "bits"
    default_metric: ClassVar[str] = "accuracy"  # type: ignore[misc]

    def __post_init__(self) -> None:
        if min(self.size, self.tokens) < 1 or self.size * self.tokens > MOST_BITS:
            raise ValueError(f"{self.tokens} tokens of {self.size} bits are not between 1 and {MOST_BITS:,} bits")

    def metrics(self, labels: np.ndarray, predictions: np.ndarray, resolution: float = RESOLUTION) -> Scores:
        return bit_metrics(labels, predictions)

    def describe(self, labels: np.ndarray) -> str:
        return f"{self.tokens * self.size} bits each"

    def columns(self) -> list[str]:
        return ["prediction"]

    def cells(self, prediction: np.ndarray) -> list[str]:
        return ["".join("1" if p > 0.5 else "0" for p in prediction)]

    def shown(self, label: Any) -> str:
        return "".join(str(int(bit)) for bit in label)


OUTPUTS: dict[str, type[Output]] = {kind.kind: kind for kind in (Classes, MultiLabel, Value, Bits)}


def output_from_dict(values: dict[str, Any]) -> Output:
    """The output that `Output.to_dict` described.

    Raises:
        KeyError, TypeError: the values are not those of an output.
    """
    values = dict(values)
    return OUTPUTS[values.pop("kind")](**values)


def _check_names(names: tuple[str, ...]) -> None:
    """Refuse names that would give a file of predictions no columns, or two of one name."""
    if not names or len(set(names)) < len(names):
        raise ValueError("label_names are none, or two of them are the same")

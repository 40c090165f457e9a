"""MiniRocket: shares of positive values of 84 fixed convolutions in many dilations, and ridge regression on them.

Dempster, Schmidt and Webb, https://arxiv.org/abs/2012.08791 (2021). Kernels have 9 weights, three of them 2 and the others -1;
thresholds are quantiles of convolutions of training series. Several channels are added up in random groups, as the authors' own
code for them does. A series that is shorter than others is convolved over its own steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from fpt.args import arg
from fpt.data.prepared import Prepared
from fpt.errors import FPTError
from fpt.flags.checks import Range, check_ranges
from fpt.models.base import MODELS, Estimator, Fitted
from fpt.models.morgan import all_classes
from fpt.models.series_features import SeriesSplit, read_split, whole_series
from fpt.outputs import Classes, Value
from fpt.tasks.base import GeneratedTask, Task
from fpt.text.log import Log

WEIGHTS = 9
# The places of the three weights of 2 in each kernel.
KERNELS = tuple(combinations(range(WEIGHTS), 3))
MOST_DILATIONS = 32
MOST_CHANNELS = 9
GOLDEN = (np.sqrt(5) + 1) / 2
ALPHAS = np.logspace(-3, 3, 10)
# Series that are convolved at a time.
BATCH = 64
SPLITS = ("train", "valid", "test")


@dataclass
class MiniRocketOptions:
    """The transform."""

    _argument_group_name = "minirocket"
    kernel_features: int = arg(9_996, "Features, rounded down to a multiple of the 84 kernels.")

    def __post_init__(self) -> None:
        check_ranges(self, kernel_features=Range(len(KERNELS), 1_000_000))


@dataclass(frozen=True)
class Convolution:
    """One kernel in one dilation.

    Attributes:
        channels: that are added up.
        thresholds: (features,) whose share of larger values is a feature each.
        padded: whether values that reach beyond the ends count.
    """

    kernel: int
    dilation: int
    channels: np.ndarray
    thresholds: np.ndarray
    padded: bool


def dilations_of(steps: int, features: int) -> dict[int, int]:
    """Dilations for series of a length, each with the number of features of a kernel in it."""
    per_kernel = features // len(KERNELS)
    count = min(per_kernel, MOST_DILATIONS)
    largest = np.log2((steps - 1) / (WEIGHTS - 1))
    values, times = np.unique(np.logspace(0, largest, count, base=2).astype(np.int64), return_counts=True)
    found = (times * (per_kernel / count)).astype(np.int64)
    for place in range(per_kernel - int(found.sum())):
        found[place % len(found)] += 1
    return dict(zip(values.tolist(), found.tolist(), strict=True))


def shifted(series: torch.Tensor, dilation: int) -> torch.Tensor:
    """Series (batch, channels, steps) as each of the nine weights sees them, 0 beyond the ends: (9, batch, channels, steps)."""
    steps, reach = series.shape[2], dilation * (WEIGHTS // 2)
    wide = torch.nn.functional.pad(series, (reach, reach))
    return torch.stack([wide[:, :, i * dilation : i * dilation + steps] for i in range(WEIGHTS)])


def convolved(shifts: torch.Tensor, total: torch.Tensor, kernel: int, channels: np.ndarray) -> torch.Tensor:
    """The convolution of a kernel, summed over channels: (batch, steps). `total` is the sum over the nine `shifts`."""
    a, b, c = KERNELS[kernel]
    if shifts.shape[2] == 1:
        return 3 * (shifts[a, :, 0] + shifts[b, :, 0] + shifts[c, :, 0]) - total[:, 0]
    own = torch.from_numpy(channels)
    return (3 * (shifts[a][:, own] + shifts[b][:, own] + shifts[c][:, own]) - total[:, own]).sum(1)


def fit_kernels(train: SeriesSplit, features: int, seed: int) -> list[Convolution]:
    """Draw the channels and the training series that give each kernel its thresholds.

    Raises:
        FPTError: the series are shorter than a kernel.
    """
    rng, whole = np.random.default_rng(seed), train.padded()
    _, channels, steps = whole.shape
    if steps < WEIGHTS:
        raise FPTError(f"--model minirocket has kernels of {WEIGHTS} time steps; the longest series has {steps}")
    found, order = [], 0
    for place, (dilation, count) in enumerate(dilations_of(steps, features).items()):
        reach = dilation * (WEIGHTS // 2)
        for kernel in range(len(KERNELS)):
            size = int(2 ** rng.uniform(0, np.log2(min(channels, MOST_CHANNELS) + 1)))
            own = np.sort(rng.choice(channels, max(1, min(size, channels)), replace=False))
            row = int(rng.integers(len(whole)))
            shifts = shifted(torch.from_numpy(whole[row : row + 1, :, : len(train.series[row])]), dilation)
            values = convolved(shifts, shifts.sum(0), kernel, own)[0].numpy()
            padded = (place + kernel) % 2 == 0
            quantiles = (np.arange(order + 1, order + count + 1) * GOLDEN) % 1
            order += count
            found.append(Convolution(kernel, dilation, own, np.quantile(values, quantiles).astype(np.float32), padded))
            assert reach < steps
    return found


def transform(split: SeriesSplit, kernels: list[Convolution], steps: int) -> np.ndarray:
    """Features (series, features) float32: shares of the time steps whose convolution is above a threshold."""
    parts = [_batch(split, start, kernels, steps) for start in range(0, len(split.series), BATCH)]
    return np.concatenate(parts)


def _batch(split: SeriesSplit, start: int, kernels: list[Convolution], steps: int) -> np.ndarray:
    part = SeriesSplit(split.series[start : start + BATCH], split.labels[start : start + BATCH])
    series, lengths = torch.from_numpy(part.padded()), torch.from_numpy(part.lengths)
    places = torch.arange(series.shape[2])
    columns: list[torch.Tensor] = []
    dilation, shifts = 0, series
    for one in kernels:
        if one.dilation != dilation:
            dilation, shifts = one.dilation, shifted(series, one.dilation)
            total, reach = shifts.sum(0), one.dilation * (WEIGHTS // 2)
            there = places < lengths[:, None]
            # Of a series that is too short for a kernel to lie within it, all steps count.
            inside = (places >= reach) & (places < lengths[:, None] - reach)
            inside = torch.where(inside.any(1, keepdim=True), inside, there)
        counted = there if one.padded else inside
        values = convolved(shifts, total, one.kernel, one.channels)
        above = (values[..., None] > torch.from_numpy(one.thresholds)) & counted[..., None]
        columns.append(above.sum(1) / counted.sum(1, keepdim=True))
    return torch.cat(columns, 1).numpy()


class MiniRocket(Estimator):
    """MiniRocket with ridge regression."""

    name = "minirocket"
    source = "https://arxiv.org/abs/2012.08791"
    options = MiniRocketOptions

    def view(self, task: Task | GeneratedTask) -> Task | GeneratedTask:
        """With whole series."""
        return whole_series(self.name, task)

    def fit(self, prepared: Prepared, options: MiniRocketOptions, seed: int, log: Log) -> Fitted:
        """Fit on train; the strength of the penalty is the best one of ten by leaving out one training series after the other."""
        output = prepared.output
        if not isinstance(output, Classes | Value):
            raise FPTError(f"--model minirocket predicts one class or one number; {prepared.task.name} has other labels")
        splits = {split: read_split(prepared, split) for split in SPLITS}
        log(f"model: {self.name}, {options.kernel_features // len(KERNELS) * len(KERNELS):,} features and ridge regression")
        kernels = fit_kernels(splits["train"], options.kernel_features, seed)
        steps = int(splits["train"].lengths.max())
        features = {split: transform(rows, kernels, steps) for split, rows in _shown(splits)}
        predictions, alpha = ridge(features, splits["train"].labels, output)
        valid = output.metrics(splits["valid"].labels, predictions["valid"])
        log(f"model: alpha {alpha:g} is best on train, leaving out one series at a time")
        return Fitted(predictions, {"estimator": "ridge", "alpha": alpha}, [{"valid": valid}])


def _shown(splits: dict[str, SeriesSplit]) -> Iterator[tuple[str, SeriesSplit]]:
    yield from tqdm(splits.items(), desc="convolving", unit="split", dynamic_ncols=True)


def ridge(features: dict[str, np.ndarray], labels: np.ndarray, output: Classes | Value) -> tuple[dict[str, np.ndarray], float]:
    """Predictions of valid and test, and the penalty that was chosen.

    Ridge regression on classes gives no probabilities: those are the softmax of its decision values.
    """
    from sklearn.linear_model import RidgeClassifierCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kind: Any = RidgeClassifierCV if isinstance(output, Classes) else RidgeCV
    model = make_pipeline(StandardScaler(with_mean=False), kind(alphas=ALPHAS)).fit(features["train"], labels)
    predictions = {}
    for split in ("valid", "test"):
        if isinstance(output, Value):
            predictions[split] = model.predict(features[split])[:, None]
            continue
        decided = model.decision_function(features[split]).astype(np.float64)
        decided = np.stack([-decided, decided], 1) if decided.ndim == 1 else decided
        shares = np.exp(decided - decided.max(1, keepdims=True))
        predictions[split] = all_classes(shares / shares.sum(1, keepdims=True), np.unique(labels), output.size)
    return predictions, float(model[-1].alpha_)


MODELS.register("minirocket")(MiniRocket())

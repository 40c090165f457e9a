"""The label of the nearest training series: the UCR archive's own baseline.

Dau et al., https://arxiv.org/abs/1810.07758. Distances are Euclidean, or those of dynamic time warping (Sakoe and Chiba, 1978):
the smallest sum of squared differences over ways to match the time steps of two series, all channels warped together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from fpt.args import arg
from fpt.data.prepared import Prepared
from fpt.errors import FPTError
from fpt.flags.checks import SHARE, check_known, check_ranges
from fpt.models.base import MODELS, Estimator, Fitted
from fpt.models.series_features import SeriesSplit, read_split, whole_series
from fpt.outputs import Classes, Value
from fpt.tasks.base import GeneratedTask, Task
from fpt.text.log import Log

DISTANCES = ("euclidean", "dtw")
# Numbers of a table of differences at a time.
NUMBERS = 1 << 16


@dataclass
class NearestOptions:
    """Which series are near each other."""

    _argument_group_name = "nearest"
    distance: str = arg("euclidean", "euclidean (series of one length), or dtw (dynamic time warping, any lengths).")
    dtw_window: float = arg(1.0, "With dtw: how far matched time steps may be apart, as a share of the longer series.")

    def __post_init__(self) -> None:
        check_known(self, distance=DISTANCES)
        check_ranges(self, dtw_window=SHARE)

    def unread(self, given: set[str]) -> dict[str, str]:
        """Why flags have no meaning beside the others."""
        return (
            {"dtw_window": f"--distance {self.distance} warps nothing"}
            if self.distance != "dtw" and "dtw_window" in given
            else {}
        )


def euclidean(some: SeriesSplit, train: SeriesSplit) -> np.ndarray:
    """Squared distances (series, training series).

    Raises:
        FPTError: they are not all of one length.
    """
    lengths = {*some.lengths.tolist(), *train.lengths.tolist()}
    if len(lengths) > 1:
        raise FPTError(
            f"--distance euclidean needs series of one length; these have {min(lengths)} to {max(lengths)} time steps: pass"
            " --distance dtw"
        )
    a, b = (split.padded().reshape(len(split.series), -1).astype(np.float64) for split in (some, train))
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)


def warped(some: SeriesSplit, train: SeriesSplit, window: float) -> np.ndarray:
    """Squared distances (series, training series) after dynamic time warping."""
    found = np.zeros((len(some.series), len(train.series)))
    whole = train.padded()
    size = max(1, NUMBERS // (whole.shape[0] * whole.shape[2]))
    for start in tqdm(range(0, len(found), size), desc="warping", unit="batch", dynamic_ncols=True):
        part = SeriesSplit(some.series[start : start + size], some.labels[start : start + size])
        found[start : start + size] = _warped(part, train.lengths, whole, window)
    return found


def _warped(some: SeriesSplit, lengths: np.ndarray, train: np.ndarray, window: float) -> np.ndarray:
    """The same of a few series, all pairs at once: one diagonal of the tables of costs after the other.

    The cost of step i of one series and step j of another is their difference plus the smallest cost of three cells before it:
    (i - 1, j), (i, j - 1) and (i - 1, j - 1), on the last two diagonals. Diagonal k has the cells with i + j = k, at place i + 1.
    """
    queries, turned = some.padded().astype(np.float64), train[..., ::-1].astype(np.float64)
    rows, columns = queries.shape[2], train.shape[2]
    pairs, ends = (len(queries), len(train)), some.lengths[:, None] + lengths - 2
    apart = np.abs(some.lengths[:, None] - lengths)
    reach = np.maximum(np.ceil(window * np.maximum(some.lengths[:, None], lengths)), apart).astype(np.int64)
    widest, uneven = int(reach.max()), bool((reach != reach.max()).any())
    answer = np.zeros(pairs)
    before, last, now = (np.full((*pairs, rows + 1), np.inf) for _ in range(3))
    before[..., 0] = 0
    for k in range(rows + columns - 1):
        low = max(0, k - columns + 1, -((widest - k) // 2))
        high = min(rows - 1, k, (k + widest) // 2)
        start = columns - 1 - k + low
        other = turned[None, :, :, start : start + high - low + 1]
        away = ((queries[:, None, :, low : high + 1] - other) ** 2).sum(2)
        cost = np.minimum(last[..., low : high + 1], last[..., low + 1 : high + 2])
        np.minimum(cost, before[..., low : high + 1], out=cost)
        cost += away
        if uneven:
            cost[np.abs(2 * np.arange(low, high + 1) - k) > reach[..., None]] = np.inf
        now[..., low], now[..., low + 1 : high + 2], now[..., high + 2 : high + 3] = np.inf, cost, np.inf
        one, two = np.nonzero(ends == k)
        answer[one, two] = now[one, two, some.lengths[one]]
        before, last, now = last, now, before
    return answer


class Nearest(Estimator):
    """One nearest neighbour."""

    name = "nearest"
    source = "https://arxiv.org/abs/1810.07758"
    options = NearestOptions

    def view(self, task: Task | GeneratedTask) -> Task | GeneratedTask:
        """With whole series."""
        return whole_series(self.name, task)

    def fit(self, prepared: Prepared, options: NearestOptions, seed: int, log: Log) -> Fitted:
        """Look up valid and test in train, values as they are in the files. Of two that are as near, the first one counts."""
        output = prepared.output
        if not isinstance(output, Classes | Value):
            raise FPTError(f"--model nearest predicts one class or one number; {prepared.task.name} has other labels")
        log(f"model: {self.name}, distance {options.distance}")
        train = read_split(prepared, "train")
        predictions, labels = {}, {}
        for split in ("valid", "test"):
            some = read_split(prepared, split)
            away = euclidean(some, train) if options.distance == "euclidean" else warped(some, train, options.dtw_window)
            near = train.labels[away.argmin(1)]
            predictions[split] = np.eye(output.size)[near] if isinstance(output, Classes) else near[:, None].astype(np.float64)
            labels[split] = some.labels
        window = {"dtw_window": options.dtw_window} if options.distance == "dtw" else {}
        valid = output.metrics(labels["valid"], predictions["valid"])
        return Fitted(predictions, {"distance": options.distance, **window}, [{"valid": valid}])


MODELS.register("nearest")(Nearest())

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
    """The same of a few series, all pairs at once: one row of the table of costs after the other.

    Within a row, ``cost[j] = d[j] + min(best[j], cost[j - 1])`` is a running minimum of ``best - sum(d)``, once `best` is the
    smaller of the two costs above.
    """
    queries, steps = some.padded(), train.shape[2]
    pairs = len(queries), len(train)
    longest = np.maximum(some.lengths[:, None], lengths)
    reach = np.maximum(np.ceil(window * longest), np.abs(some.lengths[:, None] - lengths))
    places, answer = np.arange(steps), np.zeros(pairs)
    above = np.full((*pairs, steps + 1), np.inf)
    above[..., 0] = 0
    for row in range(queries.shape[2]):
        away = ((queries[:, None, :, row, None] - train[None]) ** 2).sum(2, dtype=np.float64)
        best = np.minimum(above[..., 1:], above[..., :-1])
        best = np.where(np.abs(places - row) <= reach[..., None], best, np.inf)
        sums = np.cumsum(away, 2)
        cost = sums + np.minimum.accumulate(best - (sums - away), 2)
        cost = np.where(np.abs(places - row) <= reach[..., None], cost, np.inf)
        above = np.concatenate([np.full((*pairs, 1), np.inf), cost], 2)
        last = np.flatnonzero(some.lengths == row + 1)
        if len(last):
            answer[last] = np.take_along_axis(cost[last], np.broadcast_to(lengths - 1, pairs)[last][..., None], 2)[..., 0]
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
        """Look up valid and test in train; channels are standardised by train. Of two that are as near, the first one counts."""
        output = prepared.output
        if not isinstance(output, Classes | Value):
            raise FPTError(f"--model nearest predicts one class or one number; {prepared.task.name} has other labels")
        log(f"model: {self.name}, distance {options.distance}")
        train = read_split(prepared, "train", standardised=True)
        predictions, labels = {}, {}
        for split in ("valid", "test"):
            some = read_split(prepared, split, standardised=True)
            away = euclidean(some, train) if options.distance == "euclidean" else warped(some, train, options.dtw_window)
            near = train.labels[away.argmin(1)]
            predictions[split] = np.eye(output.size)[near] if isinstance(output, Classes) else near[:, None].astype(np.float64)
            labels[split] = some.labels
        window = {"dtw_window": options.dtw_window} if options.distance == "dtw" else {}
        valid = output.metrics(labels["valid"], predictions["valid"])
        return Fitted(predictions, {"distance": options.distance, **window}, [{"valid": valid}])


MODELS.register("nearest")(Nearest())

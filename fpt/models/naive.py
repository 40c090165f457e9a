"""Forecasts without training: the last value, or the values a season ago. What the best of them is, validation says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from fpt.args import arg
from fpt.data.prepared import Prepared
from fpt.data.window_samples import WindowSamples
from fpt.flags import checks
from fpt.flags.checks import number_list
from fpt.forecasts import Forecast
from fpt.metrics import is_better
from fpt.models.base import MODELS, Estimator, Fitted
from fpt.models.forecasters import forecasts_only
from fpt.results import Evaluation
from fpt.tasks.base import GeneratedTask, Task
from fpt.text.log import Log

# Rows of the usual seasons: a day and a week, a week, a year.
SEASONS = {
    "min": (60, 1440),
    "5min": (288, 2016),
    "10min": (144, 1008),
    "15min": (96, 672),
    "30min": (48, 336),
    "h": (24, 168),
    "D": (7, 365),
    "B": (5,),
    "W": (52,),
    "MS": (12,),
    "ME": (12,),
    "QS": (4,),
    "QE": (4,),
}


@dataclass
class NaiveOptions:
    """What is repeated."""

    _argument_group_name = "naive"
    seasons: str | None = arg(
        None, "Rows of a season, several separated by commas; those of the frequency (a day, a week, a year) when not given."
    )


class Naive(Estimator):
    """The last season again; a season of one row is the last value."""

    name = "naive"
    source = "last value or last season"
    options = NaiveOptions

    def view(self, task: Task | GeneratedTask) -> Task | GeneratedTask:
        """As it is, when it is a forecast."""
        return forecasts_only(self.name, task)

    def fit(self, prepared: Prepared, options: NaiveOptions, seed: int, log: Log) -> Fitted:
        """Each season that fits into the look-back; the best on valid is taken."""
        output = cast(Forecast, prepared.output)
        splits = {split: cast(WindowSamples, prepared.samples(split)) for split in ("valid", "test")}
        lookback = splits["valid"].lookback
        usual = SEASONS.get(output.frequency.partition("-")[0], ())
        seasons = usual if options.seasons is None else number_list(options.seasons, int, checks.COUNT, "--seasons", "24,168")
        if long := [season for season in seasons if season > lookback]:
            log(f"model: naive, seasons longer than --lookback {lookback} are left out: {', '.join(map(str, long))}")
        labels, primary, history = splits["valid"].labels, prepared.primary_metric, []
        best: tuple[float | None, int] | None = None
        for season in dict.fromkeys((1, *(s for s in seasons if s <= lookback))):
            scores = output.metrics(labels, repeated(splits["valid"], season))
            history.append(cast(Evaluation, {"season": season, "valid": scores}))
            if best is None or is_better(primary, scores[primary], best[0]):
                best = scores[primary], season
        assert best is not None
        log(f"model: naive, {'the last value' if best[1] == 1 else f'a season of {best[1]} rows'} is best on valid")
        return Fitted({split: repeated(samples, best[1]) for split, samples in splits.items()}, {"season": best[1]}, history)


def repeated(samples: WindowSamples, season: int) -> np.ndarray:
    """Predictions (windows, horizon + 2), as `fpt.forecasts.Forecast` has them: the last `season` values of each window again."""
    ago = samples.lookback - season + np.arange(samples.horizon) % season
    each = [one.values[one.starts[:, None] + ago] for one in samples.series]
    return np.concatenate([np.concatenate(each), samples.moments[samples.of]], axis=1)


MODELS.register("naive")(Naive())

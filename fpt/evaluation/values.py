"""Forecasts of a split as a table of values, one row for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fpt.data.times import shown_time
from fpt.data.window_samples import WindowSamples
from fpt.ensemble import SPREAD, mean_prediction
from fpt.forecasts import Forecast


def value_table(samples: WindowSamples, output: Forecast, each: Sequence[np.ndarray], labels: np.ndarray) -> pd.DataFrame:
    """The values ahead of windows that do not overlap, so that each time of the split is there once.

    Args:
        each: predictions (windows, horizon + 2) of each model; their mean is written.
        labels: of the same form, see `fpt.forecasts.Forecast`.

    Returns:
        Columns ``series``, ``time``, ``step`` (1 is the first value ahead), ``label``, ``prediction`` and, of several models,
        ``spread``, all in the unit of the series.
    """
    windows, mean = apart(samples), mean_prediction(each)
    deviations = np.std(np.stack([predictions[windows] for predictions in each]), axis=0)
    rows = []
    for place, window in enumerate(windows):
        one, start = samples.series[samples.of[window]], samples.starts[window] + samples.lookback
        texts = zip(output.texts(labels[window]), output.texts(mean[window]), strict=True)
        for step, values in enumerate(texts):
            time = shown_time(one.times[start + step], samples.frequency)
            spread = [f"{deviations[place][step]:.6g}"] if len(each) > 1 else []
            rows.append([one.name, time, step + 1, *values, *spread])
    names = ["series", "time", "step", "label", "prediction", *([SPREAD] if len(each) > 1 else [])]
    return pd.DataFrame(rows, columns=names)


def apart(samples: WindowSamples) -> np.ndarray:
    """Numbers of windows of each series whose values ahead do not overlap."""
    chosen, last = [], (-1, 0)
    for number, (of, start) in enumerate(zip(samples.of.tolist(), samples.starts.tolist(), strict=True)):
        if of != last[0] or start >= last[1] + samples.horizon:
            chosen.append(number)
            last = of, start
    return np.array(chosen, dtype=np.int64)

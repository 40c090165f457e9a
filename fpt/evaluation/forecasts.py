"""The next values of a user's own series: a table of history in, a table of forecasts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from accelerate import Accelerator

from fpt.args import DataArguments
from fpt.checkpoint import CheckpointConfig
from fpt.data.files import read_table
from fpt.data.table import Table, TableOptions
from fpt.data.time_table import NONE, SeriesTable, read_series_table
from fpt.data.times import next_times, shown_time
from fpt.ensemble import SPREAD, mean_prediction
from fpt.errors import FPTError
from fpt.evaluation.predict import check_finite, predict
from fpt.forecasts import Forecast, restored
from fpt.models.base import Network
from fpt.tasks.forecast import ForecastTask, filled
from fpt.text.log import Log
from fpt.windows import Windows


class _Last(list):
    """The last window of each series.

    Args:
        moments: mean and deviation (series, 2) of each.
    """

    def __init__(self, samples: list[dict[str, Any]], tokens: int, moments: np.ndarray) -> None:
        super().__init__(samples)
        self.lengths, self.moments = [tokens] * len(samples), moments

    def restored(self, predictions: np.ndarray) -> np.ndarray:
        """As `fpt.data.window_samples.WindowSamples.restored`."""
        return restored(predictions, self.moments)


def read_history(
    path: Path, options: TableOptions, task: ForecastTask, args: DataArguments, config: CheckpointConfig, decimal: str | None
) -> SeriesTable:
    """A file of history, with the columns of the training data; `decimal` is the separator of its numbers where it is given.

    Raises:
        FPTError: it can't be read, or a column is not there.
    """
    return history_of(read_table(path, options), path.name, task, args, config, decimal)


def frame_history(inputs: Any, task: ForecastTask, args: DataArguments, config: CheckpointConfig) -> SeriesTable:
    """A history in Python: a table, its times in a column or the index, or a list of rows by the columns' names.

    Raises:
        FPTError: as `read_history`.
    """
    frame = inputs if isinstance(inputs, pd.DataFrame) else pd.DataFrame(list(inputs))
    time = cast(Forecast, config.output).time_column
    if time and time not in frame and isinstance(frame.index, pd.DatetimeIndex):
        frame = frame.rename_axis(time).reset_index()
    rows = frame.astype(object).set_axis(range(1, len(frame) + 1), axis=0)
    return history_of(Table(rows, {"kind": "python"}), "the history", task, args, config, None)


def history_of(
    table: Table, whose: str, task: ForecastTask, args: DataArguments, config: CheckpointConfig, decimal: str | None
) -> SeriesTable:
    """A table of history as series, on the grid of the training data.

    Raises:
        FPTError: a column is not there, or times are not on the grid.
    """
    output = cast(Forecast, config.output)
    reading = replace(task.reading(args), time_column=output.time_column or NONE, frequency=output.frequency, decimal=decimal)
    if reading.series_column is None:
        return read_series_table(table, replace(reading, target_columns=output.series), whose)
    history = read_series_table(table, reading, whose)
    if missing := [name for name in output.series if name not in history.names]:
        raise FPTError(
            f"{whose} has no series {missing[0]!r}; {len(missing):,} of the model's {len(output.series):,} are not there"
        )
    chosen = [history.names.index(name) for name in output.series]
    notes = history.notes
    if more := len(history.names) - len(chosen):
        notes = (*notes, f"{more:,} series that the model does not know are left out")
    line = replace(history.timeline, values=history.timeline.values[:, chosen])
    return replace(history, names=output.series, timeline=line, notes=notes)


def forecast(
    history: SeriesTable,
    models: Sequence[Network],
    config: CheckpointConfig,
    batch_size: int,
    accelerator: Accelerator,
    log: Log,
) -> pd.DataFrame:
    """The next values of each series, by one model or the mean of several.

    Returns:
        The time column and one column for each series, in the unit of the history, a row for each step ahead; of several models
        ``NAME spread`` beside each.

    Raises:
        FPTError: the history is shorter than the look-back, or a series ends with a gap of more than half of it.
    """
    inputs, output = cast(Windows, config.input), cast(Forecast, config.output)
    for note in history.notes:
        log(f"history: {note}")
    line = history.timeline
    if len(line.times) < inputs.lookback:
        raise FPTError(f"the history has {len(line.times):,} rows, and the model reads the last {inputs.lookback:,}")
    moments = np.array(list(zip(output.means, output.deviations, strict=True)))
    samples = []
    for name, column, (mean, std) in zip(output.series, line.values.T, moments, strict=True):
        window = filled(column)[-inputs.lookback :]
        missing = int(np.isnan(column[-inputs.lookback :]).sum())
        if 2 * missing > inputs.lookback or np.isnan(column[: -inputs.lookback + 1 or None]).all():
            raise FPTError(
                f"{name!r} has no value in {missing:,} of the last {inputs.lookback:,} rows, or begins later; complete it"
            )
        if missing:
            log(f"history: {name!r} has no value in {missing:,} of the last {inputs.lookback:,} rows; the last one is taken")
        samples.append({inputs.column: ((window - mean) / std).astype(np.float32)})
    last = _Last(samples, inputs.tokens, moments)
    each = [predict(accelerator.prepare(m), last, inputs, output, batch_size, accelerator)[0] for m in models]
    for predictions in each:
        check_finite(predictions)
    return _table(history, output, each)


def _table(history: SeriesTable, output: Forecast, each: Sequence[np.ndarray]) -> pd.DataFrame:
    times = next_times(int(history.timeline.times[-1]), output.frequency, output.horizon)
    columns: dict[str, list[str]] = {output.time_column or "step": [shown_time(time, output.frequency) for time in times]}
    deviations = np.std(np.stack(each), axis=0)
    for name, prediction, deviation in zip(output.series, mean_prediction(each), deviations, strict=True):
        columns[name] = output.texts(prediction)
        if len(each) > 1:
            columns[f"{name} {SPREAD}"] = [f"{value:.6g}" for value in deviation[: output.horizon]]
    return pd.DataFrame(columns)

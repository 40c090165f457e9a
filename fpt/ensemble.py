"""Several models as one: the mean of their predictions, and how far they are from one another.

The mean of probabilities, as in Lakshminarayanan, Pritzel and Blundell, arXiv 1612.01474, section 2.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fpt.forecasts import Forecast
from fpt.outputs import Classes, Output

SPREAD = "spread"


def mean_prediction(predictions: Sequence[np.ndarray]) -> np.ndarray:
    """The mean (samples, columns) of the predictions of each model, as `Output.predict` gives them."""
    return np.mean(np.stack(predictions), axis=0)


def spread_of(predictions: Sequence[np.ndarray], output: Output) -> np.ndarray:
    """Standard deviation (samples,) over the models: of the predicted class's probability, of a number, else the mean of all."""
    stack = np.stack(predictions)
    deviations = stack.std(axis=0)
    if isinstance(output, Forecast):
        return deviations[:, : output.horizon].mean(axis=1)
    if isinstance(output, Classes):
        return np.take_along_axis(deviations, stack.mean(axis=0).argmax(axis=1)[:, None], axis=1)[:, 0]
    return deviations.mean(axis=1)

"""Predictions of a model over samples, and over a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from datasets import Dataset

from fpt.calibration import of_each
from fpt.data.batches import SortedBatchSampler, fed, make_loader
from fpt.data.prepared import Prepared
from fpt.data.window_samples import WindowSamples
from fpt.ensemble import SPREAD, mean_prediction, spread_of
from fpt.errors import FPTError
from fpt.evaluation.values import value_table
from fpt.forecasts import Forecast
from fpt.inputs import Input
from fpt.metrics import RESOLUTION, RESOLUTIONS
from fpt.outputs import Output
from fpt.parallel import gather

# Precisions that weights may be in, as `RESOLUTIONS` names them.
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16"}


@torch.no_grad()
def predict(
    model: torch.nn.Module, samples: Any, inputs: Input, output: Output, batch_size: int, accelerator: Accelerator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Run a prepared model over samples, each once, in batches of like length that depend on nothing else.

    Args:
        samples: as `fpt.data.samples.Samples`.
        batch_size: samples of a batch on each process.

    Returns:
        Predictions (samples, columns) float64 and labels as the samples have them, in the samples' order and the same in every
        process; labels are None when the samples have none.
    """
    sampler = SortedBatchSampler(samples.lengths, batch_size, accelerator.process_index, accelerator.num_processes)
    was_training = model.training
    model.eval()
    indices, predictions, labels = [], [], []
    for number, batch in enumerate(make_loader(samples, sampler, inputs)):
        own = batch.pop("labels", [])
        batch = send_to_device(batch, accelerator.device)
        logits = model(*fed(batch))
        if number < sampler.own:
            indices += sampler.batches[number]
            predictions.append(output.predict(logits).cpu())
            labels += own
    model.train(was_training)
    found = gather(accelerator, (indices, predictions, labels))
    order = np.argsort(np.concatenate([np.asarray(i, dtype=np.int64) for i, _, _ in found]))
    assert len(order) == len(samples)
    whole = torch.cat([p for _, parts, _ in found for p in parts]).numpy()[order]
    theirs = [label for _, _, parts in found for label in parts]
    return samples.restored(whole), np.asarray(theirs)[order] if theirs else None


def check_finite(predictions: np.ndarray) -> None:
    """Refuse predictions that are no numbers.

    Raises:
        FPTError: one is not finite.
    """
    if not np.isfinite(predictions).all():
        raise FPTError("the model predicts numbers that are not finite: its weights, its backbone or its precision are not right")


def predict_split(
    model: torch.nn.Module,
    prepared: Prepared,
    split: str,
    batch_size: int,
    accelerator: Accelerator,
    writings: int = 0,
    temperature: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels of a split, the labels in their own unit; see `predict`.

    Args:
        writings: random SMILES of each molecule whose predictions are averaged with that of the stored one.
        temperature: calibrates the predictions, each before the mean; None leaves them as the model gives them.

    Raises:
        FPTError: there are to be some, and the task has no SMILES.
    """
    rows = prepared.splits[split]
    if isinstance(rows, Dataset) and "variants" in rows.column_names:
        prepared = replace(prepared, splits={split: rows.remove_columns("variants")})
    predictions, labels = predict(model, prepared.samples(split), prepared.input, prepared.output, batch_size, accelerator)
    stored = prepared.labels(split)
    labels = labels if stored is None else stored
    assert labels is not None
    each = [predictions]
    for number in range(writings):
        samples = prepared.rewritten(split, number)
        samples.start_epoch(0)
        each.append(predict(model, samples, prepared.input, prepared.output, batch_size, accelerator)[0])
    return mean_prediction(of_each(prepared.output, each, [temperature] * len(each))), labels


def resolution_of(model: torch.nn.Module, accelerator: Accelerator) -> float:
    """What the precision of a model's predictions carries, as `Output.metrics` takes it: of the coarsest that takes part."""
    kinds = {accelerator.mixed_precision, getattr(accelerator, "backbone_precision", "no")}
    kinds |= {NAMES.get(p.dtype, "fp32") for p in model.parameters() if p.is_floating_point()}
    if accelerator.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest":
        kinds.add("tf32")
    return max(RESOLUTIONS.get(kind, RESOLUTION) for kind in kinds)


def prediction_table(prepared: Prepared, split: str, each: Sequence[np.ndarray], labels: np.ndarray) -> pd.DataFrame:
    """Predictions of a split as a table: columns id and label, those of the output, and of several models ``spread``.

    Of forecasts it has a row for each value ahead of the windows that do not overlap, see `fpt.evaluation.values`.

    Args:
        each: predictions of each model; their mean is written.
    """
    output, samples = prepared.output, prepared.samples(split)
    if isinstance(samples, WindowSamples) and isinstance(output, Forecast):
        return value_table(samples, output, each, labels)
    predictions = mean_prediction(each)
    shown = [output.shown(label) for label in labels]
    cells = pd.DataFrame([output.cells(p) for p in predictions], columns=output.columns())
    table = pd.concat([pd.DataFrame({"id": prepared.ids(split), "label": shown}), cells], axis=1)
    return table.assign(**{SPREAD: [f"{value:.6g}" for value in spread_of(each, output)]}) if len(each) > 1 else table

"""Predictions of a model over a split or over a user's own file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments, EvaluateArguments, data_arguments
from fpt.baselines import MODELS, Network
from fpt.checkpoint import find_checkpoint, load_checkpoint, read_config
from fpt.data.batches import SortedBatchSampler, make_loader
from fpt.data.cache import Prepared, prepare
from fpt.errors import FPTError, did_you_mean
from fpt.files import write_json, write_text
from fpt.inputs import Input, input_from_dict
from fpt.outputs import Output, output_from_dict
from fpt.parallel import gather, make_accelerator
from fpt.results import table
from fpt.tasks import SPLITS, TASKS, GeneratedTask, Task, resolve


@torch.no_grad()
def predict(
    model: torch.nn.Module, samples: Any, inputs: Input, output: Output, batch_size: int, accelerator: Accelerator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Run a prepared model over samples, each once, in batches of like length that depend on nothing else.

    Args:
        samples: a dataset with ``lengths``.
        batch_size: samples of a batch on each process.

    Returns:
        Predictions (samples, columns) float64 and labels, in the samples' order and the same in every process; labels are None
        when the samples have none.
    """
    sampler = SortedBatchSampler(samples.lengths, batch_size, accelerator.process_index, accelerator.num_processes)
    was_training = model.training
    model.eval()
    indices, predictions, labels = [], [], []
    for number, batch in enumerate(make_loader(samples, sampler, inputs, output)):
        batch = send_to_device(batch, accelerator.device)
        logits = model(batch["inputs"], batch["attention_mask"])
        if number < sampler.own:
            indices += sampler.batches[number]
            predictions.append(output.predict(logits).cpu())
            labels += [batch["labels"].cpu()] if "labels" in batch else []
    model.train(was_training)
    found = gather(accelerator, (indices, predictions, labels))
    order = np.argsort(np.concatenate([np.asarray(i, dtype=np.int64) for i, _, _ in found]))
    assert len(order) == len(samples)
    whole = torch.cat([p for _, parts, _ in found for p in parts]).numpy()[order]
    theirs = [label for _, _, parts in found for label in parts]
    return whole, torch.cat(theirs).numpy()[order] if theirs else None


def predict_split(
    model: torch.nn.Module, prepared: Prepared, split: str, batch_size: int, accelerator: Accelerator
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels of a split, without augmentation; see `predict`."""
    rows = prepared.splits[split]
    if isinstance(rows, Dataset) and "variants" in rows.column_names:
        prepared = replace(prepared, splits={split: rows.remove_columns("variants")})
    predictions, labels = predict(model, prepared.samples(split), prepared.input, prepared.output, batch_size, accelerator)
    assert labels is not None
    return predictions, labels


class _Listed(list):
    """Samples of a user's own file, with the length of each."""

    @property
    def lengths(self) -> list[int]:
        return [sample["length"] for sample in self]


def read_inputs(path: Path, column: str | None, task: Task) -> tuple[pd.DataFrame, str]:
    """Read a user's CSV file.

    Returns:
        The rows as text, and the name of the input column.

    Raises:
        FPTError: the file is empty or malformed, or the column is not there.
    """
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise FPTError(f"{path} can't be read as CSV: {error}; expected a header line and one input a row") from None
    if rows.empty:
        raise FPTError(f"{path} has a header line and no rows; add one input a row")
    if column is not None and column not in rows:
        raise FPTError(f"{path} has no column {column!r}{did_you_mean(column, rows)}; it has {', '.join(rows)}")
    if column is None:
        known = [c for c in task.text_columns if c in rows] or (list(rows) if len(rows.columns) == 1 else [])
        if not known:
            raise FPTError(f"which column of {path} holds the input? Give --column, one of {', '.join(rows)}")
        column = known[0]
    return rows, column


def output_columns(output: Output) -> list[str]:
    """The columns that `predict_file` adds."""
    return [*output.columns(), "reason"]


def predict_file(
    rows: pd.DataFrame,
    column: str,
    task: Task,
    args: DataArguments,
    model: Network,
    tokenizer: PreTrainedTokenizerBase | None,
    config: dict[str, Any],
    batch_size: int,
    accelerator: Accelerator,
) -> pd.DataFrame:
    """Predict each row; the result has the rows as they were, in their order.

    Returns:
        `rows` with the columns of the output (``prediction``, for classes ``probability_NAME`` of each) and ``reason``: why
        a row has an empty prediction, or that its input was cut.
    """
    inputs, output = input_from_dict(config["input"]), output_from_dict(config["output"])
    samples = _Listed()
    cells: dict[str, list[str]] = {name: [""] * len(rows) for name in output_columns(output)}
    for row, text in enumerate(rows[column]):
        try:
            features = task.encode({k: [v] for k, v in task.read(text).items()}, args, tokenizer)
        except ValueError as error:
            cells["reason"][row] = str(error)
            continue
        cells["reason"][row] = features["reason"][0]
        if not features["reason"][0]:
            samples.append({"row": row, inputs.column: np.asarray(features[inputs.column][0]), "length": features["length"][0]})
            if features.get("cut", [False])[0]:
                cells["reason"][row] = f"cut to {args.max_length} tokens"
    if samples:
        predictions, _ = predict(accelerator.prepare(model), samples, inputs, output, batch_size, accelerator)
        for sample, prediction in zip(samples, predictions, strict=True):
            for name, cell in zip(output.columns(), output.cells(prediction), strict=True):
                cells[name][sample["row"]] = cell
    return rows.assign(**cells)


def prediction_table(prepared: Prepared, split: str, predictions: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Predictions of a split as a table: columns id and label, and those of the output."""
    rows, output = prepared.splits[split], prepared.output
    ids = list(rows["id"]) if isinstance(rows, Dataset) else list(range(len(rows)))
    shown = [output.shown(label) for label in labels]
    cells = pd.DataFrame([output.cells(p) for p in predictions], columns=output.columns())
    return pd.concat([pd.DataFrame({"id": ids, "label": shown}), cells], axis=1)


def write_csv(rows: pd.DataFrame, path: Path) -> None:
    """Write `rows` as CSV in one step."""
    text = io.StringIO()
    rows.to_csv(text, index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    write_text(path, text.getvalue())


def run(args: EvaluateArguments) -> None:
    """What ``evaluate.py`` does: score a split, or predict a file."""
    folder = find_checkpoint(args.checkpoint, print if os.environ.get("RANK", "0") == "0" else _silent)
    config = read_config(folder)
    data = data_arguments(config["data"]["arguments"], data_dir=args.data_dir, cache_dir=args.cache_dir, num_proc=args.num_proc)
    task, data = resolve(TASKS[config["task"]], data, MODELS[config.get("model", "fpt")].view)
    rows = column = None
    if args.predict:
        if not args.output:
            raise FPTError("--predict needs --output FILE.csv to write the predictions to")
        if isinstance(task, GeneratedTask):
            raise FPTError(f"--predict: {task.name} is generated, it has no inputs in files")
        rows, column = read_inputs(Path(args.predict), args.column, task)
        _keep_users_columns(args, rows, output_columns(output_from_dict(config["output"])))
    elif args.split not in SPLITS:
        raise FPTError(f"unknown --split {args.split!r}; known: {', '.join(SPLITS)}")
    # There is nothing to spread without an optimizer: whatever trained it, each process has the whole model.
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    # The precision of the run, so that the scores are the run's.
    accelerator = make_accelerator(config.get("mixed_precision"))
    model, tokenizer, config = load_checkpoint(folder, accelerator.print, args.backbone)
    batch_size = args.eval_batch_size or config["eval_batch_size"]
    if rows is not None and column is not None and args.output is not None:
        out = predict_file(rows, column, task, data, model, tokenizer, config, batch_size, accelerator)
        if accelerator.is_main_process:
            write_csv(out, Path(args.output))
        empty = int((out["prediction"] == "").sum())
        accelerator.print(f"{len(out) - empty:,} rows predicted, {empty:,} could not be read; {args.output}")
        return
    seed, wanted = config["data"]["request"]["split_seed"], config["data"]["data_sha256"]
    with accelerator.main_process_first():
        prepared = prepare(task, data, seed, accelerator.print if accelerator.is_main_process else _silent, wanted)
    if prepared.manifest["data_sha256"] != wanted:
        raise FPTError(
            f"the data of {prepared.manifest['origin']} is not what the checkpoint was trained on"
            f" ({config['data']['origin']}); give that with --data_dir"
        )
    predictions, labels = predict_split(accelerator.prepare(model), prepared, args.split, batch_size, accelerator)
    metrics = prepared.output.metrics(labels, predictions)
    core = config["core"]
    accelerator.print(
        f"{config['task']}: core {core['name']}, {data.split} split of seed {seed}, seed"
        f" {config['training']['seed']}, model of step {config['step']}\n{table({args.split: metrics})}"
    )
    if args.output and accelerator.is_main_process:
        kept = ("task", "core", "step", "training", "model_sha256")
        report = {**{k: config[k] for k in kept}, "data": prepared.manifest, "metrics": {args.split: metrics}}
        write_json(Path(args.output), report)


def _keep_users_columns(args: EvaluateArguments, rows: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse an output that would replace the user's file or a column of it."""
    if Path(args.output or "").resolve() == Path(args.predict or "").resolve():
        raise FPTError(f"--output {args.output} is the file to predict; give another name")
    if taken := [c for c in columns if c in rows]:
        raise FPTError(f"{args.predict} has the column {taken[0]!r}, which the predictions need; rename it")


def _silent(line: str) -> None:
    pass

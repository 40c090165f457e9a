"""Class probabilities of a model over a split or over a user's own file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments, EvaluateArguments
from fpt.checkpoint import find_checkpoint, load_checkpoint, read_config
from fpt.data import SPLITS, Samples, SortedBatchSampler, encode_texts, make_loader, prepare
from fpt.errors import FPTError, did_you_mean
from fpt.files import write_json, write_text
from fpt.model import FPT
from fpt.results import classification_metrics, table
from fpt.tasks import TASKS, Task


def eval_loader(samples: Any, lengths: Any, batch_size: int, pad_id: int) -> DataLoader:
    """Every sample once, batches of like length. The batches depend on nothing else, so scores can be reproduced."""
    return make_loader(samples, SortedBatchSampler(lengths, batch_size), pad_id)


@torch.no_grad()
def predict(model: torch.nn.Module, loader: DataLoader, accelerator: Accelerator) -> tuple[np.ndarray, np.ndarray | None]:
    """Run a prepared model over a prepared loader.

    Returns:
        Probabilities (samples, classes) float64 and labels (samples,) int64, in the loader's order; labels are None
        when the samples have none. Under several processes every sample is there once.
    """
    was_training = model.training
    model.eval()
    probabilities, labels = [], []
    for batch in loader:
        logits = model(batch["input_ids"], batch["attention_mask"])
        probabilities.append(accelerator.gather_for_metrics(logits.double().softmax(dim=-1)).cpu())
        if "labels" in batch:
            labels.append(accelerator.gather_for_metrics(batch["labels"]).cpu())
    model.train(was_training)
    return torch.cat(probabilities).numpy(), torch.cat(labels).numpy() if labels else None


def split_loader(rows: Dataset, batch_size: int, tokenizer: PreTrainedTokenizerBase) -> DataLoader:
    """The evaluation loader of an Arrow split, without augmentation."""
    columns = [c for c in rows.column_names if c != "variants"]
    return eval_loader(Samples(rows.select_columns(columns)), rows["length"], batch_size, tokenizer.pad_token_id)


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


def output_columns(label_names: Sequence[str]) -> list[str]:
    """The columns that `predict_file` adds."""
    return ["prediction", *(f"probability_{name}" for name in label_names), "reason"]


def predict_file(
    rows: pd.DataFrame,
    column: str,
    task: Task,
    model: FPT,
    tokenizer: PreTrainedTokenizerBase,
    config: dict[str, Any],
    batch_size: int,
    accelerator: Accelerator,
) -> pd.DataFrame:
    """Predict each row; the result has the rows as they were, in their order.

    Returns:
        `rows` with the columns ``prediction`` (label name), ``probability_NAME`` for each label, and ``reason``: why a
        row has an empty prediction, or that its input was cut.
    """
    reasons = [task.check(text) for text in rows[column]]
    good = [i for i, reason in enumerate(reasons) if reason is None]
    out = rows.copy()
    names = list(config["label_names"])
    cells: dict[str, list[str]] = {column: [""] * len(rows) for column in output_columns(names)}
    cells["reason"] = [r or "" for r in reasons]
    if good:
        ids, cut = encode_texts([rows[column].iloc[i] for i in good], tokenizer, config["max_length"])
        samples = [{"input_ids": i} for i in ids]
        loader = eval_loader(samples, [len(i) for i in ids], batch_size, tokenizer.pad_token_id)
        order = [good[i] for i in loader.batch_sampler.order]
        probabilities, _ = predict(accelerator.prepare(model), accelerator.prepare(loader), accelerator)
        for row, p in zip(order, probabilities, strict=True):
            cells["prediction"][row] = names[int(p.argmax())]
            for name, value in zip(names, p, strict=True):
                cells[f"probability_{name}"][row] = f"{value:.8f}"
        for row, was_cut in zip(good, cut, strict=True):
            if was_cut:
                cells["reason"][row] = f"cut to {config['max_length']} tokens"
    for name, values in cells.items():
        out[name] = values
    return out


def write_csv(rows: pd.DataFrame, path: Path) -> None:
    """Write `rows` as CSV in one step."""
    text = io.StringIO()
    rows.to_csv(text, index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    write_text(path, text.getvalue())


def run(args: EvaluateArguments) -> None:
    """What ``evaluate.py`` does: score a split, or predict a file."""
    folder = find_checkpoint(args.checkpoint)
    config = read_config(folder)
    task = TASKS[config["task"]]
    rows = column = None
    if args.predict:
        if not args.output:
            raise FPTError("--predict needs --output FILE.csv to write the predictions to")
        rows, column = read_inputs(Path(args.predict), args.column, task)
        _keep_users_columns(args, rows, config["label_names"])
    elif args.split not in SPLITS:
        raise FPTError(f"unknown --split {args.split!r}; known: {', '.join(SPLITS)}")
    # The precision of the run, so that the scores are the run's.
    accelerator = Accelerator(mixed_precision=config.get("mixed_precision"))
    model, tokenizer, config = load_checkpoint(folder, accelerator.print)
    batch_size = args.eval_batch_size or config["eval_batch_size"]
    if rows is not None:
        out = predict_file(rows, column, task, model, tokenizer, config, batch_size, accelerator)
        if accelerator.is_main_process:
            write_csv(out, Path(args.output))
        empty = int((out["prediction"] == "").sum())
        accelerator.print(f"{len(out) - empty:,} rows predicted, {empty:,} could not be read; {args.output}")
        return
    data = DataArguments(**config["data"]["arguments"], data_dir=args.data_dir, cache_dir=args.cache_dir, num_proc=args.num_proc)
    seed, wanted = config["data"]["request"]["split_seed"], config["data"]["data_sha256"]
    with accelerator.main_process_first():
        prepared = prepare(task, data, seed, accelerator.print if accelerator.is_main_process else _silent, wanted)
    if prepared.manifest["data_sha256"] != wanted:
        raise FPTError(
            f"the data of {prepared.manifest['origin']} is not what the checkpoint was trained on"
            f" ({config['data']['origin']}); give that with --data_dir"
        )
    loader = split_loader(prepared.splits[args.split], batch_size, tokenizer)
    probabilities, labels = predict(accelerator.prepare(model), accelerator.prepare(loader), accelerator)
    metrics = classification_metrics(labels, probabilities)
    core = config["core"]
    accelerator.print(
        f"{config['task']}: core {core['name']}, {data.split} split of seed {seed}, seed"
        f" {config['training']['seed']}, model of step {config['step']}\n{table({args.split: metrics})}"
    )
    if args.output and accelerator.is_main_process:
        kept = ("task", "core", "step", "training", "model_sha256")
        report = {**{k: config[k] for k in kept}, "data": prepared.manifest, "metrics": {args.split: metrics}}
        write_json(Path(args.output), report)


def _keep_users_columns(args: EvaluateArguments, rows: pd.DataFrame, label_names: Sequence[str]) -> None:
    """Refuse an output that would replace the user's file or a column of it."""
    if Path(args.output).resolve() == Path(args.predict).resolve():
        raise FPTError(f"--output {args.output} is the file to predict; give another name")
    if taken := [c for c in output_columns(label_names) if c in rows]:
        raise FPTError(f"{args.predict} has the column {taken[0]!r}, which the predictions need; rename it")


def _silent(line: str) -> None:
    pass

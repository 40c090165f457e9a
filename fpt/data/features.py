"""Arrow features of a task's raw rows, made shard by shard, and the mean and deviation of their numbers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, concatenate_datasets
from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments, changed
from fpt.data.rejected import rejected_rows
from fpt.data.tokenizers import vocabulary_size
from fpt.inputs import Input, Patches, Tokens
from fpt.sample_vectors import COLUMN, SampleVector, measured
from fpt.side_tokens import SideTokens
from fpt.tasks.base import Examples, Task
from fpt.tasks.molecules import plain_numbers
from fpt.tasks.sides import count_sides

# Rows that are preprocessed at a time; what is done of them survives a stop.
SHARD = 2048
# Numbers that means are computed of at a time.
VALUES = 1 << 21


def encode_splits(
    examples: Examples, work: Path, task: Task, args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[dict[str, Dataset], pd.DataFrame]:
    """Features of each split, and the rows that could not be used."""
    arrows, rejected = {}, [examples.rejected]
    for name, rows in examples.splits.items():
        # Other ways to write an input are for training alone.
        arrow = _encode(rows, name, work, task, args if name == "train" else changed(args, augment=0), tokenizer)
        good = np.array([not reason for reason in arrow["reason"]], dtype=bool)
        rejected.append(_bad_rows(arrow, ~good))
        arrows[name] = arrow if good.all() else arrow.select(np.flatnonzero(good))
    return arrows, pd.concat([part for part in rejected if len(part)] or rejected[:1], ignore_index=True)


def _encode(
    rows: Dataset, name: str, work: Path, task: Task, args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
) -> Dataset:
    """Features of a split, made shard by shard into Arrow files of `work`; shards that are there are taken."""
    keep = [c for c in ("id", "text", "label") if c in rows.column_names]
    processes = args.num_proc or os.cpu_count() or 1
    slow = task.slow or "descriptors" in (args.sample_vector or "")
    shards = []
    with tqdm(total=len(rows), desc=f"preprocessing {name}", unit="row", dynamic_ncols=True) as bar:
        for start in range(0, len(rows), SHARD):
            shard = rows.select(range(start, min(start + SHARD, len(rows))))
            shards.append(
                shard.map(
                    task.encode,
                    batched=True,
                    batch_size=256,
                    fn_kwargs={"args": args, "tokenizer": tokenizer},
                    remove_columns=[c for c in rows.column_names if c not in keep],
                    # A process costs more to start than a few rows of text take.
                    num_proc=processes if processes > 1 and len(rows) > SHARD and slow else None,
                    cache_file_name=str(work / f"{name}-{start:09d}.arrow"),
                    load_from_cache_file=True,
                )
            )
            bar.update(len(shard))
    return concatenate_datasets(shards)


@contextlib.contextmanager
def no_bars_of_datasets() -> Iterator[None]:
    """`datasets` shows a bar for each shard and each file; ours is one for each split."""
    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()


def _bad_rows(arrow: Dataset, bad: np.ndarray) -> pd.DataFrame:
    rows = arrow.select(np.flatnonzero(bad))
    texts = rows["text"] if "text" in rows.column_names else [""] * len(rows)
    found = zip(rows["id"], texts, rows["reason"], strict=True)
    return rejected_rows([{"row": "", "id": i, "text": text, "reason": reason} for i, text, reason in found])


def describe_input(task: Task, args: DataArguments, tokenizer: PreTrainedTokenizerBase | None, train: Dataset) -> Input:
    if (own := task.input(args)) is not None:
        return own
    if tokenizer is not None:
        size, pad_id, vector = vocabulary_size(tokenizer), tokenizer.pad_token_id, describe_vector(args, train)
        if sides := count_sides(args):
            return SideTokens(size, pad_id, sides, args.side_buckets, vector=vector)
        return Tokens(size, pad_id, vector=vector)
    dim, period = task.dim(args), task.period(args)
    mean, std = _moments(train, period)
    repeats = dim // period if period > 1 else 1
    return Patches(dim, mean * repeats, std * repeats)


def describe_vector(args: DataArguments, train: Dataset) -> SampleVector | None:
    """The vector that samples carry, as it is on the training split; None where they carry none."""
    if not args.carries_vector:
        return None
    rows = train.select_columns([COLUMN]).with_format("numpy")

    def read() -> Iterator[np.ndarray]:
        return (np.asarray(batch[COLUMN], dtype=np.float32) for batch in rows.iter(batch_size=SHARD))

    return measured(read, plain_numbers(args.sample_vector or ""))


def _moments(rows: Dataset, period: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the values of a split, one for each of the `period` numbers that they repeat.

    They are computed in a stream, in float64; memory does not grow with the size of a sample.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    values = rows.select_columns(["values"]).with_format("numpy")
    batch_size = max(1, VALUES // max(1, len(values[0]["values"])))
    for batch in values.iter(batch_size=batch_size):
        scaler.partial_fit(np.concatenate(list(batch["values"]), dtype=np.float64, casting="unsafe").reshape(-1, period))
    mean, std = scaler.mean_, np.sqrt(scaler.var_)
    # A number that never changes says nothing, whatever it is divided by; how small it is does not matter.
    return tuple(mean.tolist()), tuple(np.where(std > 1e-12 * np.abs(mean), std, 1.0).tolist())

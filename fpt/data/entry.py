"""An entry of the Arrow cache: built from raw data, and opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, load_from_disk
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments
from fpt.data.features import describe_input, encode_splits, no_bars_of_datasets
from fpt.data.manifest import Manifest, Request, read_manifest
from fpt.data.prepared import Prepared
from fpt.data.rejected import check_rejected
from fpt.data.samples import numbers
from fpt.data.tokenizers import TRAINED, build_tokenizer, open_tokenizer
from fpt.data.window_samples import count_windows
from fpt.errors import FPTError
from fpt.files.disk import reason, remove
from fpt.files.tables import read_csv, write_csv
from fpt.files.whole import new_folder, write_json
from fpt.inputs import Input
from fpt.outputs import Classes, Output
from fpt.tasks.base import SPLITS, Examples, Source, Task
from fpt.text.log import silent


def build_entry(
    entry: Path,
    work: Path,
    task: Task,
    args: DataArguments,
    request: Request,
    source: Source,
    examples: Examples,
    given: PreTrainedTokenizerBase | None = None,
) -> None:
    """Preprocess the splits `examples` of `source` into the cache folder `entry`, which appears only when it is whole.

    Shards that are done stay in `work` when the process is stopped, and are not done again. `given` is the tokenizer, where it
    is not one that is trained on the texts.

    Raises:
        FPTError: bad arguments, or more unusable rows than --max_bad_fraction.
    """
    _check_not_empty(examples.splits, source)
    texts = examples.splits["train"]["text"] if args.tokenizer is not None else None
    words = getattr(getattr(task, "modality", None), "words", True)
    tokenizer = None
    if texts is not None:
        tokenizer = given if given is not None and args.tokenizer not in TRAINED else build_tokenizer(texts, args, words)
    with no_bars_of_datasets():
        try:
            arrows, rejected = encode_splits(examples, work, task, args, tokenizer)
            check_rejected(rejected, examples.total, args.max_bad_fraction, source.origin)
            _check_not_empty(arrows, source)
            _check_classes(arrows["train"], examples.output, source)
            primary, why = _primary_metric(task, examples.output, arrows["valid"])
            inputs = describe_input(task, args, tokenizer, arrows["train"])
        except FPTError:
            remove(work)
            raise
        with new_folder(entry) as folder:
            for name, arrow in arrows.items():
                arrow.remove_columns([c for c in ("cut", "reason", "unknown") if c in arrow.column_names]).save_to_disk(
                    folder / name
                )
            if tokenizer is not None:
                tokenizer.save_pretrained(folder / "tokenizer")
            left_out = pd.concat([part for part in (rejected, examples.unused) if len(part)] or [rejected])
            # Escaped cells are reported when the file is copied into the folder of a run.
            write_csv(left_out, folder / "rejected.csv", log=silent)
            notes = (*examples.notes, *([why] if why else []))
            manifest = describe_entry(request, source, examples, arrows, inputs, primary, len(rejected), notes)
            write_json(folder / "manifest.json", manifest.to_dict())
    remove(work)


def describe_entry(
    request: Request,
    source: Source,
    examples: Examples,
    arrows: dict[str, Dataset],
    inputs: Input,
    primary: str,
    rejected: int,
    notes: tuple[str, ...],
) -> Manifest:
    """What an entry is made from and holds."""
    return Manifest(
        request=request,
        origin=source.origin,
        users_own=source.users_own,
        data_sha256=source.sha256,
        input=inputs,
        output=examples.output,
        primary_metric=primary,
        rows={name: count_windows(rows) or len(rows) for name, rows in arrows.items()},
        unused=len(examples.unused),
        cut_to_max_length=_count(arrows, "cut"),
        with_unknown_tokens=_count(arrows, "unknown"),
        split_method=examples.method,
        schema=examples.schema,
        rejected=rejected,
        notes=notes,
    )


def load_entry(entry: Path, task: Task, args: DataArguments, seed: int | None = None) -> Prepared:
    """Open a cache entry; nothing is copied into memory.

    Args:
        seed: of the split that was asked for; the manifest gets it where the entry is the same for every seed.
    """
    manifest = read_manifest(entry / "manifest.json")
    if manifest.request.split_seed is None and seed is not None:
        manifest = replace(manifest, request=replace(manifest.request, split_seed=seed))
    rejected = read_csv(entry / "rejected.csv")
    if "reason" not in rejected.columns:
        raise FPTError("rejected.csv has no column reason")
    total = sum(manifest.rows.values()) + manifest.rejected
    # It may have been made with a larger --max_bad_fraction. Rows that are left out on purpose come last.
    check_rejected(rejected[: manifest.rejected], total, args.max_bad_fraction, manifest.origin)
    own = entry / "tokenizer"
    assert manifest.input is not None  # `read_manifest` reads no other
    return Prepared(
        task=task,
        args=args,
        splits={name: _open_split(entry / name) for name in SPLITS},
        input=manifest.input,
        output=manifest.output,
        tokenizer=open_tokenizer(own, getattr(manifest.input, "vocab_size", None)) if own.is_dir() else None,
        manifest=manifest,
        rejected=rejected,
    )


def _open_split(folder: Path) -> Dataset:
    """The Arrow dataset of a split.

    Raises:
        ValueError: it is missing or damaged.
    """
    try:
        return load_from_disk(folder)
    except Exception as error:  # `datasets` trusts its own records, and runs into anything where they are damaged
        raise ValueError(reason(error)) from error


def _check_not_empty(splits: dict[str, Dataset], source: Source) -> None:
    for name in SPLITS:
        if not len(splits[name]):
            raise FPTError(f"the {name} split of {source.origin} is empty; use more data or another --split_seed")


def _count(arrows: dict[str, Dataset], column: str) -> dict[str, int]:
    """Rows of each split with something in `column`."""
    return {n: int(np.count_nonzero(a[column])) if column in a.column_names else 0 for n, a in arrows.items()}


def _check_classes(train: Dataset, output: Output, source: Source) -> None:
    """Refuse training rows of one class, and a class of a user's own data that has lost all its rows."""
    if not isinstance(output, Classes):
        return
    counts = np.bincount(numbers(train, "label"), minlength=output.size)
    if np.count_nonzero(counts) < 2:
        raise FPTError(f"the train split of {source.origin} has one class only; there is nothing to tell apart: use more data")


def _primary_metric(task: Task, output: Output, valid: Dataset) -> tuple[str, str | None]:
    """The metric that picks the model, and why it is not the usual one where the validation labels do not allow that."""
    usual = task.primary_metric or output.default_metric
    if "label" not in valid.column_names:  # of windows, which are cut from a series as they are read
        return usual, None
    why = output.undefined(usual, numbers(valid, "label"))
    if why is None:
        return usual, None
    return "loss", f"{usual} is not defined on the validation split ({why}): the model is picked by its loss there"

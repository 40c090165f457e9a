"""From a task's raw data to batches: Arrow files made once, then batches of like lengths.

A cache entry is a folder ``<cache>/arrow/<task>/<key>/`` with one Arrow dataset a split, the tokenizer, the list of
rejected rows and a manifest. It appears whole or not at all. Its key is a hash of everything that changes its content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, load_from_disk
from datasets.utils.logging import disable_progress_bar, enable_progress_bar
from torch.utils.data import DataLoader, Sampler
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from fpt.args import DataArguments
from fpt.errors import FPTError
from fpt.files import cache_home, new_folder, write_json
from fpt.tasks import Source, Task
from fpt.tokenizers import TRAINED, build_tokenizer

SPLITS = ("train", "valid", "test")
# Raised whenever this file would write other Arrow files from the same raw data.
CODE_VERSION = 1


@dataclass
class Prepared:
    """A task ready to train on.

    Attributes:
        splits: for each of train, valid and test an Arrow dataset with the columns ``id`` (str), ``text`` (str),
            ``label`` (int), ``input_ids`` (list of int) and ``length`` (int, tokens). Train may have ``variants``
            (list of lists of int): the same inputs written in other ways.
        tokenizer: turns text into ``input_ids``.
        manifest: what the entry was made from; JSON values.
        rejected: rows that could not be used, with the reason.
    """

    splits: dict[str, Dataset]
    tokenizer: PreTrainedTokenizerBase
    manifest: dict[str, Any]
    rejected: pd.DataFrame


def prepare(task: Task, args: DataArguments, seed: int, log: Callable[[str], None], data_sha256: str | None = None) -> Prepared:
    """Return `task`'s splits from the Arrow cache, or find the raw data and preprocess it into the cache.

    The order is: Arrow cache, --data_dir, installed data package, download; `log` hears of each step. An entry is
    taken without looking at raw data only when no --data_dir is given and it was not made from a file of the user's own.

    Args:
        seed: of the split, when --split_seed is not given.
        data_sha256: hash of the raw data that is wanted; an entry made from it is taken whatever its source was.

    Raises:
        FPTError: bad arguments, or no data.
    """
    root = Path(args.cache_dir).expanduser() if args.cache_dir else cache_home()
    folder = root / "arrow" / task.name
    request = describe_request(task, args, args.split_seed if args.split_seed is not None else seed)
    if args.data_dir is None:
        for entry in sorted(folder.glob("*/manifest.json")):
            manifest = _read_manifest(entry)
            if manifest is None or manifest["request"] != request:
                continue
            if manifest["data_sha256"] == data_sha256 if data_sha256 else not manifest["users_own"]:
                log(f"data: Arrow cache: {entry.parent} (made from {manifest['origin']})")
                return load_entry(entry.parent)
    log(f"data: Arrow cache: {'asked again once the raw data is read' if args.data_dir else f'nothing in {folder}'}")
    source = task.locate(args, lambda line: log(f"data: {line}"))
    entry = folder / _key(request, source)
    if _read_manifest(entry / "manifest.json"):
        log(f"data: Arrow cache: {entry} (same content as {source.origin})")
        return load_entry(entry)
    log(f"data: preprocessing {len(source.rows):,} rows of {source.origin}")
    build_entry(entry, task, args, request, source)
    return load_entry(entry)


def describe_request(task: Task, args: DataArguments, seed: int) -> dict[str, Any]:
    """All that changes the Arrow files besides the raw data, as JSON values."""
    trained = args.tokenizer in TRAINED
    return {
        "task": task.name,
        "split": args.split,
        "split_seed": seed,
        "tokenizer": args.tokenizer if trained else _tokenizer_sha256(build_tokenizer([], args)),
        "vocab_size": args.vocab_size if args.tokenizer == "bpe" else None,
        "max_length": args.max_length,
        "augment": args.augment,
        "code": [CODE_VERSION, task.code_version],
        # Other releases of these may cut scaffolds or words in another way.
        "libraries": {name: metadata.version(name) for name in ("rdkit", "pytdc", "tokenizers", "datasets")},
    }


def build_entry(entry: Path, task: Task, args: DataArguments, request: dict[str, Any], source: Source) -> None:
    """Preprocess `source` into the cache folder `entry`, which appears only when it is whole."""
    if args.max_length < 3:
        raise FPTError(f"--max_length {args.max_length} leaves no room for [BOS], a token and [EOS]; give at least 3")
    examples = task.split(source, args, request["split_seed"])
    tokenizer = build_tokenizer(examples.splits["train"]["text"], args)
    enable_progress_bar()
    try:
        with new_folder(entry) as folder:
            cut = {}
            for name, rows in examples.splits.items():
                augment = args.augment if name == "train" else 0
                arrow = rows.map(
                    _encode,
                    batched=True,
                    fn_kwargs={"tokenizer": tokenizer, "task": task, "max_length": args.max_length, "augment": augment},
                    num_proc=args.num_proc if args.num_proc > 1 else None,
                    keep_in_memory=True,
                    desc=f"tokenizing {name}",
                )
                cut[name] = int(sum(arrow["cut"]))
                arrow.remove_columns("cut").save_to_disk(folder / name)
            tokenizer.save_pretrained(folder / "tokenizer")
            examples.rejected.to_csv(folder / "rejected.csv", index=False)
            write_json(
                folder / "manifest.json",
                {
                    "request": request,
                    "origin": source.origin,
                    "users_own": source.users_own,
                    "data_sha256": source.sha256,
                    "rows": {name: len(rows) for name, rows in examples.splits.items()},
                    "rejected": len(examples.rejected),
                    "cut_to_max_length": cut,
                },
            )
    finally:
        disable_progress_bar()


def load_entry(entry: Path) -> Prepared:
    """Open a cache entry; nothing is copied into memory."""
    return Prepared(
        splits={name: load_from_disk(entry / name) for name in SPLITS},
        tokenizer=AutoTokenizer.from_pretrained(entry / "tokenizer"),
        manifest=json.loads((entry / "manifest.json").read_text()),
        rejected=pd.read_csv(entry / "rejected.csv", dtype=str, keep_default_na=False),
    )


def encode_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[list[list[int]], list[bool]]:
    """Tokenize; a sequence longer than `max_length` loses tokens before its last one, which the readout reads.

    Returns:
        The token ids of each text, and whether it was cut.
    """
    ids = tokenizer(list(texts), add_special_tokens=True)["input_ids"]
    cut = [len(i) > max_length for i in ids]
    return [i if not c else i[: max_length - 1] + i[-1:] for i, c in zip(ids, cut, strict=True)], cut


def collate(samples: Sequence[dict[str, Any]], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad on the right to the longest sample.

    Returns:
        ``input_ids`` and ``attention_mask`` (batch, tokens) int64, 1 for real tokens; ``labels`` (batch,) int64 when
        the samples have them.
    """
    longest = max(len(s["input_ids"]) for s in samples)
    input_ids = torch.full((len(samples), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(samples), longest), dtype=torch.long)
    for row, sample in enumerate(samples):
        ids = torch.tensor(sample["input_ids"])
        input_ids[row, : len(ids)] = ids
        mask[row, : len(ids)] = 1
    batch = {"input_ids": input_ids, "attention_mask": mask}
    if "label" in samples[0]:
        batch["labels"] = torch.tensor([s["label"] for s in samples])
    return batch


class LengthGroupedBatchSampler(Sampler[list[int]]):
    """Batches of samples of like length, in a random order that `seed` and the epoch decide.

    The shuffled data is cut into pools of 50 batches, each pool sorted by length and cut into batches: as random as
    the pools are large, with little padding. The last, smaller batch is kept.
    """

    POOL = 50

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self.drop_last = False

    def start_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives. (Accelerate would call a `set_epoch` with its own count.)"""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        pool = self.POOL * self.batch_size
        batches: list[np.ndarray] = []
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        for i in rng.permutation(len(batches)):
            yield batches[i].tolist()


class SortedBatchSampler(Sampler[list[int]]):
    """Every sample once, longest first, so that a batch too large for the memory fails at once; for evaluation."""

    def __init__(self, lengths: Sequence[int], batch_size: int) -> None:
        self.order = np.argsort(-np.asarray(lengths), kind="stable")
        self.batch_size, self.drop_last = batch_size, False

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for i in range(0, len(self.order), self.batch_size):
            yield self.order[i : i + self.batch_size].tolist()


class Samples(torch.utils.data.Dataset):
    """An Arrow split as a map-style dataset; each epoch reads another variant of a sample when there are any."""

    def __init__(self, rows: Dataset, seed: int = 0) -> None:
        wanted = [c for c in ("input_ids", "label", "variants") if c in rows.column_names]
        self.rows = rows.select_columns(wanted).with_format("numpy")
        self.seed, self.epoch = seed, 0

    def start_epoch(self, epoch: int) -> None:
        """Choose the epoch that picks the variants."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        sample = {"input_ids": row["input_ids"], "label": int(row["label"])}
        if "variants" in row:
            choice = int(np.random.default_rng([self.seed, self.epoch, index]).integers(len(row["variants"]) + 1))
            if choice:
                sample["input_ids"] = row["variants"][choice - 1]
        return sample


def make_loader(samples: Any, batch_sampler: Sampler[list[int]], pad_id: int) -> DataLoader:
    """A loader of padded batches. Its own generator keeps it from drawing on the random state that dropout uses."""
    return DataLoader(
        samples, batch_sampler=batch_sampler, collate_fn=lambda batch: collate(batch, pad_id), generator=torch.Generator()
    )


def padding_waste(lengths: Sequence[int], batches: Iterator[Sequence[int]]) -> float:
    """Share of positions that are padding when each batch is padded to its longest sample."""
    lengths = np.asarray(lengths)
    real = padded = 0
    for batch in batches:
        part = lengths[list(batch)]
        real += int(part.sum())
        padded += int(part.max()) * len(part)
    return 1 - real / padded


def random_batches(count: int, batch_size: int, seed: int) -> Iterator[Sequence[int]]:
    """Batches in a random order, without regard to length: what `LengthGroupedBatchSampler` is compared with."""
    order = np.random.default_rng(seed).permutation(count)
    return (order[i : i + batch_size] for i in range(0, count, batch_size))


def _encode(
    rows: dict[str, list[Any]], tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int, augment: int
) -> dict[str, list[Any]]:
    ids, cut = encode_texts(rows["text"], tokenizer, max_length)
    columns: dict[str, list[Any]] = {"input_ids": ids, "length": [len(i) for i in ids], "cut": cut}
    if augment:
        # The seed is the text itself, so a variant does not depend on how rows are spread over processes.
        seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:4], "big") for t in rows["text"]]
        columns["variants"] = [
            encode_texts(task.variants(text, augment, seed), tokenizer, max_length)[0]
            for text, seed in zip(rows["text"], seeds, strict=True)
        ]
    return columns


def _key(request: dict[str, Any], source: Source) -> str:
    text = json.dumps([request, source.sha256], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()

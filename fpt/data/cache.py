"""From a task's raw data to batches: Arrow files made once, then batches of like lengths.

A cache entry is a folder ``<cache>/arrow/<task>/<key>/`` with one Arrow dataset a split, the tokenizer, the list of
rejected rows and a manifest. It appears whole or not at all. Its key is a hash of everything that changes its content; the seed
of the split is none of that where the published or given splits are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, load_from_disk
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments
from fpt.csv_files import read_csv, write_csv
from fpt.data.cache_folders import manifests, read_manifest, sweep_work, work_folder
from fpt.data.features import describe_input, encode_splits, no_bars_of_datasets
from fpt.data.rejected import check_rejected
from fpt.data.samples import ArrowSamples, GeneratedSamples, Samples, numbers
from fpt.data.tokenizers import TRAINED, build_tokenizer, open_tokenizer, tokenizer_sha256
from fpt.disk import reason, refusals, remove
from fpt.errors import FPTError, RejectedRows
from fpt.files import alone, cache_home, new_folder, slug, user_path, write_json
from fpt.inputs import Input, Patches, input_from_dict
from fpt.outputs import Classes, Output, output_from_dict
from fpt.tasks import SPLITS, Examples, GeneratedTask, Source, Task, rejected_rows, resolve

# Raised whenever this file would write other Arrow files from the same raw data.
CODE_VERSION = 3
# What the names of datasets of the Hub begin with.
HUB = "hub:"


@dataclass
class Prepared:
    """A task ready to train on.

    Attributes:
        task: where it came from.
        args: what was asked for.
        splits: for each of train, valid and test an Arrow dataset with the columns ``id`` (str), ``label``, ``length`` (int,
            tokens) and ``input_ids`` (list of int) or ``values`` (list of tokens * dim numbers); tasks on text have ``text``
            and train may have ``variants`` (list of lists of int): the same inputs written in other ways. Or the samples of
            a generated task.
        input: what goes into the core.
        output: what the labels are.
        tokenizer: turns text into ``input_ids``; None for patches.
        manifest: what the entry was made from; JSON values.
        rejected: rows that could not be used, with the reason.
    """

    task: Task | GeneratedTask
    args: DataArguments
    splits: dict[str, Any]
    input: Input
    output: Output
    tokenizer: PreTrainedTokenizerBase | None
    manifest: dict[str, Any]
    rejected: pd.DataFrame

    def samples(self, split: str, seed: int = 0) -> Samples:
        """The samples of a split; `seed` picks the variants."""
        rows = self.splits[split]
        return rows if isinstance(rows, Samples) else ArrowSamples(rows, self.input, seed)

    @property
    def primary_metric(self) -> str:
        """The metric that picks the model on the validation split."""
        return self.manifest["primary_metric"]

    @property
    def split_method(self) -> str:
        """How train, valid and test were made, in words."""
        return self.manifest.get("split_method") or self.manifest["request"]["split"]


def prepare(
    task: Task | GeneratedTask,
    args: DataArguments,
    seed: int,
    log: Callable[[str], None],
    data_sha256: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    fetch: bool = True,
) -> Prepared:
    """Return `task`'s splits from the Arrow cache, or find the raw data and preprocess it into the cache.

    The order is: Arrow cache, --data_dir, installed data package, download; `log` hears of each step. An entry is
    taken without looking at raw data only when no --data_dir is given and it was not made from a file of the user's own.

    Args:
        seed: of the split, when --split_seed is not given.
        data_sha256: hash of the raw data that is wanted; an entry made from it is taken whatever its source was.
        tokenizer: a checkpoint's own, to go with its data: none is fetched then, whatever ``args.tokenizer`` says.
        fetch: whether a dataset that a checkpoint names may be fetched from the Hub.

    Raises:
        FPTError: bad arguments, no data, or tokens that are not those of `tokenizer`.
    """
    task, args = resolve(task, args)
    _check_own_tokenizer(args, data_sha256, tokenizer)
    seed = args.split_seed if args.split_seed is not None else seed
    if isinstance(task, GeneratedTask):
        log(f"data: {task.name} is generated from seed {seed}")
        return _generated(task, args, seed)
    # What makes no sense is said before any file is read.
    check_arguments(task, args)
    root = user_path(args.cache_dir) if args.cache_dir else cache_home()
    folder = root / "arrow" / slug(task.name)
    request = describe_request(task, args, seed, tokenizer)
    if args.data_dir is None:
        for entry in manifests(folder):
            manifest = read_manifest(entry)
            if manifest is None or manifest["request"] not in (request, _of_any_seed(request)):
                continue
            if manifest["data_sha256"] == data_sha256 if data_sha256 else not manifest["users_own"]:
                log(f"data: Arrow cache: {entry.parent} (made from {manifest['origin']})")
                sweep_work(root, f"{slug(task.name)}-{entry.parent.name}")
                return _check_tokens(_load(entry.parent, task, args, seed), tokenizer, data_sha256)
    log(f"data: Arrow cache: {'asked again once the raw data is read' if args.data_dir else f'nothing in {folder}'}")
    if not fetch and task.name.startswith(HUB) and not user_path(task.name.removeprefix(HUB)).exists():
        raise FPTError(
            f"the checkpoint's data is the dataset {task.name.removeprefix(HUB)} of the Hub, and it is not in the cache; pass"
            " --fetch_data to fetch it"
        )
    source = task.locate(args, lambda line: log(f"data: {line}"))
    found = _entry_of(folder, request, source)
    # A cache that can't be written to has no locks; it needs none for what is there.
    if found is None:
        found, is_new = _make_entry(root, task, args, request, source, tokenizer, lambda line: log(f"data: {line}"))
        if is_new:
            return _check_tokens(_load(found, task, args, seed), tokenizer, data_sha256)
    log(f"data: Arrow cache: {found} (same content as {source.origin})")
    sweep_work(root, f"{slug(task.name)}-{found.name}")
    return _check_tokens(_load(found, task, args, seed), tokenizer, data_sha256)


def _entry_of(folder: Path, request: dict[str, Any], source: Source) -> Path | None:
    """The entry that answers a request, with the splits of its seed or with those of every seed; None where there is none."""
    entries = [folder / _key(one, source) for one in (_of_any_seed(request), request)]
    return next((entry for entry in entries if read_manifest(entry / "manifest.json") is not None), None)


def _make_entry(
    root: Path,
    task: Task,
    args: DataArguments,
    request: dict[str, Any],
    source: Source,
    tokenizer: PreTrainedTokenizerBase | None,
    log: Callable[[str], None],
) -> tuple[Path, bool]:
    """Preprocess `source` into the cache; one process at a time, and the others that wait take what it wrote.

    Returns:
        The entry, and whether it was written here.
    """
    folder, key = root / "arrow" / slug(task.name), _key(request, source)
    waiting = lambda: log("another run preprocesses the same data; waiting for it")  # noqa: E731
    with contextlib.ExitStack() as locks:
        lock = root / "locks" / f"{slug(task.name)}-{key}"
        locked = locks.enter_context(alone(lock, waiting, log))
        if (entry := _entry_of(folder, request, source)) is not None:
            return entry, False
        log(f"preprocessing {len(source.rows):,} rows of {source.origin}")
        what = f"the cache {root} can't be written"
        with refusals(what, root):
            examples = task.split(source, args, request["split_seed"])
            if not examples.seeded:
                # Runs with other seeds may be about to write the same entry.
                request = _of_any_seed(request)
                lock = root / "locks" / f"{slug(task.name)}-{_key(request, source)}"
                locked = locks.enter_context(alone(lock, waiting, log))
                if (entry := _entry_of(folder, request, source)) is not None:
                    return entry, False
            entry = folder / _key(request, source)
            with work_folder(root / "work" / lock.name, locked) as work:
                build_entry(entry, work, task, args, request, source, examples, tokenizer)
    return entry, True


def _check_own_tokenizer(args: DataArguments, data_sha256: str | None, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Refuse to fetch what a checkpoint names: its tokenizer is in the files beside it, or nowhere."""
    if data_sha256 is not None and tokenizer is None and args.tokenizer is not None and args.tokenizer not in TRAINED:
        raise FPTError(f"the checkpoint names the tokenizer {args.tokenizer!r} and has none beside it; copy it again")


def _check_tokens(prepared: Prepared, tokenizer: PreTrainedTokenizerBase | None, data_sha256: str | None) -> Prepared:
    """`prepared`, if its ids mean what they mean in a checkpoint's `tokenizer`; of other data nothing is said here.

    Raises:
        FPTError: they do not.
    """
    own = prepared.tokenizer
    if tokenizer is None or own is None or prepared.manifest["data_sha256"] != data_sha256:
        return prepared
    if tokenizer_sha256(tokenizer) != tokenizer_sha256(own):
        raise FPTError(
            f"the tokenizer that {prepared.manifest['origin']} gives now is not the checkpoint's (another release of the"
            " tokenizers library, or a changed checkpoint); score with the releases that trained it"
        )
    return prepared


def describe_request(
    task: Task, args: DataArguments, seed: int, tokenizer: PreTrainedTokenizerBase | None = None
) -> dict[str, Any]:
    """All that changes the Arrow files besides the raw data, as JSON values."""
    request: dict[str, Any] = {
        "task": task.name,
        "options": args.options,
        "split": args.split,
        "split_seed": seed,
        "max_length": args.max_length,
        "keep_notation": args.keep_notation,
        "code": [CODE_VERSION, task.code_version],
        # Other releases of these may cut scaffolds or words, or decode, in another way.
        "libraries": {name: metadata.version(name) for name in ("datasets", *task.libraries)},
    }
    if task.features is not None:
        request["features"] = task.features
    if args.tokenizer is not None:
        trained = args.tokenizer in TRAINED
        request |= {
            "tokenizer": args.tokenizer if trained else tokenizer_sha256(tokenizer or build_tokenizer([], args)),
            "vocab_size": args.vocab_size if args.tokenizer == "bpe" else None,
            "augment": args.augment,
        }
    return request


def check_arguments(task: Task, args: DataArguments) -> None:
    """Refuse arguments that leave no token.

    Raises:
        FPTError: the options leave no token, or make no sense together.
    """
    if args.tokenizer is not None:
        if args.longest < 3:
            raise FPTError(f"--max_length {args.max_length} leaves no room for [BOS], a token and [EOS]; give at least 3")
    elif task.input(args) is None:
        task.dim(args)


def build_entry(
    entry: Path,
    work: Path,
    task: Task,
    args: DataArguments,
    request: dict[str, Any],
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
            # What is changed in it is told when it is copied into the folder of a run.
            write_csv(left_out, folder / "rejected.csv", log=lambda line: None)
            manifest = {
                "request": request,
                "origin": source.origin,
                "users_own": source.users_own,
                "data_sha256": source.sha256,
                "input": inputs.to_dict(),
                "output": examples.output.to_dict(),
                "primary_metric": primary,
                "rows": {name: len(rows) for name, rows in arrows.items()},
                "rejected": len(rejected),
                "unused": len(examples.unused),
                "cut_to_max_length": _count(arrows, "cut"),
                "with_unknown_tokens": _count(arrows, "unknown"),
                "split_method": examples.method,
                "schema": None if examples.schema is None else examples.schema.to_dict(),
                "notes": [*examples.notes, *([why] if why else [])],
            }
            write_json(folder / "manifest.json", manifest)
    remove(work)


def load_entry(entry: Path, task: Task, args: DataArguments, seed: int | None = None) -> Prepared:
    """Open a cache entry; nothing is copied into memory.

    Args:
        seed: of the split that was asked for; the manifest gets it where the entry is the same for every seed.
    """
    manifest = json.loads((entry / "manifest.json").read_text(encoding="utf-8"))
    if manifest["request"]["split_seed"] is None and seed is not None:
        manifest["request"]["split_seed"] = seed
    rejected = read_csv(entry / "rejected.csv")
    total = sum(manifest["rows"].values()) + manifest["rejected"]
    # It may have been made with a larger --max_bad_fraction. Rows that are left out on purpose come last.
    check_rejected(rejected[: manifest["rejected"]], total, args.max_bad_fraction, manifest["origin"])
    own = entry / "tokenizer"
    return Prepared(
        task=task,
        args=args,
        splits={name: load_from_disk(entry / name) for name in SPLITS},
        input=input_from_dict(manifest["input"]),
        output=output_from_dict(manifest["output"]),
        tokenizer=open_tokenizer(own, manifest["input"].get("vocab_size")) if own.is_dir() else None,
        manifest=manifest,
        rejected=rejected,
    )


def _load(entry: Path, task: Task, args: DataArguments, seed: int) -> Prepared:
    """The same, in one line where that fails.

    Raises:
        FPTError: a part of the entry is missing or damaged.
    """
    try:
        return load_entry(entry, task, args, seed)
    except RejectedRows:
        raise
    except Exception as error:  # of pyarrow, pandas, tokenizers or the file system
        raise FPTError(
            f"the cache entry {entry} can't be read ({reason(error)}); delete that folder, it is made again"
        ) from error


def _generated(task: GeneratedTask, args: DataArguments, seed: int) -> Prepared:
    request = {"task": task.name, "options": args.options, "split": args.split, "split_seed": seed, "code": [task.code_version]}
    output = task.output(args)
    manifest = {
        "request": request,
        "origin": f"generated from seed {seed}",
        "users_own": False,
        "data_sha256": hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest(),
        "output": output.to_dict(),
        "primary_metric": task.primary_metric or output.default_metric,
        "rows": dict(task.sizes),
        "rejected": 0,
        "cut_to_max_length": {},
    }
    splits = {name: GeneratedSamples(task, args, name, seed) for name in SPLITS}
    return Prepared(task, args, splits, Patches(task.dim(args)), output, None, manifest, rejected_rows([]))


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
    why = output.undefined(usual, numbers(valid, "label"))
    if why is None:
        return usual, None
    return "loss", f"{usual} is not defined on the validation split ({why}): the model is picked by its loss there"


def _of_any_seed(request: dict[str, Any]) -> dict[str, Any]:
    """The request of an entry whose splits are the same for every seed."""
    return {**request, "split_seed": None}


def _key(request: dict[str, Any], source: Source) -> str:
    text = json.dumps([request, source.sha256, *source.notes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""From a task's raw data to batches: Arrow files made once, then batches of like lengths.

A cache entry is a folder ``<cache>/arrow/<task>/<key>/`` with one Arrow dataset a split, the tokenizer, the list of
rejected rows and a manifest. It appears whole or not at all. Its key is a hash of everything that changes its content; the seed
of the split is none of that where the published or given splits are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments
from fpt.data.cache_folders import manifests, sweep_work, work_folder
from fpt.data.entry import build_entry, load_entry
from fpt.data.manifest import Manifest, Request, SidesAsked, read_made
from fpt.data.prepared import Prepared
from fpt.data.samples import GeneratedSamples
from fpt.data.tokenizers import TRAINED, build_tokenizer, tokenizer_sha256
from fpt.errors import FPTError, RejectedRows
from fpt.files.disk import reason, refusals
from fpt.files.whole import alone, cache_home, slug, user_path
from fpt.inputs import Patches
from fpt.tasks.base import SPLITS, GeneratedTask, Source, Task, rejected_rows, resolve
from fpt.tasks.row_vectors import check_vector_columns
from fpt.tasks.sides import check_sides, count_sides
from fpt.text.log import Log

# Raised whenever this file would write other Arrow files from the same raw data.
CODE_VERSION = 3
# What a missing or damaged part of an entry raises.
DAMAGED = (FPTError, OSError, ValueError)
# What the names of datasets of the Hub begin with.
HUB = "hub:"


def prepare(
    task: Task | GeneratedTask,
    args: DataArguments,
    seed: int,
    log: Log,
    data_sha256: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    fetch: bool = True,
) -> Prepared:
    """Return `task`'s splits from the Arrow cache, or find the raw data and preprocess it into the cache.

    The order is: Arrow cache, then the ladder of `fpt.tasks.sources`; `log` gets a line for each step. An entry is
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
    if args.data_dir is None and (known := _find(folder, request, data_sha256)) is not None:
        there, origin = known
        log(f"data: Arrow cache: {there} (made from {origin})")
        sweep_work(root, f"{slug(task.name)}-{there.name}")
        return _check_tokens(_load(there, task, args, seed), tokenizer, data_sha256)
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
        found, is_new = _make_entry(root, task, args, seed, request, source, tokenizer, lambda line: log(f"data: {line}"))
        if is_new:
            return _check_tokens(_load(found, task, args, seed), tokenizer, data_sha256)
    log(f"data: Arrow cache: {found} (same content as {source.origin})")
    sweep_work(root, f"{slug(task.name)}-{found.name}")
    return _check_tokens(_load(found, task, args, seed), tokenizer, data_sha256)


def _find(folder: Path, request: Request, data_sha256: str | None) -> tuple[Path, str] | None:
    """The entry of a request that may be taken without looking at raw data, and where its data came from."""
    for entry in manifests(folder):
        made = read_made(entry)
        if made is None or made.request not in (request, _of_any_seed(request)):
            continue
        if made.data_sha256 == data_sha256 if data_sha256 else not made.users_own:
            return entry.parent, made.origin
    return None


def _entry_of(folder: Path, request: Request, source: Source) -> Path | None:
    """The entry that answers a request, with the splits of its seed or with those of every seed; None where there is none."""
    entries = [folder / _key(one, source) for one in (_of_any_seed(request), request)]
    return next((entry for entry in entries if read_made(entry / "manifest.json") is not None), None)


def _make_entry(
    root: Path,
    task: Task,
    args: DataArguments,
    seed: int,
    request: Request,
    source: Source,
    tokenizer: PreTrainedTokenizerBase | None,
    log: Log,
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
            examples = task.split(source, args, seed)
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
    if tokenizer is None or own is None or prepared.manifest.data_sha256 != data_sha256:
        return prepared
    if tokenizer_sha256(tokenizer) != tokenizer_sha256(own):
        raise FPTError(
            f"the tokenizer that {prepared.manifest.origin} gives now is not the checkpoint's (another release of the"
            " tokenizers library, or a changed checkpoint); score with the releases that trained it"
        )
    return prepared


def describe_request(task: Task, args: DataArguments, seed: int, tokenizer: PreTrainedTokenizerBase | None = None) -> Request:
    """All that changes the Arrow files besides the raw data."""
    request = Request(
        task=task.name,
        options=args.stored_options(),
        split=_split_of(args),
        split_seed=seed,
        code=(CODE_VERSION, task.code_version),
        max_length=args.max_length,
        keep_notation=args.keep_notation,
        # Other releases of these may cut scaffolds or words, or decode, in another way.
        libraries={name: metadata.version(name) for name in ("datasets", *task.libraries)},
        features=task.features,
    )
    if args.tokenizer is None:
        return request
    trained = args.tokenizer in TRAINED
    return replace(
        request,
        tokenizer=args.tokenizer if trained else tokenizer_sha256(tokenizer or build_tokenizer([], args)),
        vocab_size=args.vocab_size if args.tokenizer == "bpe" else None,
        augment=args.augment,
        sides=sides_asked(args),
        sample_vector=args.sample_vector,
        vector_columns=args.vector_columns,
    )


def sides_asked(args: DataArguments) -> SidesAsked | None:
    """What the arguments ask tokens to carry, None for nothing."""
    return SidesAsked(args.environments, args.kmers, args.side_buckets, args.tokens) if count_sides(args) else None


def check_arguments(task: Task, args: DataArguments) -> None:
    """Refuse arguments that leave no token.

    Raises:
        FPTError: the options leave no token, or make no sense together.
    """
    check_sides(args, task.name)
    check_vector_columns(args, task)
    if args.tokenizer is not None:
        if args.longest < 3:
            raise FPTError(f"--max_length {args.max_length} leaves no room for [BOS], a token and [EOS]; give at least 3")
    elif task.input(args) is None:
        task.dim(args)


def _load(entry: Path, task: Task, args: DataArguments, seed: int) -> Prepared:
    """Open an entry; see `load_entry`.

    Raises:
        FPTError: a part of the entry is missing or damaged.
    """
    try:
        return load_entry(entry, task, args, seed)
    except RejectedRows:
        raise
    except DAMAGED as error:
        raise FPTError(
            f"the cache entry {entry} can't be read ({reason(error)}); delete that folder, it is made again"
        ) from error


def _generated(task: GeneratedTask, args: DataArguments, seed: int) -> Prepared:
    request = Request(task.name, args.stored_options(), _split_of(args), seed, (task.code_version,))
    output = task.output(args)
    manifest = Manifest(
        request=request,
        origin=f"generated from seed {seed}",
        users_own=False,
        data_sha256=hashlib.sha256(json.dumps(request.to_dict(), sort_keys=True).encode()).hexdigest(),
        output=output,
        primary_metric=task.primary_metric or output.default_metric,
        rows=dict(task.sizes),
        rejected=0,
        cut_to_max_length={},
    )
    splits = {name: GeneratedSamples(task, args, name, seed) for name in SPLITS}
    return Prepared(task, args, splits, Patches(task.dim(args)), output, None, manifest, rejected_rows([]))


def _split_of(args: DataArguments) -> str:
    assert args.split is not None  # `resolve` has put the task's own
    return args.split


def _of_any_seed(request: Request) -> Request:
    """The request of an entry whose splits are the same for every seed."""
    return replace(request, split_seed=None)


def _key(request: Request, source: Source) -> str:
    text = json.dumps([request.to_dict(), source.sha256, *source.notes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""Whether a run goes on with the samples that it began with, whatever it was that prepared them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from fpt.data.prepared import Prepared
from fpt.training import run_dir

# Numbers of a split that are hashed; of larger ones samples at even distances. Ids, labels and lengths are hashed in full.
NUMBERS = 1 << 24
# Samples of each split of a generated task that are hashed.
GENERATED = 16
# What the parts of a key are, for a message.
NAMES = {
    "sha256": "the raw data",
    "split_seed": "the seed of the split",
    "method": "the split",
    "rows": "the rows of each split",
    "features": "what the model reads of a sample, or the code that prepares it",
    "content": "the prepared samples, or the vocabulary",
    "libraries": "the libraries that prepare the data",
}


def data_key(prepared: Prepared) -> dict[str, Any]:
    """What a continued run must find again: raw data, split, features, and the prepared samples themselves; JSON values.

    The libraries are only there to name a cause: a release that prepares the same samples is no obstacle.
    """
    libraries = prepared.manifest.request.libraries or {}
    return {**run_dir.data_key(prepared), "content": content_hash(prepared), "libraries": libraries}


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is different between two keys, in words; empty when a run may go on."""
    other = [name for name in now if before.get(name) != now[name]]
    if not set(other) - {"libraries"}:
        return []
    return [f"{NAMES.get(name, name)} ({_shown(before.get(name))}, now {_shown(now[name])})" for name in other]


def content_hash(prepared: Prepared) -> str:
    """SHA-256 of the samples of all splits, and of the vocabulary."""
    digest = hashlib.sha256()
    if prepared.tokenizer is not None:
        digest.update(json.dumps(sorted(prepared.tokenizer.get_vocab().items())).encode())
    for name, rows in sorted(prepared.splits.items()):
        digest.update(name.encode())
        if isinstance(rows, Dataset):
            _add_rows(digest, rows)
        else:
            rows.start_epoch(0)
            for index in range(min(GENERATED, len(rows))):
                for value in rows[index].values():
                    _add_numbers(digest, np.asarray(value))
    return digest.hexdigest()


def _add_rows(digest: Any, rows: Dataset) -> None:
    total = int(np.sum(rows.with_format("numpy", columns=["length"])[:]["length"]))
    columns = rows.with_format("arrow")
    few = [name for name in ("id", "label", "length") if name in rows.column_names]
    rest = [name for name in sorted(rows.column_names) if name not in few]
    # Values of a patch are many more than its tokens; the first row shows how many.
    first = columns[:1]
    width = max(sum(_count(first.column(name)) for name in rest) / max(int(first.column("length")[0].as_py()), 1), 1)
    chosen = min(len(rows), max(1, int(NUMBERS / (width * total / len(rows)))))
    indices = np.unique(np.linspace(0, len(rows) - 1, chosen).astype(int)).tolist()
    for name in few:
        digest.update(name.encode())
        _add(digest, columns.select_columns([name])[:].column(name))
    for name in rest:
        digest.update(name.encode())
        part = columns.select_columns([name])
        _add(digest, (part[:] if len(indices) == len(rows) else part[indices]).column(name))


def _add(digest: Any, column: pa.ChunkedArray) -> None:
    """Add the values of a column, however it is cut into chunks."""
    array = column.combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        _add_numbers(digest, array.value_lengths().to_numpy(zero_copy_only=False))
        array = array.flatten()
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        _add_numbers(digest, array.to_numpy(zero_copy_only=False))
    else:
        digest.update("\0".join(map(repr, array.to_pylist())).encode("utf-8", "surrogatepass"))


def _add_numbers(digest: Any, numbers: np.ndarray) -> None:
    digest.update(np.ascontiguousarray(numbers).tobytes())


def _count(column: pa.ChunkedArray) -> int:
    """Values in a column of lists."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        array = array.flatten()
    return len(array)


def _shown(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)

"""CIFAR-10: 60,000 pictures of 32 by 32 pixels in ten classes, https://www.cs.toronto.edu/~kriz/cifar.html (no licence given).

``cifar10``: in color, patches of 4: 64 tokens of 48 numbers. ``cifar10-gray``: Long Range Arena's sequence of gray pixels
(https://github.com/google-research/long-range-arena): 1,024 tokens of 1 number. Accuracy.

Raw files are the Hub's parquet layout, ``DIR/cifar10/plain_text/{train,test}-*.parquet`` with columns ``img`` and ``label``;
without them ``datasets`` downloads ``uoft-cs/cifar10``. Validation is cut from train by the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HTTPError

from fpt.args import DataArguments
from fpt.data.splits import cut_valid
from fpt.errors import FPTError
from fpt.outputs import Classes
from fpt.tasks.base import TASKS, Examples, Source
from fpt.tasks.images import ImageTask, patch_option
from fpt.tasks.sources import Download, Ladder
from fpt.text.log import Log

HUB_ID = "uoft-cs/cifar10"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PARTS = ("train", "test")
VALID_FRACTION = 0.1


class Pictures(dict):
    """Arrow tables (columns ``image``: bytes of a file, ``label``) of "train" and "test"; its length counts the pictures."""

    def __len__(self) -> int:
        return sum(len(table) for table in self.values())


def read_parquet(paths: list[Path]) -> pa.Table:
    """Read pictures in the Hub's parquet layout.

    Returns:
        Columns ``image`` (binary) and ``label`` (int64).

    Raises:
        FPTError: a file is truncated or has other columns.
    """
    try:
        return _pictures(pa.concat_tables([pq.read_table(path, columns=["img", "label"]) for path in paths]))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise FPTError(
            f"{paths[0].parent} holds no readable CIFAR-10 parquet files (columns img, label): {str(error).splitlines()[0]};"
            " download them again"
        ) from error


def find_parquet(root: Path) -> list[Path]:
    """The parquet files of both parts; empty when a part has none."""
    found = [sorted(root.glob(f"**/{part}-*.parquet")) for part in PARTS]
    return [path for paths in found for path in paths] if all(found) else []


def read_parquets(paths: Sequence[Path], origin: str) -> Source:
    """The pictures of both parts, from the files of `find_parquet`."""
    parts = {part: [path for path in paths if path.name.startswith(f"{part}-")] for part in PARTS}
    return _source(Pictures({part: read_parquet(files) for part, files in parts.items()}), f"{origin}, cifar10")


def fetch() -> Source:
    """The pictures of both parts, from the Hub or the cache of `datasets`."""
    tables = {part: load_dataset(HUB_ID, split=part).with_format("arrow")[:] for part in PARTS}
    return _source(Pictures({part: _pictures(table) for part, table in tables.items()}), HUB_ID)


def _pictures(table: pa.Table) -> pa.Table:
    """Columns ``image`` and ``label`` of a table in the Hub's layout."""
    images = pa.chunked_array([chunk.field("bytes") for chunk in table["img"].chunks])
    return pa.table({"image": images, "label": table["label"].cast(pa.int64())})


def _source(rows: Pictures, origin: str) -> Source:
    digest = hashlib.sha256()
    for table in rows.values():
        for image, label in zip(table["image"], table["label"], strict=True):
            digest.update(image.as_buffer())
            digest.update(bytes([label.as_py() & 255]))
    return Source(rows, origin, digest.hexdigest())


class Cifar10(ImageTask):
    """What is on the picture?"""

    name = "cifar10"
    source = "https://www.cs.toronto.edu/~kriz/cifar.html"
    licence = "none given"
    primary_metric = "accuracy"
    height, width, channels = 32, 32, 3
    options = patch_option("cifar10", 4)

    def locate(self, args: DataArguments, log: Log) -> Source:
        """Parquet files in --data_dir, then the Hub's copy through `datasets`, which keeps its own downloads."""
        put = f"train-*.parquet and test-*.parquet of {HUB_ID} into DIR/cifar10/plain_text/"
        ladder = Ladder(self.name, find_parquet, read_parquets, put, folder="cifar10")
        # The errors of a connection that is lost on the way are the HTTP library's own.
        return ladder.locate(args, log, Download(f"{HUB_ID} with datasets", fetch, (DatasetsError, HTTPError)))

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """The published train and test, a tenth of train as validation."""
        whole = source.rows["train"]
        train, valid = cut_valid(len(whole), VALID_FRACTION, seed)
        parts = {"train": ("train", train), "valid": ("train", valid), "test": ("test", range(len(source.rows["test"])))}
        splits = {}
        for name, (part, rows) in parts.items():
            table = source.rows[part].take(pa.array(rows))
            splits[name] = Dataset(table.append_column("id", pa.array([f"{part}-{r}" for r in rows])))
        return Examples(splits, Classes(CLASSES))


class Cifar10Gray(Cifar10):
    """What is on the picture, from its gray pixels one by one?"""

    name = "cifar10-gray"
    channels = 1
    options = patch_option("cifar10-gray", 1)


TASKS.register("cifar10")(Cifar10())
TASKS.register("cifar10-gray")(Cifar10Gray())

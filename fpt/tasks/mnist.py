"""MNIST: handwritten digits, http://yann.lecun.com/exdb/mnist/ (LeCun, Cortes and Burges; CC BY-SA 3.0).

``mnist``: 28 by 28 gray pixels in patches of 4: 49 tokens of 16 numbers; ten classes, accuracy.

``mnist-add``: the course project's addition: two digits side by side (28 by 56 pixels, 98 tokens of 16), asked for their sum,
0 to 18, as a class (accuracy, and the mean absolute error) or with ``--as_regression`` as a number (mean absolute error).
Pairs are drawn within a split, so that no picture is in two of them.

Raw files are torchvision's: ``DIR/mnist/MNIST/raw/*-ubyte.gz``. Validation is cut from train by the seed.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from fpt.args import DataArguments, arg
from fpt.data.splits import cut_valid
from fpt.errors import FPTError
from fpt.flags.checks import Range, check_ranges
from fpt.optional import need
from fpt.options import options_of
from fpt.outputs import Classes, Output, Value
from fpt.tasks.base import TASKS, Examples, Source
from fpt.tasks.images import ImageTask, PatchOptions, patch_option
from fpt.tasks.sources import Download, Ladder
from fpt.text.log import Log

SIDE = 28
FILES = {part: (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")}
VALID_FRACTION = 0.1


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file of bytes, gzipped or not (http://yann.lecun.com/exdb/mnist/, "the IDX file format").

    Raises:
        FPTError: it is no such file, or truncated.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise FPTError(f"{path} can't be read: {error}; download it again") from error
    head = 4 + 4 * dimensions
    if len(data) < head or data[:4] != bytes([0, 0, 8, dimensions]):
        raise FPTError(f"{path} is no IDX file of bytes with {dimensions} dimensions; download it again")
    shape = tuple(np.frombuffer(data, dtype=">u4", count=dimensions, offset=4).tolist())
    if len(data) - head != int(np.prod(shape)):
        raise FPTError(f"{path} is truncated: {len(data) - head:,} bytes of {int(np.prod(shape)):,}; download it again")
    return np.frombuffer(data, dtype=np.uint8, offset=head).reshape(shape)


def locate_digits(name: str, args: DataArguments, log: Log) -> Source:
    """Find MNIST in --data_dir or an earlier download, or download it with torchvision.

    Returns:
        Rows of (images, labels) for "train" and "t10k".

    Raises:
        FPTError: it is not available, or a file is damaged.
    """
    names = f"{', '.join(FILES['train'])} and {', '.join(FILES['t10k'])}"
    put = f"{names} (.gz or not) into DIR/mnist/MNIST/raw/"
    ladder = Ladder(name, _files, _read, put, folder="mnist", downloads="mnist")

    def fetch() -> Source:
        need("torchvision", f"the download of dataset {name!r}, which is in none of these folders,")
        from torchvision.datasets import MNIST

        MNIST(str(ladder.download_folder), download=True)
        return ladder.downloaded("torchvision")

    # torchvision raises RuntimeError for mirrors that do not answer and files with another checksum.
    return ladder.locate(args, log, Download("download with torchvision", fetch, (RuntimeError,)))


class Digits(dict):
    """(images (n, 28, 28) uint8, labels (n,)) of the published "train" and "t10k"; its length counts the digits."""

    def __len__(self) -> int:
        return sum(len(labels) for _, labels in self.values())


def _files(root: Path) -> list[Path]:
    """Images and labels of train, then of t10k."""
    raw = root / "MNIST" / "raw"
    names = [name for pair in FILES.values() for name in pair]
    found = [next((path for path in (raw / f"{name}.gz", raw / name) if path.is_file()), None) for name in names]
    return [path for path in found if path is not None] if all(found) else []


def _read(files: Sequence[Path], origin: str) -> Source:
    rows, digest = Digits(), hashlib.sha256()
    for part, images, labels in zip(FILES, files[::2], files[1::2], strict=True):
        rows[part] = (read_idx(images, 3), read_idx(labels, 1))
        if len(rows[part][0]) != len(rows[part][1]) or rows[part][0].shape[1:] != (SIDE, SIDE):
            raise FPTError(f"{images} and {labels.name} do not belong together; download them again")
        digest.update(rows[part][0].tobytes() + rows[part][1].tobytes())
    return Source(rows, f"{origin}, MNIST/raw", digest.hexdigest())


def digits_of(source: Source, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray, list[str]]]:
    """Pictures, labels and ids of each split; validation is a tenth of train, cut by `seed`."""
    images, labels = source.rows["train"]
    train, valid = cut_valid(len(labels), VALID_FRACTION, seed)
    splits = {}
    for name, rows in {"train": train, "valid": valid}.items():
        splits[name] = (images[rows], labels[rows], [f"train-{r}" for r in rows])
    images, labels = source.rows["t10k"]
    return {**splits, "test": (images, labels, [f"t10k-{r}" for r in range(len(labels))])}


class Mnist(ImageTask):
    """Which digit is it?"""

    name = "mnist"
    source = "http://yann.lecun.com/exdb/mnist/"
    licence = "CC BY-SA 3.0"
    primary_metric = "accuracy"
    height, width, channels, raw = SIDE, SIDE, 1, True
    options = patch_option("mnist", 4)

    def locate(self, args: DataArguments, log: Log) -> Source:
        """--data_dir, an earlier download, the download with torchvision."""
        return locate_digits(self.name, args, log)

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """The published train and test, a tenth of train as validation."""
        splits = {
            name: Dataset.from_dict({"id": ids, "image": [i.tobytes() for i in images], "label": labels.astype(int).tolist()})
            for name, (images, labels, ids) in digits_of(source, seed).items()
        }
        return Examples(splits, Classes(tuple("0123456789")))


@dataclass
class AddOptions(PatchOptions):
    """Options of mnist-add."""

    _argument_group_name = "mnist-add"
    patch_size: int = arg(4, "Side of a patch in pixels.")
    num_digits: int = arg(2, "Digits side by side.")
    as_regression: bool = arg(False, "Ask for the sum as a number instead of a class.")
    pairs_per_digit: float = arg(2.0, "Samples in a split for each digit in it.")

    def __post_init__(self) -> None:
        check_ranges(self, num_digits=Range(1, 100), pairs_per_digit=Range(0, 1_000, above=True))


class MnistAdd(ImageTask):
    """What is the sum of digits side by side?"""

    name = "mnist-add"
    source = "http://yann.lecun.com/exdb/mnist/, added as in https://github.com/panpiort8/dl-project"
    licence = "CC BY-SA 3.0"
    raw = True
    options = AddOptions

    def shape(self, args: DataArguments) -> tuple[int, int, int]:
        """As many digits side by side as the option says."""
        return SIDE, SIDE * options_of(args, AddOptions).num_digits, 1

    def locate(self, args: DataArguments, log: Log) -> Source:
        """As MNIST."""
        return locate_digits(self.name, args, log)

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """Draw digits within each of MNIST's splits."""
        o = options_of(args, AddOptions)
        count, splits, train = o.num_digits, {}, np.zeros(1)
        for number, (name, (images, labels, ids)) in enumerate(digits_of(source, seed).items()):
            size = max(2, round(len(labels) * o.pairs_per_digit))
            chosen = np.random.default_rng([seed, number]).integers(len(labels), size=(size, count))
            sums = labels[chosen].sum(axis=1).astype(int)
            train = sums if name == "train" else train
            columns: dict[str, list[Any]] = {
                "id": ["+".join(ids[i] for i in row) for row in chosen],
                "image": [np.concatenate(images[row], axis=1).tobytes() for row in chosen],
                "label": (sums.astype(float) if o.as_regression else sums).tolist(),
            }
            splits[name] = Dataset.from_dict(columns)
        output: Output = Classes(tuple(str(i) for i in range(9 * count + 1)), counts=True)
        if o.as_regression:
            output = Value(float(train.mean()), float(train.std()) or 1.0)
        return Examples(splits, output)


TASKS.register("mnist")(Mnist())
TASKS.register("mnist-add")(MnistAdd())

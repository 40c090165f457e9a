"""What tasks on images share: an image is cut into square patches, each a token of its pixels, row by row."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments, arg
from fpt.errors import FPTError
from fpt.tasks import Task


def patches(image: np.ndarray, size: int, overlap: int = 0) -> np.ndarray:
    """Cut an image into patches of `size` by `size` pixels.

    Args:
        image: (height, width, channels) uint8; height and width are multiples of `size`.
        overlap: pixels around a patch that it has as well; beyond the edge the picture is mirrored.

    Returns:
        (height / size * width / size, (size + 2 * overlap) ** 2 * channels) uint8, patches and pixels in reading order.
    """
    side = size + 2 * overlap
    wide = np.pad(image, ((overlap, overlap), (overlap, overlap), (0, 0)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(wide, (side, side), axis=(0, 1))[::size, ::size]
    return windows.transpose(0, 1, 3, 4, 2).reshape(-1, side * side * image.shape[2])


def unpatch(values: Any, height: int, width: int, channels: int, size: int, overlap: int = 0) -> Any:
    """Undo `patches`.

    Args:
        values: (..., patches * numbers) or (..., patches, numbers), an array or a tensor.

    Returns:
        (..., height, width, channels).
    """
    side = size + 2 * overlap
    leading = values.shape[:-2] if values.shape[-1] == side * side * channels and values.ndim > 1 else values.shape[:-1]
    grid = values.reshape(*leading, height // size, width // size, side, side, channels)
    own = slice(overlap, overlap + size)
    return grid[..., own, own, :].swapaxes(-4, -3).reshape(*leading, height, width, channels)


def decode(data: bytes, height: int, width: int, channels: int) -> np.ndarray:
    """Decode an image file.

    Returns:
        (height, width, channels) uint8, resized (bilinear) when it has another size; 1 channel is gray, 3 are RGB.

    Raises:
        ValueError: it is no image, or a truncated one.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            picture = image.convert("L" if channels == 1 else "RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"no readable image ({str(error).splitlines()[0][:80]})") from None
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.uint8).reshape(height, width, channels)


class ImageTask(Task):
    """A task whose raw rows have a column ``image``: the bytes of an image file, or those of raw pixels.

    Attributes:
        height, width, channels: of the pictures that the patches are cut from.
        raw: whether ``image`` holds height * width * channels pixels instead of a file.
    """

    height: int
    width: int
    channels: int
    raw: bool = False
    text_columns = ("image", "file", "path")
    libraries = ("pillow",)

    def shape(self, args: DataArguments) -> tuple[int, int, int]:
        """Height, width and channels; a task with an option for them overrides it."""
        return self.height, self.width, self.channels

    def patch_size(self, args: DataArguments) -> int:
        """Side of a patch in pixels, the option ``patch_size``.

        Raises:
            FPTError: it does not divide height and width.
        """
        size = args.options["patch_size"]
        height, width, _ = self.shape(args)
        if size < 1 or height % size or width % size:
            raise FPTError(f"--patch_size {size} must divide the height {height} and width {width} of the images")
        return size

    def overlap(self, args: DataArguments) -> int:
        """Pixels around a patch that it has as well, the option ``patch_overlap`` where a task has it.

        Raises:
            FPTError: it is below 0 or larger than the picture.
        """
        overlap = args.options.get("patch_overlap", 0)
        height, width, _ = self.shape(args)
        if not 0 <= overlap <= min(height, width):
            raise FPTError(f"--patch_overlap {overlap} must be between 0 and the {min(height, width)} pixels of the images")
        return overlap

    def dim(self, args: DataArguments) -> int:
        """Numbers in a patch."""
        return (self.patch_size(args) + 2 * self.overlap(args)) ** 2 * self.shape(args)[2]

    def read(self, text: str) -> dict[str, Any]:
        """One image of a user's own, by its file name.

        Raises:
            ValueError: the file can't be read.
        """
        return {"image": read_file(text)}

    def encode(
        self, rows: dict[str, list[Any]], args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
    ) -> dict[str, list[Any]]:
        """Decode and cut into patches."""
        size, overlap, shape = self.patch_size(args), self.overlap(args), self.shape(args)

        def one(data: Any) -> np.ndarray:
            data = read_file(data) if isinstance(data, str) else data
            # A user's own picture comes as a file even where the data set comes as pixels.
            if self.raw and len(data) == int(np.prod(shape)):
                image = np.frombuffer(data, dtype=np.uint8).reshape(shape)
            else:
                image = decode(data, *shape)
            return patches(image, size, overlap).ravel()

        return encode_each(rows["image"], one, self.dim(args), np.uint8)


def read_file(name: str) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: it is not there or can't be read.
    """
    try:
        return Path(name).expanduser().read_bytes()
    except (OSError, ValueError) as error:
        raise ValueError(f"can't be read ({getattr(error, 'strerror', None) or 'no file name'})") from None


def encode_each(items: Sequence[Any], one: Any, dim: int, dtype: Any) -> dict[str, list[Any]]:
    """Make values of each item with `one`; a ValueError is the reason why an item can't be used."""
    columns: dict[str, list[Any]] = {"values": [], "length": [], "reason": []}
    for item in items:
        try:
            values, reason = one(item), ""
        except ValueError as error:
            values, reason = np.zeros(0, dtype=dtype), str(error)
        columns["values"].append(values)
        columns["length"].append(len(values) // dim)
        columns["reason"].append(reason)
    return columns


OVERLAP_HELP = "Pixels around a patch that its token has as well, as a convolution would."


def patch_option(group: str, size: int) -> type:
    """A dataclass with the options ``--patch_size``, `size` by default, and ``--patch_overlap``."""
    from dataclasses import make_dataclass

    own = [("patch_size", int, arg(size, "Side of a patch in pixels.")), ("patch_overlap", int, arg(0, OVERLAP_HELP))]
    option = make_dataclass(f"{group.title()}Options", own)
    option._argument_group_name = group  # type: ignore[attr-defined]
    return option

"""What tasks on images share: an image is cut into square patches, each a token of its pixels, row by row."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, make_dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments, arg
from fpt.errors import FPTError
from fpt.files.named import open_named, unreadable
from fpt.options import options_of
from fpt.tasks.base import Task
from fpt.tasks.pictures import BACKGROUND_HELP as BACKGROUND_HELP
from fpt.tasks.pictures import BACKGROUNDS, decode
from fpt.tasks.pictures import picture_suffixes as picture_suffixes

MAX_NUMBERS = 1 << 26  # of a picture's patches together: 64 MiB a picture
# How compressed pictures begin, to tell them from raw pixels that happen to be as many bytes.
PICTURE_FILES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")


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


class PatchOptions:
    """What the options of a task on pictures have; one without `patch_overlap` or `background` has these values."""

    patch_size: int
    patch_overlap: int = 0
    background: str = BACKGROUNDS[0]


class ResizeOptions(PatchOptions):
    """What the options of a task on pictures of any size have."""

    image_size: int
    gray: bool


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
    text_columns = ("image", "file", "path", "file_name", "filename")
    libraries = ("pillow",)
    code_version = 2

    def shape(self, args: DataArguments) -> tuple[int, int, int]:
        """Height, width and channels; a task with an option for them overrides it."""
        return self.height, self.width, self.channels

    def patch_size(self, args: DataArguments) -> int:
        """Side of a patch in pixels, the option ``patch_size``.

        Raises:
            FPTError: it does not divide height and width, or there are no pixels.
        """
        size = options_of(args, PatchOptions).patch_size
        height, width, _ = self.shape(args)
        if height < 1 or width < 1:
            raise FPTError(f"the images of {self.name} have no pixels: {width} by {height}; see the options of {self.name}")
        if size < 1 or height % size or width % size:
            raise FPTError(f"--patch_size {size} must divide the height {height} and width {width} of the images")
        return size

    def overlap(self, args: DataArguments) -> int:
        """Pixels around a patch that it has as well, the option ``patch_overlap``.

        Raises:
            FPTError: it is below 0 or larger than the picture.
        """
        overlap = options_of(args, PatchOptions).patch_overlap
        height, width, _ = self.shape(args)
        if not 0 <= overlap <= min(height, width):
            raise FPTError(f"--patch_overlap {overlap} must be between 0 and the {min(height, width)} pixels of the images")
        return overlap

    def background(self, args: DataArguments) -> str:
        """What shows through transparent pixels, the option ``background``.

        Raises:
            FPTError: it is not one of `BACKGROUNDS`.
        """
        background = options_of(args, PatchOptions).background
        if background not in BACKGROUNDS:
            raise FPTError(f"unknown --background {background!r}; known: {', '.join(BACKGROUNDS)}")
        return background

    def dim(self, args: DataArguments) -> int:
        """Numbers in a patch.

        Raises:
            FPTError: the options for pictures make no sense; it is called before any file is read.
        """
        size, overlap, (height, width, channels) = self.patch_size(args), self.overlap(args), self.shape(args)
        self.background(args)
        dim = (size + 2 * overlap) ** 2 * channels
        if height * width // size**2 * dim > MAX_NUMBERS:
            raise FPTError(
                f"--patch_size {size} with --patch_overlap {overlap} gives {height * width // size**2 * dim:,} numbers for a"
                f" picture of {width} by {height} pixels; the limit is {MAX_NUMBERS:,}"
            )
        return dim

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
        background = self.background(args)

        def one(data: Any) -> np.ndarray:
            data = read_file(data) if isinstance(data, str) else bytes(data or b"")
            # A user's own picture comes as a file even where the data set comes as pixels.
            if self.raw and len(data) == int(np.prod(shape)) and not data.startswith(PICTURE_FILES):
                image = np.frombuffer(data, dtype=np.uint8).reshape(shape)
            else:
                image = decode(data, *shape, background)
            return patches(image, size, overlap).ravel()

        return encode_each(rows["image"], one, self.dim(args), np.uint8)


def read_file(name: str) -> bytes:
    """The bytes of a file, by its path or its ``file://`` address.

    Raises:
        ValueError: it can't be read, and why.
    """
    with open_named(name) as file:
        try:
            return file.read()
        except OSError as error:
            raise unreadable(error) from error


def encode_each(items: Sequence[Any], one: Callable[[Any], np.ndarray], dim: int, dtype: Any) -> dict[str, list[Any]]:
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


@functools.cache
def patch_option(group: str, size: int) -> type[PatchOptions]:
    """A dataclass with the options ``--patch_size``, `size` by default, and ``--patch_overlap``."""
    own = [("patch_size", int, arg(size, "Side of a patch in pixels.")), ("patch_overlap", int, arg(0, OVERLAP_HELP))]
    # No module has it by its name: a process that is handed the options makes the dataclass again.
    more = {"_argument_group_name": group, "__reduce__": lambda self: (_patch_options, (group, size, asdict(self)))}
    return make_dataclass(f"{group.title()}Options", own, bases=(PatchOptions,), namespace=more)


def _patch_options(group: str, size: int, values: dict[str, int]) -> PatchOptions:
    return patch_option(group, size)(**values)

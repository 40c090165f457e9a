"""What tasks on time series share: channels of numbers are cut into tokens of `patch_size` time steps each.

A token is (patch_size, channels) flat, time step by time step. The last value of each channel fills up a last token that is not
complete. Each channel is standardised by its mean and deviation over the train split.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments, arg
from fpt.data.series import SERIES, filled, series_of, series_table, span
from fpt.data.table import Table, TableOptions
from fpt.data.ts_files import ENDINGS, SeriesFile, read_series
from fpt.errors import FPTError
from fpt.flags.checks import COUNT, check_ranges
from fpt.options import options_of
from fpt.tasks.base import Task
from fpt.tasks.images import encode_each

# About as many tokens are made of a series where --patch_size is not given.
TOKENS = 32
# Series that the size of a token is guessed from.
LOOKED_AT = 200
MOST_NUMBERS = 1 << 20  # of a token
# A channel that changes by less than this share of its size is taken for constant.
CONSTANT = 1e-6


@dataclass
class SeriesOptions:
    """How a series becomes tokens."""

    _argument_group_name = "time series"
    patch_size: int | None = arg(
        None, f"Time steps in a token; 1/{TOKENS} of the usual length of a training series, at least 1, when not given."
    )
    patch_stride: int | None = arg(
        None, "Time steps from one token to the next; --patch_size when not given: tokens do not overlap."
    )
    channels: int | None = arg(None, "Channels of a series; as many as the data has when not given.")
    instance_norm: bool = arg(False, "Standardise each channel of each series by its own mean and deviation.")

    def __post_init__(self) -> None:
        check_ranges(self, patch_size=COUNT, patch_stride=COUNT, channels=COUNT)
        if self.patch_size is not None and self.patch_stride is not None and self.patch_stride > self.patch_size:
            raise FPTError(
                f"--patch_stride {self.patch_stride} is more than --patch_size {self.patch_size}: time steps between two tokens"
                " would not be read"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Time steps of a token, steps from one to the next, and channels, once the data has been looked at."""
        assert self.patch_size is not None and self.patch_stride is not None and self.channels is not None
        return self.patch_size, self.patch_stride, self.channels


@dataclass(frozen=True)
class SeriesFacts:
    """What the first training series say: their channels, their median length, and whether their labels are numbers."""

    channels: int
    length: int
    numeric: bool


def facts_of(path: Path) -> SeriesFacts:
    """Look at the first series of a file."""
    found = read_series(path, LOOKED_AT)
    return SeriesFacts(found.channels, int(np.median(found.lengths)), found.kind == "number")


def count_tokens(steps: int, size: int, stride: int) -> int:
    """Tokens of `size` time steps, a `stride` apart, that have all of `steps` steps."""
    return 1 if steps <= size else 1 + -(-(steps - size) // stride)


def cut_tokens(series: np.ndarray, size: int, stride: int, most: int) -> np.ndarray:
    """The first `most` tokens of a series.

    Args:
        series: (time, channels).

    Returns:
        (tokens, size * channels); the last time step is repeated where a token has no more.
    """
    count = min(count_tokens(len(series), size, stride), most)
    steps = np.arange(count)[:, None] * stride + np.arange(size)
    return series[np.minimum(steps, len(series) - 1)].reshape(count, -1)


class SeriesTask(Task):
    """A task whose raw rows have a column ``series``: (time * channels) numbers, time step by time step.

    Attributes:
        whole: a token is a time step, and no series is cut: for models that read series as they are.
    """

    text_columns = (SERIES,)
    options: type | None = SeriesOptions
    libraries = ("scikit-learn",)
    slow = False
    whole = False

    @abstractmethod
    def facts(self, args: DataArguments) -> SeriesFacts:
        """Look at the raw data.

        Raises:
            FPTError: it is not there, or malformed.
        """

    def measured(self, options: Any, args: DataArguments) -> Any:
        """The options with the channels of the data and the size of a token that suits its length."""
        assert isinstance(options, SeriesOptions)
        if options.channels is None or options.patch_size is None:
            facts = self.facts(args)
            size = options.patch_size or max(1, round(facts.length / TOKENS), options.patch_stride or 1)
            options = replace(self.labelled(options, facts), channels=options.channels or facts.channels, patch_size=size)
        return replace(options, patch_stride=options.patch_stride or options.patch_size)

    def labelled(self, options: Any, facts: SeriesFacts) -> Any:
        """The options with the kind of the labels."""
        return options

    def sizes(self, args: DataArguments) -> tuple[int, int, int]:
        """Time steps of a token, steps from one to the next, channels."""
        size, stride, channels = options_of(args, SeriesOptions).shape
        return (1, 1, channels) if self.whole else (size, stride, channels)

    def dim(self, args: DataArguments) -> int:
        """Numbers in a token.

        Raises:
            FPTError: there are too many.
        """
        size, _, channels = self.sizes(args)
        if size * channels > MOST_NUMBERS:
            raise FPTError(f"--patch_size {size} × {channels} channels are more than the {MOST_NUMBERS:,} numbers of a token")
        return size * channels

    def period(self, args: DataArguments) -> int:
        """The channels."""
        return self.sizes(args)[2]

    def read_inputs(self, path: Path, options: TableOptions) -> Table:
        """A file of series, or a table with a column of them."""
        if path.suffix.lower() not in ENDINGS or (path.suffix.lower() == ".tsv" and _has_header(path)):
            return super().read_inputs(path, options)
        if not path.is_file():
            raise FPTError(
                f"Not a file: {path}. Pass a file of time series ({', '.join(ENDINGS)}), or a table with such a column."
            )
        return series_table([("", read_series(path))], path.absolute().parent)

    def read_row(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        """One series of a user's own; its channels are checked by `encode`."""
        (cell,) = cells.values()
        values = filled(series_of(cell))
        return {SERIES: values.T.astype(np.float32).ravel(), "channels": len(values)}

    def encode(
        self, rows: dict[str, list[Any]], args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
    ) -> dict[str, list[Any]]:
        """Cut series into tokens. ``cut``: there were more than --max_length of them."""
        size, stride, channels = self.sizes(args)
        most = max(map(len, rows[SERIES])) if self.whole else args.longest
        normalise = options_of(args, SeriesOptions).instance_norm
        found = iter(rows.get("channels", [channels] * len(rows[SERIES])))

        def one(numbers: Any) -> np.ndarray:
            own = next(found)
            if own != channels:
                turned = "; arrays are (channels, time)" if len(numbers) == own * channels else ""
                raise ValueError(f"{own} {'channel' if own == 1 else 'channels'} where the model reads {channels}{turned}")
            series = np.asarray(numbers, dtype=np.float32).reshape(-1, channels)
            return cut_tokens(instance_normed(series) if normalise else series, size, stride, most).ravel()

        steps = [len(numbers) // channels for numbers in rows[SERIES]]
        return {
            **encode_each(rows[SERIES], one, size * channels, np.float32),
            "cut": [count_tokens(count, size, stride) > most for count in steps],
        }

    def told(self, args: DataArguments, lengths: np.ndarray) -> list[str]:
        """A line about the tokens of series of these lengths, for the user."""
        if self.whole:
            return []
        size, stride, channels = self.sizes(args)
        counts = np.array([count_tokens(int(steps), size, stride) for steps in lengths])
        shape = f"{size} time {'step' if size == 1 else 'steps'} of {channels} {'channel' if channels == 1 else 'channels'}"
        apart = f", one every {stride}" if stride < size else ""
        said = f"series of {span(lengths)} time steps are {span(counts)} tokens of {shape}{apart}"
        return [f"{said} (--patch_size, --patch_stride)"]


def raw_series(series: Sequence[np.ndarray]) -> tuple[list[np.ndarray | None], list[str]]:
    """Series as raw rows have them, and why one can't be used or an empty text.

    Args:
        series: each (channels, time) float64.

    Returns:
        Each (time * channels,) float32 without missing values, None for one that can't be used.
    """
    found: list[np.ndarray | None] = []
    reasons = []
    for one in series:
        try:
            found.append(filled(one).T.astype(np.float32).ravel())
            reasons.append("")
        except ValueError as error:
            found.append(None)
            reasons.append(str(error))
    return found, reasons


def check_channels(files: Sequence[SeriesFile], channels: int, whose: str) -> None:
    """Refuse files of other channels.

    Raises:
        FPTError: a file has others than the first, or than --channels says.
    """
    for file in files:
        if file.channels != files[0].channels:
            raise FPTError(f"{whose}: the training series have {files[0].channels} channels, the test series {file.channels}")
    if files[0].channels != channels:
        raise FPTError(f"--channels {channels}: the series of {whose} have {files[0].channels}; leave it out")


def instance_normed(series: np.ndarray) -> np.ndarray:
    """A series (time, channels) with mean 0 and deviation 1 in each channel, 0 in one that does not change."""
    mean, std = series.mean(axis=0, dtype=np.float64), series.std(axis=0, dtype=np.float64)
    changes = std > CONSTANT * np.abs(mean)
    return ((series - mean) * changes / np.where(changes, std, 1.0)).astype(np.float32)


def _has_header(path: Path) -> bool:
    """Whether a table of tabs begins with names instead of numbers."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            words = file.readline().strip().split("\t")[1:]
    except OSError:
        return False
    return not words or not all(_is_number(word) for word in words)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True

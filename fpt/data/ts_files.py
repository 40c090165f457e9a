"""Files of labelled time series: ``.ts`` of the UCR and UEA archives, and the ``.tsv`` of the UCR archive of 2018.

A ``.ts`` file has a header (``@problemName``, ``@classLabel true a b``, ``@data``) and a series in each line: channels between
``:``, values between commas, the label at the end; https://www.aeon-toolkit.org (data format). A ``.tsv`` file has no header and
one channel: the label, then the values, between tabs. ``?`` and NaN are missing values, lines of ``#`` or ``%`` comments.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fpt.data.numerals import is_number, number_of, plain
from fpt.data.table import printable
from fpt.errors import FPTError

ENDINGS = (".ts", ".tsv")
TRUTH = {"true": True, "false": False}
# Larger numbers have no place in the fp32 that models read.
LARGEST = float(np.finfo(np.float32).max)
MISSING = "?"
COMMENTS = ("#", "%")


@dataclass(frozen=True)
class Header:
    """The lines before ``@data``.

    Attributes:
        labels: what ends a line: "classes", "number", or empty for nothing.
        classes: names as they are listed; empty where they are not.
        channels, length: of every series; None where the header does not say it.
        equal: whether all series are said to be equally long.
        unknown: tags that are not read.
    """

    labels: str = ""
    classes: tuple[str, ...] = ()
    channels: int | None = None
    length: int | None = None
    equal: bool = False
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeriesFile:
    """What a file holds.

    Attributes:
        series: each (channels, time) float64, nan where a value is missing.
        labels: of each series, empty where it has none; no labels at all where the file has none.
        classes: names in the order of the header, or of the file; empty where labels are numbers.
        kind: "classes", "number", or empty for no labels.
        lines: the number of each series' line.
        odd: what was left out or looks odd, by kind, with the number of times.
    """

    series: tuple[np.ndarray, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    kind: str
    lines: tuple[int, ...]
    odd: Counter[str] = field(default_factory=Counter)

    @property
    def channels(self) -> int:
        """Channels of every series."""
        return len(self.series[0])

    @property
    def lengths(self) -> np.ndarray:
        """(series,) time steps of each."""
        return np.array([one.shape[1] for one in self.series])


def read_series(path: Path, most: int | None = None) -> SeriesFile:
    """Read a file by its ending.

    Args:
        most: stop after as many series; all are read when it is None.

    Raises:
        FPTError: it is not there, empty, of another format, or a line is malformed; the message has the line's number.
    """
    if path.suffix.lower() not in ENDINGS:
        raise FPTError(f"{path} can't be read as time series: its ending {path.suffix!r} is not one of {', '.join(ENDINGS)}")
    try:
        # Bytes that are not UTF-8 may stand in comments; in a value they are not a number.
        text = path.read_text(encoding="utf-8-sig", errors="backslashreplace")
    except OSError as error:
        raise FPTError(f"{path} can't be read: {error.strerror or error}") from error
    if not text.strip():
        raise FPTError(f"{path} is empty; copy or download it again")
    if text.lstrip().startswith("<"):
        raise FPTError(f"{path} is a web page (HTML), not a file of time series; download the file itself")
    found = (_read_tsv if path.suffix.lower() == ".tsv" else _read_ts)(text.splitlines(), path, most)
    if not found.series:
        raise FPTError(f"{path} has a header and no series; is it whole?")
    return found


def parse_channels(text: str) -> np.ndarray:
    """A series as a line of a ``.ts`` file has it, without the label: values between commas, channels between ``:``.

    Returns:
        (channels, time) float64, nan where a value is missing.

    Raises:
        ValueError: a value is not a number, or the channels are of different lengths.
    """
    channels = [_values(part, number) for number, part in enumerate(text.split(":"), 1)]
    for number, channel in enumerate(channels, 1):
        if len(channel) != len(channels[0]):
            raise ValueError(f"channel {number} has {len(channel):,} values, channel 1 has {len(channels[0]):,}")
    return np.stack(channels)


def _values(text: str, channel: int) -> np.ndarray:
    """The values of a channel."""
    if not text.strip():
        raise ValueError(f"channel {channel} has no values")
    if text.lstrip().startswith("("):
        raise ValueError("values with time stamps, (time,value), are not read; write values at even steps, without the stamps")
    words = text.replace(MISSING, "nan").split(",")
    try:
        values = np.array(words, dtype=np.float64)
    except ValueError:
        place, word = next((i, word) for i, word in enumerate(words, 1) if not _is_value(word))
        raise ValueError(f"value {place} of channel {channel} is {printable(word.strip(), 30)!r}, not a number") from None
    too_large = np.flatnonzero(np.abs(values) > LARGEST)  # false for nan
    if len(too_large):
        raise ValueError(f"value {too_large[0] + 1} of channel {channel} is {values[too_large[0]]:g}; fp32 can't hold it")
    return values


def _is_value(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _read_ts(lines: Sequence[str], path: Path, most: int | None) -> SeriesFile:
    header, start = _header(lines, path)
    series: list[np.ndarray] = []
    labels: list[str] = []
    numbers: list[int] = []
    for number, line in enumerate(lines[start:], start + 1):
        if not line.strip() or line.startswith(COMMENTS):
            continue
        if len(series) == most:
            break
        try:
            one, label = _line(line, header)
            _check_shape(one, header, series[0] if series else None)
        except ValueError as error:
            raise FPTError(f"{path}, line {number}: {error}") from None
        series.append(one)
        labels.append(label)
        numbers.append(number)
    odd: Counter[str] = Counter(f"header tags that are not read (@{tag})" for tag in header.unknown)
    classes = header.classes or (_in_order(labels) if header.labels == "classes" else ())
    return SeriesFile(tuple(series), tuple(labels) if header.labels else (), classes, header.labels, tuple(numbers), odd)


def _line(line: str, header: Header) -> tuple[np.ndarray, str]:
    """A series and its label."""
    if not header.labels:
        return parse_channels(line), ""
    body, mark, label = line.rpartition(":")
    label = label.strip()
    if not mark:
        raise ValueError("no label after a ':'; is the file whole?")
    if label in ("", MISSING):
        return parse_channels(body), ""
    if header.classes and label not in header.classes:
        shown = ", ".join(header.classes[:8]) + (", …" if len(header.classes) > 8 else "")
        raise ValueError(f"the label {printable(label, 30)!r} is not a class of @classLabel ({shown}); is the line whole?")
    if header.labels == "number" and not (_is_value(label) and math.isfinite(float(label))):
        raise ValueError(f"the target {printable(label, 30)!r} is not a finite number")
    return parse_channels(body), label


def _check_shape(one: np.ndarray, header: Header, first: np.ndarray | None) -> None:
    """Refuse a series of other channels than the header or the first series has, or of another length than the header says."""
    channels, length = one.shape
    if header.channels is not None and channels != header.channels:
        raise ValueError(f"{channels} channels, the header says {header.channels}; is the line whole?")
    if first is not None and channels != len(first):
        raise ValueError(f"{channels} channels, the first series has {len(first)}")
    wanted = header.length if header.length is not None else None if first is None or not header.equal else first.shape[1]
    if header.equal and wanted is not None and length != wanted:
        raise ValueError(f"{length:,} values per channel where the header says @equalLength true and others have {wanted:,}")


def _header(lines: Sequence[str], path: Path) -> tuple[Header, int]:
    """The header, and the index of the first line below it."""
    tags: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith(COMMENTS):
            continue
        if not line.startswith("@"):
            raise FPTError(
                f"{path}, line {number}: {printable(line, 40)!r} stands before @data; a .ts file begins with lines such as"
                " '@classLabel true a b' and '@data'"
            )
        tag, *words = line[1:].split()
        if tag.lower() == "data":
            try:
                return _understood(tags), number
            except ValueError as error:
                raise FPTError(f"{path}: {error}") from None
        tags[tag.lower()] = words
    raise FPTError(f"{path} has no line @data; is it a whole .ts file?")


def _understood(tags: dict[str, list[str]]) -> Header:
    """What the tags mean."""
    known = {"problemname", "timestamps", "missing", "univariate", "dimension", "dimensions", "equallength", "serieslength"}
    if _truth(tags, "timestamps"):
        raise ValueError("@timeStamps true: values with time stamps are not read; write values at even steps, without the stamps")
    numeric = _truth(tags, "targetlabel")
    # aeon writes regression sets with either tag.
    classes = tuple(tags.get("classlabel", [])[1:]) if _truth(tags, "classlabel") else ()
    if len(set(classes)) < len(classes):
        raise ValueError("@classLabel names a class twice")
    channels = _count(tags, "dimensions") or _count(tags, "dimension")
    if _truth(tags, "univariate"):
        if channels not in (None, 1):
            raise ValueError(f"@univariate true and {channels} dimensions contradict each other")
        channels = 1
    kind = "number" if numeric else "classes" if _truth(tags, "classlabel") else ""
    equal, length = _truth(tags, "equallength"), _count(tags, "serieslength")
    unknown = tuple(tag for tag in tags if tag not in {*known, "targetlabel", "classlabel"})
    return Header(kind, classes if kind == "classes" else (), channels, length, equal, unknown)


def _truth(tags: dict[str, list[str]], tag: str) -> bool:
    """Whether a tag is true; one that is not there is not."""
    word = next(iter(tags.get(tag, ["false"])), "")
    if word.lower() not in TRUTH:
        raise ValueError(f"@{tag} is {printable(word, 30)!r}; it must be true or false")
    return TRUTH[word.lower()]


def _count(tags: dict[str, list[str]], tag: str) -> int | None:
    """The number of a tag; None where it is not there, or 0 as some files write for unknown."""
    if tag not in tags:
        return None
    word = next(iter(tags[tag]), "")
    if not word.isdecimal():
        raise ValueError(f"@{tag} is {printable(word, 30)!r}; it must be a whole number")
    return int(word) or None


def _read_tsv(lines: Sequence[str], path: Path, most: int | None) -> SeriesFile:
    """One channel, no header; nan at the end fills up shorter series, and is left out."""
    series: list[np.ndarray] = []
    labels: list[str] = []
    numbers: list[int] = []
    odd: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(series) == most:
            break
        label, mark, body = line.strip().partition("\t")
        try:
            if not mark:
                raise ValueError("no tab between the label and the values; lines are LABEL, then values, between tabs")
            one = _values(body.replace("\t", ","), 1)[None]
        except ValueError as error:
            raise FPTError(f"{path}, line {number}: {error}") from None
        known = np.flatnonzero(~np.isnan(one[0]))
        end = int(known[-1]) + 1 if len(known) else one.shape[1]
        odd["series with nan at the end, taken for their end"] += end < one.shape[1]
        series.append(one[:, :end])
        labels.append(plain(number_of(label)) if is_number(label) else label.strip())
        numbers.append(number)
    return SeriesFile(tuple(series), tuple(labels), _in_order(labels), "classes", tuple(numbers), +odd)


def _in_order(labels: Sequence[str]) -> tuple[str, ...]:
    """The classes that there are: numbers by size, names by the alphabet."""
    names = set(labels) - {""}
    return tuple(sorted(names, key=(lambda name: (number_of(name), name)) if all(map(is_number, names)) else str))

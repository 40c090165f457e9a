"""From a sound file to a wave of 16 kHz: only as much as is needed is decoded, and a file that lost its end is refused.

Decoding is libsndfile's (`soundfile`), resampling torchaudio's or SciPy's; `sound_headers` checks what libsndfile does not.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from fpt.files.named import open_named
from fpt.optional import missing, need
from fpt.tasks.sound_headers import EditedFile, SoundHeader, read_header

if TYPE_CHECKING:
    import soundfile

SAMPLE_RATE = 16_000
RATES = (1_000, 1_000_000)
# Full scale is 1; mixes in floating point exceed it by a few dB. 24 dB above it the numbers have another scale.
LOUDEST = 16.0
SILENCE = 2.0**-15  # one step of 16 bits

BLOCK = 2**15  # values that are decoded at a time, over all channels
MP3_SLACK = 2 * 1152  # encoders count one or two frames of the decoder's delay as sound
SUFFIXES = {
    "AIFF": ".aiff .aif .aifc",
    "AU": ".au .snd",
    "AVR": ".avr",
    "CAF": ".caf",
    "FLAC": ".flac",
    "HTK": ".htk",
    "IRCAM": ".ircam .sf",
    "MP3": ".mp3 .mp2",
    "NIST": ".nist .sph",
    "OGG": ".ogg .oga .opus",
    "PAF": ".paf",
    "PVF": ".pvf",
    "RF64": ".rf64",
    "SVX": ".svx .8svx",
    "VOC": ".voc",
    "W64": ".w64",
    "WAV": ".wav .wave .bwf",
    "WAVEX": ".wavex",
    "WVE": ".wve",
}


@dataclass(frozen=True)
class Clip:
    """A decoded sound.

    Attributes:
        wave: (samples,) fp32 at 16 kHz, channels averaged.
        cut: whether there is sound beyond the seconds that were asked for; samples within one step of 16 bits are silence.
    """

    wave: np.ndarray
    cut: bool


def sound_suffixes() -> frozenset[str]:
    """Lower-case endings of the sound files that the libsndfile of this machine reads; none of formats without a header.

    Without `soundfile` only these are recognised, so that the error for such a file names what to install.
    """
    if missing("soundfile"):
        return frozenset(" ".join(SUFFIXES.values()).split())
    import soundfile

    return frozenset(suffix for name in soundfile.available_formats() for suffix in SUFFIXES.get(name, "").split())


def read_clip(sound: bytes | str | Path, seconds: float | None = None) -> Clip:
    """Decode a sound file, or its first `seconds`.

    Args:
        sound: the bytes of a file, or its path or file:// address; of a path only what is needed is read.

    Raises:
        ValueError: it is not a sound file, it is empty, damaged or truncated, its sample rate is not between 1 kHz and 1 MHz,
            or its samples are not finite or not on a scale of [-1, 1].
    """
    try:
        with io.BytesIO(sound) if isinstance(sound, bytes) else open_named(os.fspath(sound), buffering=0) as raw:
            return _read(raw, seconds)
    except (RuntimeError, TypeError, MemoryError, OSError) as error:
        reason = str(getattr(error, "error_string", "") or error or type(error).__name__)
        raise ValueError(f"no readable sound file ({reason.splitlines()[0][:80].rstrip('. ')})") from error


def read_wave(sound: bytes | str | Path) -> np.ndarray:
    """Decode a whole sound file.

    Returns:
        (samples,) fp32 at 16 kHz, channels averaged.

    Raises:
        ValueError: as `read_clip`.
    """
    return read_clip(sound).wave


def resample(wave: np.ndarray, source: int, target: int) -> np.ndarray:
    """Resample a wave; memory is bounded for every pair of rates.

    torchaudio's kernel has (source / gcd) * (target / gcd) numbers, gigabytes for 16,001 Hz: such rates go through SciPy, whose
    filter grows with the larger of the two. Above 50 kHz their ratio is rounded to a fraction; pitch and length are off by at
    most 0.002 %.

    Args:
        wave: (samples,) fp32.

    Returns:
        (ceil(samples * target / source),) fp32.
    """
    if source == target or not len(wave):
        return wave
    divisor = math.gcd(source, target)
    if (source // divisor) * (target // divisor) <= 2**20:
        return _kernel(source, target)(torch.from_numpy(np.ascontiguousarray(wave))).numpy()
    from scipy.signal import resample_poly  # imported late: few runs need it

    ratio = Fraction(target, source).limit_denominator(50_000)
    return resample_poly(wave, ratio.numerator, ratio.denominator).astype(np.float32, copy=False)


@functools.lru_cache(maxsize=16)
def _kernel(source: int, target: int) -> torch.nn.Module:
    need("torchaudio", "reading sounds")
    import torchaudio

    return torchaudio.transforms.Resample(source, target)


_STDERR = threading.Lock()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """mpg123 prints notes to the process's stderr, also on files that it reads right; they are dropped."""
    with _STDERR:
        try:
            saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        except OSError:  # no stderr
            yield
            return
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(null)


def _read(raw: BinaryIO, seconds: float | None) -> Clip:
    need("soundfile", "reading sounds")
    import soundfile

    size = raw.seek(0, os.SEEK_END)
    if not size:
        raise ValueError("empty file")
    if raw.seek(0) == 0 and raw.read(2) == b"\xf0\x7e":  # libsndfile prints notes on each block of it
        raise ValueError("MIDI sample dumps are not read; convert it to WAV or FLAC")
    header = read_header(raw, size)
    raw.seek(0)
    # Python's own files raise in libsndfile's callbacks when a damaged header makes it seek to before their start.
    plain = isinstance(raw, io.FileIO) and not header.edit[1] and not header.zeros
    source: Any = raw.fileno() if plain else EditedFile(raw, size, header)
    with _quiet() if header.mpeg else contextlib.nullcontext():
        try:
            file = soundfile.SoundFile(source, closefd=False)
        except RuntimeError as error:
            if header.lost or header.open_page:
                raise ValueError("truncated sound file: no sound can be read from what is left") from error
            if header.mpeg:
                raise ValueError("no readable sound file (damaged MP3)") from error
            raise
        with file:
            return _decode(file, header, seconds)


def _decode(file: soundfile.SoundFile, header: SoundHeader, seconds: float | None) -> Clip:
    rate, counted = file.samplerate, header.counted and file.frames < 2**62
    if file.format not in SUFFIXES:
        raise ValueError(f"{file.format} files are not read as sound; convert it to WAV or FLAC")
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"a sample rate of {rate:,} Hz; {RATES[0]:,} to {RATES[1]:,} Hz can be read")
    if header.lost:
        raise _truncated(file.frames * header.lost, file.frames, rate)
    if header.open_page:
        raise ValueError(f"truncated sound file: the last page of Ogg is incomplete, {file.frames / rate:.5g} s found")
    slack = MP3_SLACK if header.mpeg else 0
    kept = wanted = 2**62
    if seconds is not None:
        # The filters of `resample` reach at most 12 samples of the lower rate to each side.
        kept = math.ceil(seconds * rate - 1e-6)
        wanted = kept + math.ceil(12 * max(1, rate / SAMPLE_RATE)) + 16
    blocks, parts, got = _blocks(file), [], 0
    for block in blocks:
        parts.append(block)
        got += len(block)
        if got >= wanted:
            break
    else:
        if counted and file.frames - got > slack:
            raise _truncated(file.frames, got, rate)
    if not got:
        raise ValueError("no sound in the file")
    wave = np.concatenate(parts)
    cut = any((np.abs(block) > SILENCE).any() for block in chain([wave[kept:]], blocks))
    if counted and got >= wanted and file.format in ("FLAC", "MP3"):
        _check_end(file, slack)
    wave = resample(wave[:wanted], rate, SAMPLE_RATE)
    return Clip(wave if seconds is None else wave[: round(seconds * SAMPLE_RATE)], cut)


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Parts of the wave one after another, (samples,) fp32, until the end or an error.

    Raises:
        ValueError: samples that are no sound's.
    """
    floats = file.subtype in ("FLOAT", "DOUBLE")
    while True:
        buffer = np.full((max(1, BLOCK // file.channels), file.channels), np.nan, np.float32)
        try:
            block, more = file.read(out=buffer), True
        except RuntimeError:
            # What was decoded before the error is in the buffer, then zeros or what was there.
            sound = np.flatnonzero((np.nan_to_num(buffer) != 0).any(axis=1))
            block, more = np.nan_to_num(buffer[: sound[-1] + 1 if len(sound) else 0]), False
        if not len(block):
            return
        peak = float(np.abs(block).max())
        if not math.isfinite(peak):
            raise ValueError("samples that are not finite (nan or inf)")
        if peak > LOUDEST or (floats and peak > 1 and (block == np.rint(block)).all()):
            raise ValueError(f"samples reach {peak:.5g} where full scale is 1; rescale the file to [-1, 1]")
        yield block.mean(axis=1)
        if not more:
            return


def _check_end(file: soundfile.SoundFile, slack: int) -> None:
    """Refuse a file whose last frame is not there, though all that was asked for is.

    Raises:
        ValueError: it is truncated.
    """
    with contextlib.suppress(RuntimeError):
        file.seek(max(0, file.frames - 1 - slack))
        if len(file.read(1)):
            return
    raise ValueError(f"truncated sound file: {file.frames / file.samplerate:.5g} s announced, and the end is not there")


def _truncated(announced: float, found: float, rate: int) -> ValueError:
    return ValueError(f"truncated sound file: {announced / rate:.5g} s announced, {found / rate:.5g} s found")

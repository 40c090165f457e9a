"""What tasks on sound share: a clip of a set length becomes patches of its wave or frames of its log-mel spectrogram."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import multiprocess
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments, arg
from fpt.errors import FPTError
from fpt.files.named import open_named
from fpt.optional import need
from fpt.options import options_of
from fpt.tasks.base import Task
from fpt.tasks.images import encode_each
from fpt.tasks.sound_files import SAMPLE_RATE, read_clip, read_wave, resample, sound_suffixes

__all__ = ["AudioOptions", "AudioTask", "fit", "log_mel", "read_wave", "sound_suffixes"]

FEATURES = ("mel", "raw")
HOP = 160  # samples between frames: 10 ms
BINS = 201  # frequencies of a frame; there can't be more bands
RAW_RATE = SAMPLE_RATE // 2
RAW_LOUDEST = 2.0  # 16 bits hold full scale; decoders exceed it a little, which is clipped


@dataclass
class AudioOptions:
    """How a clip becomes tokens."""

    _argument_group_name = "audio"
    features: str = arg("mel", "mel (frames of the log-mel spectrogram) or raw (patches of the wave at 8 kHz).")
    seconds: float = arg(1.0, "Length of a clip; shorter ones are padded with silence, longer ones are cut and counted.")
    num_mels: int = arg(80, "Mel bands of a frame.")
    frames_per_token: int = arg(2, "Frames of 10 ms that make one token; frames left at the end of a clip are dropped.")
    patch_size: int = arg(80, "For --features raw: samples in a token; samples left at the end of a clip are dropped.")


def fit(wave: np.ndarray, count: int) -> np.ndarray:
    """Cut to `count` samples, or pad with silence at the end."""
    return np.pad(wave[:count], (0, max(0, count - len(wave))))


def log_mel(wave: np.ndarray, num_mels: int) -> np.ndarray:
    """Log-mel spectrogram: windows of 25 ms every 10 ms.

    Args:
        wave: (samples,) fp32 at 16 kHz.

    Returns:
        (samples // 160, num_mels) fp32, natural logarithm of the power.
    """
    with torch.no_grad():
        power = _mel(num_mels)(torch.from_numpy(np.ascontiguousarray(wave)))
    return power.clamp(min=1e-6).log().T[: len(wave) // HOP].numpy()


class AudioTask(Task):
    """A task whose raw rows have a column ``sound``: a file's name, or its bytes."""

    standardise = "each"
    text_columns = ("sound", "audio", "file", "path", "file_name", "filename")
    options: type | None = AudioOptions
    libraries = ("torchaudio", "soundfile", "scipy")
    packages = ("torchaudio", "soundfile")
    code_version = 2
    cut_flag = "--seconds"

    def cut_reason(self, args: DataArguments) -> str:
        """What happened to a clip that is longer than ``--seconds``."""
        return f"cut to {options_of(args, AudioOptions).seconds:g} s"

    def dim(self, args: DataArguments) -> int:
        """Numbers in a token. Needs no file: call it before any is read.

        Raises:
            FPTError: an option that makes no sense, or options that leave no token of a clip.
        """
        o = options_of(args, AudioOptions)
        if o.features not in FEATURES:
            raise FPTError(f"unknown --features {o.features!r}; known: {', '.join(FEATURES)}")
        if min(o.num_mels, o.frames_per_token, o.patch_size) < 1 or not 0.05 <= o.seconds <= 600:
            raise FPTError("--num_mels, --frames_per_token and --patch_size must be at least 1, --seconds between 0.05 and 600")
        if o.num_mels > BINS:
            raise FPTError(f"--num_mels {o.num_mels} is more than the {BINS} frequencies of a frame; give fewer")
        raw = o.features == "raw"
        option, what, rate = ("patch_size", "samples", RAW_RATE) if raw else ("frames_per_token", "frames", SAMPLE_RATE // HOP)
        size = o.patch_size if raw else o.frames_per_token
        # As many as `encode` makes of the samples of a clip.
        samples = round(o.seconds * SAMPLE_RATE)
        there = math.ceil(samples / 2) if raw else samples // HOP
        if size > there:
            raise FPTError(
                f"--seconds {o.seconds:g} gives {there:,} {what} ({rate:,} a second), fewer than the {size:,} of a token;"
                f" give a smaller --{option} or more --seconds"
            )
        return o.patch_size if raw else o.num_mels * o.frames_per_token

    def read(self, text: str) -> dict[str, Any]:
        """One clip of a user's own, by its file name; `encode` reads no more of it than it needs.

        Raises:
            ValueError: the file can't be opened.
        """
        open_named(text).close()
        return {"sound": text}

    def encode(
        self, rows: dict[str, list[Any]], args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
    ) -> dict[str, list[Any]]:
        """Decode, fit and cut into tokens: raw as int16, mel as fp16.

        Args:
            rows: column ``sound``: bytes of files, or paths or file:// addresses.

        Returns:
            Columns as in `Task.encode`, and ``cut``: whether there is sound beyond --seconds, which was left out.
        """
        # A worker of `datasets` shares the cores with others, and OpenMP hangs after a fork. The process that trains keeps
        # its threads.
        if multiprocess.parent_process() is not None:
            torch.set_num_threads(1)
        o, dim = options_of(args, AudioOptions), self.dim(args)
        cut: list[bool] = []

        def one(sound: str | bytes) -> np.ndarray:
            cut.append(False)
            clip = read_clip(sound, o.seconds)
            cut[-1] = clip.cut
            wave = fit(clip.wave, round(o.seconds * SAMPLE_RATE))
            if o.features == "raw":
                peak = float(np.abs(wave).max())
                if peak > RAW_LOUDEST:
                    raise ValueError(f"samples reach {peak:.3g} times full scale, too loud for --features raw; rescale the file")
                wave = resample(wave, SAMPLE_RATE, RAW_RATE)
                numbers = np.clip(np.round(wave * 32768), -32768, 32767).astype(np.int16)
            else:
                numbers = log_mel(wave, o.num_mels).ravel().astype(np.float16)
            return numbers[: len(numbers) // dim * dim]

        columns = encode_each(rows["sound"], one, dim, np.int16 if o.features == "raw" else np.float16)
        return {**columns, "cut": cut}


@functools.lru_cache(maxsize=4)
def _mel(num_mels: int) -> torch.nn.Module:
    need("torchaudio", "reading sounds")
    import torchaudio

    return torchaudio.transforms.MelSpectrogram(SAMPLE_RATE, n_fft=400, hop_length=HOP, n_mels=num_mels)

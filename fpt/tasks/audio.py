"""What tasks on sound share: a clip of a set length becomes patches of its wave or frames of its log-mel spectrogram."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments, arg
from fpt.errors import FPTError
from fpt.tasks import Task
from fpt.tasks.images import encode_each, read_file

SAMPLE_RATE = 16_000
FEATURES = ("mel", "raw")


@dataclass
class AudioOptions:
    """How a clip becomes tokens."""

    _argument_group_name = "audio"
    features: str = arg("mel", "mel (frames of the log-mel spectrogram) or raw (patches of the wave at 8 kHz).")
    seconds: float = arg(1.0, "Length of a clip; shorter ones are padded with silence, longer ones cut.")
    num_mels: int = arg(80, "Mel bands of a frame.")
    frames_per_token: int = arg(2, "Frames of 10 ms that make one token.")
    patch_size: int = arg(80, "For --features raw: samples in a token.")


def read_wave(data: bytes) -> np.ndarray:
    """Decode a sound file.

    Returns:
        (samples,) fp32 at 16 kHz, channels averaged.

    Raises:
        ValueError: it is no sound file, or an empty or truncated one.
    """
    try:
        wave, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise ValueError(f"no readable sound file ({str(error).splitlines()[0][:80]})") from None
    if not len(wave):
        raise ValueError("no sound in the file")
    if _announced(data) > len(data):
        raise ValueError("truncated sound file")
    wave = np.nan_to_num(wave.mean(axis=1))
    return wave if rate == SAMPLE_RATE else _resample(rate, SAMPLE_RATE)(torch.from_numpy(wave)).numpy()


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
    return power.clamp(min=1e-6).log().T[: len(wave) // 160].numpy()


class AudioTask(Task):
    """A task whose raw rows have a column ``sound``: a file's name, or its bytes."""

    standardise = "each"
    text_columns = ("sound", "audio", "file", "path")
    options: type | None = AudioOptions
    libraries = ("torchaudio", "soundfile")

    def dim(self, args: DataArguments) -> int:
        """Numbers in a token.

        Raises:
            FPTError: an option that makes no sense.
        """
        o = args.options
        if o["features"] not in FEATURES:
            raise FPTError(f"unknown --features {o['features']!r}; known: {', '.join(FEATURES)}")
        if min(o["num_mels"], o["frames_per_token"], o["patch_size"]) < 1 or not 0.05 <= o["seconds"] <= 600:
            raise FPTError("--num_mels, --frames_per_token and --patch_size must be at least 1, --seconds between 0.05 and 600")
        return o["patch_size"] if o["features"] == "raw" else o["num_mels"] * o["frames_per_token"]

    def read(self, text: str) -> dict[str, Any]:
        """One clip of a user's own, by its file name.

        Raises:
            ValueError: the file can't be read.
        """
        return {"sound": read_file(text)}

    def encode(
        self, rows: dict[str, list[Any]], args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
    ) -> dict[str, list[Any]]:
        """Decode, fit and cut into tokens: raw as int16, mel as fp16."""
        # A process of its own has the work: more threads in each would only be in each other's way (and hang after a fork).
        torch.set_num_threads(1)
        options, dim = args.options, self.dim(args)

        def one(sound: str | bytes) -> np.ndarray:
            wave = fit(read_wave(read_file(sound) if isinstance(sound, str) else sound), round(options["seconds"] * SAMPLE_RATE))
            if options["features"] == "raw":
                wave = _resample(SAMPLE_RATE, SAMPLE_RATE // 2)(torch.from_numpy(wave)).numpy()
                numbers = np.clip(np.round(wave * 32768), -32768, 32767).astype(np.int16)
            else:
                numbers = log_mel(wave, options["num_mels"]).ravel().astype(np.float16)
            return numbers[: len(numbers) // dim * dim]

        return encode_each(rows["sound"], one, dim, np.int16 if options["features"] == "raw" else np.float16)


def _announced(data: bytes) -> int:
    """Bytes that a WAV file says it has; decoders read what there is of a truncated one without a word."""
    return 8 + int.from_bytes(data[4:8], "little") if data[:4] == b"RIFF" and data[4:8] != b"\xff\xff\xff\xff" else 0


@functools.cache
def _resample(source: int, target: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(source, target)


@functools.cache
def _mel(num_mels: int) -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(SAMPLE_RATE, n_fft=400, hop_length=160, n_mels=num_mels)

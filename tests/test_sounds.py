"""Sound files are read right or refused: headers of streams, lost ends, odd rates, wild samples, long clips."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import multiprocess
import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from fpt.args import DataArguments
from fpt.errors import FPTError
from fpt.tasks.audio import AudioOptions, AudioTask, read_wave, sound_suffixes
from fpt.tasks.sound_files import read_clip, resample
from fpt.tasks.speech_commands import SpeechCommands


def tone(hertz: float = 500, rate: int = 16_000, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(t))
    return (0.3 * np.sin(2 * np.pi * hertz * t) + 0.003 * noise).astype(np.float32)


def sound(wave: np.ndarray | None = None, rate: int = 16_000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    soundfile.write(out := io.BytesIO(), tone() if wave is None else wave, rate, format=kind, subtype=subtype)
    return out.getvalue()


def pitch(wave: np.ndarray) -> float:
    """Loudest frequency in Hz."""
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 8 * len(wave)))
    return float(power.argmax() * 16_000 / (8 * len(wave)))


def patched(data: bytes, *changes: tuple[int, bytes]) -> bytes:
    out = bytearray(data)
    for at, new in changes:
        out[at : at + len(new)] = new
    return bytes(out)


def encoded(sounds: list[Any], **options: Any) -> dict[str, list[Any]]:
    args = DataArguments()
    args.options = AudioOptions(**options)
    return SpeechCommands().encode({"sound": sounds}, args, None)


# Formats.

KINDS = [
    *(("WAV", s) for s in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM")),
    *((k, "PCM_16") for k in ("WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "NIST", "VOC", "SVX", "PAF", "IRCAM")),
    *(("CAF", "ALAC_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "ULAW"), ("AU", "FLOAT")),
]


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_formats_from_bytes_and_from_a_path(kind: str, subtype: str, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    data = sound(tone(1500, seconds=1.5), kind=kind, subtype=subtype)
    path = tmp_path / "a b%20ü"
    path.write_bytes(data)
    for source in (data, str(path), path.as_uri()):
        clip = read_clip(source, 1.0)
        assert (len(clip.wave), clip.cut, clip.wave.dtype) == (16_000, True, np.float32)
        assert pitch(clip.wave) == pytest.approx(1500, abs=2)
        # The first second is that of the whole.
        np.testing.assert_allclose(clip.wave, read_wave(source)[:16_000], atol=1e-6)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("rate", [8000, 11_025, 11_127, 16_001, 22_050, 22_254, 37_800, 44_056, 44_100, 48_000, 96_000, 384_001])
def test_rates(rate: int) -> None:
    data = sound(tone(700, rate, 0.6), rate, subtype="FLOAT")
    whole = read_wave(data)
    assert abs(len(whole) - 9600) <= 2
    assert pitch(whole) == pytest.approx(700, abs=1)
    assert np.abs(whole[2000:7000]).max() == pytest.approx(0.3, abs=0.02)
    first = read_clip(data, 0.25)
    assert (len(first.wave), first.cut) == (4000, True)
    np.testing.assert_allclose(first.wave, whole[:4000], atol=1e-5)


def test_usual_rates_stay_with_torchaudio() -> None:
    wave = tone(500, 44_100)
    expected = torchaudio.functional.resample(torch.from_numpy(wave), 44_100, 16_000).numpy()
    np.testing.assert_allclose(resample(wave, 44_100, 16_000), expected, atol=5e-6)


@pytest.mark.parametrize("rate", [11_127, 16_001, 44_056, 999_983])
def test_odd_rates_take_little_memory(rate: int) -> None:
    resample(tone(rate=rate)[:100], rate, 16_000)
    tracemalloc.start()
    made = resample(tone(rate=rate), rate, 16_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert abs(len(made) - 16_000) <= 1
    assert peak < 60e6  # torchaudio's kernel alone takes 1 GB for 16,001 Hz


@pytest.mark.parametrize("rate", [0, 5, 999, 1_000_001, 2**31 - 1, 3_000_000_000])
def test_absurd_rates_are_refused(rate: int) -> None:
    with pytest.raises(ValueError, match=r"sample rate of|no readable sound file"):
        read_wave(patched(sound(), (24, struct.pack("<I", rate))))


# Headers.

STREAMS = {
    "recordrtc": [(4, struct.pack("<I", 32_000 + 36 + 8))],
    "sox": [(4, struct.pack("<I", 0x7FFFF024)), (40, struct.pack("<I", 0x7FFFF000))],
    "ffmpeg": [(4, b"\xff" * 4), (40, b"\xff" * 4)],
    "arecord": [(4, struct.pack("<I", 0x80000024)), (40, struct.pack("<I", 0x80000000))],
    "zeros": [(4, bytes(4)), (40, bytes(4))],
    "never closed": [(4, struct.pack("<I", 36)), (40, bytes(4))],
    "size 36": [(4, struct.pack("<I", 36))],
    "riff 0": [(4, bytes(4))],
    "file size in data": [(40, struct.pack("<I", 32_044))],
    "riff size in data": [(40, struct.pack("<I", 32_036))],
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("end", [b"", b"\0" * 4096], ids=["", "garbage"])
def test_wavs_with_sizes_of_streams_are_read(name: str, end: bytes, tmp_path: Path) -> None:
    plain = sound()
    data = patched(plain, *STREAMS[name]) + (end if name in ("recordrtc", "size 36", "riff 0") else b"")
    (tmp_path / "x.wav").write_bytes(data)
    for source in (data, tmp_path / "x.wav"):
        np.testing.assert_array_equal(read_wave(source), read_wave(plain))


def test_odd_sound_without_its_last_byte() -> None:
    odd = sound(tone()[:15_999], subtype="PCM_U8")[: 44 + 15_999]
    assert len(read_wave(odd)) == 15_999
    assert len(read_wave(patched(odd, (40, struct.pack("<I", 16_000))))) == 15_999


@pytest.mark.parametrize(
    ("kind", "field", "values"),
    [
        ("AIFF", b"SSND", [struct.pack(">I", n) for n in (0, 0x7F000008, 2**32 - 1)]),
        ("CAF", b"data", [struct.pack(">q", n) for n in (0, -1)]),
        ("W64", b"data", [struct.pack("<q", n) for n in (0, 24, -1, 2**63 - 1)]),
        ("AU", b".snd", [struct.pack(">I", n) for n in (0, 0x7F000000, 2**32 - 1)]),
        ("RF64", b"ds64", [struct.pack("<Q", n) for n in (0, 2**64 - 1)]),
    ],
)
def test_streams_of_other_formats_are_read(kind: str, field: bytes, values: list[bytes]) -> None:
    plain = sound(kind=kind, subtype="PCM_16")
    at = plain.index(field) + {"W64": 16, "RF64": 16, "AU": 8}.get(kind, 4)
    for value in values:
        np.testing.assert_array_equal(read_wave(patched(plain, (at, value))), read_wave(plain))


def test_chunks_around_the_sound() -> None:
    body = sound()[12:]
    odd = b"LIST\x05\0\0\0INFO!\0"
    data = b"RIFF" + struct.pack("<I", 4 + len(body) + 2 * len(odd)) + b"WAVE" + odd + body + odd
    np.testing.assert_array_equal(read_wave(data), read_wave(sound()))
    empty = b"RIFF" + struct.pack("<I", 4 + 36 + len(odd)) + b"WAVE" + patched(sound()[12:44], (28, bytes(4))) + odd
    with pytest.raises(ValueError, match="no sound in the file"):
        read_wave(empty)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "SVX"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_lost_end_is_refused(kind: str, share: float, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    data = sound(tone(seconds=4), kind=kind)
    (tmp_path / "x").write_bytes(data[: int(share * len(data))])
    # Also where the second that is asked for is there.
    for source in (tmp_path / "x", (tmp_path / "x").read_bytes()):
        for seconds in (None, 1.0):
            with pytest.raises(ValueError, match="truncated sound file"):
                read_clip(source, seconds)
    assert capfd.readouterr() == ("", "")


def test_a_lost_end_is_told_in_seconds() -> None:
    with pytest.raises(ValueError, match=r"^truncated sound file: 1 s announced, 0\.49862 s found$"):
        read_wave(sound()[:16_000])
    with pytest.raises(ValueError, match=r"^truncated sound file: 1 s announced, 0\.99994 s found$"):
        read_wave(sound()[:-2])


def test_a_flac_stream_of_unknown_length() -> None:
    plain = sound(kind="FLAC")
    unknown = patched(plain, (21, bytes([plain[21] & 0xF0])), (22, bytes(4)))
    assert soundfile.info(io.BytesIO(unknown)).frames > 2**60
    np.testing.assert_array_equal(read_wave(unknown), read_wave(plain))


def test_an_mp3_of_variable_bit_rate_without_its_length() -> None:
    wave = tone(seconds=4) * np.linspace(0, 2, 64_000, dtype=np.float32)
    soundfile.write(out := io.BytesIO(), wave, 16_000, format="MP3", bitrate_mode="VARIABLE")
    data = out.getvalue()
    bare = data[data.index(data[:2], 4) :]
    assert soundfile.info(io.BytesIO(bare)).frames < 40_000  # what libsndfile would read of it
    whole = read_wave(bare)
    assert 64_000 <= len(whole) < 67_000
    assert pitch(whole[-20_000:]) == pytest.approx(500, abs=1)


# Samples.


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e30, -1e6, 40.0])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_wild_samples_are_refused(value: float, subtype: str) -> None:
    wave = tone()
    wave[5000] = value
    columns = encoded([sound(), sound(wave, subtype=subtype), sound()])
    assert [bool(r) for r in columns["reason"]] == [False, True, False]
    assert columns["reason"][1].startswith("samples ")
    assert columns["length"] == [50, 0, 50]
    assert len(columns["values"][1]) == 0
    # What one channel has is not hidden by the mean with another.
    with pytest.raises(ValueError, match="samples "):
        read_wave(sound(np.stack([wave, tone()], 1), subtype=subtype))


@pytest.mark.parametrize("scale", [32_768, 2**23, 40])
def test_integers_written_as_floats_are_refused(scale: int) -> None:
    with pytest.raises(ValueError, match=r"where full scale is 1; rescale the file"):
        read_wave(sound(np.round(tone() * scale), subtype="FLOAT"))


def test_headroom() -> None:
    assert np.abs(read_wave(sound(tone() * 10, subtype="FLOAT"))).max() == pytest.approx(3.1, abs=0.1)
    assert "too loud for --features raw" in encoded([sound(tone() * 10, subtype="FLOAT")], features="raw")["reason"][0]


def test_channels_are_averaged() -> None:
    six = np.stack([tone()] * 6, 1)
    np.testing.assert_allclose(read_wave(sound(six)), read_wave(sound()), atol=1e-6)
    assert np.abs(read_wave(sound(np.stack([tone(), -tone()], 1)))).max() < 1e-4


# Clips.


@pytest.mark.parametrize("features", ["mel", "raw"])
def test_what_is_beyond_the_seconds_is_counted(features: str) -> None:
    silent = np.concatenate([tone(), np.zeros(50_000, np.float32)])
    late = np.concatenate([silent, tone(seconds=0.01)])
    sounds = [sound(tone(seconds=s)) for s in (0.4, 1.0, 1.1)] + [sound(silent), sound(late), b"no sound"]
    columns = encoded(sounds, features=features)
    assert columns["cut"] == [False, False, True, False, True, False]
    assert columns["length"] == [50 if features == "mel" else 100] * 5 + [0]
    assert set(columns) == {"values", "length", "reason", "cut"}


@pytest.mark.parametrize("features", ["mel", "raw"])
@pytest.mark.parametrize(("count", "rate"), [(1, 16_000), (1, 44_100), (1, 16_001), (80, 16_000), (0, 16_000)])
def test_short_sounds(count: int, rate: int, features: str) -> None:
    columns = encoded([sound(tone()[:count], rate)], features=features)
    assert columns["reason"] == ["" if count else "no sound in the file"]
    assert np.isfinite(columns["values"][0]).all()
    assert (columns["values"][0][4000:] == (0 if features == "raw" else np.float16(np.log(1e-6)))).all()


def test_a_long_file_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(patched(sound(tone(seconds=3)), (40, struct.pack("<I", 1800 * 32_000))))
    os.truncate(path, 44 + 1800 * 32_000)
    frames, read = [], soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *a, **k: frames.append(len(found := read(*a, **k))) or found)
    tracemalloc.start()
    columns = encoded([str(path)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert columns["cut"] == [True]
    assert sum(frames) < 2 * 2**15
    assert peak < 5e6


def test_files_that_are_no_sound(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("no sound")
    names = ["pipe", "folder", "none", "empty", "text", "x\0y"]
    reasons = encoded([*(str(tmp_path / n) for n in names), "", "https://a.b/c.wav", b"\xff\xfb\x90\x64" + b"x" * 900])["reason"]
    starts = [f"can't be read ({why}" for why in ("is not a regular", "is a folder", "no such file")]
    starts += ["empty file", "no readable sound", "can't be read"]
    starts += ["can't be read (no file name", "can't be read (an address", "no readable sound file (damaged MP3)"]
    assert encoded([b"\xff\xfb\x90\x64" + bytes(28) + b"Xing\0"])["reason"] == ["no readable sound file (damaged MP3)"]
    assert [r[: len(s)] for r, s in zip(reasons, starts, strict=True)] == starts
    with pytest.raises(ValueError, match="no such file"):
        SpeechCommands().read(str(tmp_path / "none"))
    assert capfd.readouterr() == ("", "")


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/t\xfcr.wav")
    Path(name).write_bytes(sound())
    assert len(read_wave(name)) == 16_000


# Options, threads, endings.


RAW = {"features": "raw"}
BAD = [{"frames_per_token": 101}, {"seconds": 0.05, "frames_per_token": 6}, {**RAW, "patch_size": 8001}, {"num_mels": 300}]
BAD += [{**RAW, "seconds": 0.05, "patch_size": 401}, {"seconds": float("nan")}, {"frames_per_token": 0}]


@pytest.mark.parametrize("options", BAD)
def test_options_that_leave_no_token(options: dict[str, Any]) -> None:
    args = DataArguments()
    args.options = AudioOptions(**options)
    with pytest.raises(FPTError, match=r"--(seconds|num_mels|patch_size|frames_per_token)"):
        SpeechCommands().dim(args)


@pytest.mark.parametrize("options", [{"frames_per_token": 100}, {**RAW, "patch_size": 8000}])
def test_options_that_leave_one_token(options: dict[str, Any]) -> None:
    assert encoded([sound()], **options)["length"] == [1]


def test_only_a_worker_changes_its_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert encoded([sound()])["reason"] == [""]
        assert torch.get_num_threads() == 3
        with multiprocess.get_context("fork").Pool(1) as pool:
            assert pool.apply(lambda: (encoded([sound()])["length"], torch.get_num_threads())) == ([50], 1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_endings_and_version() -> None:
    assert {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".w64"} <= sound_suffixes()
    assert all(s.startswith(".") and s == s.lower() for s in sound_suffixes())
    assert not {".raw", ".mat", ".sd2", ".m4a", ""} & sound_suffixes()
    assert AudioTask.code_version == 2

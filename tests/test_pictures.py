"""Picture files of all kinds are read as they look, or refused with a reason; expected values are computed by numpy."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from fpt.tasks.images import decode, picture_suffixes

GRAY = np.kron(np.arange(24).reshape(4, 6) * 10 + 5, np.ones((16, 16))).astype(np.uint8)  # no two corners alike
COLOUR = np.dstack([GRAY, 255 - GRAY, GRAY // 2])
# How pixels are stored for each orientation so that they show the picture (CIPA DC-008, tag 274).
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def saved(image: Image.Image | np.ndarray, form: str, **options: Any) -> bytes:
    """The bytes of a picture file."""
    image = Image.fromarray(np.ascontiguousarray(image)) if isinstance(image, np.ndarray) else image
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def level(data: bytes, channels: int = 1, background: str = "white") -> list[int]:
    """The values of a picture of one row, as they are read."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    return decode(data, height, width, channels, background).ravel().tolist()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def png(bits: int, kind: int, row: bytes, width: int, transparent: bytes = b"") -> bytes:
    """A PNG of one row; `kind` is 0 (gray), 2 (RGB), 4 (gray and alpha) or 6 (RGB and alpha)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0))
    body = (chunk(b"tRNS", transparent) if transparent else b"") + chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def tiff(values: np.ndarray, form: int, bits: int | None = None, photometric: int = 1) -> bytes:
    """An uncompressed TIFF of one row; `form` is 1 (unsigned), 2 (signed) or 3 (float)."""
    bits, width = bits or values.itemsize * 8, len(values) if not bits else len(values) * 8 // bits
    data = values.tobytes() + bytes(values.nbytes % 2)
    short = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 277: 1, 278: 1, 279: values.nbytes, 339: form}
    tags = sorted([*((tag, 3, 1, value) for tag, value in short.items()), (273, 4, 1, 8)])
    packed = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + packed + bytes(4)


def u16(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


# Which way is up.

FORMS = {
    "jpeg": ("JPEG", {"quality": 100, "subsampling": 0}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "avif": ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(name: str, orientation: int) -> None:
    form, options = FORMS[name]
    if name in ("webp", "avif") and not features.check(name):
        pytest.skip(f"this Pillow has no {name}")
    data = saved(STORED[orientation](COLOUR), form, exif=exif(orientation), **options)
    assert np.abs(decode(data, 64, 96, 3).astype(int) - COLOUR).max() <= 8


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_unknown_orientation_leaves_the_picture(orientation: int) -> None:
    assert (decode(saved(COLOUR, "PNG", exif=exif(orientation)), 64, 96, 3) == COLOUR).all()


def test_damaged_exif_leaves_the_pixels() -> None:
    data = saved(GRAY, "JPEG", exif=exif(1), quality=95)
    start = data.index(b"Exif")
    length = int.from_bytes(data[start - 2 : start], "big") - 8
    expected, rng = decode(data, 64, 96, 1), np.random.default_rng(0)
    for _ in range(300):
        copy = bytearray(data)
        for at in rng.integers(0, length, rng.integers(1, 12)):
            copy[start + 6 + at] = rng.integers(256)
        got = decode(bytes(copy), 64, 96, 1)
        assert sorted(got[::63, ::95].ravel()) == pytest.approx(sorted(expected[::63, ::95].ravel()), abs=3)


# From the type's own range to 8 bits.

MODES = {
    "1": (lambda: Image.fromarray(GRAY > 100), "PNG", np.where(GRAY > 100, 255, 0)),
    "L": (lambda: Image.fromarray(GRAY), "PNG", GRAY),
    "P": (lambda: Image.fromarray(GRAY).convert("P"), "GIF", GRAY),
    "LA": (lambda: Image.fromarray(GRAY).convert("LA"), "PNG", GRAY),
    "PA": (lambda: Image.fromarray(GRAY).convert("P").convert("PA"), "TIFF", GRAY),
    "I;16": (lambda: Image.fromarray(GRAY.astype(np.uint16) * 257), "PNG", GRAY),
    "I;16 tiff": (lambda: Image.fromarray(GRAY.astype(np.uint16) * 257), "TIFF", GRAY),
    "I;16B": (lambda: Image.frombytes("I;16B", (96, 64), (GRAY.astype(">u2") * 257).astype(">u2").tobytes()), "TIFF", GRAY),
    "I": (lambda: Image.fromarray(GRAY.astype(np.int32) * 257), "TIFF", GRAY),
    "F": (lambda: Image.fromarray((GRAY / 255).astype(np.float32)), "TIFF", GRAY),
    "CMYK": (lambda: Image.fromarray(GRAY).convert("CMYK"), "TIFF", GRAY),
    "YCbCr": (lambda: Image.fromarray(GRAY).convert("RGB").convert("YCbCr"), "TIFF", GRAY),
    "LAB": (lambda: Image.fromarray(GRAY).convert("RGB").convert("LAB"), "TIFF", GRAY),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("orientation", [1, 6])
def test_modes(mode: str, orientation: int) -> None:
    image, form, expected = MODES[mode]
    stored = image() if orientation == 1 else image().transpose(Image.Transpose.ROTATE_90)
    if form == "GIF" and orientation == 6:  # has no EXIF data
        return
    data = saved(stored, form, exif=exif(orientation))
    for channels in (1, 3):
        assert np.abs(decode(data, 64, 96, channels).astype(int) - expected[..., None]).max() <= 1


def test_cmyk_of_jpeg_is_not_inverted() -> None:
    got = decode(saved(Image.fromarray(COLOUR).convert("CMYK"), "JPEG", quality=100, subsampling=0), 64, 96, 3)
    assert np.abs(got.astype(int) - COLOUR).max() <= 8


@pytest.mark.parametrize("low", [5000, 35000])
def test_16_bits_keep_their_level(low: int) -> None:
    """Neither clipped to white nor stretched picture by picture."""
    values = np.random.default_rng(0).integers(low, low + 10000, (32, 32)).astype(np.uint16)
    for form in ("PNG", "TIFF"):
        assert (decode(saved(values, form), 32, 32, 1)[..., 0] == np.rint(values / 257)).all()


INTEGERS = np.array([0, 257, 30000, 65535])
EIGHT = [0, 1, 117, 255]
LEVELS = {
    "pgm": (b"P5 4 1 65535\n" + u16(*INTEGERS), EIGHT),
    "pgm of 12 bits": (b"P5 4 1 4095\n" + u16(0, 16, 2000, 4095), [0, 1, 125, 255]),
    "pgm of 0 to 100": (b"P5 4 1 100\n" + bytes([0, 1, 50, 100]), [0, 3, 128, 255]),
    "pfm": (b"Pf\n3 1\n-1.0\n" + np.array([0, 0.5, 1], "<f4").tobytes(), [0, 128, 255]),
    "unsigned 32": (tiff(INTEGERS.astype("<u4"), 1), EIGHT),
    "signed 32": (tiff(INTEGERS.astype("<i4"), 2), EIGHT),
    "signed 16": (tiff(np.array([0, 257, 30000], "<i2"), 2), [0, 1, 117]),
    "12 bits": (tiff(np.array([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x10], np.uint8), 1, 12), [0, 255, 128, 1]),
    "white is 0, 8 bits": (tiff(np.array([0, 1, 255], np.uint8), 1, None, 0), [255, 254, 0]),
    "white is 0, 16 bits": (tiff(INTEGERS.astype("<u2"), 1, None, 0), [255, 254, 138, 0]),
    "white is 0, floats": (tiff(np.array([0, 0.2, 1], "<f4"), 3, None, 0), [255, 204, 0]),
    "a black picture": (tiff(np.zeros(3, "<u2"), 1), [0, 0, 0]),
}


@pytest.mark.parametrize("name", LEVELS)
def test_levels(name: str) -> None:
    data, expected = LEVELS[name]
    assert level(data) == expected


REFUSED = {
    "float above 1": (tiff(np.array([0, 1.5], "<f4"), 3), "float values from 0 to 1.5 must be from 0"),
    "float of 0 to 255": (tiff(np.array([0, 200], "<f4"), 3), "float values from 0 to 200 must be from 0"),
    "float below 0": (tiff(np.array([-0.5, 1], "<f4"), 3), "float values from -0.5 to 1 must be from 0"),
    "nan": (tiff(np.array([0.5, np.nan], "<f4"), 3), "float values from nan"),
    "inf": (tiff(np.array([0, np.inf], "<f4"), 3), "float values from 0 to inf"),
    "double": (tiff(np.array([0, 0.5], "<f8"), 3), "no readable image"),
    "above 65535": (tiff(np.array([0, 70000], "<i4"), 2), "integer values from 0 to 70000 must be from 0"),
    "below 0": (tiff(np.array([-3, 9], "<i2"), 2), "integer values from -3 to 9 must be"),
    "signed bytes": (tiff(np.array([-3, 9], np.int8), 2), "signed bytes"),
    "8 bits in 16": (tiff(np.array([0, 200], "<u2"), 1), "reach only 200 of 65535"),
    "8 bits in 32": (tiff(np.array([0, 255], "<i4"), 2), "reach only 255 of 65535"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_values_without_a_defined_brightness(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        decode(data, 1, 2, 1)


# What shows through.


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "TGA", "ICO"])
@pytest.mark.parametrize(("background", "clear", "half"), [("white", 255, 177), ("black", 0, 50)])
def test_alpha(form: str, background: str, clear: int, half: int) -> None:
    options = {"WEBP": {"lossless": True, "exact": True}, "ICO": {"sizes": [(3, 1)]}}.get(form, {})
    data = saved(np.array([[[10, 20, 30, 255], [0, 0, 0, 0], [100, 100, 100, 128]]], np.uint8), form, **options)
    assert level(data, 3, background) == [10, 20, 30, *[clear] * 3, *[half] * 3]


TRANSPARENT = {
    "1 bit": (png(1, 0, b"\xa0", 4, u16(1)), [None, 0, None, 0]),
    "2 bits": (png(2, 0, b"\x1b", 4, u16(1)), [0, None, 170, 255]),
    "4 bits": (png(4, 0, b"\x01\x2f", 4, u16(2)), [0, 17, None, 255]),
    "8 bits": (png(8, 0, bytes([0, 1, 200]), 3, u16(200)), [0, 1, None]),
    "16 bits": (png(16, 0, u16(0, 257, 60000), 3, u16(60000)), [0, 1, None]),
    "16 bits and alpha": (png(16, 4, u16(257 * 7, 65535, 257 * 9, 0), 2), [7, None]),
    "colour": (png(8, 2, bytes([1, 2, 3, 9, 9, 9]), 2, u16(1, 2, 3)), [None, 9]),
    "colour of 16 bits": (png(16, 2, u16(257, 514, 771, 2313, 2313, 2313), 2, u16(257, 514, 771)), [None, 9]),
    "colour of 16 bits and alpha": (png(16, 6, u16(0, 0, 0, 0, 2313, 2313, 2313, 65535), 2), [None, 9]),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparent_values_of_png(name: str) -> None:
    data, expected = TRANSPARENT[name]
    for background, clear in (("white", 255), ("black", 0)):
        assert level(data, 1, background) == [clear if value is None else value for value in expected]


@pytest.mark.parametrize(("form", "transparency", "half"), [("PNG", 1, 100), ("GIF", 1, 100), ("PNG", b"\xff\0\x80", 177)])
def test_transparent_palettes(form: str, transparency: int | bytes, half: int) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 0, 0, 0, 100, 100, 100])
    assert level(saved(image, form, transparency=transparency), 3) == [10, 20, 30, *[255] * 3, *[half] * 3]


def test_the_first_of_several_frames() -> None:
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (200, 10)]
        assert decode(saved(frames[0], form, save_all=True, append_images=frames[1:]), 8, 8, 1).mean() == pytest.approx(
            200, abs=2
        )


# Size.


def test_bombs_are_refused_by_their_header() -> None:
    for side in (10_000, 15_000, 30_000):  # over the limit once and twice; the pixels are missing, so they can't be read first
        with pytest.raises(ValueError, match=rf"{side * side:,} pixels, more than the limit of {Image.MAX_IMAGE_PIXELS:,}"):
            decode(b"P5 %d %d 255\n" % (side, side), 8, 8, 1)


def test_small_and_long_pictures() -> None:
    assert (decode(saved(np.full((1, 1, 3), 77, np.uint8), "PNG"), 32, 32, 3) == 77).all()
    strip = np.zeros((2, 3000), np.uint8)
    strip[:, 1500:] = 200
    got = decode(saved(strip, "PNG"), 32, 32, 1)[..., 0]
    assert (got[:, :15] == 0).all() and (got[:, 17:] == 200).all()
    with pytest.raises(ValueError, match="no readable image"):
        decode(png(8, 0, b"", 0), 8, 8, 1)


# What is no picture.

OTHER = {
    b"": "an empty file",
    b"<!DOCTYPE html>": "HTML",
    b"version https://git-lfs.github.com/spec/v1\n": "Git LFS pointer",
    b"\0\0\0\x18ftypheic" + bytes(20): "kind heic, .* convert it",
    b"\0\x05\x16\x07" + bytes(90): "AppleDouble",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n": "PostScript",
    bytes(5000): "damaged, or not a picture",
}


@pytest.mark.parametrize("data", OTHER)
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(ValueError, match=f"no readable image .*{OTHER[data]}"):
        decode(data, 8, 8, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA"])
def test_truncated(form: str, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]) -> None:
    data = saved(np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8), form)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(ValueError, match="no readable image"):
            decode(data[: int(len(data) * share)], 8, 8, 3)
    assert not recwarn and capfd.readouterr() == ("", "")


def test_picture_suffixes() -> None:
    known = picture_suffixes()
    assert known >= {*".jpg .jpeg .jfif .png .apng .bmp .gif .tif .tiff .ppm .pgm .pbm .tga .ico .mpo".split()}
    for suffix, feature in ((".webp", "webp"), (".avif", "avif"), (".jp2", "jpg_2000")):
        assert (suffix in known) == features.check(feature)
    assert not known & {*".pdf .eps .ps .mpg .mpeg .h5 .hdf .grib .bufr .wmf .emf .fits .fit .palm .csv .txt".split()}

"""Decode image files of all kinds with Pillow: the right way up, opaque, with 8 bits a channel, or refused with a reason."""

from __future__ import annotations

import io
import logging
import re
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fpt.blame import is_bug

# What Pillow logs about a damaged file is in the reason why it is refused; without a handler, it would be printed as well.
logging.getLogger("PIL").addHandler(logging.NullHandler())

BACKGROUNDS = ("white", "black")
BACKGROUND_HELP = "What shows through the transparent pixels of a picture: white or black."
# Formats of Pillow that are not raster pictures, that run another program to be drawn, or that are recognised by chance.
NOT_PICTURES = frozenset("BUFR EPS FITS GBR GRIB HDF5 IMT IPTC MCIDAS MPEG PDF SPIDER WMF XVTHUMB".split())
ORIENTATION = 0x0112  # the EXIF tag
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
WHITE_IS_ZERO, SIGNED = 0, 2  # values of the last two
# How files begin that carry the name of a picture but are none, and what to do about them.
OTHER_FILES = {
    b"version https://git-lfs": "a Git LFS pointer instead of the file; run git lfs pull",
    b"\x00\x05\x16\x07": "metadata of macOS (AppleDouble); the picture is the file without ._",
    b"%PDF": "a PDF file; convert it to PNG",
    b"%!PS": "a PostScript file; convert it to PNG",
    b"<": "a text file such as HTML or SVG",
    b"PK\x03\x04": "a zip archive; unpack it",
}


def picture_suffixes() -> frozenset[str]:
    """Lower-case endings (".jpg") of the picture files that Pillow opens here, without those of `NOT_PICTURES`."""
    known = {*_formats()} | ({"MPO"} if "JPEG" in _formats() else set())  # Pillow's reader of JPEG opens MPO
    return frozenset(suffix.lower() for suffix, name in Image.registered_extensions().items() if name in known)


def _formats() -> tuple[str, ...]:
    Image.preinit()  # first, so that the frequent formats are tried first
    Image.init()
    return tuple(name for name in Image.ID if name in Image.OPEN and name not in NOT_PICTURES)


def decode(data: bytes, height: int, width: int, channels: int, background: str = "white") -> np.ndarray:
    """Decode an image file.

    The picture is turned as its EXIF orientation says; damaged EXIF data are ignored. Transparent pixels are laid over
    `background`. Values become 8 bits by the range of their type, the same for each picture: 16 bits (and 32-bit integers
    from 0 to 65535) are divided by 257, 12 bits (TIFF) cover 0 to 4095, floats cover 0 to 1. Of an animation or a file of
    several pages, the first frame or page is read. Colour profiles are not applied. A picture of another size is resized
    (bilinear with antialiasing, as Pillow does it) to `height` and `width` without keeping its aspect ratio.

    Returns:
        (height, width, channels) uint8; 1 channel is gray (ITU-R 601-2 luma), 3 are RGB.

    Raises:
        ValueError: it is no picture or a truncated one, it has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`, or its values
            have no defined brightness (floats outside 0 to 1, integers outside 0 to 65535, signed bytes) or would all
            become black (16 bits that hold values below 256 only).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_formats()) as image:
                picture = _upright(image, background).convert("L" if channels == 1 else "RGB")
            if _wide(data) and not any(np.atleast_1d(picture.getextrema()).ravel()):
                raise ValueError("16-bit colours that all become black; rescale them to the full range")
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(picture, dtype=np.uint8).reshape(height, width, channels)
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        if is_bug(error):
            raise
        raise ValueError(f"no readable image ({_reason(error, data)})") from error


def _wide(data: bytes) -> bool:
    """Whether it is a PNG of 16-bit colours, of which Pillow keeps the upper 8 bits."""
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:25] == b"\x10" and data[25:26] in (b"\x02", b"\x06")


def _reason(error: Exception, data: bytes) -> str:
    if not data:
        return "an empty file"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        pixels = re.search(r"\d+", str(error))
        return f"{int(pixels[0]) if pixels else 0:,} pixels, more than the limit of {Image.MAX_IMAGE_PIXELS:,}; make it smaller"
    if isinstance(error, UnidentifiedImageError):
        start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
        kind = start[8:12].decode("ascii", "replace").strip()  # of an ISO media file, such as heic
        if start[4:8] == b"ftyp" and not (kind.startswith("avi") and "AVIF" in Image.OPEN):
            return f"a file of kind {kind}, which Pillow does not open here; convert it to JPEG"
        found = [what for mark, what in OTHER_FILES.items() if start.startswith(mark)]
        return found[0] if found else "damaged, or not a picture in a format that Pillow opens"
    text = " ".join(str(error).split())[:160]
    return text if text and isinstance(error, OSError | ValueError | SyntaxError) else f"{type(error).__name__} {text}".strip()


def _upright(image: Image.Image, background: str) -> Image.Image:
    """The first frame in mode L or RGB, opaque and turned as its EXIF orientation says."""
    if 0 in image.size:
        raise ValueError(f"it has no pixels: {image.size[0]} by {image.size[1]}")
    tiles = getattr(image, "tile", [])
    layout = tiles[0].args if tiles else ""
    depth = layout[0] if isinstance(layout, tuple) and layout else layout  # such as "RGB;16B"
    image.load()
    tags = getattr(image, "tag_v2", {})
    if image.mode == "L" and SIGNED in tags.get(SAMPLE_FORMAT, ()):
        raise ValueError("its values are signed bytes, whose brightness is not defined; save it as unsigned 8 bits")
    _scale_transparency(image.info, depth)
    flat = _opaque(_gray(image, tags) if image.mode[0] in "IF" else image, background)
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data: the pixels are good, and nothing says how to turn them
        return flat
    flat.info.clear()
    flat.getexif()[ORIENTATION] = orientation
    ImageOps.exif_transpose(flat, in_place=True)
    return flat


def _scale_transparency(info: dict[Any, Any], depth: Any) -> None:
    """Bring the transparent colour of a PNG, which is in the file's own bits, to the 8 bits that Pillow gives its pixels."""
    colour = info.get("transparency")
    if depth == "RGB;16B" and isinstance(colour, tuple):
        info["transparency"] = tuple(value >> 8 for value in colour)
    elif depth in ("L;2", "L;4") and isinstance(colour, int):  # for one bit, Pillow does it
        info["transparency"] = colour * {"L;2": 85, "L;4": 17}[depth]


def _gray(image: Image.Image, tags: Any) -> Image.Image:
    """Gray of 8 bits, with alpha where a value stands for transparent, of a picture in mode I, I;16 or F."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    top = 1 if image.mode == "F" else 4095 if tuple(tags.get(BITS_PER_SAMPLE, ())) == (12,) else 65535
    if not (low >= 0 and high <= top):  # so for nan as well
        kind = "float" if image.mode == "F" else "integer"
        raise ValueError(f"{kind} values from {low:.9g} to {high:.9g} must be from 0 (black) to {top} (white); scale them")
    if 0 < high * 256 <= top:
        raise ValueError(f"its values reach only {high:.9g} of {top}, which is black in 8 bits; scale them or save 8 bits")
    scaled = np.rint(values * 255) if image.mode == "F" else (values.astype(np.uint32) * 255 + top // 2) // top
    bits = scaled.astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow inverts 8 bits only
        bits = 255 - bits
    gray = Image.fromarray(bits)
    if isinstance(image.info.get("transparency"), int):
        gray.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return gray


def _opaque(image: Image.Image, background: str) -> Image.Image:
    """The picture in mode L or RGB, its transparent pixels laid over the background."""
    if image.has_transparency_data:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        canvas = Image.new("RGB", layer.size, background)
        canvas.paste(layer, mask=layer)
        return canvas
    return image.convert("L" if image.mode in ("1", "L") else "RGB")

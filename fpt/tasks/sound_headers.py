"""What the header of a sound file announces, against what there is.

libsndfile reads what there is of a truncated WAV, AIFF, AU, W64, CAF or Ogg file without a word, takes the zero in the header of
a stream that was never closed for its length, and estimates the length of an MP3 file without one. The chunks are followed here
as far as these cases need. VOC, SVX, IRCAM and other rare formats are not checked.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

CHUNKS = 1000  # more chunks before the sound are no sound file


@dataclass(frozen=True)
class _Layout:
    """How chunks follow each other: where the first one starts, bytes of a name, format of a size, names of the sound's
    chunk, bytes of the chunk's header that its size counts, and what chunks are aligned to."""

    start: int
    name: int
    size: str
    sound: tuple[bytes, ...] = (b"data",)
    counted: int = 0
    align: int = 2


LAYOUTS = {
    b"RIFF": _Layout(12, 4, "<I"),
    b"RIFX": _Layout(12, 4, ">I"),
    b"RF64": _Layout(12, 4, "<I"),
    b"FORM": _Layout(12, 4, ">I", (b"SSND", b"BODY")),
    b"riff": _Layout(40, 16, "<q", counted=24, align=8),  # W64
    b"caff": _Layout(8, 4, ">q", align=1),
}


@dataclass(frozen=True)
class SoundHeader:
    """What a file says of its sound.

    Attributes:
        lost: bytes of sound announced by bytes of sound found, of a file that lost its end; 0 of a whole one.
        open_page: whether the last page of an Ogg file is incomplete.
        counted: whether the number of frames is known, not estimated.
        mpeg: whether mpg123 decodes it.
        edit: (position, bytes) to be replaced for libsndfile.
        zeros: bytes to be added at the end for libsndfile.
    """

    lost: float = 0.0
    open_page: bool = False
    counted: bool = True
    mpeg: bool = False
    edit: tuple[int, bytes] = (0, b"")
    zeros: int = 0


def _part(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def read_header(file: BinaryIO, size: int) -> SoundHeader:
    """Look at the header, and at the last page of an Ogg file."""
    head = _part(file, 0, 10)
    if head[:4] == b"OggS":
        tail = _part(file, max(0, size - 2**17), 2**17)
        page = tail[tail.rfind(b"OggS\0") :]
        return SoundHeader(open_page=len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]))
    # An ID3 tag has its length in four bytes of seven bits.
    start = 10 + sum((b & 127) << s for b, s in zip(head[6:10], (21, 14, 7, 0), strict=False)) if head[:3] == b"ID3" else 0
    frame = _part(file, start, 256)
    if len(frame) > 2 and frame[0] == 255 and frame[1] >= 224:
        tag = max(frame.find(b"Xing"), frame.find(b"Info"))
        if tag > 0 and len(frame) > tag + 7 and frame[tag + 7] & 1:
            return SoundHeader(mpeg=True)
        # Without a count of frames mpg123 estimates it from the size and the first frame, and libsndfile reads no further: of
        # a variable bit rate as little as a tenth. It finds the end by itself when the estimate is above all bit rates.
        return SoundHeader(mpeg=True, counted=False, zeros=40 * size)
    place = _announced(file, size)
    return SoundHeader() if place is None else _judge(file, size, *place)


def _announced(file: BinaryIO, size: int) -> tuple[int, int, int, str, int] | None:
    """Where the sound starts, the bytes of it that the header announces, and position, format and surplus of that number."""
    magic = _part(file, 0, 4)
    if magic == b".snd":
        numbers = _part(file, 4, 8)
        return (*struct.unpack(">II", numbers), 8, ">I", 0) if len(numbers) == 8 else None
    layout, long = LAYOUTS.get(magic), 0
    if layout is None:
        return None
    at = layout.start
    for _ in range(CHUNKS):
        chunk = _part(file, at, layout.name + struct.calcsize(layout.size))
        if len(chunk) < layout.name + struct.calcsize(layout.size):
            return None
        announced, body = struct.unpack(layout.size, chunk[layout.name :])[0] - layout.counted, at + len(chunk)
        if chunk.startswith(layout.sound):
            if long and announced == 2**32 - 1:
                number = _part(file, long, 8)
                return (body, struct.unpack("<Q", number)[0], long, "<Q", 0) if len(number) == 8 else None
            return body, announced, at + layout.name, layout.size, layout.counted
        if chunk.startswith(b"ds64"):
            long = body + 8
        at = body + announced + -announced % layout.align
        if not body <= at < size:
            return None
    return None


def _judge(file: BinaryIO, size: int, body: int, announced: int, at: int, kind: str, counted: int) -> SoundHeader:
    """Whether a file is whole, truncated, or has a header that was written before the length was known."""
    found = size - body
    # Written by programs that can't seek in their output: sox 0x7f000000 and more, ffmpeg -1, others 0.
    stream = announced < 0 or announced >= (0x7F000000 if kind[1] == "I" else 2**62)
    if announced == 0:
        stream = found > 0 and not _is_chunk(_part(file, body, 8), found)
    # The file's size in place of the sound's, or a byte that fills up a last odd one and is not there.
    miscounted = announced in (size, size - 8) or announced == found + 1
    if found > 0 and (stream or miscounted):
        return SoundHeader(edit=(at, struct.pack(kind, min(found + counted, 2**32 - 1 if kind[1] == "I" else 2**62))))
    return SoundHeader(lost=announced / max(found, 1) if announced > max(found, 0) else 0.0)


def _is_chunk(start: bytes, found: int) -> bool:
    """Whether what follows an empty chunk of sound is another chunk, and not the sound."""
    if len(start) < 8 or not all(32 <= b < 127 for b in start[:4]):
        return False
    return any(struct.unpack(kind, start[4:])[0] + 8 <= found for kind in ("<I", ">I"))


class EditedFile:
    """A file for libsndfile with some bytes replaced, and zeros behind its end; nothing is copied."""

    def __init__(self, file: BinaryIO, size: int, header: SoundHeader) -> None:
        self.file, self.size, self.edit, self.end, self.position = file, size, header.edit, size + header.zeros, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of files."""
        self.position = max(0, offset + (0, self.position, self.end)[whence])
        return self.position

    def tell(self) -> int:
        """As of files."""
        return self.position

    def read(self, count: int) -> bytes:
        """As of files."""
        data = bytearray(_part(self.file, self.position, count) if self.position < self.size else b"")
        data += bytes(max(0, min(count, self.end - self.position) - len(data)))
        at, new = self.edit
        for i, byte in enumerate(new, at - self.position):
            if 0 <= i < len(data):
                data[i] = byte
        self.position += len(data)
        return bytes(data)

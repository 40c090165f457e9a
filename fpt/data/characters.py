"""Characters that can be read, and how a message shows one that can't."""

from __future__ import annotations

import re
import unicodedata
from itertools import groupby

EMPTY = "empty input"
# Composing takes time quadratic in the number of marks on one letter; the longest in any language has fewer than ten.
MOST_MARKS = 1_000

# White space (tab, line breaks, form feed) is text. The range from U+0080 to U+009F is seen where cp1252 was read as latin-1.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def unreadable(text: str) -> str | None:
    """Return why no tokenizer can read `text`, or None: it is empty, or has control characters or half characters."""
    if found := _SURROGATE.search(text):
        return f"half a character, {named(text, found.start())}: not Unicode text"
    if found := _CONTROL.search(text):
        hint = "" if text[found.start()] < "\x7f" else "; is the encoding of the file right?"
        return f"a control character, {named(text, found.start())}{hint}"
    if all(c.isspace() or unicodedata.category(c) == "Cf" for c in text):
        return EMPTY
    if len(text) > MOST_MARKS and not text.isascii():
        for mark, run in groupby(text, lambda c: unicodedata.combining(c) != 0):
            if mark and sum(1 for _ in run) > MOST_MARKS:
                return f"more than {MOST_MARKS:,} combining marks in a row"
    return None


def named(text: str, place: int) -> str:
    """The character at `place` (from 0) and where it is (from 1)."""
    character = text[place]
    code = f"U+{ord(character):04X}"
    if not character.isascii():
        code = f"{code} {unicodedata.name(character, '')}".strip()
    if character.isascii() and character.isprintable():
        code = repr(character)
    elif character.isprintable():
        code = f"{character!r} ({code})"
    return f"{code} at position {place + 1}"


def short(text: str, most: int = 40) -> str:
    """`text` in quotes, its beginning where it is long."""
    return repr(text if len(text) <= most else text[:most] + "...")

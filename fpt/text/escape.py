"""Text from outside (names, cells, configurations) for places where some characters mean something else: one function each."""

from __future__ import annotations

import itertools
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

# Terminal: control characters, escape sequences, marks that reorder or hide what follows.

# Categories of Unicode that a terminal acts on or does not show: controls, formats (bidirectional and zero-width marks),
# surrogates, and separators of lines and paragraphs.
_ACTING = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def terminal(text: str, keep: str = "\n\t") -> str:
    """Return `text` with every character that a terminal would act on written out, as in ``\\x1b`` or ``\\u202e``.

    Args:
        keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(_written_out(c) if c not in keep and unicodedata.category(c) in _ACTING else c for c in text)


def one_line(text: str, longest: int = 4_000) -> str:
    """Return `text` on one line, written out as by `terminal`, and shortened."""
    line = terminal(" ".join(text.split()), keep="")
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _written_out(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# Pages, pictures and documents: what joins letters or emoji stays, all else that is not seen is written out.

_SEEN = "\n\t\u00ad\u200c\u200d"
# A text in a picture: nobody reads more, and to draw it takes time for each character.
LONGEST_LABEL = 80


def visible(text: object) -> str:
    """Return a text without characters that are not seen, that reorder others, or that no XML and no UTF-8 may have."""
    return terminal(str(text), keep=_SEEN)


def _one_paragraph(text: object) -> str:
    return " ".join(visible(text).split())


def html_templates(folder: Path) -> jinja2.Environment:
    """Return the HTML templates of `folder`: every value in them is escaped, and written out as by `visible`."""
    import jinja2
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def molecule_text(text: object) -> str:
    """Return `text` for the legend of a picture by rdkit, to which ``<sub>`` and its like are markup."""
    return re.sub("<(?=/?(?:sub|sup|lit)>)", "< ", short_text(text, LONGEST_LABEL))


def picture_text(text: object, longest: int = LONGEST_LABEL) -> str:
    """Return `text` for matplotlib (without mathematics, see `fpt.report.figures.figure`): on one line, shortened.

    Matplotlib leaves names that are empty or begin with an underscore out of a legend.
    """
    line = short_text(text, longest)
    return f" {line}" if not line or line.startswith("_") else line


def short_text(text: object, longest: int = 128) -> str:
    """Return `text` on one line, shortened: a name or a value for wandb and TensorBoard, which take names of 128 characters."""
    line = _one_paragraph(text)
    return line if len(line) <= longest else line[: longest - 1] + "…"


# Markdown, as CommonMark, GitHub and the Hub read it.

# What opens or closes something anywhere in a line; an underscore between letters does not.
_MARKS = re.compile(r"[\\`*\[\]<|~$]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")
# What makes the start of a line a heading, a list, a quotation or a rule.
_STARTS = re.compile(r"(#|>|=|\+(?!\d)|-(?!\d)|:(?=-))|(\d{1,9})([.)])(?=\s|$)")


def markdown(text: object) -> str:
    """Return `text` as inline Markdown on one line that shows it as it is: in a paragraph, a heading, a list or a table cell."""
    escaped = markdown_cell(text)
    if start := _STARTS.match(escaped):
        escaped = f"{start[2] or ''}\\{start[1] or start[3]}{escaped[start.end() :]}"
    # Readers drop number signs at the end of a heading.
    return f"{escaped[:-1]}\\#" if re.search(r"\s#+$", escaped) else escaped


def markdown_cell(text: object) -> str:
    """Return `text` as inline Markdown on one line that shows it as it is within a line: in a table cell."""
    return _MARKS.sub(lambda found: f"\\{found[0]}", _one_paragraph(text))


def markdown_code(text: object) -> str:
    """Return `text` as a code span, its fence longer than any that is inside."""
    line = _one_paragraph(text)
    if not line:
        return ""
    fence = "`" * (_longest_run(line) + 1)
    # Fences must not touch a backtick of the text; one space on each side is dropped by readers.
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def markdown_block(text: object) -> str:
    """Return `text` as a fenced block, its lines as they are, its fence longer than any that is inside."""
    fence = "`" * max(3, _longest_run(str(text)) + 1)
    return f"{fence}\n{visible(text)}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


# YAML and JSON.


def yaml_text(text: object) -> str:
    """Return `text` for a value of a YAML head: on one line, so that no reader finds the head's end in it.

    The quotes are those of the YAML writer.
    """
    return _one_paragraph(text)


_SURROGATES = re.compile("[\ud800-\udfff]")


def json_text(text: str) -> str:
    """Return JSON that UTF-8 can hold: halves of characters (of names that are not UTF-8) become the escapes that JSON has."""
    return _SURROGATES.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


# Cells of CSV files.

# A number in any usual notation does nothing in a spreadsheet but be a number: signs, separators of thousands and decimals.
_NUMBER = re.compile(r"[+-]?(?:[0-9][0-9.,'\s]*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?%?|[+-]?(?:inf|infinity|nan)", re.IGNORECASE)


def is_formula(text: str) -> bool:
    """Return whether a spreadsheet may run a cell as a formula: it begins with = + - @ in any width, and is not a number.

    A tab or a line break before the text counts as well; blanks and what is not seen before such a sign do not help.
    """
    if text[:1].isalnum():
        return False
    unseen = "".join(itertools.takewhile(lambda c: c.isspace() or unicodedata.category(c) in _ACTING, text))
    bare = text[len(unseen) :]
    if _NUMBER.fullmatch(bare.rstrip()):
        return False
    broken = any(c in unseen for c in "\t\r\n")
    return broken or (bool(bare) and unicodedata.normalize("NFKC", bare[0])[:1] in tuple("=+-@"))


def csv_cell(text: str) -> str:
    """Return `text` as a cell that no spreadsheet runs: an apostrophe comes before what would be run; see `csv_plain`."""
    return f"'{text}" if is_formula(text.lstrip("'")) else text


def csv_plain(cell: str) -> str:
    """Return the text that `csv_cell` made `cell` of. Texts that begin with apostrophes had one more put before them."""
    return cell[1:] if cell.startswith("'") and is_formula(cell.lstrip("'")) else cell

"""Tables of texts, for a terminal and as Markdown. Everything that prints a table calls one of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fpt.text.escape import markdown_cell


def plain_table(head: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int]) -> str:
    """Return a table in plain text, its first column aligned to the left and the others to the right.

    Args:
        head: name of each column.
        rows: cells of each line; a cell more than the head has is a remark, and ends the line.
        widths: least width of each column; one with a longer cell gets wider.
    """
    lines = [list(head), *map(list, rows)]
    count = len(head)
    longest = [max(len(line[column]) for line in lines) + (column > 0) for column in range(count)]
    widths = [max(pair) for pair in zip(widths, longest, strict=True)]

    def printed(line: list[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(line[1:count], widths[1:], strict=True)]
        remarks = [f"  {remark}" for remark in line[count:] if remark]
        return "".join([line[0].ljust(widths[0]), *cells, *remarks])

    return "\n".join(map(printed, lines))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; its cells are plain texts, and are shown as they are."""
    first, *rest = [f"| {' | '.join(map(markdown_cell, row))} |" for row in (head, *rows)]
    return [first, f"|{'---|' * len(head)}", *rest]

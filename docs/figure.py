"""Draw the figure of the method that the README shows: python docs/figure.py [docs/method.svg]."""

from __future__ import annotations

import sys

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

FROZEN, TRAINED, INK, PAPER = "#d5dce6", "#f6b26b", "#26323f", "#ffffff"


def box(axes: plt.Axes, x: float, y: float, width: float, height: float, text: str, color: str, size: float = 10) -> None:
    """Draw a rounded box with `text` in its middle."""
    shape = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.12", facecolor=color, edgecolor=INK, lw=0.9
    )
    axes.add_patch(shape)
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size, color=INK)


def arrow(axes: plt.Axes, start: float, end: float, y: float) -> None:
    """Draw an arrow from left to right."""
    axes.add_patch(
        FancyArrowPatch((start, y), (end, y), arrowstyle="-|>", mutation_scale=11, color=INK, lw=1.1, shrinkA=0, shrinkB=0)
    )


def draw(path: str) -> None:
    """Write the figure to `path`; the ending names the format."""
    plt.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "fpt", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(10, 3.5))
    axes.set(xlim=(0, 20), ylim=(0, 7))
    axes.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)

    # What goes in.
    for y, text in (
        (5.2, "atoms of a molecule"),
        (4.3, "patches of a picture"),
        (3.4, "frames of a sound"),
        (2.5, "columns of a table"),
    ):
        box(axes, 0.2, y, 3.2, 0.7, text, PAPER, 9)
    arrow(axes, 3.5, 4.2, 4.2)
    box(axes, 4.3, 2.5, 1.9, 3.4, "input\nlayer", TRAINED)
    arrow(axes, 6.3, 7.0, 4.2)

    # The backbone: a block in detail, and the others behind it.
    for shift in (0.36, 0.18):
        box(axes, 7.1 + shift, 1.75 + shift, 7.0, 4.4, "", PAPER)
    box(axes, 7.1, 1.75, 7.0, 4.4, "", PAPER)
    axes.text(7.3, 5.75, "backbone: N pretrained transformer blocks", fontsize=9.5, color=INK, va="center")
    for x, text, color in ((7.4, "norm", TRAINED), (8.9, "attention", FROZEN), (10.75, "norm", TRAINED), (12.25, "MLP", FROZEN)):
        box(axes, x, 2.4, 1.25 if color == TRAINED else 1.6, 2.7, text, color)
    axes.text(7.3, 2.05, "learned positions, where it has them, are trained too", fontsize=8.5, color=INK, va="center")
    arrow(axes, 14.6, 15.3, 4.2)

    # What comes out.
    box(axes, 15.4, 2.5, 1.9, 3.4, "readout of\nthe last\ntoken", TRAINED)
    arrow(axes, 17.4, 18.1, 4.2)
    box(axes, 18.2, 3.4, 1.6, 1.6, "class or\nnumber", PAPER)

    # What the colors mean.
    box(axes, 4.3, 0.45, 0.6, 0.55, "", TRAINED)
    axes.text(5.1, 0.72, "trained and saved (0.23 % in the example below)", fontsize=9.5, color=INK, va="center")
    box(axes, 12.2, 0.45, 0.6, 0.55, "", FROZEN)
    axes.text(13.0, 0.72, "frozen: weights stay as pretraining left them", fontsize=9.5, color=INK, va="center")

    figure.savefig(path, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    draw(sys.argv[1] if len(sys.argv) > 1 else "docs/method.svg")

"""Draw the learning curves of docs/results.md from docs/results.csv: python docs/results.py [docs/results.svg].

The file has a line for each model and evaluation: mean, minimum and maximum over three seeds. Step 0: a model without steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import pandas as pd
from matplotlib import pyplot as plt

DATA = Path(__file__).with_suffix(".csv")
LABELS = {"valid_auprc": "validation AUPRC", "train_loss": "training loss"}


def curve(axes: plt.Axes, name: str, rows: pd.DataFrame, column: str, color: str) -> None:
    """Draw one model's `column`: a line with the range over seeds as a band, or a level where there are no steps."""
    if not rows.step.any():
        if rows[column].notna().all():
            axes.axhline(rows[column].iloc[0], color=color, ls="--", lw=1.2, label=f"{name} (no steps)")
        return
    axes.plot(rows.step, rows[column], color=color, marker="o", ms=4, lw=1.5, label=name)
    axes.fill_between(rows.step, rows[f"{column}_min"], rows[f"{column}_max"], color=color, alpha=0.2, lw=0)


def draw(path: str) -> None:
    """Write the figure to `path`; the ending names the format."""
    plt.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "fpt", "font.family": "sans-serif", "font.size": 9})
    data = pd.read_csv(DATA)
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.4))
    for axes, (column, label) in zip(panels, LABELS.items(), strict=True):
        for number, (name, rows) in enumerate(data.groupby("model", sort=False)):
            curve(axes, str(name), rows, column, f"C{number}")
        axes.set(xlabel="step", ylabel=label, xticks=sorted({step for step in data.step if step}))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="upper center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.87))
    figure.savefig(path, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    draw(sys.argv[1] if len(sys.argv) > 1 else str(DATA.with_suffix(".svg")))

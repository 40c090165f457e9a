"""Pictures of scores: learning curves, ROC, PR and calibration curves, confusion matrices, predicted against true numbers."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpt.optional import need
from fpt.report.findings import metrics_of
from fpt.report.predictions import Predictions
from fpt.report.runs import Row
from fpt.text.escape import picture_text

# Points of a line, or of a cloud: more can't be told apart, and each is a line of the picture's file.
MOST_POINTS = 5_000
# Larger matrices are no picture any more.
MOST_CLASSES = 300
# Beyond, matplotlib's axes are out of the range of their numbers.
LARGEST = 1e100
# What XML may not have.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Picture:
    """An SVG, base64, with a text for those who can't see it."""

    data: str
    alt: str = ""


@dataclass(frozen=True)
class Pictures:
    """Pictures beside each other."""

    pictures: list[Picture | Paragraph]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Heading:
    """A heading within a task."""

    text: str


Block = Picture | Pictures | Paragraph | Heading


def figure(draw: Callable[[Any], None], width: float = 6.0, height: float = 4.0, columns: int = 1) -> Picture:
    """A picture that `draw` makes on matplotlib axes, or on a list of them.

    Texts are texts: matplotlib would take what is between dollar signs for mathematics. Names go through `picture_text`.
    """
    need("matplotlib", "a figure of the report")
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {"svg.hashsalt": "fpt", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    # Whatever a matplotlibrc of the user says.
    settings |= {"text.parse_math": False, "text.usetex": False, "axes.formatter.use_mathtext": False}
    out = io.StringIO()
    with rc_context(settings):
        made = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(made)
        axes = made.subplots(1, columns) if columns > 1 else made.subplots()
        draw(axes)
        made.savefig(out, format="svg", metadata={"Date": None})
    return image(out.getvalue())


def image(svg: str, alt: str = "") -> Picture:
    """A picture of an SVG."""
    svg = _NOT_XML.sub("\ufffd", svg[svg.index("<svg") :])
    return Picture(base64.b64encode(svg.encode()).decode(), alt)


def colors(count: int) -> list[str]:
    """As many different colours, for the rows of a picture; whatever cycle of colours a matplotlibrc of the user names."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if count <= 20:
        palette = [to_hex(color) for color in colormaps["tab10" if count <= 10 else "tab20"].colors]  # type: ignore[attr-defined]
        return palette[:count]
    return [to_hex(colormaps["turbo"](place)) for place in np.linspace(0.03, 0.97, count)]


def learning_curves(rows: Sequence[Row]) -> Picture:
    """Validation score and training loss against steps, mean and range over seeds."""
    metric = metrics_of(rows)[0]

    def draw(axes: Any) -> None:
        for color, row in zip(colors(len(rows)), rows, strict=True):
            name = picture_text(row.name)
            if not row.first.steps:
                score = row.score("valid", metric)
                if score and abs(score[0]) < LARGEST:
                    axes[0].axhline(score[0], color=color, linestyle=":", label=f"{name} (no steps)")
                continue
            histories = [r.history for r in row.results]
            steps = [np.nan if (step := e.get("step")) is None else step for e in min(histories, key=len)]
            for axis, values in (
                (axes[0], [[e["valid"].get(metric) for e in h] for h in histories]),
                (axes[1], [[e.get("train_loss") for e in h] for h in histories]),
            ):
                known = np.array([v[: len(steps)] for v in values], dtype=float)
                known[np.abs(known) > LARGEST] = np.nan
                shown = thinned(known.shape[1])
                x, known = np.array(steps, dtype=float)[shown], known[:, shown]
                axis.plot(x, known.mean(0), color=color, label=name, marker=".")
                axis.fill_between(x, known.min(0), known.max(0), color=color, alpha=0.2)
        axes[0].set(xlabel="step", ylabel=f"valid {picture_text(metric)}")
        axes[1].set(xlabel="step", ylabel="training loss")
        axes[0].legend(fontsize=7, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return figure(draw, 10, 4.4, 2)


def thinned(count: int, most: int = MOST_POINTS) -> np.ndarray:
    """Indices of points to draw: all, or `most` of them, evenly spread from the first to the last."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)


def curves(rows: Sequence[Row], found: Mapping[str, Predictions]) -> Picture:
    """ROC, precision and recall, and calibration of a task with two classes, over the predictions of all seeds.

    Args:
        found: predictions by the key of the row, with both classes among their labels.
    """
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import precision_recall_curve, roc_curve

    def draw(axes: Any) -> None:
        for color, row in zip(colors(len(rows)), rows, strict=True):
            true, score = found[row.key].positive, found[row.key].probabilities[:, 1]
            false_rate, true_rate, _ = roc_curve(true, score)
            precision, recall, _ = precision_recall_curve(true, score)
            observed, expected = calibration_curve(true, score, n_bins=10, strategy="quantile")
            shown = thinned(len(false_rate))
            axes[0].plot(false_rate[shown], true_rate[shown], color=color, label=picture_text(row.name))
            shown = thinned(len(recall) - 1)  # the last point is made up
            axes[1].plot(recall[shown], precision[shown], color=color)
            axes[2].plot(expected, observed, color=color, marker=".")
        axes[0].plot([0, 1], [0, 1], "k:", linewidth=0.7)
        axes[2].plot([0, 1], [0, 1], "k:", linewidth=0.7)
        axes[0].set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
        axes[1].set(xlabel="recall", ylabel="precision", title="Precision and recall")
        axes[2].set(xlabel="predicted probability", ylabel="observed share", title="Calibration (tenths)")
        axes[0].legend(fontsize=7, frameon=False)

    return figure(draw, 12, 4, 3)


def confusion(row: Row, table: Predictions) -> Picture | Paragraph:
    """Confusion matrix of one row, over the predictions of all seeds; rows are the labels."""
    if len(table.names) > MOST_CLASSES:
        return Paragraph(f"{row.name}: a confusion matrix of {len(table.names):,} classes is not drawn.")
    places = {name: place for place, name in enumerate(table.names)}
    counts = np.zeros((len(places), len(places)))
    for label, prediction in zip(table.labels, table.predictions, strict=True):
        if label in places and prediction in places:
            counts[places[label], places[prediction]] += 1
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [picture_text(name, 30) for name in table.names]

    def draw(axis: Any) -> None:
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axis.set(title=picture_text(row.name), xlabel="prediction", ylabel="label")
        axis.set_xticks(range(len(names)), names, rotation=90)
        axis.set_yticks(range(len(names)), names)
        if len(names) <= 12:
            for i, j in np.ndindex(shares.shape):
                axis.text(
                    j, i, f"{shares[i, j]:.2f}", ha="center", va="center", fontsize=6, color="w" if shares[i, j] > 0.5 else "k"
                )

    return figure(draw, 5, 5)


def scatter(row: Row, table: Predictions) -> Picture:
    """Predicted against true numbers."""
    near = (np.abs(table.labels) < LARGEST) & (np.abs(table.predictions) < LARGEST)
    labels, predictions = table.labels[near], table.predictions[near]
    shown = thinned(len(labels))

    def draw(axis: Any) -> None:
        axis.scatter(labels[shown], predictions[shown], s=4, alpha=0.4)
        ends = [labels.min(), labels.max()] if len(labels) else [0, 1]
        axis.plot(ends, ends, "k:", linewidth=0.7)
        axis.set(title=picture_text(row.name), xlabel="label", ylabel="prediction")

    return figure(draw, 5, 5)

"""Small files of a user's own, and what the tests do with them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from PIL import Image

from fpt.args import DataArguments, ModelArguments, TrainArguments, changed
from fpt.data.cache import prepare
from fpt.data.describe import describe_data
from fpt.data.prepared import Prepared
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.results import RunResults
from fpt.tasks.base import TASKS
from fpt.training import run

NUMBERS = {"input_type": "numbers", "label_column": "y"}
TEXT = {"input_column": "text", "label_column": "label"}
SMILES = {"input_type": "smiles", "input_column": "smiles", "label_column": "active"}


def write(path: Path, header: list[str], rows: list[Any], sep: str = ",", encoding: str = "utf-8") -> Path:
    """A text table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=sep).writerows([header, *rows])
    return path


def texts(count: int = 60) -> list[tuple[str, str]]:
    """Sentences with commas, and whether they are good."""
    return [(f"a {'good' if i % 2 else 'bad'} film, number {i}", "pos" if i % 2 else "neg") for i in range(count)]


def arguments(dataset: str, options: dict[str, Any], **changes: Any) -> DataArguments:
    """Data arguments of a test."""
    return changed(DataArguments(), **{"dataset": dataset, "given_options": options, "num_proc": 1, **changes})


def prepared(dataset: str, options: dict[str, Any], **changes: Any) -> Prepared:
    """A dataset, ready to train on."""
    data = arguments(dataset, options, **changes)
    return prepare(TASKS[dataset], data, 1, lambda line: None)


def told(found: Prepared) -> str:
    """All that is said of the data at the start of a run."""
    lines: list[str] = []
    describe_data(found, lines.append)
    return "\n".join(lines)


def labels_of(found: Prepared) -> dict[str, Any]:
    """Label by id, over all splits, as predictions.csv shows it."""
    return {i: found.output.shown(y) for rows in found.splits.values() for i, y in zip(rows["id"], rows["label"], strict=True)}


def values_of(found: Prepared, column: str = "values") -> dict[str, Any]:
    """Input by id, over all splits."""
    return {i: v for rows in found.splits.values() for i, v in zip(rows["id"], rows[column], strict=True)}


def train(dataset: str, options: dict[str, Any], backbone: Path, output: Path, steps: int = 4, **changes: Any) -> RunResults:
    """A short run; its results."""
    training = {f: changes.pop(f) for f in ("resume", "overwrite", "learning_rate", "eval_steps") if f in changes}
    training = {"eval_steps": steps, "warmup_steps": 1, "learning_rate": 1e-2, **training}
    results = run(
        arguments(dataset, options, **changes),
        ModelArguments(backbone=str(backbone)),
        TrainArguments(output_dir=str(output), max_steps=steps, **training),
    )
    assert isinstance(results, RunResults)
    return results


def predict(checkpoint: Path, file: Path, **changes: Any) -> pd.DataFrame:
    """Predictions for a file, as text."""
    out = checkpoint.parent / f"{file.name}.predicted.csv"
    evaluation.run(EvaluateArguments(checkpoint=str(checkpoint), predict=str(file), output=str(out), **changes))
    return pd.read_csv(out, dtype=str, keep_default_na=False)


def scored(checkpoint: Path) -> pd.DataFrame:
    """predictions.csv of a run, by id."""
    return pd.read_csv(checkpoint / "predictions.csv", dtype={"id": str}).set_index("id")


def picture(path: Path, bright: int, size: int = 16, seed: int = 0) -> Path:
    """A picture whose left (0) or right (1) half is bright."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, len(str(path))]).integers(0, 60, (size, size, 3)).astype(np.uint8)
    pixels[:, (size // 2) * bright : (size // 2) * (bright + 1)] += 150
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    path.write_bytes(out.getvalue())
    return path


def pictures(folder: Path, classes: tuple[str, ...] = ("cats", "dogs"), count: int = 12, seed: int = 0) -> Path:
    """A folder of pictures per class."""
    for number, name in enumerate(classes):
        for i in range(count):
            picture(folder / name / f"{i:03d}.png", number % 2, seed=seed * 1000 + i)
    return folder


def sounds(folder: Path, classes: tuple[str, ...] = ("low", "high"), count: int = 12) -> Path:
    """A folder of tones per class."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            wave = 0.3 * np.sin(2 * np.pi * (500 + 1000 * number + i) * np.arange(4000) / 16_000)
            soundfile.write(folder / name / f"{i:03d}.wav", wave, 16_000)
    return folder

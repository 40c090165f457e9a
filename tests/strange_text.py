"""Texts that mean something to a format, and runs that have them in every field."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markdown_it import MarkdownIt

from fpt.args import DataArguments, changed
from fpt.backbones.base import BackboneSpec
from fpt.checkpoint.config import CheckpointConfig, DataRecord, Manifest, TrainingRecord
from fpt.files.tables import write_csv
from fpt.inputs import Patches
from fpt.models.tuning import Tuning
from fpt.outputs import Classes

TEXTS = [
    '<img src=x onerror="alert(1)">',
    "</title></td></pre><script>alert(1)</script>",
    '\'" onmouseover=alert(1) x="',
    "<!-- ",
    "&lt;b&gt; &#60;",
    "{{ 7 * 7 }}{% raw %}",
    "=cmd|' /C calc'!A0",
    "+1+cmd",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "＝1+1",
    "'=1+1",
    "\x1b[31mred\x1b]0;title\x07",
    "\u202eevil\u2066",
    "# heading #",
    "- item\n- item",
    "1. item",
    "> quote",
    "[link](javascript:alert(1)) ![i](http://x/y.png)",
    "<http://example.org>",
    "| a | b |\n|---|---|",
    "`code` ```` x",
    "```\n</pre>\n```",
    "~~~ ~~x~~",
    "---\nlicense: other\n---\n",
    "a: b\n? x\n...",
    "!!python/object/apply:os.system [ls]",
    "*bold* __all__ _x_",
    "_x",
    "$\\frac{",
    "$\\alpha$ a$b$c",
    "C:\\temp\\",
    "a\0b",
    "a\r\nb",
    "a\u2028b\x85c",
    "\ufffe\uffff\ufeff",
    "👩\u200d👩\u200d👧",
    "שלום",
    "long " * 400,
    " ",
]
# Half a character, as JSON may have it.
HALF = "\ud800"


def results_of(names: tuple[str, ...], seed: int, samples: int = 40, **changes: Any) -> dict[str, Any]:
    """What ``results.json`` of a run with these classes says."""
    scores = {"accuracy": 0.5 + seed / 20, "loss": 0.6, "auroc": 0.7 + seed / 50, "auprc": 0.6}
    history = [{"step": step, "train_loss": 0.7 - step / 100, "valid": dict(scores)} for step in (4, 8, 12)]
    return {
        "task": "tdc/ames",
        "model": "fpt",
        "metrics": {"valid": dict(scores), "test": dict(scores)},
        "primary_metric": "auroc",
        "seed": seed,
        "split": {"method": "scaffold", "seed": 1, "rows": {"train": 100, "valid": 20, "test": samples}},
        "data": {"origin": "a file", "output": {"kind": "classes", "label_names": list(names)}, "notes": ["a note"]},
        "versions": {"torch": "2"},
        "arguments": {"dataset": "tdc/ames", "seed": seed, "backbone": "gpt2", "options": {"positive_label": "x"}},
        "best_step": 8,
        "steps": 12,
        "core": {"name": "gpt2", "hub_id": "user/gpt2", "revision": "main", "seed": None, "num_layers": 2, "sha256": "ab" * 32},
        "trainable_parameters": 1234,
        "wall_seconds": 3.5,
        "device": {"type": "cpu", "strategy": "one process"},
        "history": history,
        **changes,
    }


@dataclass(frozen=True, kw_only=True)
class Unchecked(CheckpointConfig):
    """A configuration with any value anywhere."""

    def __post_init__(self) -> None:
        pass


def config_of(said: Callable[[str], str] = str, **changes: Any) -> CheckpointConfig:
    """The configuration of a checkpoint, `said` for each of its texts."""
    values: dict[str, Any] = {
        "task": said("hub:user/data"),
        "model": said("full"),
        "input": Patches(5),
        "output": Classes((f"{said('')}no", f"{said('')}yes")),
        "core": BackboneSpec(said("gpt2"), said("main"), num_layers=2, sha256=said("ab"), hub_id=said("user/gpt2")),
        "tuning": Tuning((said("ln"), said("in"))),
        "eval_batch_size": 64,
        "data": data_of(said),
        "training": TrainingRecord(seed=1, lr_scheduler=said("cosine"), license=said("mit")),
        "command": said("accelerate launch train.py"),
        "step": 4,
        "valid_metrics": {said("auroc"): 0.5},
        "test_metrics": {said("auroc"): 0.5},
        "full": False,
        "model_sha256": said("ab" * 32),
    }
    return Unchecked(**{**values, **changes})


def data_of(said: Callable[[str], str] = str, options: dict[str, Any] | None = None) -> DataRecord:
    """The data of a checkpoint, whose task has these options."""
    arguments = changed(DataArguments(), given_options=options or {})
    manifest: Manifest = {"request": {"split_seed": 1}, "data_sha256": said("ab" * 32)}
    return DataRecord(source=said("a paper"), licence=said("mit"), arguments=arguments, manifest=manifest)


def write_run(folder: Path, results: dict[str, Any], names: tuple[str, ...] = ("no", "yes"), samples: int = 40) -> Path:
    """A finished run: its results, and predictions of so many test samples."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    rng = np.random.default_rng(len(names))
    shares = rng.dirichlet(np.ones(len(names)), samples)
    rows = [
        [f"id-{n}", names[n % len(names)], names[int(share.argmax())], *(f"{p:.8f}" for p in share)]
        for n, share in enumerate(shares)
    ]
    header = ["id", "label", "prediction", *(f"probability_{name}" for name in names)]
    write_csv(pd.DataFrame(rows, columns=header), folder / "predictions.csv", log=lambda line: None)
    return folder


def write_experiment(
    folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]] = copy.deepcopy, names: tuple[str, ...] = ("no", "yes")
) -> list[Path]:
    """Two rows of two seeds with an ``experiment.json``; `change` makes of each file's values what is written."""
    runs, rows = [], []
    for number, backbone in enumerate(("gpt2", "random:gpt2")):
        own = []
        for seed in (1, 2):
            results = results_of(names, seed)
            results["arguments"]["backbone"] = backbone
            changed = change(results)
            # What tells rows and seeds apart has to stay.
            changed["arguments"]["learning_rate"] = number
            own.append(write_run(folder / f"row-{number}" / f"seed-{seed}", changed, names))
        runs += own
        row = {"name": f"row {number}", "published": {"auroc": 0.8}, "source": "a paper", "command": "python", "core": ["gpt2"]}
        rows.append({**change(row), "runs": [str(run.absolute()) for run in own]})
    (folder / "experiment.json").write_text(json.dumps({"name": "e", "title": "t", "rows": rows}))
    return runs


def everywhere(values: Any, text: str) -> Any:
    """JSON values with `text` in place of every text, and in the names of metrics."""
    if isinstance(values, str):
        return text
    if isinstance(values, list):
        return [everywhere(value, text) for value in values]
    if not isinstance(values, dict):
        return values
    metric = f"{text}auroc"
    return {
        metric if key == "auroc" else key: metric if key == "primary_metric" else everywhere(value, text)
        for key, value in values.items()
    }


def cells_of(path: Path) -> list[list[str]]:
    """The cells of a CSV file, as Python's reader finds them."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file, strict=True))


# Reads CommonMark, with tables and strikethrough.
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def kinds(text: str) -> set[tuple[str, str]]:
    """Kinds of what is in a Markdown document: headings, links, texts, ..."""
    return {(one.type, one.tag) for token in READER.parse(text) for one in (token, *(token.children or ()))}

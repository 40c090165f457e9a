"""The runs of a page: found, read as typed records, and put into rows that differ in the seed alone."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fpt.errors import FPTError
from fpt.experiment.spec import ABOUT
from fpt.files.whole import user_path
from fpt.flags.command import command_of
from fpt.metrics import spread
from fpt.results import RESULTS_FILE, RunResults, read_results
from fpt.training.run_dir import FREE_ON_RESUME
from fpt.untrusted.typed import as_type, read_json

# Arguments that may differ between the runs of one row.
FREE = FREE_ON_RESUME | {"seed", "backbone_seed", "global_batch_size", "cache_dir"}


@dataclass
class Row:
    """Runs that differ in their seed alone.

    Attributes:
        key: what they have in common.
        name: of the experiment's row, or made of model and backbone.
        runs: folder and results of each, by seed.
        published, source: values that others give, and where.
        command: runs it again.
    """

    key: str
    name: str
    runs: list[tuple[Path, RunResults]] = field(default_factory=list)
    published: dict[str, float] = field(default_factory=dict)
    source: str = ""
    command: str = ""

    @property
    def results(self) -> list[RunResults]:
        """Results of each run."""
        return [results for _, results in self.runs]

    @property
    def first(self) -> RunResults:
        """Results of the first run."""
        return self.runs[0][1]

    def score(self, split: str, metric: str) -> tuple[float, float] | None:
        """Mean and sample standard deviation over runs, 0 of a single one; None where a run has no score."""
        found = spread([r.metrics[split].get(metric) for r in self.results])
        return None if found is None else (found.mean, found.std or 0.0)


@dataclass(frozen=True)
class _Named:
    """What ``experiment.json`` says of a row."""

    name: str
    runs: list[str]
    published: dict[str, float] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class _About:
    """What ``experiment.json`` says."""

    rows: list[_Named]


def find_runs(paths: Iterable[str]) -> list[Path]:
    """Folders of finished runs at or below `paths`; the trials of a sweep are left out.

    Raises:
        FPTError: there is none.
    """
    found: dict[Path, None] = {}
    for text in paths:
        path = user_path(text)
        if not path.is_dir():
            raise FPTError(f"{text} is not a folder; give runs of train.py or the folder of an experiment")
        below = [path] if (path / RESULTS_FILE).is_file() else _folders_with_results(path)
        found |= dict.fromkeys(p for p in below if not any(part.startswith("sweep-") for part in p.relative_to(path).parts))
    if not found:
        raise FPTError(f"no finished run (a folder with {RESULTS_FILE}) in {', '.join(paths)}")
    return list(found)


def _folders_with_results(path: Path) -> list[Path]:
    """Folders below `path` that hold results; runs may be writing there, so what they have not finished is passed over."""
    found = []
    for folder, inner, files in os.walk(path):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [Path(folder)] if RESULTS_FILE in files else []
    return sorted(found)


def read_rows(folders: Sequence[Path]) -> dict[str, list[Row]]:
    """Rows of each task, in the order of the experiment where there is one.

    A run that can't be read is an error: a mean over the runs that are left would be another one.

    Raises:
        FPTError: ``results.json`` or ``experiment.json`` can't be read, or a run is there twice.
    """
    rows: dict[str, dict[str, Row]] = defaultdict(dict)
    known: dict[Path, _About] = {}
    order: dict[str, int] = {}
    for folder in folders:
        results, place = read_results(folder), _place(folder, known)
        named = place[1] if place else None
        key = row_key(results)
        row = rows[results.task].setdefault(key, Row(key, named.name if named and named.name else row_name(results)))
        if place and named:
            order.setdefault(row.name, place[0])
            row.published, row.source = named.published, named.source
        if results.seed in {r.seed for r in row.results}:
            raise FPTError(f"{folder} and {row.runs[0][0]} are the same run twice (seed {results.seed}); give one of them")
        row.runs.append((folder, results))
        row.command = row.command or command_of(results.arguments)
    last = max(order.values(), default=0) + 1
    found = {task: sorted(own.values(), key=lambda r: order.get(r.name, last)) for task, own in rows.items()}
    for own in found.values():
        _tell_apart(own)
    return found


def _tell_apart(rows: Sequence[Row]) -> None:
    """Number rows that would have the same name, as those of one model with other arguments or on other weights."""
    names: Counter[str] = Counter()
    for row in rows:
        names[row.name] += 1
        row.name += f" ({names[row.name]})" if names[row.name] > 1 else ""


def row_key(results: RunResults) -> str:
    """What runs of one row have in common: task, model, backbone (with its weights, unless they are random) and arguments."""
    backbone = results.core
    same = {k: v for k, v in results.arguments.items() if k not in FREE}
    return json.dumps([results.task, backbone.name, None if backbone.seed is not None else backbone.sha256, same], sort_keys=True)


def row_name(results: RunResults) -> str:
    """Model and backbone in words."""
    backbone, model = results.core, results.model
    layers = f", {backbone.num_layers} layers" if backbone.num_layers else ""
    if model in ("fpt", "full", "lstm"):
        return f"{'FPT' if model == 'fpt' else model}, {backbone.name}{layers}"
    found = results.chosen or {}
    chosen = [str(found[name]) for name in ("estimator", "features") if name in found]
    return f"{model} ({', '.join(chosen)})" if chosen else model


def _place(folder: Path, known: dict[Path, _About]) -> tuple[int, _Named] | None:
    """Number and row of the experiment that a run belongs to.

    Args:
        known: experiments that were read already; more are put into it.
    """
    for above in folder.absolute().parents:
        path = above / ABOUT
        if not path.is_file():
            continue
        if path not in known:
            known[path] = _read_about(path)
        rows = enumerate(known[path].rows)
        return next(((number, row) for number, row in rows if str(folder.absolute()) in row.runs), None)
    return None


def _read_about(path: Path) -> _About:
    values = read_json(path)
    try:
        return as_type(_About, values, "")
    except FPTError as error:
        raise FPTError(f"{path} can't be read: {error}; run the experiment again, it writes this file anew") from error

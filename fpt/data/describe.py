"""What is logged of the data at the start of every run."""

from __future__ import annotations

import numpy as np

from fpt.data.prepared import Prepared
from fpt.data.rejected import count_reasons
from fpt.data.window_samples import WindowSamples
from fpt.tasks.base import Task
from fpt.text.log import Log


def describe_data(prepared: Prepared, log: Log) -> None:
    """Log what there is to learn from, how it was read, and what was left out, by kind."""
    name, manifest = prepared.task.name, prepared.manifest
    if manifest.schema is not None:
        log(f"{name} is read as follows (docs/your-data.md has the rules):")
        for line in manifest.schema.lines():
            log(f"  {line}")
        log(f"  made      {prepared.split_method} split, seed {manifest.request.split_seed}")
    parts = []
    for split in prepared.splits:
        samples = prepared.samples(split)
        # Of windows they are as large as the series times the horizon, and nothing is said of their values.
        labels = np.empty(0) if isinstance(samples, WindowSamples) else prepared.labels(split)
        about = f" ({prepared.output.describe(labels)})" if labels is not None else ""
        parts.append(f"{split} {len(samples):,}{about}")
    kind = f"vocabulary {len(prepared.tokenizer)}" if prepared.tokenizer else f"tokens of {prepared.input.dim} numbers"
    log(f"{name}: {', '.join(parts)}; {kind}")
    for line in manifest.notes:
        log(f"{name}: {line}")
    if manifest.rejected:
        log(f"{name}: {manifest.rejected:,} rows could not be used; they are in rejected.csv with the reason")
    if manifest.rejected or manifest.unused:
        for line in count_reasons(prepared.rejected):
            log(f"{name}: left out, {line}")
    cut = sum(manifest.cut_to_max_length.values())
    if cut and isinstance(prepared.task, Task):
        log(f"{name}: {cut:,} sequences were {prepared.task.cut_reason(prepared.args)} ({prepared.task.cut_flag})")
    if unknown := sum(manifest.with_unknown_tokens.values()):
        log(f"{name}: {unknown:,} samples have tokens that the training split does not have; they are read as unknown")

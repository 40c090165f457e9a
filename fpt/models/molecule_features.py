"""Numbers that describe a molecule as a whole: Morgan fingerprints and RDKit's 2D descriptors.

Rogers and Hahn, J. Chem. Inf. Model. 2010, 50, 742 (fingerprints).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from fpt.errors import FPTError
from fpt.tasks.base import GeneratedTask, Task
from fpt.tasks.molecules import BITS, descriptors, fingerprints
from fpt.tasks.text import Smiles
from fpt.text.log import Log

KINDS = ("bits", "counts", "descriptors", "counts+descriptors")
# Molecules that a process is handed at once; the descriptors of one take about 10 ms.
CHUNK = 256


@dataclass(frozen=True)
class Features:
    """Features of each split.

    Attributes:
        splits: (molecules, columns) each.
        descriptors: the column from which on they are descriptors: of any scale, nan where a molecule has none.
    """

    splits: Mapping[str, np.ndarray]
    descriptors: int

    def for_linear_models(self) -> dict[str, np.ndarray]:
        """The splits as float64 without nan: descriptors have mean 0 and deviation 1 on train, and its median where they are nan.

        Those farther than 10 deviations from the mean are cut: one odd value would decide a prediction by itself.
        """
        whole = {name: rows.astype(np.float64) for name, rows in self.splits.items()}
        train = whole["train"][:, self.descriptors :]
        if not train.shape[1]:
            return whole
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        # A column without any value on train is 0 then.
        scale = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()).fit(train)
        for rows in whole.values():
            rows[:, self.descriptors :] = scale.transform(rows[:, self.descriptors :]).clip(-10, 10)
        return whole


def molecules_only(model: str, task: Task | GeneratedTask) -> Task | GeneratedTask:
    """Return the task.

    Raises:
        FPTError: it has no molecules.
    """
    if not isinstance(getattr(task, "modality", None), Smiles):
        raise FPTError(f"--model {model} reads molecules; {task.name} has no SMILES")
    return task


def read_features(kind: str, splits: Mapping[str, Sequence[str]], processes: int | None, log: Log) -> Features:
    """Features of the SMILES of each split.

    Args:
        kind: one of `KINDS`.
        processes: that compute descriptors; all cores when None.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in splits}
    width = 0
    if kind != "descriptors":
        width = BITS
        for name, smiles in splits.items():
            parts[name].append(fingerprints(smiles, counts=kind != "bits"))
    if "descriptors" in kind:
        described = _descriptors_of_all(splits, processes or os.cpu_count() or 1)
        odd = sum(int(np.isnan(rows).any(axis=1).sum()) for rows in described.values())
        count = sum(map(len, described.values()))
        columns = described["train"].shape[1]
        log(f"model: {columns} descriptors; {odd:,} of {count:,} molecules have some without a finite value, which are left out")
        for name, rows in described.items():
            parts[name].append(rows)
    return Features({name: p[0] if len(p) == 1 else np.concatenate(p, axis=1) for name, p in parts.items()}, width)


def _descriptors_of_all(splits: Mapping[str, Sequence[str]], processes: int) -> dict[str, np.ndarray]:
    from sklearn.utils.parallel import Parallel, delayed

    chunks = {name: [smiles[i : i + CHUNK] for i in range(0, len(smiles), CHUNK)] for name, smiles in splits.items()}
    count = sum(map(len, chunks.values()))
    # A process costs more to start than a few chunks take.
    run = Parallel(n_jobs=1 if count <= 4 else min(processes, count), return_as="generator")
    with tqdm(total=sum(map(len, splits.values())), desc="descriptors", unit="molecule", dynamic_ncols=True) as bar:
        made = []
        for rows in run(delayed(descriptors)(chunk) for each in chunks.values() for chunk in each):
            made.append(rows)
            bar.update(len(rows))
    found = iter(made)
    return {name: np.concatenate([next(found) for _ in each]) for name, each in chunks.items()}

"""Numbers that describe a molecule as a whole: Morgan fingerprints and RDKit's 2D descriptors.

Rogers and Hahn, J. Chem. Inf. Model. 2010, 50, 742 (fingerprints).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from fpt.errors import FPTError
from fpt.tasks.base import GeneratedTask, Task
from fpt.tasks.text import Smiles, chemistry
from fpt.text.log import Log

if TYPE_CHECKING:
    from rdkit import Chem

RADIUS, BITS = 2, 2048
KINDS = ("bits", "counts", "descriptors", "counts+descriptors")
# Grows exponentially with the number of atoms, up to 1e38 for a peptide: we take its logarithm.
EXPONENTIAL = "Ipc"
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


def read_molecule(smiles: str) -> Chem.Mol:
    """A molecule of rdkit.

    Raises:
        ValueError: rdkit can't read it.
    """
    molecule = chemistry().MolFromSmiles(smiles)
    if molecule is None:
        raise ValueError(f"invalid SMILES {smiles!r}")
    return molecule


def fingerprints(smiles: Sequence[str], counts: bool = False) -> np.ndarray:
    """Morgan fingerprints (molecules, 2048): 0 or 1, or how often each substructure occurs.

    Raises:
        ValueError: rdkit can't read one.
    """
    chemistry()
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    read = generator.GetCountFingerprintAsNumPy if counts else generator.GetFingerprintAsNumPy
    out = np.zeros((len(smiles), BITS), dtype=np.float32 if counts else np.uint8)
    for row, text in zip(out, smiles, strict=True):
        row[:] = read(read_molecule(text))
    return out


def descriptors(smiles: Sequence[str]) -> np.ndarray:
    """RDKit's 2D descriptors (molecules, about 217) fp32, nan where a molecule has none (BCUT2D of metals and salts).

    Raises:
        ValueError: rdkit can't read one.
    """
    chemistry()
    from rdkit.Chem import Descriptors

    return np.stack([_finite(Descriptors.CalcMolDescriptors(read_molecule(text), missingVal=np.nan)) for text in smiles])


def _finite(values: dict[str, Any]) -> np.ndarray:
    """Descriptors by name as one row; whatever is not a finite fp32 number is nan."""
    row = np.array(list(values.values()), dtype=np.float64)
    if EXPONENTIAL in values:
        place = list(values).index(EXPONENTIAL)
        row[place] = np.log1p(max(row[place], 0.0))
    row[~(np.abs(row) <= np.finfo(np.float32).max)] = np.nan
    return row.astype(np.float32)


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

"""Molecules by rdkit, and numbers that describe one as a whole: Morgan fingerprints and 2D descriptors.

Rogers and Hahn, J. Chem. Inf. Model. 2010, 50, 742 (fingerprints).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fpt.optional import need

if TYPE_CHECKING:
    from rdkit import Chem

RADIUS, BITS = 2, 2048
# Grows exponentially with the number of atoms, up to 1e38 for a peptide: we take its logarithm.
EXPONENTIAL = "Ipc"


@functools.cache
def chemistry() -> Any:
    """The module `rdkit.Chem`, silent about molecules that it can't read: we count and list them ourselves.

    Raises:
        FPTError: rdkit is missing or broken.
    """
    need("rdkit", "reading SMILES")
    from rdkit import Chem, rdBase

    rdBase.DisableLog("rdApp.*")
    return Chem


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


def vectors(smiles: Sequence[str], kind: str) -> np.ndarray:
    """Vectors (molecules, numbers) fp32 of one of `fpt.args.VECTORS`; counts as log(1 + count).

    Raises:
        ValueError: rdkit can't read one.
    """
    parts = [np.log1p(fingerprints(smiles, counts=True))] if "counts" in kind else []
    parts += [descriptors(smiles)] if "descriptors" in kind else []
    return np.concatenate(parts, axis=1)


def plain_numbers(kind: str) -> int:
    """How many numbers of a vector stay as they are."""
    return BITS if "counts" in kind else 0

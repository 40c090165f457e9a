"""TDC's ADMET benchmark group: a test split that is fixed, and train and valid by seed (``--split tdc``).

https://tdcommons.ai/benchmark/admet_group/overview/ (Huang et al., arXiv 2102.09548). pytdc keeps each of its 22 sets as
``admet_group/NAME/train_val.csv`` and ``test.csv``; a leaderboard row is the mean over the splits of five seeds.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fpt.data.splits import scaffold_split
from fpt.errors import FPTError
from fpt.files.disk import refusals
from fpt.optional import need

SPLIT, GROUP = "tdc", "admet_group"
FILES = ("train_val.csv", "test.csv")
# What pytdc makes of train_val.csv.
FRACTIONS = (0.875, 0.125, 0.0)
# The columns that say which file a row is from, and where it is there.
PART, ROW = "part", "row"


def benchmark_files(root: Path, set_name: str) -> list[Path]:
    """Both files of a set below a folder; empty where one is missing."""
    for folder in (root / GROUP / set_name, root / set_name):
        files = [folder / name for name in FILES]
        if all(file.is_file() for file in files):
            return files
    return []


def download_benchmark(folder: Path) -> None:
    """Fetch the group with pytdc into ``folder/admet_group``; a broken download leaves nothing there.

    Raises:
        FPTError: TDC can't be reached.
    """
    need("tdc", "the download of TDC's ADMET benchmark group")
    with refusals(f"{folder} can't be written", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".tdc.") as temporary:
            try:
                from tdc.benchmark_group import admet_group

                admet_group(path=temporary)
            # pytdc raises whatever the page of a server in trouble leads it to, and calls sys.exit as well.
            except (Exception, SystemExit) as error:
                raise FPTError(f"TDC can't be reached ({type(error).__name__})") from error
            shutil.rmtree(folder / GROUP, ignore_errors=True)
            shutil.move(Path(temporary) / GROUP, folder / GROUP)


def placed(rows: pd.DataFrame, file: str) -> pd.DataFrame:
    """The rows of a file with their place."""
    return rows.assign(**{PART: file, ROW: rows.index + 1})


def benchmark_split(smiles: Sequence[str], parts: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    """Row numbers of each split, train and valid in pytdc's order.

    Args:
        parts: the file of each row, one of `FILES`.

    Raises:
        FPTError: a split is empty.
    """
    of_train = np.flatnonzero(np.asarray(parts) == FILES[0])
    made = scaffold_split([smiles[int(row)] for row in of_train], seed, FRACTIONS)
    return {
        "train": of_train[made["train"]],
        "valid": of_train[made["valid"]],
        "test": np.flatnonzero(np.asarray(parts) == FILES[1]),
    }

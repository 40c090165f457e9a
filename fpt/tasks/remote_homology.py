"""Remote homology of TAPE (arXiv 1906.08230, section 4; https://github.com/songlab-cal/tape; data of SCOP 1.75, as TAPE says).

A protein as a sequence of amino acids, one token each, at most 1,024 by default here; 1,195 folds as classes, accuracy. Train
12,312, valid 736, test 718 (``--holdout fold``: whole folds of superfamilies were held out; ``superfamily`` and ``family`` are
the easier ones).

``DIR/**/remote_homology_train.json`` (and ``_valid``, ``_test_fold_holdout``) or TAPE's ``.lmdb`` of the same names. LMDB entries
are pickles: they are read with a reader that makes no object of any class that they name.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import pandas as pd
from datasets import Dataset

from fpt.args import DataArguments, arg
from fpt.data.table import cell_text, printable
from fpt.errors import FPTError
from fpt.files.whole import new_folder
from fpt.flags.checks import check_known
from fpt.optional import need
from fpt.options import options_of
from fpt.outputs import Classes
from fpt.tasks.base import SPLITS, TASKS, Examples, Source, rejected_rows
from fpt.tasks.sources import Download, Ladder
from fpt.tasks.text import SHOWN, Letters, TextTask, read_each
from fpt.text.log import Log

FOLDS = 1195
HOLDOUTS = ("fold", "superfamily", "family")
URL = "http://s3.amazonaws.com/songlabdata/proteindata/data_raw_pytorch/remote_homology.tar.gz"


@dataclass
class HomologyOptions:
    """Which test split."""

    _argument_group_name = "remote-homology"
    holdout: str = arg("fold", "What TAPE held out of the test split: fold, superfamily or family.")

    def __post_init__(self) -> None:
        check_known(self, holdout=HOLDOUTS)


class _Nothing:
    """Stands for an object of any class in a pickle; nothing is imported or run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> _Nothing:
        return self


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, text, lists and dicts of a pickle; whatever it names is a `_Nothing`."""

    def find_class(self, module: str, name: str) -> type:
        return _Nothing

    def persistent_load(self, pid: Any) -> Any:
        return _Nothing()


def read_plain(data: bytes) -> Any:
    """The plain values in a pickle.

    Raises:
        ValueError: it is no pickle, or a broken one.
    """
    try:
        return _PlainUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # damaged opcodes make the unpickler raise nearly anything
        raise ValueError(f"no readable entry ({type(error).__name__})") from error


def read_json(path: Path) -> Iterator[Any]:
    """Entries of a JSON file.

    Raises:
        FPTError: it is no JSON list.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FPTError(f"{path} can't be read: {error}; download it again") from error
    if not isinstance(entries, list):
        raise FPTError(f"{path} is no list of proteins; download it again")
    yield from entries


# LMDB trusts the pages of a file, and a damaged one can end the process. So it is read by a process of its own, which hands on
# the value of num_examples and of "0", "1", ..., each after its length (0: there is none).
_DUMP = """
import lmdb, os, sys
out = sys.stdout.buffer
with lmdb.open(sys.argv[1], readonly=True, lock=False, subdir=os.path.isdir(sys.argv[1])) as base, base.begin() as view:
    for key in ["num_examples", *range(base.stat()["entries"] - 1)]:
        value = view.get(str(key).encode()) or b""
        out.write(len(value).to_bytes(8, "little") + value)
"""


def read_lmdb(path: Path) -> Iterator[Any]:
    """Entries of TAPE's LMDB: keys "0", "1", ... and "num_examples"; an unreadable one is None.

    Raises:
        FPTError: it is no LMDB, or not TAPE's.
    """
    need("lmdb", f"reading {path}")
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-P", "-c", _DUMP, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as child:
            assert child.stdout is not None
            try:
                count = read_plain(_value(child.stdout))
                if not isinstance(count, int) or count < 0:
                    raise ValueError("num_examples is no number")
                for _ in range(count):
                    value = _value(child.stdout)
                    try:
                        yield read_plain(value)
                    except ValueError:
                        yield None
            except ValueError as error:
                raise FPTError(f"{path} is no LMDB of TAPE: {error}; download it again") from error
            except EOFError as error:
                ended = child.wait()
                said.seek(0)
                reason = (said.read().decode(errors="replace").strip().splitlines() or [""])[-1] if ended > 0 else ""
                reason = reason or ("its pages are damaged" if ended else str(error))
                raise FPTError(f"{path} is no LMDB of TAPE: {reason}; download it again") from error
            finally:
                child.kill()


def _value(stream: IO[bytes]) -> bytes:
    """The next value that the reading process hands on; nothing for one that is not there."""
    return _exactly(stream, int.from_bytes(_exactly(stream, 8), "little"))


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError("it has fewer proteins than num_examples says")
    return data


READERS = {".json": read_json, ".lmdb": read_lmdb}


class RemoteHomology(TextTask):
    """Which fold does the protein have?"""

    name = "remote-homology"
    source = "https://github.com/songlab-cal/tape (remote homology)"
    licence = "as TAPE says of SCOP 1.75"
    primary_metric = "accuracy"
    modality = Letters()
    options = HomologyOptions
    max_length = 1024

    def locate(self, args: DataArguments, log: Log) -> Source:
        """--data_dir, an earlier download, the download from TAPE."""
        holdout = options_of(args, HomologyOptions).holdout
        names = ["remote_homology_train", "remote_homology_valid", f"remote_homology_test_{holdout}_holdout"]
        put = f"{', '.join(names)} (.json or .lmdb) into DIR"
        ladder = Ladder(self.name, partial(_files, names=names), _read, put, downloads="tape")

        def fetch() -> Source:
            _download(ladder.download_folder)
            return ladder.downloaded("TAPE")

        return ladder.locate(args, log, Download(f"download {URL}", fetch))

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """TAPE's own splits; proteins that can't be read are set aside."""
        rows: pd.DataFrame = source.rows
        labels_ok = rows.label.map(lambda y: isinstance(y, int) and not isinstance(y, bool) and 0 <= y < FOLDS)
        texts, found_reasons = read_each(rows.text, self.modality.read)
        rows = rows.assign(clean=texts)
        reasons = pd.Series(found_reasons, index=rows.index, dtype=object).replace("not text", "no sequence")
        reasons = reasons.where(reasons.notna() | labels_ok, f"fold_label is not in 0 to {FOLDS - 1}")
        bad, good = rows[reasons.notna()], rows[reasons.isna()]
        splits = {
            name: Dataset.from_dict({"id": list(p.id), "text": list(p.clean), "label": [int(y) for y in p.label]})
            for name in SPLITS
            for p in [good[good.split == name]]
        }
        found = zip(
            bad.index + 1,
            bad.id,
            bad.text.map(lambda text: printable(cell_text(text), SHOWN)),
            reasons[reasons.notna()],
            strict=True,
        )
        return Examples(
            splits,
            Classes(tuple(str(i) for i in range(FOLDS))),
            rejected_rows([{"row": row, "id": i, "text": text, "reason": reason} for row, i, text, reason in found]),
            seeded=False,
        )


def _files(root: Path, names: Sequence[str]) -> list[Path]:
    """The files of train, valid and test under `root`, all of one kind; empty when one is missing."""
    for suffix in READERS:
        found = [next(iter(sorted(root.glob(f"**/{name}{suffix}"))), None) for name in names]
        if all(found):
            return [path for path in found if path]
    return []


def _read(files: Sequence[Path], origin: str) -> Source:
    rows = []
    for split, path in zip(SPLITS, files, strict=True):
        for number, entry in enumerate(READERS[path.suffix](path)):
            entry = entry if isinstance(entry, dict) else {}
            rows.append((f"{split}-{number}", entry.get("primary"), entry.get("fold_label"), split))
    table = pd.DataFrame(rows, columns=["id", "text", "label", "split"], dtype=object)
    digest = hashlib.sha256("".join(f"{i}\t{text}\t{label}\n" for i, text, label, _ in rows).encode()).hexdigest()
    return Source(table, f"{origin}, {files[0].name}", digest)


def _download(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary, new_folder(folder) as new:
        archive = Path(temporary) / "remote_homology.tar.gz"
        urllib.request.urlretrieve(URL, archive)
        with tarfile.open(archive) as tar:
            tar.extractall(new, filter="data")


TASKS.register("remote-homology")(RemoteHomology())

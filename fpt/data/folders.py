"""A folder of pictures or sounds as a table: one row per file, its class from the folder it is in or from a metadata file.

The conventions are those of `datasets`' imagefolder and audiofolder: hidden files and folders (``.name``) and those that begin
with ``__`` are not data, ``metadata.csv``, ``.jsonl`` or ``.parquet`` beside the files name labels by ``file_name``, folders of
splits are ``train``, ``valid`` or ``test`` by any usual name, links are followed. What is not read is counted by kind.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fpt.data.files import read_table
from fpt.data.schema import SPLIT
from fpt.data.splits import split_name
from fpt.data.table import Bad, Table, cell_text
from fpt.errors import FPTError
from fpt.files.whole import fs_name, sha256_file
from fpt.text.log import Log, silent

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"
LABEL = "label"
SHA = "__sha__"
# Files that systems and programs leave behind.
LITTER = {"thumbs.db", "desktop.ini", "readme", "readme.md", "readme.txt", "license", "license.txt"}
LEVELS = ("first", "last")


@dataclass(frozen=True)
class Found:
    """A file: its path, and the folders between the root and it."""

    path: Path
    folders: tuple[str, ...]


def read_folder(
    root: Path,
    column: str,
    suffixes: frozenset[str],
    skipped: Sequence[str] = (),
    level: str | None = None,
    log: Log = silent,
) -> Table:
    """List, hash and label the files below `root`.

    Args:
        column: name of the column with the files, as ``file://`` URIs.
        suffixes: lower-case endings of files that can be read.
        skipped: patterns of folder names that are no classes.
        level: where folders are nested, whether the "first" or the "last" one names the class.

    Raises:
        FPTError: there is nothing to read, a class has no readable file, or nested folders may mean several things.
    """
    if level not in (None, *LEVELS):
        raise FPTError(f"--class_level {level!r} must be first or last")
    odd: Counter[str] = Counter()
    files, metadata, unread = _walk(root, suffixes, skipped, odd)
    if not files:
        shown = ", ".join(sorted(suffixes))
        other = f" (there are {sum(unread.values()):,} files of other kinds)" if unread else ""
        raise FPTError(f"{root} holds no files {shown} in folders of their class{other}")
    files, unread_in = _unwrap(files, unread)
    if metadata:
        rows = _by_metadata(files, metadata, root, odd, column)
        if not any(row.path.exists() for row in rows):
            first = rows[0].path.name if rows else "none"
            raise FPTError(
                f"{root}: none of {len(rows):,} rows of metadata names a file that is there (first: {_shown(first)!r})"
            )
    else:
        _check_read(unread_in, files)
        rows = _by_folder(files, level)
        if not any(row.label for row in rows):
            raise FPTError(
                f"{root}: no file is in a folder of its class; expected {root.name}/CLASS/FILE, or metadata.csv with the columns"
                " file_name and label"
            )
    log(f"hashing {len(rows):,} files")
    return _table(rows, root, column, odd, bool(metadata))


@dataclass
class Row:
    """A file with its label and split; other columns of a metadata file in `more`."""

    path: Path
    label: object
    split: str
    more: dict[str, object]


def _walk(
    root: Path, suffixes: frozenset[str], skipped: Sequence[str], odd: Counter[str]
) -> tuple[list[Found], dict[tuple[str, ...], Path], Counter[tuple[str, ...]]]:
    """Files that can be read, metadata files by folder, and how many files of other kinds each folder has."""
    files: list[Found] = []
    metadata: dict[tuple[str, ...], Path] = {}
    unread: Counter[tuple[str, ...]] = Counter()
    seen: set[str] = set()
    for where, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:  # a link back to a folder that was read
            odd["links to folders that were read already"] += 1
            folders.clear()
            continue
        seen.add(real)
        inside = Path(where).relative_to(root).parts
        for name in sorted(folders):
            if name.startswith((".", "__")):
                folders.remove(name)
                odd[f"hidden folders ({_shown(name)})"] += 1
            elif any(fnmatch.fnmatchcase(name, pattern) for pattern in skipped):
                folders.remove(name)
                odd[f"files in {_shown(name)}, which is not a class (--skip_folders)"] += _count(Path(where) / name)
        folders.sort()
        if inside and not folders and not names:
            odd[f"empty folders ({_shown(inside[-1])})"] += 1
        for name in sorted(names):
            path = Path(where) / name
            ending = path.suffix.lower()
            if name in METADATA:
                if inside in metadata:
                    raise FPTError(f"{Path(where)} holds both {metadata[inside].name} and {name}; keep one")
                metadata[inside] = path
            elif name.startswith((".", "__")):
                odd["hidden files"] += 1
            elif not path.is_file():
                odd["things that are no files" if path.exists() else "broken links"] += 1
            elif ending in suffixes:
                files.append(Found(path, inside))
            else:
                odd[f"files of other kinds ({_shown(ending) or 'no ending'})"] += 1
                if name.lower() not in LITTER:
                    unread[inside] += 1
    return files, metadata, unread


def _count(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def _shown(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _unwrap(files: list[Found], unread: Counter[tuple[str, ...]]) -> tuple[list[Found], Counter[tuple[str, ...]]]:
    """Without outer folders that hold everything, unless they are the only ones or a split."""
    while True:
        heads = {found.folders[0] if found.folders else "" for found in files}
        deep = all(len(found.folders) > 1 for found in files)
        if len(heads) != 1 or not deep or split_name(next(iter(heads))):
            return files, unread
        files = [Found(found.path, found.folders[1:]) for found in files]
        unread = Counter({folders[1:]: count for folders, count in unread.items()})


def _check_read(unread: Counter[tuple[str, ...]], files: Sequence[Found]) -> None:
    """Refuse a folder that would be a class if its files could be read."""
    read = {found.folders for found in files}
    siblings = {folders[:-1] for folders in read if folders}
    lost = [folders for folders in unread if folders and folders not in read and folders[:-1] in siblings]
    if lost:
        name = _shown("/".join(lost[0]))
        raise FPTError(
            f"the folder {name!r} has {unread[lost[0]]:,} files and none that can be read; convert them, or move the folder away"
        )


def _by_folder(files: Sequence[Found], level: str | None) -> list[Row]:
    """Class and split from the folders that a file is in."""
    where = _split_level(files)
    rows, classes = [], []
    for found in files:
        split = found.folders[where] if where is not None and len(found.folders) > where else ""
        rest = tuple(name for i, name in enumerate(found.folders) if i != where)
        rows.append(Row(found.path, "", split, {}))
        classes.append(rest)
    names = {rest[0] for rest in classes if len(rest) == 1}
    meant = {split_name(name) for name in names}
    if where is None and len(names) > 1 and "train" in meant and "" not in meant:
        raise FPTError(
            f"the folders {', '.join(sorted(names))} hold files and no folders of classes; expected train/CLASS/FILE, or"
            " metadata.csv in each"
        )
    while len({rest[-1] for rest in classes if rest}) == 1 and all(len(rest) != 1 for rest in classes):
        classes = [rest[:-1] for rest in classes]  # CLASS/images/x.png
    if names and all(re.fullmatch(r"fold[ _-]?\d+", name.casefold()) for name in names):
        raise FPTError(
            f"the folders {', '.join(sorted(names)[:3])}, … look like folds, not like classes; name labels in metadata.csv"
        )
    depths = {len(rest) for rest in classes if rest}
    if depths and (len(depths) > 1 or max(depths) > 1):
        classes = _one_level(classes, level)
    for row, rest in zip(rows, classes, strict=True):
        row.label = _shown(rest[0]) if rest else ""
    return rows


def _split_level(files: Sequence[Found]) -> int | None:
    """Which folder level names splits: the first (``train/CLASS``), or the last (``CLASS/train``); None where there are none."""
    nested = [found.folders for found in files if found.folders]
    first = {folders[0] for folders in nested}
    if len(first) > 1 and all(split_name(name) for name in first) and any(len(folders) > 1 for folders in nested):
        return 0
    if any(split_name(name) == "train" for name in first) and any(len(f) > 1 for f in nested if split_name(f[0]) == "train"):
        return 0
    last = {folders[-1] for folders in nested if len(folders) > 1}
    if last and all(split_name(name) for name in last) and any(split_name(name) == "train" for name in last):
        return 1 if all(len(folders) == 2 for folders in nested) else None
    return None


def _one_level(classes: Sequence[tuple[str, ...]], level: str | None) -> list[tuple[str, ...]]:
    """One folder name per file, where folders are nested.

    Raises:
        FPTError: it is not clear which folder names the class.
    """
    if level is None:
        # datasets takes the last one, torchvision the first.
        same_depth = len({len(rest) for rest in classes if rest}) == 1
        if not same_depth or len({rest[0] for rest in classes if rest}) > 1:
            example = _shown("/".join(sorted(classes, key=len)[-1]))
            raise FPTError(
                f"folders are nested ({example}); pass --class_level first or --class_level last to say which one is the class"
            )
    at = 0 if level == "first" else -1
    return [(rest[at],) if rest else () for rest in classes]


def _by_metadata(
    files: Sequence[Found], metadata: dict[tuple[str, ...], Path], root: Path, odd: Counter[str], column: str
) -> list[Row]:
    """Labels of metadata files; each row names its file relative to the metadata file's folder."""
    reserved = {column, SHA, SPLIT, FILE_NAME}
    by_path = {found.path.resolve(): found for found in files}
    rows: list[Row] = []
    listed: set[Path] = set()
    for folders, path in metadata.items():
        table = read_table(path)
        names = [c for c in table.rows.columns if str(c).endswith("_" + FILE_NAME)]
        name = FILE_NAME if FILE_NAME in table.rows else names[0] if len(names) == 1 else None
        if name is None:
            raise FPTError(
                f"{path} has no column {FILE_NAME!r}, which names each row's file; it has {', '.join(table.rows.columns)}"
            )
        split = _split_among(folders)
        for record in table.rows.to_dict("records"):
            # Not followed out of the folder: a name may lead anywhere.
            if not cell_text(record[name]).strip():
                odd["rows of metadata that name no file"] += 1
                continue
            target = (path.parent / fs_name(cell_text(record[name]).strip())).resolve()
            if not target.is_relative_to(root.resolve()) and target not in by_path:
                odd["rows of metadata that name a file outside of the folder"] += 1
                continue
            listed.add(target)
            inside = target.relative_to(root.resolve()).parts[:-1] if target.is_relative_to(root.resolve()) else ()
            # Names that are used here stay ours.
            more = {f"metadata.{k}" if k in reserved else str(k): v for k, v in record.items() if k != name}
            rows.append(Row(by_path[target].path if target in by_path else target, None, split or _split_among(inside), more))
        odd["rows of metadata that could not be read"] += len(table.rejected)
    odd["files without a row in metadata"] += len(set(by_path) - listed)
    return rows


def _split_among(folders: Sequence[str]) -> str:
    return next((name for name in folders if split_name(name)), "")


def _table(rows: Sequence[Row], root: Path, column: str, odd: Counter[str], by_metadata: bool) -> Table:
    with ThreadPoolExecutor(8) as pool:
        shas = list(pool.map(_sha, (row.path for row in rows)))
    records, rejected, numbers = [], [], []
    base = root.resolve()
    for number, (row, sha) in enumerate(zip(rows, shas, strict=True), 1):
        path = row.path.absolute()
        inside = path.relative_to(root.absolute()) if path.is_relative_to(root.absolute()) else Path(os.path.relpath(path, base))
        name = _shown(inside.as_posix())
        if sha.startswith("!"):
            rejected.append(Bad(number, name, "", sha[1:]))
            continue
        label = {} if by_metadata else {LABEL: row.label}
        records.append({FILE_NAME: name, **row.more, column: path.as_uri(), **label, SPLIT: row.split, SHA: sha})
        numbers.append(number)
    frame = pd.DataFrame(records, index=numbers, dtype=object)
    if SPLIT in frame and not any(frame[SPLIT]):
        frame = frame.drop(columns=SPLIT)
    kinds = {} if by_metadata else {LABEL: "classes"}
    named = {"input": column, "id": FILE_NAME, **({} if by_metadata else {"label": LABEL})}
    about = {"kind": "folder", "labels": "metadata" if by_metadata else "folders"}
    return Table(frame, about, rejected, +odd, kinds, named=named)


def _sha(path: Path) -> str:
    """Hash of a file, or ``!`` and why it can't be read."""
    try:
        return sha256_file(path)
    except OSError as error:
        return f"!can't be read ({error.strerror})"

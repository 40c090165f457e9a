"""Your own table, ``csv:FILE`` (CSV, TSV, JSON Lines, JSON, Parquet or Excel), or a dataset of the Hub, ``hub:NAME``.

``--input_type`` says what the input column holds: text, smiles, protein, numbers (of several columns), or names of image or
audio files. docs/your-data.md has the rules by which files are read and columns understood.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fpt.args import DataArguments, arg
from fpt.data.files import class_name, read_own_table
from fpt.data.own_options import OwnOptions
from fpt.data.schema import SPLIT
from fpt.data.table import Table, TableOptions, frame_of, printable
from fpt.errors import FPTError
from fpt.files.whole import user_path
from fpt.options import options_of
from fpt.tasks.base import TASKS
from fpt.tasks.own import OwnTask
from fpt.tasks.own_schema import InputOptions, Reader
from fpt.tasks.rows import TextRows
from fpt.text.log import Log
from fpt.untrusted.pretrained import announce

# Endings of a Hub dataset's data files.
DATA_FILES = {".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow", ".txt"}
# Sides of a patch: pixels of a picture, samples of a sound.
PATCH_SIZES = {"image": 4, "audio": 80}


@dataclass
class TableArguments(InputOptions, OwnOptions):
    """Where a table has inputs and labels, and how its file is read."""

    _argument_group_name = "table"
    input_type: str = arg("text", "text, smiles, protein, numbers, image or audio (the column names files).")
    delimiter: str | None = arg(
        None, "Between cells: a character, or comma, tab, semicolon, bar; what the first rows show when not given."
    )
    encoding: str | None = arg(None, "Of a text file: utf-8, utf-16, latin-1, cp1252, ...; UTF-8, or as its first bytes say.")
    sheet: str | None = arg(None, "Of an Excel file; the first one when not given.")


@dataclass
class HubArguments(InputOptions, OwnOptions):
    """Where a dataset of the Hub has inputs and labels."""

    _argument_group_name = "Hub dataset"
    input_type: str | None = arg(
        None, "text, smiles, protein, numbers, image or audio; what the dataset says of its column, else text, when not given."
    )
    hub_config: str | None = arg(None, "Configuration (subset) of the dataset, where it has several.")


class FileReader(Reader[TableArguments]):
    """One file."""

    kind = "csv"

    @property
    def name(self) -> str:
        return f"{self.kind}:{user_path(self.where).name}"

    def read(self, args: DataArguments, log: Log) -> Table:
        """As `fpt.data.files.read_table`; relative names of files are beside it."""
        o = options_of(args, TableArguments)
        return read_own_table(self.kind, self.where, args.data_dir, TableOptions(o.delimiter, o.encoding, o.sheet), log)

    def completed(self, options: TableArguments) -> TableArguments:
        """With the size of a patch that suits the input."""
        return replace(options, patch_size=options.patch_size or PATCH_SIZES.get(options.input_type, 4))

    def input_type(self, options: TableArguments) -> str:
        return options.input_type


class HubReader(Reader[HubArguments]):
    """A dataset of the Hub, or a folder that `datasets` loads."""

    kind = "hub"

    @property
    def name(self) -> str:
        folder = user_path(self.where)
        return f"{self.kind}:{folder.resolve().name if folder.exists() else self.where}"

    def __init__(self, where: str) -> None:
        super().__init__(where)
        # Splits by configuration that were opened for their features and are not read yet.
        self._opened: dict[str | None, Any] = {}

    def _load(self, config: str | None) -> Any:
        """The splits by name."""
        from datasets import Dataset, IterableDatasetDict, load_dataset, load_from_disk

        folder = user_path(self.where)
        if folder.is_dir():
            _check_names(folder)
        elif not folder.exists():
            announce(self.where, None)
        try:
            if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():  # by save_to_disk
                saved = load_from_disk(str(folder))
                parts = {"train": saved} if isinstance(saved, Dataset) else saved
            else:
                parts = load_dataset(str(folder) if folder.exists() else self.where, config)
        except Exception as error:  # of any kind: network, files, formats, configurations
            if "torchcodec" in f"{error} {error.__cause__}":
                raise FPTError(
                    f"--dataset hub:{self.where} holds loose sound files, which datasets reads with torchcodec only; pass"
                    f" --dataset audiofolder:DIR for a folder of them"
                ) from error
            first = error.__cause__ if "generating the dataset" in str(error) and error.__cause__ else error
            reason = printable(str(first).strip().splitlines()[0], 300) if str(first).strip() else type(first).__name__
            hint = "; pass --hub_config" if "onfig name" in str(error) else ""
            raise FPTError(f"--dataset hub:{self.where} can't be loaded: {reason}{hint}") from error
        assert not isinstance(parts, IterableDatasetDict)
        return parts

    def completed(self, options: HubArguments) -> HubArguments:
        """With the type of the input as the features of the dataset say, and the size of a patch that suits it."""
        input_type = self.input_type(options)
        return replace(options, input_type=input_type, patch_size=options.patch_size or PATCH_SIZES.get(input_type, 4))

    def input_type(self, options: HubArguments) -> str:
        """As given, or as the features of the dataset say."""
        if options.input_type is not None:
            return options.input_type
        config = options.hub_config
        parts = self._opened[config] = self._opened.get(config) or self._load(config)
        kinds = _kinds(next(iter(parts.values())).features)
        files = {kind for name, kind in kinds.items() if kind in PATCH_SIZES and options.input_column in (None, name)}
        return files.pop() if len(files) == 1 else "text"

    def read(self, args: DataArguments, log: Log) -> Table:
        """All splits; their names are in the column ``__split__``."""
        log(f"{self.where} with datasets")
        records: list[dict[str, Any]] = []
        kinds: dict[str, str] = {}
        config = options_of(args, HubArguments).hub_config
        # Not kept any longer: the task goes to other processes.
        parts = self._opened.pop(config, None) or self._load(config)
        for name, part in parts.items():
            kinds |= _kinds(part.features)
            for record in _plain(part):
                records.append({**record, SPLIT: str(name)})
        table = Table(frame_of(records), {"kind": "hub", "config": config}, kinds=kinds)
        if left := self._not_loaded(config):
            table.odd[f"files of the folder that datasets does not load ({', '.join(left[:3])})"] = len(left)
        return table

    def _not_loaded(self, config: str | None) -> list[str]:
        """Data files of a folder on this machine that belong to no split."""
        from datasets import load_dataset_builder

        folder = user_path(self.where)
        if not folder.is_dir() or (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            return []
        files = load_dataset_builder(str(folder), config).config.data_files or {}
        loaded = {Path(str(file)).name for part in files.values() for file in part}
        there = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith((".", "_")))
        return sorted(printable(path.name) for path in there if path.suffix in DATA_FILES and path.name not in loaded)


def _check_names(folder: Path) -> None:
    """Refuse Parquet files whose classes have other names or another order: `datasets` gives all of them those of the first.

    Raises:
        FPTError: two files list the classes of a column differently.
    """
    from datasets import ClassLabel, Features
    from pyarrow import ArrowException, parquet

    known: dict[str, tuple[str, list[str]]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        try:
            features = Features.from_arrow_schema(parquet.read_schema(path))
        except (ArrowException, OSError, ValueError, TypeError, KeyError):
            continue  # `datasets` says what is wrong with it
        for name, feature in features.items():
            if isinstance(feature, ClassLabel):
                first, names = known.setdefault(name, (path.name, feature.names))
                if names != feature.names:
                    raise FPTError(
                        f"the classes of column {name!r} are {', '.join(feature.names[:4])} in {path.name} and"
                        f" {', '.join(names[:4])} in {first}; write all files with one list of names"
                    )


def _kinds(features: Any) -> dict[str, str]:
    """Columns whose type the dataset names."""
    from datasets import Audio, ClassLabel, Image

    known = ((Image, "image"), (Audio, "audio"), (ClassLabel, "classes"))
    return {name: kind for name, feature in features.items() for one, kind in known if isinstance(feature, one)}


def _plain(part: Any) -> Any:
    """Records with names of classes, and pictures and sounds as bytes or names of files."""
    from datasets import Audio, ClassLabel, Image

    features = part.features
    for name, feature in features.items():
        if isinstance(feature, (Image, Audio)):
            part = part.cast_column(name, type(feature)(decode=False))
    labels = {name: feature for name, feature in features.items() if isinstance(feature, ClassLabel)}
    lists = {
        name: feature.feature for name, feature in features.items() if isinstance(getattr(feature, "feature", None), ClassLabel)
    }
    files = {name for name, feature in features.items() if isinstance(feature, (Image, Audio))}
    for record in part:
        for name, feature in labels.items():
            record[name] = class_name(feature, record[name])
        for name, feature in lists.items():
            if record[name] is not None:
                record[name] = [class_name(feature, value) for value in record[name]]
        for name in files:
            cell = record[name] or {}
            record[name] = cell.get("bytes") or cell.get("path")
        yield record


def csv_task(where: str) -> OwnTask:
    """The task of a user's own table."""
    return TextRows(FileReader(where), TableArguments)


def hub_task(where: str) -> OwnTask:
    """The task of a dataset of the Hub."""
    return TextRows(HubReader(where), HubArguments)


TASKS.register("csv:FILE")(csv_task)  # type: ignore[arg-type]
TASKS.register("hub:NAME")(hub_task)  # type: ignore[arg-type]

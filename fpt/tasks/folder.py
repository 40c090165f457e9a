"""Your own pictures or sounds: ``imagefolder:DIR`` and ``audiofolder:DIR``, as `datasets` reads such folders.

One folder of files per class, ``DIR/CLASS/FILE``; with splits ``DIR/train/CLASS/FILE``; or ``metadata.csv`` with a column
``file_name``. `fpt.data.folders` has the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fpt.args import DataArguments, arg
from fpt.data.folders import read_folder
from fpt.data.own_options import OwnOptions
from fpt.data.table import Table
from fpt.errors import FPTError
from fpt.files.whole import user_path
from fpt.options import options_of
from fpt.tasks.audio import AudioOptions, sound_suffixes
from fpt.tasks.base import TASKS
from fpt.tasks.images import BACKGROUND_HELP, OVERLAP_HELP, ResizeOptions, picture_suffixes
from fpt.tasks.own import OwnTask
from fpt.tasks.own_schema import Reader
from fpt.tasks.rows import PictureRows, SoundRows
from fpt.text.log import Log


@dataclass
class FolderOptions(OwnOptions):
    """How folders name classes."""

    skip_folders: str = arg("_background_noise_", "Folders that are not classes: names or patterns, separated by commas.")
    class_level: str | None = arg(None, "Where folders are nested: first or last, the folder that names the class.")


@dataclass
class ImageFolderArguments(FolderOptions, ResizeOptions):
    """How pictures become tokens, and how folders name their classes."""

    _argument_group_name = "imagefolder"
    image_size: int = arg(32, "Pictures are resized to this height and width in pixels.")
    patch_size: int = arg(4, "Side of a patch in pixels; divides --image_size.")
    patch_overlap: int = arg(0, OVERLAP_HELP)
    gray: bool = arg(False, "One gray channel instead of three colors.")
    background: str = arg("white", BACKGROUND_HELP)


@dataclass
class AudioFolderArguments(AudioOptions, FolderOptions):
    """How clips become tokens, and how folders name their classes."""

    _argument_group_name = "audiofolder"


class FolderReader(Reader[FolderOptions]):
    """Files below one folder.

    Args:
        column: the column with the files: image or sound.
        suffixes: endings of the files that can be read.
    """

    def __init__(self, where: str, kind: str, column: str, suffixes: Callable[[], frozenset[str]]) -> None:
        super().__init__(where)
        self.kind, self.column, self.suffixes = kind, column, suffixes

    @property
    def name(self) -> str:
        # `imagefolder:.` is named after the folder it stands for.
        return f"{self.kind}:{user_path(self.where).resolve().name or 'root'}"

    def read(self, args: DataArguments, log: Log) -> Table:
        """As `fpt.data.folders.read_folder`."""
        root = user_path(self.where)
        if not root.is_dir() and args.data_dir:
            root = user_path(args.data_dir) / root.name
        if not root.is_dir():
            raise FPTError(f"--dataset {self.kind}:{self.where}: there is no such folder")
        o = options_of(args, FolderOptions)
        skipped = [name.strip() for name in o.skip_folders.split(",") if name.strip()]
        return read_folder(
            root, self.column, self.suffixes(), skipped, o.class_level, lambda line: log(f"{self.kind}:{root}: {line}")
        )

    def input_type(self, options: FolderOptions) -> str:
        return "image" if self.kind == "imagefolder" else "audio"


def image_folder(where: str) -> OwnTask:
    """The task of a folder of pictures."""
    return PictureRows(FolderReader(where, "imagefolder", "image", picture_suffixes), ImageFolderArguments)


def audio_folder(where: str) -> OwnTask:
    """The task of a folder of sounds."""
    return SoundRows(FolderReader(where, "audiofolder", "sound", sound_suffixes), AudioFolderArguments)


TASKS.register("imagefolder:DIR")(image_folder)  # type: ignore[arg-type]
TASKS.register("audiofolder:DIR")(audio_folder)  # type: ignore[arg-type]

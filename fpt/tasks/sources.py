"""One ladder to the raw data of a task: --data_dir, an earlier download, an installed package, a download."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from importlib import metadata
from pathlib import Path

from fpt.args import DataArguments
from fpt.data.table import printable
from fpt.errors import FPTError
from fpt.files.whole import cache_home, package_folder, user_path
from fpt.tasks.base import Source
from fpt.text.log import Log

# The files of the raw data below a folder; empty where one of them is missing.
Find = Callable[[Path], Sequence[Path]]
# What loaders raise when a network, a server, an archive or a disk fails. Whatever else they raise is a bug, and shown as one.
FAILURES: tuple[type[Exception], ...] = (OSError, EOFError, HTTPException, tarfile.TarError, zlib.error)


@dataclass(frozen=True)
class Package:
    """A package that has the raw data among its files, where it is installed; none of its code is run.

    Attributes:
        name: as it is installed with pip.
        find: the files below the package's folder.
        module: as it is imported, where that is another name.
    """

    name: str
    find: Find
    module: str = ""

    @property
    def folder(self) -> Path | None:
        """Where it is installed, None where it is not."""
        return package_folder(self.module or self.name)

    @property
    def install(self) -> str:
        """How to install it; what it needs to run is left out."""
        return f"`pip install --no-deps {self.name}`"

    @property
    def origin(self) -> str:
        """Its name and release, for the results of a run."""
        return f"package {self.name} {metadata.version(self.name)}"


@dataclass(frozen=True)
class Download:
    """The last rung.

    Attributes:
        name: what lines of progress and errors call it: "download with torchvision".
        fetch: fetches the data and reads it.
        failures: kinds of exceptions, besides `FAILURES`, by which the loader says that it could not fetch the data.
    """

    name: str
    fetch: Callable[[], Source]
    failures: tuple[type[Exception], ...] = ()


@dataclass(frozen=True)
class Place:
    """A rung where files may be.

    Attributes:
        name: what lines of progress and errors call it.
        origin: what results and checkpoints, which are published, call it: no folder of this machine.
        folder: where to look, None for nowhere.
        users_own: whether files there may be the user's own.
    """

    name: str
    origin: Callable[[], str]
    folder: Path | None
    find: Find
    users_own: bool = False


@dataclass(frozen=True)
class Ladder:
    """What a task knows of its raw data; the order in which it is looked for is the same for every task.

    Attributes:
        task: name of the task.
        find: the files below a folder.
        read: what the files hold, given the files and their origin; raises FPTError for a damaged file.
        put: which files go where for --data_dir DIR: "train.tsv into DIR/mine/".
        folder: where `find` looks below --data_dir.
        downloads: where earlier downloads are, below the raw folder of the cache; None where the loader keeps its own.
        package: has the data as well.
        users_own: whether files in --data_dir may be the user's own instead of the published ones.
    """

    task: str
    find: Find
    read: Callable[[Sequence[Path], str], Source]
    put: str
    folder: str = ""
    downloads: str | None = None
    package: Package | None = None
    users_own: bool = False

    @property
    def download_folder(self) -> Path:
        """Where downloads are kept."""
        assert self.downloads is not None
        return cache_home() / "raw" / self.downloads

    @property
    def advice(self) -> str:
        """How to get the data by hand."""
        return f"put {self.put} and give --data_dir DIR" + (f", or {self.package.install}" if self.package else "")

    def locate(self, args: DataArguments, log: Log, download: Download | None = None) -> Source:
        """Read the data from the first place that has it, or download it.

        Raises:
            FPTError: it is nowhere, with all that was tried and what to do, or a file that was found is damaged.
        """
        if (source := self.look(args, log)) is not None:
            return source
        tried = [place.name for place in self._places(args)]
        if download is None:
            raise FPTError(f"no data for {self.task} (tried {', '.join(tried)}): {self.advice}")
        log(download.name)
        known: tuple[type[Exception], ...] = (FPTError, *FAILURES, *download.failures)
        try:
            return download.fetch()
        except known as error:
            raise FPTError(
                f"no data for {self.task} (tried {', '.join([*tried, download.name])}): {_why(error)}; {self.advice}"
            ) from error

    def look(self, args: DataArguments, log: Log) -> Source | None:
        """Read the data from the first place that has it; None where it has to be downloaded.

        Raises:
            FPTError: a file that was found is damaged.
        """
        if not args.data_dir:
            log("--data_dir not given")
        for place in self._places(args):
            files = place.find(place.folder) if place.folder is not None else ()
            there = files[0] if len(files) == 1 else files[0].parent if files else "not there"
            log(f"{place.name}: {there}")
            if files:
                return replace(self.read(files, place.origin()), users_own=place.users_own)
        return None

    def files(self, args: DataArguments) -> Sequence[Path]:
        """The files of the first place that has them; none where they have to be downloaded."""
        found = (place.find(place.folder) for place in self._places(args) if place.folder is not None)
        return next((files for files in found if files), ())

    def downloaded(self, origin: str) -> Source:
        """Read what a loader has just put into the folder of downloads.

        Raises:
            FPTError: a file is missing or damaged.
        """
        files = self.find(self.download_folder)
        if not files:
            raise FPTError("the download does not hold the files that are needed")
        return self.read(files, origin)

    def _places(self, args: DataArguments) -> Iterator[Place]:
        """The rungs above the download, in their order."""
        if args.data_dir:
            given = user_path(args.data_dir) / self.folder
            yield Place(f"--data_dir {args.data_dir}", lambda: "--data_dir", given, self.find, self.users_own)
        if self.downloads is not None:
            yield Place(f"download in {self.download_folder}", lambda: "download", self.download_folder, self.find)
        if self.package is not None:
            package = self.package
            yield Place(f"package {package.name}", lambda: package.origin, package.folder, package.find)


def _why(error: Exception) -> str:
    if isinstance(error, FPTError):
        return str(error)
    first = printable(next(iter(str(error).strip().splitlines()), ""), 120)
    return f"the download failed ({type(error).__name__}{f': {first}' if first else ''})"

"""Checkpoints on the Hub: `python -m fpt.hub runs/cyp3a4 user/repo` pushes one; ``user/repo[@revision]`` reads one everywhere."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from fpt.checkpoint import find_checkpoint, read_config
from fpt.checkpoint.remote import FILES, check_push, push
from fpt.cli import read_arguments
from fpt.errors import cli
from fpt.files.disk import refusals
from fpt.files.whole import read_stably


@contextlib.contextmanager
def snapshot(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a copy of those of the files `names` of a folder that are there, all of one version; see `read_stably`.

    Raises:
        FPTError: there is no room for it.
    """
    with tempfile.TemporaryDirectory(prefix="fpt-") as kept:
        copy = Path(kept) / folder.name

        def read(place: Path) -> None:
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir()
            for name in names:
                if (place / name).is_file():
                    shutil.copyfile(place / name, copy / name)

        with refusals(f"{folder} can't be copied to {kept}"):
            read_stably(folder, read)
        yield copy


def main() -> None:
    """Push the checkpoint of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder that train.py wrote: a run, or its checkpoint/")
    parser.add_argument("repo", help="USER/REPOSITORY")
    parser.add_argument("--private", action="store_true", help="make the repository private, if it is made by this")
    args = read_arguments(parser)
    check_push(args.repo)
    folder = find_checkpoint(args.checkpoint)
    # Its run may replace it meanwhile.
    with snapshot(folder, FILES) as copy:
        read_config(copy)  # a damaged one is not published
        push(copy, args.repo, args.private, source=folder)


if __name__ == "__main__":
    cli(main)

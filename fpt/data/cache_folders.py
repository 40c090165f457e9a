"""The folders of the cache: entries that are there, and the unfinished ones of a writer that lives or was killed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fpt.errors import FPTError
from fpt.files.disk import remove
from fpt.files.whole import alone


@contextlib.contextmanager
def work_folder(work: Path, locked: bool) -> Iterator[Path]:
    """Yield the folder of shards that are done; where the file system has no locks, one that no other process knows."""
    work.parent.mkdir(parents=True, exist_ok=True)
    if not locked:
        with tempfile.TemporaryDirectory(prefix=f"{work.name}.", dir=work.parent) as own:
            yield Path(own)
        return
    work.mkdir(exist_ok=True)
    try:
        yield work
    finally:
        for left in work.glob("tmp*"):  # half written, by us or by a writer that was killed
            remove(left)


def sweep_work(root: Path, name: str) -> None:
    """Remove the shards of a writer that was killed when its entry was whole; not those of a living one, nor where we may not."""

    def taken() -> None:
        raise FPTError("a living one")

    if (root / "work" / name).is_dir():
        with contextlib.suppress(FPTError), alone(root / "locks" / name, taken) as locked:
            if locked:
                remove(root / "work" / name)


def manifests(folder: Path) -> list[Path]:
    """Manifests of the entries of a task, without those that are being made."""
    return sorted(path for path in folder.glob("*/manifest.json") if not path.parent.name.startswith("."))

"""Time and memory of preprocessing all 105,829 clips of Speech Commands, or as many of another size.

    python benchmarks/preprocess.py --data_dir raw

A folder that holds fewer clips is filled up with links to them, so every clip is read, decoded and written for real.
The memory is the proportional set size of all processes together, sampled ten times a second. Pages of mapped files
(packages, and the Arrow files that were just written) are told apart: the system drops them when it needs the room.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from fpt.args import DataArguments
from fpt.data.cache import prepare
from fpt.errors import FPTError, cli
from fpt.tasks.base import TASKS
from fpt.tasks.speech_commands import FOLDER, LISTS


def fill(source: Path, folder: Path, count: int) -> None:
    """Link clips of `source` into `folder` under new names until there are `count`; lists are written anew."""
    clips = sorted(source.glob("*/*.wav"))
    if not clips:
        raise FPTError(f"{source} holds no WORD/*.wav; give the --data_dir that has speech_commands/{FOLDER}")
    listed = {file: set((source / file).read_text(encoding="utf-8").split()) for file in LISTS.values()}
    lists: dict[str, list[str]] = {file: [] for file in listed}
    for number, clip in enumerate(itertools.islice(itertools.cycle(clips), count)):
        name = f"{clip.parent.name}/{clip.stem}_{number}.wav"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(clip.resolve())
        for file, names in listed.items():
            if f"{clip.parent.name}/{clip.name}" in names:
                lists[file].append(name)
    for file, links in lists.items():
        (folder / file).write_text("\n".join(links) + "\n", encoding="utf-8")


def memory(process: psutil.Process) -> np.ndarray:
    """Bytes of a process and its children: what is theirs, and pages of files that are mapped; shared pages count once."""
    total = np.zeros(2, dtype=int)
    for part in (process, *process.children(recursive=True)):
        with contextlib.suppress(OSError, psutil.Error):  # it has just ended
            lines = Path(f"/proc/{part.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
            size = {name: int(value.split()[0]) * 1024 for name, value in (line.split(":") for line in lines)}
            total += size["Pss_Anon"] + size["Pss_Shmem"], size["Pss_File"]
    return total


def work(data_dir: str, cache_dir: str, num_proc: int | None) -> None:
    """What is measured, in a process of its own."""
    args = DataArguments(dataset="speech-commands", data_dir=data_dir, cache_dir=cache_dir, num_proc=num_proc)
    prepare(TASKS["speech-commands"], args, 1, print)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="folder with raw downloads, as for train.py")
    parser.add_argument("--clips", type=int, default=105_829, help="clips to preprocess")
    parser.add_argument("--num_proc", type=int, help="processes; all cores when not given")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        raw = Path(temporary) / "raw"
        fill(Path(args.data_dir) / "speech_commands" / FOLDER, raw / "speech_commands" / FOLDER, args.clips)
        worker = multiprocessing.get_context("spawn").Process(
            target=work, args=(str(raw), str(Path(temporary) / "cache"), args.num_proc)
        )
        start = time.perf_counter()
        worker.start()
        process, peak = psutil.Process(worker.pid), np.zeros(2, dtype=int)
        while worker.is_alive():
            peak = np.maximum(peak, memory(process))
            time.sleep(0.1)
        seconds = time.perf_counter() - start
        if worker.exitcode:
            raise FPTError(f"preprocessing ended with status {worker.exitcode}")
        arrow = sum(f.stat().st_size for f in (Path(temporary) / "cache" / "arrow").rglob("*.arrow"))
        print(
            f"{args.clips:,} clips in {seconds:.0f} s ({args.clips / seconds:,.0f} a second), {arrow / 2**20:,.0f} MiB of Arrow;"
            f" peak memory {peak[0] / 2**30:.2f} GiB, peak of mapped files {peak[1] / 2**30:.2f} GiB"
        )


if __name__ == "__main__":
    cli(main)

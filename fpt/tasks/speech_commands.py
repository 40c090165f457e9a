"""Speech Commands v0.02: 105,829 clips of one second, 35 words (Warden, arXiv 1804.03209; CC BY 4.0).

``--features mel`` (the default, better): log-mel frames, 50 tokens of 160 numbers. ``--features raw``: the wave at 8 kHz in
patches of 80, 100 tokens, as in the course project. Accuracy.

Raw files are torchaudio's: ``DIR/speech_commands/SpeechCommands/speech_commands_v0.02/WORD/*.wav`` with
``validation_list.txt`` and ``testing_list.txt``; whatever words the folder holds are the classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from datasets import Dataset

from fpt.args import DataArguments
from fpt.errors import FPTError
from fpt.files.whole import sha256_file
from fpt.optional import need
from fpt.outputs import Classes
from fpt.tasks.audio import AudioTask
from fpt.tasks.base import TASKS, Examples, Source
from fpt.tasks.sources import Download, Ladder
from fpt.text.log import Log

FOLDER = Path("SpeechCommands") / "speech_commands_v0.02"
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
NOISE = "_background_noise_"


class Clips(list):
    """Names of the clips, WORD/FILE.wav, in order; `root` is the folder that they are in."""

    root: Path


class SpeechCommands(AudioTask):
    """Which word is it?"""

    name = "speech-commands"
    source = "https://arxiv.org/abs/1804.03209 (v0.02)"
    licence = "CC BY 4.0"
    primary_metric = "accuracy"

    def locate(self, args: DataArguments, log: Log) -> Source:
        """--data_dir, an earlier download, the download with torchaudio."""
        put = f"the unpacked archive into DIR/speech_commands/{FOLDER}/"
        read = partial(_read, log=log)
        ladder = Ladder(self.name, _lists, read, put, folder="speech_commands", downloads="speech_commands")

        def fetch() -> Source:
            need("torchaudio", f"the download of dataset {self.name!r}")
            from torchaudio.datasets import SPEECHCOMMANDS

            ladder.download_folder.mkdir(parents=True, exist_ok=True)
            SPEECHCOMMANDS(str(ladder.download_folder), download=True)
            return ladder.downloaded("torchaudio")

        # torchaudio raises RuntimeError for an archive with another checksum.
        return ladder.locate(args, log, Download("download with torchaudio", fetch, (RuntimeError,)))

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """The official lists: clips of one speaker are in one split."""
        clips: Clips = source.rows
        lists = {name: set((clips.root / file).read_text(encoding="utf-8").split()) for name, file in LISTS.items()}
        words = sorted({clip.split("/")[0] for clip in clips})
        number = {word: i for i, word in enumerate(words)}
        chosen = {
            "train": [c for c in clips if c not in lists["valid"] and c not in lists["test"]],
            **{name: [c for c in clips if c in listed] for name, listed in lists.items()},
        }
        splits = {
            name: Dataset.from_dict(
                {
                    "id": part,
                    "sound": [str(clips.root / c) for c in part],
                    "label": [number[c.split("/")[0]] for c in part],
                }
            )
            for name, part in chosen.items()
        }
        return Examples(splits, Classes(tuple(words)), seeded=False)


def _lists(root: Path) -> list[Path]:
    """The archive's own lists; torchaudio leaves them at the root of the clips, and with them the folder is whole."""
    found = [root / FOLDER / name for name in LISTS.values()]
    return found if all(path.is_file() for path in found) else []


def _read(lists: Sequence[Path], origin: str, log: Log) -> Source:
    root = lists[0].parent
    clips = Clips(sorted(f"{p.parent.name}/{p.name}" for p in root.glob("*/*.wav") if p.parent.name != NOISE))
    clips.root = root
    if not clips:
        raise FPTError(f"{root} holds no WORD/*.wav; unpack the archive of Speech Commands v0.02 there")
    log(f"hashing {len(clips):,} clips")
    digest = hashlib.sha256()
    # Reading is what takes the time, and hashing lets other threads run.
    with ThreadPoolExecutor(8) as pool:
        for clip, sha in zip(clips, pool.map(lambda c: sha256_file(root / c), clips), strict=True):
            digest.update(f"{clip}\t{sha}\n".encode())
    for name in LISTS.values():
        digest.update((root / name).read_bytes())
    return Source(clips, f"{origin}, {FOLDER}", digest.hexdigest())


TASKS.register("speech-commands")(SpeechCommands())

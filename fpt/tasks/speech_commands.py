"""Speech Commands v0.02: 105,829 clips of one second, 35 words (Warden, arXiv 1804.03209; CC BY 4.0).

``--features mel`` (the default, better): log-mel frames, 50 tokens of 160 numbers. ``--features raw``: the wave at 8 kHz in
patches of 80, 100 tokens, as in the course project. Accuracy.

Raw files are torchaudio's: ``DIR/speech_commands/SpeechCommands/speech_commands_v0.02/WORD/*.wav`` with
``validation_list.txt`` and ``testing_list.txt``; whatever words the folder holds are the classes.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datasets import Dataset

from fpt.args import DataArguments
from fpt.errors import FPTError
from fpt.files.whole import cache_home, sha256_file, user_path
from fpt.optional import need
from fpt.outputs import Classes
from fpt.tasks.audio import AudioTask
from fpt.tasks.base import TASKS, Examples, Source
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
        downloads = cache_home() / "raw" / "speech_commands"
        places = []
        if args.data_dir:
            places = [(f"--data_dir {args.data_dir}", user_path(args.data_dir) / "speech_commands" / FOLDER)]
        for place, root in [*places, (f"download in {downloads}", downloads / FOLDER)]:
            # torchaudio leaves the archive's own lists at the root: with them the folder is whole.
            found = all((root / name).is_file() for name in LISTS.values())
            log(f"{place}: {root if found else 'not there'}")
            if found:
                return _read(root, place.split()[0], log)
        log("download with torchaudio")
        need("torchaudio", f"the download of dataset {self.name!r}")
        try:
            from torchaudio.datasets import SPEECHCOMMANDS

            downloads.mkdir(parents=True, exist_ok=True)
            SPEECHCOMMANDS(str(downloads), download=True)
        except Exception as error:
            raise FPTError(
                f"no data for {self.name}: the download failed ({type(error).__name__}); put the unpacked archive into"
                f" DIR/speech_commands/{FOLDER}/ and give --data_dir DIR"
            ) from None
        return _read(downloads / FOLDER, "torchaudio", log)

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


def _read(root: Path, origin: str, log: Log) -> Source:
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

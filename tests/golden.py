"""Small runs of every kind of task and model, for what must not change when the code does: losses, scores and files.

``python tests/golden.py losses FILE`` writes the losses of 20 steps of each; of two versions on one machine they are the same to
the last bit. ``python tests/golden.py files`` writes the fixtures of ``tests/golden/`` with the code as it is: only for a format
that is new, as those that are there are what earlier versions wrote.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate import Accelerator
from conftest import make_llama, molecules, write_tdc
from own_data import pictures, sounds
from test_modalities import own_rows, write_cifar10, write_mnist, write_proteins, write_speech, write_table

import fpt.tasks.base
from fpt.args import DataArguments, ModelArguments, TrainArguments, changed
from fpt.evaluation.arguments import EvaluateArguments
from fpt.evaluation.run import run as evaluate
from fpt.training import run

FOLDER = Path(__file__).parent / "golden"
STEPS = 20
MAT = {"mat_width": 16, "mat_layers": 2, "mat_heads": 2}
SIZES = {"train": 64, "valid": 32, "test": 32}


def cases(raw: Path) -> dict[str, tuple[str, Path | None, dict[str, Any], dict[str, Any]]]:
    """Name -> dataset, --data_dir, the task's options, other arguments; the raw data is made in `raw`."""
    table = write_table(raw / "mine.csv", own_rows())
    smiles = {"input_column": "smiles", "label_column": "amount", "input_type": "smiles"}
    mnist, cifar = write_mnist(raw / "mnist"), write_cifar10(raw / "cifar")
    speech, molecule = write_speech(raw / "speech"), write_tdc(raw / "tdc", molecules())
    return {
        "bit-memory": ("bit-memory", None, {}, {}),
        "bit-xor": ("bit-xor", None, {}, {}),
        "digit-add": ("digit-add", None, {}, {}),
        "listops": ("listops", None, {"num_train": 40, "num_eval": 10}, {"max_length": 64}),
        "mnist": ("mnist", mnist, {}, {}),
        "mnist-add": ("mnist-add", mnist, {"as_regression": True}, {}),
        "cifar10": ("cifar10", cifar, {}, {}),
        "cifar10-gray": ("cifar10-gray", cifar, {}, {}),
        "speech-commands": ("speech-commands", speech, {}, {}),
        "remote-homology": ("remote-homology", write_proteins(raw / "tape", "json"), {}, {}),
        "cyp3a4": ("cyp3a4", molecule, {}, {"augment": 2, "dropout": 0.1}),
        "own-smiles": (f"csv:{table}", None, smiles, {}),
        "own-text": (f"csv:{table}", None, {"input_column": "smiles", "label_column": "kind", "input_type": "text"}, {}),
        "own-pictures": (f"imagefolder:{pictures(raw / 'pictures')}", None, {}, {}),
        "own-sounds": (f"audiofolder:{sounds(raw / 'sounds')}", None, {}, {}),
        "full": ("cyp3a4", molecule, {}, {"model": "full", "activation_checkpointing": True}),
        "lora": ("cyp3a4", molecule, {}, {"tune": "lora", "gradient_accumulation_steps": 2}),
        "lstm": ("bit-xor", None, {}, {"model": "lstm", "backbone": "gpt2"}),
        "mat": ("cyp3a4", molecule, {}, {"model": "mat", "backbone": "gpt2", "model_options": MAT}),
        "ast": (
            "speech-commands",
            speech,
            {},
            {"model": "ast", "backbone": "gpt2", "model_options": {"ast_width": 24, "ast_layers": 2}},
        ),
        "vit": ("cifar10", cifar, {}, {"model": "vit", "backbone": "gpt2", "model_options": {"vit_width": 24, "vit_layers": 2}}),
        "cnn": ("cifar10", cifar, {}, {"model": "cnn", "backbone": "gpt2"}),
        "side-by-side": ("cyp3a4", molecule, {}, {"seeds": "1,2", "dropout": 0.1}),
    }


def short(
    case: tuple[str, Path | None, dict[str, Any], dict[str, Any]], backbone: Path, output: Path, **more: Any
) -> dict[str, Any]:
    """Train a case; its results as JSON values, or the summary of several runs."""
    dataset, data_dir, options, given = case
    groups: list[Any] = [
        DataArguments(dataset=dataset, data_dir=str(data_dir) if data_dir else None),
        ModelArguments(backbone=str(backbone)),
        TrainArguments(output_dir=str(output), max_steps=STEPS, eval_steps=1, warmup_steps=2, learning_rate=1e-2),
    ]
    given = {**given, **more}
    groups[0].given_options, groups[1].given_options = options, given.pop("model_options", {})
    for name, value in given.items():
        groups = [changed(g, **{name: value}) if hasattr(g, name) else g for g in groups]
    found = run(*groups)
    assert found is not None
    return found.to_dict()


def losses(backbone: Path, work: Path, names: Sequence[str] = (), steps: int = STEPS) -> dict[str, list[float]]:
    """The loss of each step and the scores after it, in order, by case.

    The first three are the same for any number of `steps`: the schedule has not begun to fall.
    """
    fpt.tasks.base.GeneratedTask.sizes = SIZES
    found = {}
    for name, case in cases(work / "raw").items():
        if names and name not in names:
            continue
        short(case, backbone, work / name, max_steps=steps)
        files = sorted((work / name).glob("**/results.json"))
        history = [one for file in files for one in json.loads(file.read_text(encoding="utf-8"))["history"]]
        found[name] = [v for one in history for v in (one["train_loss"], *one["valid"].values()) if v is not None]
        print(name, len(found[name]), found[name][:1], flush=True)
    return found


def write_files(work: Path) -> None:
    """The fixtures, made in `work`: raw data, a backbone, finished runs, a stopped one with its state, the cache, predictions."""
    os.chdir(work)
    os.environ["FPT_HOME"] = str(work / "home")
    backbone = Path("core")
    make_llama(work / backbone, layers=1, width=16)
    write_tdc(work / "raw", molecules()[:160])
    table = write_table(work / "mine.csv", own_rows(60))
    data = "cyp3a4", Path("raw"), {}, {}
    own = f"csv:{table.name}", None, {"input_column": "a,b", "label_column": "amount", "input_type": "numbers"}, {}
    short(data, backbone, Path("molecules"), eval_steps=5)
    short(own, backbone, Path("numbers"), eval_steps=5)
    short(data, Path("gpt2"), Path("mat"), model="mat", model_options=MAT, eval_steps=5)
    short(data, backbone, Path("sweep"), learning_rates="1e-3,1e-2", eval_steps=5)
    backward, calls = Accelerator.backward, itertools.count(1)

    def stop_at_step_10(self: Accelerator, loss: torch.Tensor, **more: Any) -> None:
        if next(calls) == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        backward(self, loss, **more)

    with mock.patch.object(Accelerator, "backward", stop_at_step_10):
        short(data, backbone, Path("stopped"), eval_steps=5)
    evaluate(EvaluateArguments(checkpoint="numbers", predict=table.name, output="predictions.csv"))
    for log in work.glob("**/lock"):
        log.unlink()
    shutil.rmtree(work / "home" / "locks", ignore_errors=True)
    kept = (FOLDER / "losses.json").read_bytes()
    shutil.rmtree(FOLDER)
    FOLDER.mkdir()
    (FOLDER / "losses.json").write_bytes(kept)
    for name in ("core", "raw", "mine.csv", "molecules", "numbers", "mat", "sweep", "stopped", "predictions.csv", "home"):
        (shutil.copytree if (work / name).is_dir() else shutil.copy)(work / name, FOLDER / name)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        backbone = make_llama(work / "llama")
        if sys.argv[1] == "losses":
            Path(sys.argv[2]).write_text(json.dumps(losses(backbone, work), indent=1), encoding="utf-8")
            return
        write_files(work)


if __name__ == "__main__":
    main()

"""Optional packages that are missing or broken: what needs them says which extra to install, and all else works."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from fpt.errors import FPTError
from fpt.optional import EXTRAS
from fpt.registry import Registry

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BROKEN = ("torchaudio", "torchvision", "rdkit", "tdc", "deepspeed", "wandb", "matplotlib")
# What a package raises that is built for another release of torch.
REASON = "libtorch.so: undefined symbol: _ZN3c10"
# As if nothing had been installed: finders of packages don't see it, and importing it fails.
MISSING = "import sys\nfor name in {names!r}:\n    sys.modules[name] = None\n"


def python(code: str, tmp_path: Path, broken: tuple[str, ...] = (), missing: tuple[str, ...] = ()) -> str:
    """What a Python process prints that has these packages broken or missing."""
    folder = tmp_path / "packages"
    for name in broken:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "__init__.py").write_text(f"raise OSError({REASON!r})\n")
    code = MISSING.format(names=missing) + code
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "FPT_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


ASK = """
from fpt.errors import FPTError
from fpt.models.base import MODELS
from fpt.tasks.base import TASKS

def ask(table, *names):
    for name in names:
        try:
            table[name]
            print(name, "works")
        except FPTError as error:
            print(name, "error:", error)
"""


@pytest.mark.slow
def test_broken_packages_cost_what_needs_them(tmp_path: Path) -> None:
    out = python(
        ASK
        + """
ask(TASKS, "bit-memory", "bit-xor", "digit-add", "listops", "cifar10", "mnist", "remote-homology", "imagefolder:x", "csv:x.csv")
ask(TASKS, "cyp3a4", "tdc/caco2_wang", "speech-commands", "audiofolder:x", "no-such-task")
ask(MODELS, "vit", "ast", "mat", "morgan", "cnn", "no-such-model")
from transformers import GPT2Config, GPT2Model, LlamaModel, ViTModel
print(sum(p.numel() for p in GPT2Model(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9)).parameters()) > 0)
""",
        tmp_path,
        broken=BROKEN,
    )
    lines = dict(line.split(" ", 1) for line in out.splitlines() if " " in line)
    assert out.splitlines()[-1] == "True"
    for name in "bit-memory bit-xor digit-add listops cifar10 mnist remote-homology imagefolder:x csv:x.csv vit ast".split():
        assert lines[name] == "works"
    for name, package in {"cyp3a4": "rdkit", "speech-commands": "torchaudio", "audiofolder:x": "torchaudio"}.items():
        assert lines[name].startswith(f"error: dataset {name!r} needs the package {package}, which is installed but can't be")
        assert REASON in lines[name] and f"pip install 'fpt[{EXTRAS[package]}]'" in lines[name]
    assert "tdc" in lines["tdc/caco2_wang"] and "pip install 'fpt[chem]'" in lines["tdc/caco2_wang"]
    for name, package in {"mat": "rdkit", "morgan": "rdkit", "cnn": "torchvision"}.items():
        assert lines[name].startswith(f"error: model {name!r} needs the package {package}, which is installed but can't be")
        assert f"pip install 'fpt[{EXTRAS[package]}]'" in lines[name]
    known = lines["no-such-task"]
    assert "known: audiofolder:DIR, bit-memory" in known and "speech-commands" in known.split("not available here:")[1]
    assert "morgan (needs the package rdkit" in lines["no-such-model"].split("not available here:")[1]


@pytest.mark.slow
def test_missing_packages_cost_what_needs_them(tmp_path: Path) -> None:
    out = python(
        ASK + 'ask(TASKS, "bit-xor", "listops", "csv:x.csv", "cyp3a4", "speech-commands")\nask(MODELS, "cnn", "vit")\n',
        tmp_path,
        missing=BROKEN,
    )
    assert out.splitlines() == [
        "bit-xor works",
        "listops works",
        "csv:x.csv works",
        "cyp3a4 error: dataset 'cyp3a4' needs the package rdkit, which is not installed; pip install 'fpt[chem]'",
        "speech-commands error: dataset 'speech-commands' needs the package torchaudio, which is not installed;"
        " pip install 'fpt[audio]'",
        "cnn error: model 'cnn' needs the package torchvision, which is not installed; pip install 'fpt[vision]'",
        "vit works",
    ]


@pytest.mark.slow
def test_training_with_broken_packages(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("text,label\n" + "good one,1\nbad one,0\n" * 40)
    (tmp_path / "smiles.csv").write_text("smiles,label\n" + "".join(f"{'C' * n}O,{n % 2}\n" for n in range(1, 80)))
    code = """
import sys
from fpt.cli import parse_training
from fpt.errors import FPTError
from fpt.training import run
common = ["--backbone", "random:gpt2", "--num_layers", "1", "--max_steps", "1", "--eval_steps", "1", "--max_length", "8"]
common += ["--learning_rate", "1e-3", "--per_device_batch_size", "4"]
for number, words in enumerate([
    ["--dataset", "csv:mine.csv", "--input_column", "text", "--label_column", "label", "--report_to", "wandb"],
    ["--dataset", "csv:smiles.csv", "--input_type", "smiles", "--input_column", "smiles", "--label_column", "label"],
]):
    sys.argv = ["train.py", *words, *common, "--output_dir", f"run{number}"]
    try:
        run(*parse_training("Trains."))
    except FPTError as error:
        print("error:", error)
"""
    out = python(code, tmp_path, broken=BROKEN)
    assert (tmp_path / "run0" / "results.json").is_file()
    assert "warning: --report_to wandb failed (it needs the package wandb" in out and "pip install 'fpt[track]'" in out
    assert "error: dataset 'csv:smiles.csv' with smiles as input needs the package rdkit" in out


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--dataset", "speech-commands"], ["--dataset", "cyp3a4", "--model", "morgan"]])
def test_help_with_broken_packages(words: list[str], tmp_path: Path) -> None:
    code = f"""
import runpy, sys
sys.argv = ["train.py", *{words!r}, "--help"]
try:
    runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
except SystemExit as end:
    assert not end.code
"""
    assert "--dataset" in python(code, tmp_path, broken=BROKEN)


def test_importing_fpt_is_light(tmp_path: Path) -> None:
    code = "before = set(sys.modules)\nimport fpt\nprint(*set(sys.modules) - before)"
    assert {name.split(".")[0] for name in python(code, tmp_path).split()} <= {"fpt"} | sys.stdlib_module_names


def test_a_module_that_cannot_be_imported_costs_its_own_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "some_entries"
    folder.mkdir()
    (folder / "__init__.py").write_text("from fpt.registry import Registry\nTHINGS = Registry('thing', 'some_entries')\n")
    (folder / "a.py").write_text("from some_entries import THINGS\nTHINGS.register('good')(1)\n")
    (folder / "b.py").write_text("from some_entries import THINGS\nTHINGS.register('half')(2)\nimport no_such_package\n")
    (folder / "c.py").write_text("raise OSError('libc10.so: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from some_entries import THINGS

    things: Registry[int] = THINGS
    assert list(things) == ["good"] and things["good"] == 1
    with pytest.raises(FPTError) as caught:
        things["half"]
    assert "what some_entries.b registers (ModuleNotFoundError: No module named 'no_such_package')" in str(caught.value)
    assert "what some_entries.c registers (OSError: libc10.so" in str(caught.value)


def test_a_module_of_ours_that_is_not_there_is_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "other_entries"
    folder.mkdir()
    (folder / "__init__.py").write_text("from fpt.registry import Registry\nTHINGS = Registry('thing', 'other_entries')\n")
    (folder / "a.py").write_text("import fpt.no_such_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from other_entries import THINGS

    with pytest.raises(ModuleNotFoundError):
        list(THINGS)


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_every_import_is_a_dependency() -> None:
    backbone = {_name(line) for line in PROJECT["dependencies"]}
    extras = {name: {_name(line) for line in lines} for name, lines in PROJECT["optional-dependencies"].items()}
    distributions = packages_distributions()
    for path in sorted((ROOT / "fpt").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.split(".")[0] for name in names} - {"fpt"} - sys.stdlib_module_names:
                known = {found.lower().replace("_", "-") for found in distributions.get(name, [name])}
                assert known & (extras[EXTRAS[name]] if name in EXTRAS else backbone), f"{path}: {name}"


def test_data_files_are_packaged() -> None:
    others = {path.suffix for path in (ROOT / "fpt").rglob("*") if path.is_file()} - {".py", ".pyc"}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert {f"*{suffix}" for suffix in others} == set(settings["package-data"]["*"])

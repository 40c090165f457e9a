"""A search through the code: what someone else published is opened in one module, and nothing can run it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOOR = Path("fpt/untrusted/pretrained.py")
# Calls that only the door may make, and calls that nothing may.
OPENS = {"from_pretrained", "from_config", "_from_config", "for_model", "from_spec", "pipeline", "snapshot_download"}
RUNS = {"input", "eval", "exec", "__import__"}
UNPICKLES = {("torch", "load"), ("pickle", "load"), ("pickle", "loads"), ("joblib", "load"), ("dill", "load"), ("dill", "loads")}
# snapshot_download of a checkpoint's own files, by their names.
MAY = {("fpt/checkpoint/remote.py", "snapshot_download")}


def offences(source: str, where: str) -> list[str]:
    """Calls and arguments in `source` that open what someone else published, or run it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                found.append("trust_remote_code")
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if node.attr in OPENS or (owner, node.attr) in UNPICKLES or (owner == "builtins" and node.attr in RUNS):
                found.append(node.attr)
        elif isinstance(node, ast.Name) and node.id in OPENS:
            found.append(node.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RUNS:
            found.append(node.func.id)
        elif isinstance(node, ast.ImportFrom) and node.module in ("pickle", "joblib", "dill"):
            found.append(node.module)
        elif isinstance(node, ast.alias) and node.name in ("AutoTokenizer", "AutoProcessor", "pipeline"):
            found.append(node.name)
    return [name for name in found if (where, name) not in MAY and (where != str(DOOR) or name in {"trust_remote_code", *RUNS})]


def test_nothing_else_opens_what_someone_published() -> None:
    files = [*(ROOT / "fpt").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), ROOT / "train.py", ROOT / "evaluate.py"]
    assert len(files) > 80
    found = {str(f.relative_to(ROOT)): offences(f.read_text(encoding="utf-8"), str(f.relative_to(ROOT))) for f in files}
    assert {where: names for where, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "AutoModel.from_pretrained(x)", "make = AutoModel.from_config", "torch.load(x)", "pickle.loads(x)", "input('y?')",
        "from pickle import loads", "f(trust_remote_code=True)", "f(trust_remote_code=given)", "AutoConfig.for_model('a')",
        "from transformers import pipeline", "eval(x)",
    ],
)  # fmt: skip
def test_the_search_finds_them(line: str) -> None:
    assert offences(line, "fpt/x.py")

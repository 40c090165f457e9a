"""The structure of the package: no circle of imports, no file or function that is too long to be read at once."""

from __future__ import annotations

import ast
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "fpt").rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION, SCREEN = 350, 60, 60


def circles(imported: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that import one another, directly or through others."""
    reached = {}
    for start in imported:
        seen, todo = set(), [start]
        while todo:
            for module in imported.get(todo.pop(), set()) - seen:
                seen.add(module)
                todo.append(module)
        reached[start] = seen
    found = [{b for b in reached[a] if a in reached.get(b, set())} for a in reached if a in reached[a]]
    return [group for number, group in enumerate(found) if group not in found[:number]]


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_file_imports_another_in_a_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    graph = grimp.build_graph("fpt", cache_dir=None)
    # `fpt.load` imports late what it needs; every file of the package is below it.
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules if module != "fpt"}
    assert len(imported) > 100
    assert circles(imported) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_can_be_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_FILE
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= LONGEST_FUNCTION] == []


def test_the_training_step_fits_a_screen() -> None:
    """From the batch to the update and what comes after it, in one file and in order."""
    text = (ROOT / "fpt" / "training" / "loop.py").read_text(encoding="utf-8")
    functions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    names = ("learn", "loss_of", "update", "clip")
    assert sum((functions[name].end_lineno or 0) - functions[name].lineno + 1 for name in names) < SCREEN

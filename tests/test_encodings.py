"""UTF-8 everywhere: no text is read or written in the encoding of the locale."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "fpt").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), ROOT / "train.py", ROOT / "evaluate.py"])
# Calls that open text, and the place of their mode among the arguments (None: they have none, and open text).
TEXT = {"open": 1, "fdopen": 1, "read_text": None, "write_text": None, "TextIOWrapper": None}
TEMPORARY = ("NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile")
PROCESSES = ("run", "Popen", "check_output", "call", "check_call", "getoutput", "getstatusoutput")
# `open` of things that are no text files, and our own `write_text`, which says UTF-8 itself.
OTHERS = ("Image", "lmdb", "tarfile", "zipfile", "gzip", "wave", "os", "soundfile", "sf", "raw", "sorter", "self")


def bad_calls(source: str) -> Iterator[str]:
    """Calls of a module that leave the encoding to the locale."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = function.value if isinstance(function, ast.Attribute) else None
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if "encoding" in given or None in given:
            continue
        if name in PROCESSES and any(word in given for word in ("text", "universal_newlines", "errors")):
            yield ast.unparse(node)
        if name in TEMPORARY and "b" not in _mode(given.get("mode") or (node.args or [None])[0], "w+b"):
            yield ast.unparse(node)
        if name not in TEXT or (isinstance(owner, ast.Name) and owner.id in OTHERS and name == "open"):
            continue
        if name == "write_text" and owner is None:
            continue
        place = TEXT[name]
        # A path's own `open` has its mode first.
        place = 0 if place and owner is not None and name == "open" and not _is_module(owner, "io", "codecs") else place
        mode = given.get("mode") or (node.args[place] if place is not None and len(node.args) > place else None)
        if place is None or "b" not in _mode(mode, "r"):
            yield ast.unparse(node)


def _is_module(owner: ast.expr, *names: str) -> bool:
    return isinstance(owner, ast.Name) and owner.id in names


def _mode(node: ast.expr | None, default: str) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else default


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_text_is_opened_as_utf_8(path: Path) -> None:
    assert list(bad_calls(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ("open('x')", True),
        ("open('x', 'w')", True),
        ("open('x', mode='a')", True),
        ("open('x', 'rb')", False),
        ("open('x', encoding='utf-8')", False),
        ("Path('x').open()", True),
        ("Path('x').open('wb')", False),
        ("path.read_text()", True),
        ("path.read_text(errors='replace')", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.write_text('x')", True),
        ("write_text(path, 'x')", False),
        ("os.fdopen(3, 'w')", True),
        ("os.fdopen(3, 'wb')", False),
        ("subprocess.run(x, text=True)", True),
        ("subprocess.Popen(x, universal_newlines=True)", True),
        ("subprocess.run(x, capture_output=True)", False),
        ("NamedTemporaryFile('w')", True),
        ("NamedTemporaryFile()", False),
        ("io.TextIOWrapper(x)", True),
        ("Image.open(path)", False),
    ],
)
def test_the_search_finds_what_it_should(source: str, bad: bool) -> None:
    assert bool(list(bad_calls(source))) == bad

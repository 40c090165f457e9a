"""What the commands print: on consoles of any encoding, to readers that go away, and without doing anything to a terminal."""

from __future__ import annotations

import errno
import io
import logging
import os
import pty
import subprocess
import sys
import termios
import unicodedata
from pathlib import Path

import pytest
from tqdm import tqdm

from fpt import errors
from fpt.errors import FPTError, RejectedRows, cli
from fpt.text import console
from fpt.text.console import Console, consoles, typed
from fpt.text.escape import one_line, terminal

ROOT = Path(__file__).parent.parent
# Prints more than a pipe holds, and leaves a file when it came to its end.
SCRIPT = """
import sys
from pathlib import Path
from fpt.errors import FPTError, cli
from tqdm import tqdm

def main():
    print("größe … ±", sys.argv[1])
    for i in tqdm(range(5000)):
        print("line", i)
    for _ in range(3000):
        sys.stderr.write("of an error\\n")
    Path(sys.argv[1]).write_text("end", encoding="utf-8")
    if len(sys.argv) > 2:
        raise FPTError("größe … \\x1b[2J")

cli(main)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    return tmp_path / "script.py"


def shell(text: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which $S is the script."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "S": f"{sys.executable} script.py", **variables}
    return subprocess.run(["bash", "-c", text], cwd=folder, env=environment, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "line",
    [
        "$S done | head -1",
        "$S done 2>&1 | head -1",
        "$S done | true",
        "$S done >&-",
        "$S done 2>&-",
        "$S done >&- 2>&- <&-",
        "$S done >/dev/full",
        "$S done >/dev/full 2>&1",
        "$S done 2>&1 | tail -1",
    ],
)
def test_a_console_that_closes_ends_nothing(line: str, script: Path) -> None:
    done = shell(line, script.parent)
    assert (script.parent / "done").read_text(encoding="utf-8") == "end"
    assert b"Traceback" not in done.stderr + done.stdout
    assert b"Exception ignored" not in done.stderr + done.stdout
    assert b"BrokenPipe" not in done.stderr + done.stdout


@pytest.mark.parametrize("line", ["$S done | head -1", "$S done 2>&1 | head -1", "$S done | true"])
def test_its_status_is_that_of_the_work(line: str, script: Path) -> None:
    done = shell(f"{line}; exit ${{PIPESTATUS[0]}}", script.parent)
    assert done.returncode == 0
    assert shell(f"{line.replace('done', 'done fail')}; exit ${{PIPESTATUS[0]}}", script.parent).returncode == 2


@pytest.mark.parametrize("name", ["größe", "\x1b[31mx"])
@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "größe … ±"),
        ({"LC_ALL": "C"}, "größe … ±"),
        ({"PYTHONIOENCODING": "latin-1"}, "größe ... ±"),
        ({"PYTHONIOENCODING": "ascii:strict"}, r"gr\xf6\xdfe ... +-"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}, r"gr\xf6\xdfe ... +-"),
        ({"PYTHONIOENCODING": "cp1252"}, "größe … ±"),
        ({"PYTHONIOENCODING": "utf-16"}, "größe … ±"),
    ],
    ids=str,
)
def test_a_console_of_another_encoding(variables: dict[str, str], shown: str, name: str, script: Path) -> None:
    done = shell(f"$S '{name}' fail", script.parent, **variables)
    encoding = variables.get("PYTHONIOENCODING", "utf-8").partition(":")[0]
    said, wrong = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert said.startswith(shown)
    assert "\x1b" not in said + wrong
    assert wrong.strip().splitlines()[-1] == f"error: {shown.removesuffix(' ±').removesuffix(' +-')} \\x1b[2J"
    assert (script.parent / name).read_text(encoding="utf-8") == "end"
    assert done.returncode == 2


class Gone(io.StringIO):
    """A terminal that is gone."""

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


def test_a_terminal_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Gone())
    monkeypatch.setattr(sys, "stderr", Gone())
    seen = []

    def main() -> None:
        print("x")
        for _ in tqdm(range(3)):
            sys.stderr.write("y")
        seen.append(sys.stdout.isatty())

    cli(main)
    assert seen == [False]


def test_progress_bars_are_as_they_were() -> None:
    plain, wrapped = io.StringIO(), io.StringIO()
    for file in (plain, Console(wrapped)):
        for position in (0, 1):
            with tqdm(total=2, file=file, position=position, ascii=True, bar_format="{desc}{n}") as bar:
                bar.update()
                bar.set_description("a")
    assert plain.getvalue() == wrapped.getvalue()
    assert "\r" in plain.getvalue() and "\x1b[A" in plain.getvalue()


HOSTILE = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x00",
    "\x08",
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
    "\u2028",
    "a\rb",
    "\udcff",
    "\U000e0041",
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_what_a_terminal_would_act_on_is_written_out(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # To standard error alone: a lone surrogate in a test's report ends the process of pytest-xdist that sends it.
    monkeypatch.setattr(logging.getLogger("x"), "propagate", False)

    def main() -> None:
        print(f"column {text!s} of\ta\nfile")
        print(f"column {text!s}", file=sys.stderr)
        tqdm.write(f"step {text!s}")
        logging.getLogger("x").warning("log %s", text)
        raise FPTError(f"no column {text}")

    with pytest.raises(SystemExit) as caught:
        cli(main)
    assert caught.value.code == 2
    shown = capsys.readouterr()
    for stream in shown:
        assert text not in stream
        assert all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in stream)
    assert "\\" in shown.out and " of\ta\nfile" in shown.out
    assert "\nlog " in shown.err
    assert len(shown.err.splitlines()[-1]) < 60


def test_every_character_is_one_line_in_an_error() -> None:
    for start in range(0, sys.maxunicode, 4096):
        line = str(FPTError("a" + "".join(map(chr, range(start, min(start + 4096, sys.maxunicode + 1)))) + "b"))
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in line)
        assert len(line) <= 4_000
    assert terminal("größe … 猫 é\n\t") == "größe … 猫 é\n\t"
    assert one_line("a\r\n  b\x85c") == "a b c"
    assert str(RejectedRows("a\nb", [1])) == "a b"


def test_standard_streams_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    out, handler = io.StringIO(), logging.StreamHandler(before := io.StringIO())
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", before)
    logging.getLogger("fpt.test").addHandler(handler)
    with consoles():
        assert isinstance(sys.stdout, Console) and isinstance(handler.stream, Console)
        with consoles():
            assert sys.stdout.out is out
        assert isinstance(sys.stdout, Console)
        with pytest.raises(TypeError):
            sys.stdout.write(b"x")
    assert sys.stdout is out and handler.stream is before


@pytest.mark.parametrize(
    ("error", "start", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "runs/x: No space left on device; make room", 1),
        (PermissionError(errno.EACCES, "Permission denied", b"a"), "a: Permission denied; check the permissions", 1),
        (MemoryError(), "the memory is not enough (MemoryError); give a smaller --per_device_batch_size", 1),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "the memory is not enough (CUDA out of memory", 1),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "the memory is not enough", 1),
        (ModuleNotFoundError("No module named 'x'", name="x"), "the package 'x' is not installed; pip install", 1),
        (TypeError("a\nb\x1b[2J"), r"unexpected TypeError at tests/test_consoles.py:", 1),
        (KeyError("x" * 10_000), "unexpected KeyError at ", 1),
        (FPTError("wrong"), "wrong", 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_any_exception_is_one_line(
    error: Exception, start: str, status: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def main() -> None:
        raise error

    monkeypatch.delenv(errors.DEBUG, raising=False)
    with pytest.raises(SystemExit) as caught:
        cli(main)
    shown = capsys.readouterr().err
    assert caught.value.code == status
    assert shown.startswith(f"error: {start}") and shown.count("\n") == 1 and len(shown) < 1_000
    if status == 1:
        assert "FPT_DEBUG=1" in shown
    monkeypatch.setenv(errors.DEBUG, "1")
    with pytest.raises(SystemExit):
        cli(main)
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "raise error" in shown and shown.splitlines()[-1].startswith(f"error: {start}")
    assert "\x1b" not in shown


def test_a_fault_of_ours_names_our_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli(lambda: print(one_line(None)))  # type: ignore[arg-type]
    assert "unexpected AttributeError at fpt/text/escape.py:" in capsys.readouterr().err


def test_a_mistake_that_all_processes_see_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def main() -> None:
        raise errors.UsageError("unknown argument")

    for rank, said in (("0", 1), ("1", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(SystemExit) as caught:
            cli(main)
        assert caught.value.code == 2
        assert capsys.readouterr().err.count("unknown argument") == said


def test_words_that_are_not_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console.locale, "getencoding", lambda: "iso-8859-1")
    word = os.fsdecode("größe".encode("latin-1"))
    assert typed(word) == "größe"
    assert typed(f"--label_column={word}") == "--label_column=größe"
    Path(word).touch()
    assert typed(word) == word
    assert typed(f"--dataset=csv:{word}") == f"--dataset=csv:{word}"
    monkeypatch.setattr(console.locale, "getencoding", lambda: "ascii")
    assert typed("\udcff") == "\udcff"


def test_on_a_terminal(tmp_path: Path, script: Path) -> None:
    """Through a terminal of its own: names do nothing to it, and bars move."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = "import sys; from fpt.errors import cli; from tqdm import tqdm; cli(lambda: [print('\\x1b[2J'), *tqdm(range(2))])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 10_000)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait() == 0
    assert b"\x1b[2J" not in shown and rb"\x1b[2J" in shown and b"2/2" in shown

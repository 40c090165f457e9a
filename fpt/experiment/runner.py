"""The cells of an experiment's table, each a run in a process of its own: one that fails is named, and the others go on."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpt.args import as_dict, flags, flat
from fpt.cli import read_training
from fpt.errors import ROOT, FPTError
from fpt.files.disk import reason, refusals
from fpt.flags.config_file import Configuration
from fpt.metrics import shown_metric
from fpt.results import RESULTS_FILE, RunResults, read_results
from fpt.text.log import Log

# An installed package has no train.py beside it; its module does the same, in the folder where the user is.
CHECKOUT = (ROOT / "train.py").is_file()
SCRIPT = ("train.py",) if CHECKOUT else ("-m", "fpt.train")
FOLDER = ROOT if CHECKOUT else None
# The words of accelerate launch for what accelerate_configs/cpu.yaml says, where that is not installed either.
CPU_CONFIG = "accelerate_configs/cpu.yaml"
CPU_WORDS = ("--cpu", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
ONCE_MORE = b"\nstopping: the runs save their states first. Ctrl-C once more stops them at once\n"


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    name: str
    arguments: dict[str, Any]
    published: dict[str, float] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class Cell:
    """One run of the table."""

    row: Row
    seed: int
    folder: Path
    arguments: dict[str, Any]

    @property
    def name(self) -> str:
        """For a reader."""
        return f"{self.row.name}, seed {self.seed}"

    def command(self, launcher: Sequence[str], **more: Any) -> list[str]:
        """The command that runs it."""
        values = {**self.arguments, **more, "seed": self.seed, "output_dir": str(self.folder)}
        return [*launcher, *SCRIPT, *flags(values)]

    @property
    def results(self) -> RunResults | None:
        """Its results, when it is finished; None as well where they are damaged."""
        try:
            return read_results(self.folder) if self._written else None
        except FPTError:
            return None

    @property
    def damage(self) -> str:
        """What is wrong with its results, when they are there but damaged."""
        try:
            if self._written:
                read_results(self.folder)
        except FPTError as error:
            return str(error)
        return ""

    @property
    def _written(self) -> bool:
        return os.path.lexists(self.folder / RESULTS_FILE)


def finished(cell: Cell) -> bool:
    """Whether the cell has results, of the arguments that it has now.

    Raises:
        FPTError: of others.
    """
    results = cell.results
    if results is None:
        return False
    did, found = flat(results.arguments), results.arguments.get("options") or {}
    for name, value in typed_arguments({**cell.arguments, "seed": cell.seed}).items():
        if value is None and name in found:  # the run wrote down what it found in the data
            continue
        if name != "data_dir" and name in did and did[name] != value:
            raise FPTError(
                f"{cell.folder} is a run with --{name} {did[name]}, the experiment now says {value}; remove it or give another"
                " --output_dir"
            )
    return True


def typed_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with the values that ``train.py`` reads: "5e-4" is 0.0005, and None is the default.

    Args:
        arguments: by name, with values of a YAML file or texts of a command line.

    Raises:
        FPTError: a name is unknown, or a value is wrong.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    read = read_training((), configuration=Configuration("the experiment", given, is_record=False))
    known = flat({**as_dict(read.data), **as_dict(read.model), **as_dict(read.training)})
    return {name: known[name] for name in arguments if name in known}


def launch_words(config_file: str) -> list[str]:
    """The words between ``accelerate launch`` and the script: the configuration file, or what the default one says."""
    if config_file == CPU_CONFIG and not CHECKOUT and not Path(config_file).is_file():
        return list(CPU_WORDS)
    return ["--config_file", config_file]


class Runner:
    """Runs cells, each in a process of its own that is told to stop when we are.

    Args:
        launcher: words before ``train.py``.
        say: gets a line for everything that happens.

    Attributes:
        reasons: why a cell has no results, by its folder.
        stopped: a signal came.
        by_hand: it was Ctrl-C.
    """

    def __init__(self, launcher: Sequence[str], say: Log = print) -> None:
        self.launcher, self.say = list(launcher), say
        self.running: set[subprocess.Popen[bytes]] = set()
        self.reasons: dict[Path, str] = {}
        self.stopped = self.by_hand = False

    def run(self, cells: Sequence[Cell], jobs: int) -> list[Cell]:
        """Run what is not finished.

        Returns:
            The cells that failed.

        Raises:
            FPTError: a folder holds a run with other arguments; nothing was started then.
            KeyboardInterrupt: Ctrl-C came a second time; the processes are killed.
        """
        todo = [cell for cell in cells if not finished(cell)]
        self.say(f"{len(cells)} cells, {len(cells) - len(todo)} of them finished")
        with self._until_signal(), ThreadPoolExecutor(jobs) as pool:
            well = list(pool.map(self._one, todo))
        return [cell for cell, good in zip(todo, well, strict=True) if not good]

    def _one(self, cell: Cell) -> bool:
        """Run a cell; returns whether it has results now."""
        if self.stopped:
            self.reasons[cell.folder] = "not started: a signal came"
            return False
        log = cell.folder.with_suffix(".log")
        try:
            status = self._process(cell, log)
        except (OSError, FPTError) as error:  # no process, or no room for its log
            self.reasons[cell.folder] = f"can't be started: {reason(error) if isinstance(error, OSError) else error}"
            self.say(f"{cell.name}: {self.reasons[cell.folder]}")
            return False
        results = cell.results
        if results is None:
            self.reasons[cell.folder] = f"{how_it_ended(status)}, no results: {cell.damage or _last_words(log)}"
            self.say(f"{cell.name}: {self.reasons[cell.folder]}")
            return False
        self.reasons.pop(cell.folder, None)
        score = shown_metric(results.score("test"))
        self.say(f"{cell.name}: test {results.primary_metric} {score}, {results.wall_seconds:.0f} s")
        return True

    def _process(self, cell: Cell, log: Path) -> int:
        """Start the process of a cell and wait for it; returns its status."""
        # An estimator has no states to go on from; what it left is begun anew.
        stopped = (cell.folder / "run.json").exists()
        states = any((cell.folder / "state").glob("step-*")) if stopped else False
        more = {"resume": True} if states else {"overwrite": True} if stopped else {}
        with refusals(f"{log} can't be written"):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
        if damage := cell.damage:
            self.say(f"{cell.name}: {damage}; it is run again")
        self.say(f"{cell.name}: {'going on' if states else 'started'}; {log}")
        with open(log, "ab") as file:
            command = cell.command(self.launcher, **more)
            with refusals(f"{log} can't be written"):
                file.write(f"$ {shlex.join(command)}\n".encode())
                file.flush()
            process = subprocess.Popen(command, cwd=FOLDER, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
            self.running.add(process)
            if self.stopped:  # the signal came while it was started
                process.send_signal(signal.SIGTERM)
            try:
                return process.wait()
            finally:
                self.running.discard(process)

    def _stop(self, number: int, frame: Any) -> None:
        """Let the runs save their states; at the second Ctrl-C, kill them."""
        again = number == signal.SIGINT and self.stopped
        if number == signal.SIGINT and not again:
            with contextlib.suppress(OSError):
                os.write(2, ONCE_MORE)
        self.stopped, self.by_hand = True, self.by_hand or number == signal.SIGINT
        for process in list(self.running):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if again:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.send_signal(signal.SIGTERM)
        if again:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def _until_signal(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # the trial of a sweep
            yield
            return
        numbers = [signal.SIGTERM, *([] if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else [signal.SIGINT])]
        before = {number: signal.signal(number, self._stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def how_it_ended(status: int) -> str:
    """The status of a process in words; launchers tell a signal as 128 and its number."""
    number = -status if status < 0 else status - 128
    if number <= 0:
        return f"status {status}"
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return f"status {status}"


def _last_words(log: Path) -> str:
    """The error in a log, else its last line."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"{log} can't be read: {error.strerror}"
    # What an earlier attempt said is no reason now.
    last = text.rpartition("\n$ ")[2]
    lines = [line.strip() for line in last.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or [""])[-1]

"""`accelerate launch` for machines that can be taken away: `python -m fpt.launch --config_file FILE train.py …`.

Takes the arguments of ``accelerate launch``. On SIGTERM accelerate's launcher of one process leaves the process behind, and
that of several reports a failure even when all of them saved their state and ended well. This one passes the signal on, waits
for as long as the processes take, and ends as they end: with status 0 when each did. Ctrl-C is passed on likewise and ends with
status 130; pressed once more it stops the processes at once. A configuration that is wrong is one line, and the DeepSpeed file
that it names is found from any working folder.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import psutil
import torch
from accelerate.commands.config.config_args import default_config_file, load_config_from_file
from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from fpt.errors import FPTError, UsageError, cli, did_you_mean
from fpt.launching.environment import deepspeed_file

INTERRUPTED = 130


def main() -> None:
    """Check what is asked for, launch, and end as the processes end."""
    parser = launch_command_parser()
    known = [word for action in parser._actions for word in action.option_strings]
    parser.error = lambda message: _refuse(message, known)  # type: ignore[method-assign]
    args = parser.parse_args()
    check(args)
    # The signals that torchrun's agent keeps for itself; the others are ours.
    args.signals_to_handle = "SIGHUP,SIGQUIT"
    came = _pass_signals_on()
    try:
        launch_command(args)
    except subprocess.CalledProcessError as error:
        # The script has said what was wrong.
        sys.exit(_status([error.returncode], came))
    except ChildFailedError as error:
        sys.exit(_status([failure.exitcode for failure in error.failures.values()], came))
    except (ValueError, NotImplementedError) as error:
        raise FPTError(f"accelerate launch: {error}") from error
    if signal.SIGINT in came:
        sys.exit(INTERRUPTED)


def check(args: argparse.Namespace) -> None:
    """Refuse what could not be launched, and put the whole path of the DeepSpeed file into `args`.

    Raises:
        FPTError: the configuration is wrong, or the script, the DeepSpeed file or a GPU is not there.
    """
    config = _configuration(args.config_file)
    if not (args.module or args.no_python) and not Path(args.training_script).is_file():
        raise UsageError(
            f"there is no script {args.training_script!r} here ({Path.cwd()}); give train.py or evaluate.py by its path"
        )
    if config is None:
        return
    folder = Path(args.config_file or default_config_file).absolute().parent
    said = args.deepspeed_config_file or (config.deepspeed_config or {}).get("deepspeed_config_file")
    if said:
        args.deepspeed_config_file = str(deepspeed_file(str(said), (folder, folder.parent)).absolute())
        args.nondefault = {*getattr(args, "nondefault", ()), "deepspeed_config_file"}
    wanted, machines = args.num_processes or config.num_processes, args.num_machines or config.num_machines
    gpus = torch.cuda.device_count() if not (args.cpu or config.use_cpu) else 0
    if gpus and isinstance(wanted, int) and wanted > gpus * machines:
        raise FPTError(
            f"{wanted} processes on {machines} machines, but {gpus} GPUs on this one; give --num_processes {gpus * machines}"
        )


def _configuration(path: str | None) -> Any:
    """The configuration of accelerate that is given, or the user's default; None where there is none.

    Raises:
        FPTError: it is not there, or malformed.
    """
    if path is None and not Path(default_config_file).is_file():
        return None
    named = path or default_config_file
    if not Path(named).is_file():
        raise FPTError(f"--config_file {named} is not a file; accelerate_configs/ of this project has some to start from")
    try:
        config = load_config_from_file(path)
    except Exception as error:  # of any kind: YAML, types, names, values
        raise FPTError(f"--config_file {named} is not a configuration of accelerate: {error}") from error
    if not isinstance(config.num_processes, int) or not isinstance(config.num_machines, int) or config.num_machines < 1:
        raise FPTError(f"--config_file {named}: num_processes and num_machines must be whole numbers above 0")
    if config.deepspeed_config and not isinstance(config.deepspeed_config, dict):
        raise FPTError(f"--config_file {named}: deepspeed_config must be names with values")
    return config


def _refuse(message: str, known: Sequence[str]) -> NoReturn:
    unknown = message.removeprefix("unrecognized arguments: ").split()[0] if message.startswith("unrecognized") else ""
    raise UsageError(f"{message}{did_you_mean(unknown, known) if unknown else ''}; accelerate launch --help lists all arguments")


def _pass_signals_on() -> list[int]:
    """Pass SIGTERM and Ctrl-C on to the processes from now on; returns the list that gets what came."""
    came: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        # A terminal sends Ctrl-C to the processes as well: the first time they get something else from here, so that they do not
        # take it for the second.
        again = number == signal.SIGINT and bool(came)
        came.append(number)
        for process in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT if again else signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, pass_on)
    return came


def _status(codes: Sequence[int], came: Sequence[int] = ()) -> int:
    """The status of a job whose processes ended with `codes`: what they said themselves before what a signal did to them.

    Args:
        came: signals that this launcher passed on. A process that has saved its state may still be ended by one.
    """
    said = [code for code in codes if code > 0]
    if not said and signal.SIGINT in came:
        return INTERRUPTED
    return max(said) if said else max((128 - code for code in codes), default=1)


if __name__ == "__main__":
    cli(main)

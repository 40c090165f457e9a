"""`accelerate launch` for machines that can be taken away: `python -m fpt.launch --config_file FILE train.py …`.

Takes the arguments of ``accelerate launch``. On SIGTERM accelerate's launcher of one process leaves the process behind, and
that of several reports a failure even when all of them saved their state and ended well. This one passes the signal on, waits
for as long as the processes take, and ends as they end: with status 0 when each did. Ctrl-C is passed on likewise and ends with
status 130; pressed once more it stops the processes at once.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from typing import Any

import psutil
from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

INTERRUPTED = 130


def main() -> None:
    args = launch_command_parser().parse_args()
    # The signals that torchrun's agent keeps for itself; the others are ours.
    args.signals_to_handle = "SIGHUP,SIGQUIT"
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
    try:
        launch_command(args)
    except subprocess.CalledProcessError as error:
        # The script has said what was wrong; a signal that ended it is told as a shell does.
        sys.exit(error.returncode if error.returncode >= 0 else 128 - error.returncode)
    except ChildFailedError as error:
        sys.exit(_status([failure.exitcode for failure in error.failures.values()]))
    if signal.SIGINT in came:
        sys.exit(INTERRUPTED)


def _status(codes: list[int]) -> int:
    """The status of a job whose processes ended with `codes`: what they said themselves before what a signal did to them."""
    said = [code for code in codes if code > 0]
    return max(said) if said else max((128 - code for code in codes), default=1)


if __name__ == "__main__":
    main()

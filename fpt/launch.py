"""`accelerate launch` for machines that can be taken away: `python -m fpt.launch --config_file FILE train.py …`.

Takes the arguments of ``accelerate launch``. On SIGTERM accelerate's launcher of one process leaves the process behind, and
that of several reports a failure even when all of them saved their state and ended well. This one passes the signal on, waits
for as long as the processes take, and ends as they end: with status 0 when each did.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import psutil
from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main() -> None:
    args = launch_command_parser().parse_args()
    # The signals that torchrun's agent keeps for itself; SIGTERM is ours.
    args.signals_to_handle = "SIGINT,SIGHUP,SIGQUIT"
    signal.signal(signal.SIGTERM, _pass_on)
    try:
        launch_command(args)
    except subprocess.CalledProcessError as error:
        # The script has said what was wrong.
        sys.exit(error.returncode)
    except ChildFailedError as error:
        sys.exit(max(failure.exitcode for failure in error.failures.values()) if error.failures else 1)


def _pass_on(number: int, frame: Any) -> None:
    for process in psutil.Process().children():
        process.send_signal(number)


if __name__ == "__main__":
    main()

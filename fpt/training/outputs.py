"""The folder of a run, made ready for it."""

from __future__ import annotations

import json
from pathlib import Path

from fpt.errors import FPTError
from fpt.files.tables import write_csv
from fpt.files.whole import alone, write_json
from fpt.text.log import Log, silent
from fpt.training.records import Job
from fpt.training.resume import find_state
from fpt.training.run_dir import (
    DATA_KEY,
    LOCK,
    REJECTED,
    RUN_FILE,
    check_same_data,
    claim_output_dir,
    data_key,
    remove_outputs,
    repair,
    split_table,
)


def start_outputs(job: Job) -> None:
    """Collective: take the folder of a new run, and make it ready.

    Raises:
        FPTError: another run writes to it, or it can't be written.
    """
    output = job.output
    if job.accelerator.is_main_process:
        _take(job)
        try:
            remove_outputs(output)
            write_json(output / RUN_FILE, {**job.arguments, DATA_KEY: data_key(job.prepared)})
            write_csv(job.prepared.rejected, output / REJECTED)
            if job.prepared.task.saves_split:
                write_csv(split_table(job.prepared), output / "split.csv")
        except OSError as error:
            raise _unwritable(output, error) from error
    job.accelerator.wait_for_everyone()


def continue_outputs(job: Job, log: Log) -> None:
    """Collective: take the folder of a run that goes on, and find the state that it goes on from. Nothing is loaded before.

    Raises:
        FPTError: another run writes to it, or it can't go on; see `find_state`.
    """
    # The main process first: it takes the lock and removes what a kill left.
    if job.accelerator.is_main_process:
        _take(job)
        job.state = find_state(job, log)
    job.accelerator.wait_for_everyone()
    if not job.accelerator.is_main_process:
        job.state = find_state(job, silent)


def check_run_file(job: Job) -> None:
    """Refuse to go on where ``run.json`` was written for other data. Needs the inputs as the backbone takes them.

    A file that has lost its key says nothing; then the state's key, which was checked before, does.

    Raises:
        FPTError: the data has changed since.
    """
    if not job.accelerator.is_main_process:
        return
    known = job.state is not None and job.state.info.data_key is not None
    try:
        before = json.loads((job.output / RUN_FILE).read_text(encoding="utf-8"))
        if known and DATA_KEY not in before:
            return
        check_same_data(job.output, job.prepared)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise FPTError(f"--resume: {job.output / RUN_FILE} can't be read ({error}); restore it, or start a new run") from error


def _take(job: Job) -> None:
    """Hold the lock of the folder until the run ends."""
    output = job.output

    def taken() -> None:
        raise FPTError(f"another run is writing to --output_dir {output}; wait for it, or give another folder")

    try:
        job.held.enter_context(alone(output / LOCK, taken, job.accelerator.print))
    except OSError as error:
        raise _unwritable(output, error) from error
    repair(output)
    # What another run may have left since this one began.
    claim_output_dir(output, job.args, job.arguments)


def _unwritable(output: Path, error: OSError) -> FPTError:
    return FPTError(f"--output_dir {output} can't be written: {error.strerror or error}")

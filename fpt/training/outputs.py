"""The folder of a run, made ready for it."""

from __future__ import annotations

from fpt.errors import FPTError
from fpt.evaluation.predict import write_csv
from fpt.files import alone, write_json
from fpt.run_dir import (
    DATA_KEY,
    LOCK,
    REJECTED,
    RUN_FILE,
    check_same_data,
    claim_output_dir,
    data_key,
    remove_outputs,
    split_table,
)
from fpt.training.records import Job


def start_outputs(job: Job) -> None:
    """Collective: take the folder of the run, and make it ready.

    Raises:
        FPTError: another run writes to it.
    """
    output = job.output

    def taken() -> None:
        raise FPTError(f"another run is writing to --output_dir {output}; wait for it, or give another folder")

    if job.accelerator.is_main_process:
        try:
            job.held.enter_context(alone(output / LOCK, taken))
        except OSError as error:
            raise FPTError(f"--output_dir {output} can't be written: {error.strerror or error}") from error
        # What another run may have left since this one began.
        claim_output_dir(output, job.args, job.arguments)
        if job.args.resume:
            check_same_data(output, job.prepared)
        else:
            remove_outputs(output)
            write_json(output / RUN_FILE, {**job.arguments, DATA_KEY: data_key(job.prepared)})
            write_csv(job.prepared.rejected, output / REJECTED)
            if job.prepared.task.saves_split:
                write_csv(split_table(job.prepared), output / "split.csv")
    job.accelerator.wait_for_everyone()

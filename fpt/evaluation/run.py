"""What ``evaluate.py`` does: score a split, or predict a user's own file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator

from fpt.args import EvaluateArguments, trained_arguments
from fpt.baselines import MODELS
from fpt.checkpoint import find_checkpoint, load_checkpoint, read_config
from fpt.data.cache import prepare
from fpt.data.rejected import count_reasons
from fpt.data.table import TableOptions
from fpt.errors import FPTError
from fpt.evaluation import files
from fpt.evaluation.predict import predict_split, resolution_of, write_csv
from fpt.files import write_json
from fpt.outputs import output_from_dict
from fpt.parallel import make_accelerator
from fpt.results import table
from fpt.tasks import SPLITS, TASKS, GeneratedTask, resolve


def run(args: EvaluateArguments) -> None:
    """What ``evaluate.py`` does: score a split, or predict a file."""
    say: Callable[[str], None] = print if os.environ.get("RANK", "0") == "0" else _silent
    folder = find_checkpoint(args.checkpoint, say)
    config = read_config(folder)
    changes = {"data_dir": args.data_dir, "cache_dir": args.cache_dir, "num_proc": args.num_proc}
    task, data = resolve(TASKS[config["task"]], trained_arguments(config, **changes), MODELS[config.get("model", "fpt")].view)
    inputs = _inputs(args, task, config, say) if args.predict else None
    if inputs is None and args.split not in SPLITS:
        raise FPTError(f"unknown --split {args.split!r}; known: {', '.join(SPLITS)}")
    # There is nothing to spread without an optimizer: whatever trained it, each process has the whole model.
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    # The precision of the run, so that the scores are the run's.
    accelerator = make_accelerator(config.get("mixed_precision"))
    model, tokenizer, config = load_checkpoint(folder, accelerator.print, args.backbone)
    batch_size = args.eval_batch_size or config["eval_batch_size"]
    if inputs is not None:
        out = files.predict_file(inputs, task, data, model, tokenizer, config, batch_size, accelerator, args.decimal)
        _report_predictions(out, args, accelerator)
        return
    seed, wanted = config["data"]["request"]["split_seed"], config["data"]["data_sha256"]
    with accelerator.main_process_first():
        prepared = prepare(task, data, seed, accelerator.print if accelerator.is_main_process else _silent, wanted)
    if prepared.manifest["data_sha256"] != wanted:
        raise FPTError(
            f"the data of {prepared.manifest['origin']} is not what the checkpoint was trained on"
            f" ({config['data']['origin']}); give that with --data_dir"
        )
    predictions, labels = predict_split(accelerator.prepare(model), prepared, args.split, batch_size, accelerator)
    metrics = prepared.output.metrics(labels, predictions, resolution_of(model, accelerator))
    core = config["core"]
    accelerator.print(
        f"{config['task']}: core {core['name']}, {prepared.split_method} split of seed {seed}, seed"
        f" {config['training']['seed']}, model of step {config['step']}\n{table({args.split: metrics})}"
    )
    if args.output and accelerator.is_main_process:
        kept = ("task", "core", "step", "training", "model_sha256")
        report = {**{k: config[k] for k in kept}, "data": prepared.manifest, "metrics": {args.split: metrics}}
        write_json(Path(args.output), report)


def _inputs(args: EvaluateArguments, task: Any, config: dict[str, Any], log: Callable[[str], None]) -> Any:
    """The rows of ``--predict``."""
    if not args.output:
        raise FPTError("--predict needs --output FILE.csv to write the predictions to")
    if isinstance(task, GeneratedTask):
        raise FPTError(f"--predict: {task.name} is generated, it has no inputs in files")
    options = TableOptions(args.delimiter, args.encoding, args.sheet)
    inputs = files.read_inputs(Path(args.predict or ""), args.column, task, files.schema_of(config), options, args.decimal, log)
    _keep_users_columns(args, inputs.rows, files.output_columns(output_from_dict(config["output"])))
    return inputs


def _report_predictions(out: pd.DataFrame, args: EvaluateArguments, accelerator: Accelerator) -> None:
    """Write the predictions, and say how many rows have none and why."""
    if accelerator.is_main_process:
        try:
            write_csv(out, Path(args.output or ""))
        except OSError as error:
            raise FPTError(f"--output {args.output} can't be written: {error.strerror or error}") from error
    empty = out[out["prediction"] == ""]
    accelerator.print(f"{len(out) - len(empty):,} rows predicted, {len(empty):,} could not be read; {args.output}")
    ids = pd.Series([f"row-{i + 1}" for i in range(len(out))])
    for rows, what in (
        (empty, "not predicted"),
        (out[(out["prediction"] != "") & (out["reason"] != "")], "predicted with a remark"),
    ):
        for line in count_reasons(pd.DataFrame({"id": ids[rows.index], "reason": rows["reason"]})):
            accelerator.print(f"{what}, {line}")


def _keep_users_columns(args: EvaluateArguments, rows: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse an output that would replace the user's file or a column of it."""
    if Path(args.output or "").is_dir():
        raise FPTError(f"--output {args.output} is a folder; give the name of a file")
    if Path(args.output or "").resolve() == Path(args.predict or "").resolve():
        raise FPTError(f"--output {args.output} is the file to predict; give another name")
    if taken := [c for c in columns if c in rows]:
        raise FPTError(f"{args.predict} has the column {taken[0]!r}, which the predictions need; rename it")


def _silent(line: str) -> None:
    pass

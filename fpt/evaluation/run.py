"""What ``evaluate.py`` does: score a split, or predict a user's own file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator

from fpt.args import DataArguments
from fpt.calibration import calibrated, mean_metrics
from fpt.checkpoint import CheckpointConfig, read_config
from fpt.checkpoint.load import understood
from fpt.data.cache import prepare
from fpt.data.prepared import Prepared
from fpt.data.rejected import count_reasons
from fpt.data.table import TableOptions
from fpt.data.time_table import SeriesTable
from fpt.errors import FPTError
from fpt.evaluation import files, forecasts
from fpt.evaluation.arguments import EvaluateArguments
from fpt.evaluation.members import Members, check_alike, find_members, load_members
from fpt.evaluation.predict import check_finite, predict_split, resolution_of
from fpt.evaluation.task import task_of
from fpt.files.output_paths import check_output_file, run_of
from fpt.files.tables import write_csv
from fpt.files.whole import read_stably, user_path, write_json
from fpt.metrics import Scores, score_table
from fpt.parallel import make_accelerator
from fpt.tasks.base import SPLITS, GeneratedTask
from fpt.tasks.forecast import ForecastTask
from fpt.text.log import Log, silent


def run(args: EvaluateArguments) -> None:
    """What ``evaluate.py`` does: score a split, or predict a file."""
    say: Log = print if os.environ.get("RANK", "0") == "0" else silent
    folders = find_members(args.checkpoint, say)
    folder = folders[0]
    if args.output:
        _check_output(args, folders)
    # A run that goes on may replace it meanwhile.
    configs = [read_stably(each, read_config) for each in folders]
    check_alike(configs, folders)
    config = configs[0]
    task, data = task_of(config, folder, data_dir=args.data_dir, cache_dir=args.cache_dir, num_proc=args.num_proc)
    if args.raw_cells and not args.predict:
        raise FPTError("--raw_cells is about the file of --predict; give both or none")
    if args.fetch_data and args.predict:
        raise FPTError("--fetch_data is about the data of the training, which --predict does not read; leave it out")
    inputs = _inputs(args, task, data, config, len(folders), say) if args.predict else None
    if inputs is None and args.split not in SPLITS:
        raise FPTError(f"unknown --split {args.split!r}; known: {', '.join(SPLITS)}")
    # There is nothing to spread without an optimizer: whatever trained it, each process has the whole model.
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    # The precision of the run, so that the scores are the run's.
    accelerator = make_accelerator(config.mixed_precision)
    members = load_members(folders, accelerator.print, args.backbone)
    tokenizer, loaded = members.tokenizer, members.config
    if (loaded.task, loaded.data) != (config.task, config.data):
        accelerator.print(f"{folder} was replaced by a run on other data while it was read; reading it again")
        return run(args)
    config = loaded
    batch_size = args.eval_batch_size or config.eval_batch_size
    if inputs is not None:
        assert not isinstance(task, GeneratedTask)
        if isinstance(inputs, SeriesTable):
            with understood(folder):
                ahead = forecasts.forecast(inputs, members.models, config, batch_size, accelerator, accelerator.print)
            _report_forecast(ahead, args, accelerator)
            return
        with understood(folder):
            out = files.predict_file(inputs, task, data, members, batch_size, accelerator, args.test_time_augment)
        _report_predictions(out, args, accelerator, members.calibrated)
        return
    seed, wanted = config.data.split_seed, config.data.data_sha256
    with accelerator.main_process_first():
        say = accelerator.print if accelerator.is_main_process else silent
        prepared = prepare(task, data, seed, say, wanted, tokenizer, args.fetch_data)
    _check_same_data(prepared, config, folder)
    with understood(folder):
        metrics = _scores(members, prepared, args, batch_size, accelerator)
    writings = f", mean over {1 + args.test_time_augment} SMILES" if args.test_time_augment else ""
    accelerator.print(f"{_said(members, prepared, seed)}{writings}\n{score_table({args.split: metrics})}")
    if args.output and accelerator.is_main_process:
        write_json(user_path(args.output), _written(members, prepared, {args.split: metrics}, args.test_time_augment))


def _scores(members: Members, prepared: Prepared, args: EvaluateArguments, batch_size: int, accelerator: Accelerator) -> Scores:
    """Metrics of the model, or of the mean prediction of several."""
    output, resolution, each = prepared.output, resolution_of(members.models[0], accelerator), []
    alone = len(members.models) == 1 and not args.test_time_augment
    for model, temperature in zip(members.models, members.temperatures, strict=True):
        about = prepared, args.split, batch_size, accelerator, args.test_time_augment
        # The ranks of one model are those of what it gives, whatever its temperature.
        predictions, labels = predict_split(accelerator.prepare(model), *about, None if alone else temperature)
        check_finite(predictions)
        each.append(predictions)
    if alone and temperature is not None:
        plain = output.metrics(labels, each[0], resolution)
        return calibrated(output, labels, each[0], plain, temperature).metrics
    return mean_metrics(output, labels, each, members.temperatures, resolution)


def _said(members: Members, prepared: Prepared, seed: int) -> str:
    """What is scored, in words."""
    config, count = members.config, len(members.models)
    about = f"{config.task}: backbone {config.core.name}, {prepared.split_method} split of seed {seed}"
    if count == 1:
        return f"{about}, seed {config.training.seed}, model of step {config.step}{members.calibrated}"
    seeds = ", ".join(str(one.training.seed) for one in members.configs)
    names = dict.fromkeys(one.core.name for one in members.configs)
    mixed = f" on backbones {', '.join(names)}" if len(names) > 1 else ""
    return f"{about}, mean prediction of {count} models{mixed} of seeds {seeds}{members.calibrated}"


def _written(members: Members, prepared: Prepared, metrics: dict[str, Scores], writings: int) -> dict[str, Any]:
    """The scores as they are written: JSON values."""
    names = ("task", "core", "step", "training", "model_sha256", "calibration")
    each = [{name: values[name] for name in names if name in values} for values in (c.to_dict() for c in members.configs)]
    about = each[0] if len(each) == 1 else {"task": each[0]["task"], "members": each}
    return {
        **about,
        "data": prepared.manifest.to_dict(),
        **({"test_time_augment": writings} if writings else {}),
        "metrics": metrics,
    }


def _check_output(args: EvaluateArguments, folders: Sequence[Path]) -> None:
    """Refuse, before anything is loaded, an output that would replace what is read, or a part of a run or a cache."""
    read: dict[str, Any] = {"the file to predict": args.predict}
    read |= {"the run" if not n else f"run {n + 1}": run_of(folder) for n, folder in enumerate(folders)}
    read |= {"the raw data": args.data_dir, "the backbone": args.backbone}
    check_output_file("--output", args.output or "", read, args.cache_dir)


def _check_same_data(prepared: Prepared, config: CheckpointConfig, folder: Path) -> None:
    """Refuse to score on other data than the checkpoint was trained on, or with labels that its readout does not have.

    Raises:
        FPTError: the hash of the rows, the labels or the inputs are others.
    """
    if prepared.manifest.data_sha256 != config.data.data_sha256:
        raise FPTError(
            f"the data of {prepared.manifest.origin} is not what the checkpoint was trained on"
            f" ({config.data.origin}); give that with --data_dir"
        )
    if prepared.output != config.output or prepared.input.of_data() != config.input.of_data():
        raise FPTError(f"{folder}: the labels or inputs of the model are not those of its data; copy the checkpoint again")


def _inputs(args: EvaluateArguments, task: Any, data: DataArguments, config: CheckpointConfig, models: int, log: Log) -> Any:
    """The rows of ``--predict``."""
    if not args.output:
        raise FPTError("--predict needs --output FILE.csv to write the predictions to")
    if isinstance(task, GeneratedTask):
        raise FPTError(f"--predict: {task.name} is generated, it has no inputs in files")
    options = TableOptions(args.delimiter, args.encoding, args.sheet)
    if isinstance(task, ForecastTask):
        if args.column:
            raise FPTError("--column: a forecast reads the columns of its training data; rename those of the file")
        return forecasts.read_history(user_path(args.predict or ""), options, task, data, config, args.decimal)
    inputs = files.read_inputs(user_path(args.predict or ""), args.column, task, config.data.schema, options, args.decimal, log)
    _keep_users_columns(args, inputs.rows, files.output_columns(config.output, models))
    return inputs


def _report_predictions(out: pd.DataFrame, args: EvaluateArguments, accelerator: Accelerator, calibrated: str) -> None:
    """Write the predictions, and say how many rows have none and why; `calibrated` says it of the models."""
    if accelerator.is_main_process:
        write_csv(out, user_path(args.output or ""), args.raw_cells, accelerator.print)
    empty = out[out["prediction"] == ""]
    accelerator.print(f"{len(out) - len(empty):,} rows predicted{calibrated}, {len(empty):,} could not be read; {args.output}")
    ids = pd.Series([f"row-{i + 1}" for i in range(len(out))])
    for rows, what in (
        (empty, "not predicted"),
        (out[(out["prediction"] != "") & (out["reason"] != "")], "predicted with a remark"),
    ):
        for line in count_reasons(pd.DataFrame({"id": ids[rows.index], "reason": rows["reason"]})):
            accelerator.print(f"{what}, {line}")


def _report_forecast(ahead: pd.DataFrame, args: EvaluateArguments, accelerator: Accelerator) -> None:
    """Write a forecast, and say from when to when it is."""
    if accelerator.is_main_process:
        write_csv(ahead, user_path(args.output or ""), args.raw_cells, accelerator.print)
    times = ahead.iloc[:, 0]
    accelerator.print(f"{len(ahead):,} values ahead, {times.iloc[0]} to {times.iloc[-1]}; {args.output}")


def _keep_users_columns(args: EvaluateArguments, rows: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse an output that would replace a column of the user's file."""
    if taken := [c for c in columns if c in rows]:
        raise FPTError(f"{args.predict} has the column {taken[0]!r}, which the predictions need; rename it")

"""The command line that starts a run again, from the arguments that its results have."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from fpt.args import DataArguments, ModelArguments, TrainArguments, as_dict, flags, flat
from fpt.cli import read_training
from fpt.errors import FPTError
from fpt.flags.config_file import Configuration
from fpt.flags.unread import unread_flags


def command_of(did: Mapping[str, Any]) -> str:
    """The command that starts a run with the arguments `did`, as its results have them; RAW stands for the raw data's folder."""
    default = {**as_dict(DataArguments()), **as_dict(ModelArguments()), **as_dict(TrainArguments())}
    # Options of the task or of the baseline are included even where they have their default.
    # The arguments of a run of several are those of that run alone.
    skip = {"output_dir", "resume", "overwrite", "cache_dir", "push_to_hub", "hub_private", "global_batch_size"}
    given = {k: v for k, v in flat(did).items() if k not in skip and (k not in default or v != default[k])}
    if "data_dir" in given:
        given["data_dir"] = "RAW"
    values = readable({"dataset": did["dataset"], **given, "seed": did["seed"]})
    return f"accelerate launch train.py {shlex.join(flags(values))}"


def readable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments without those that the task and the model that they name don't read; all of them where that can't be said."""
    try:
        unread = unread_flags(read_training((), configuration=Configuration("", dict(values), is_record=False)))
    except FPTError:
        unread = {}
    return {name: value for name, value in values.items() if name not in unread}

"""The task of a checkpoint, as its training read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fpt.args import DataArguments, changed
from fpt.checkpoint import CheckpointConfig
from fpt.checkpoint.load import understood
from fpt.data.cache import HUB, check_arguments
from fpt.errors import FPTError
from fpt.inputs import Patches, Tokens
from fpt.models.base import MODELS
from fpt.tasks.base import TASKS, GeneratedTask, Task, resolve
from fpt.untrusted.typed import as_type


def task_of(config: CheckpointConfig, folder: Path, **changes: Any) -> tuple[Task | GeneratedTask, DataArguments]:
    """Return the task of a checkpoint, and its arguments with `changes`.

    Args:
        folder: of the checkpoint, for the errors.

    Raises:
        FPTError: there is no such task, or the arguments make no sense for it or for the model.
    """
    task = TASKS[config.task]
    arguments = changed(config.data.arguments, **changes)
    if task.options is not None:
        as_type(task.options, arguments.given_options, "data.arguments.options")
    if config.task.startswith(HUB) and arguments.given_options.get("input_type") is None:
        # The dataset would be asked, which means that it is fetched.
        raise FPTError(f"{folder}: data.arguments.options.input_type is missing; copy the checkpoint again")
    with understood(folder):
        task, arguments = resolve(task, arguments, MODELS[config.model].view)
        if isinstance(config.input, Tokens) != (arguments.tokenizer is not None):
            raise FPTError(f"{folder}: task {task.name} and the input of the model are of different kinds")
        if isinstance(task, GeneratedTask):
            if (task.dim(arguments), task.output(arguments)) != (getattr(config.input, "dim", None), config.output):
                raise FPTError(f"{folder}: task {task.name} with these arguments has other inputs or labels than the model")
            return task, arguments
        if config.data.schema is not None:
            task = task.with_schema(config.data.schema)
        check_arguments(task, arguments)
        if type(config.input) is Patches:
            own = task.input(arguments)
            dim = task.dim(arguments) if own is None else own.dim
            if dim != config.input.dim:
                raise FPTError(f"{folder}: {task.name} has tokens of {dim} numbers, the model {config.input.dim}")
    return task, arguments

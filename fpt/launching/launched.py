"""What a launcher, its configuration or a DeepSpeed file asks for, held against the arguments of a run.

Accelerate and DeepSpeed let the environment and their files override what a script asks for, without a word. Results and model
cards report the arguments, so both must say the same here, or the run is refused.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType, DynamoBackend, str_to_bool

from fpt.args import ModelArguments, TrainArguments
from fpt.errors import FPTError, did_you_mean

PRECISIONS = ("no", "bf16", "fp16")
PRECISION, STEPS = "ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
CLIPPING, DEEPSPEED_FILE = "ACCELERATE_GRADIENT_CLIPPING", "ACCELERATE_DEEPSPEED_CONFIG_FILE"
# Not said: whoever reads it takes the argument.
AUTO = "auto"
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
# Parts of a DeepSpeed file that leave what is trained as it is; the others would change it, or are unknown.
HARMLESS = {
    *("zero_optimization", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "aio", "steps_per_print"),
    *("wall_clock_breakdown", "dump_state", "memory_breakdown", "flops_profiler", "comms_logger", "prescale_gradients"),
    *("gradient_predivide_factor", "sparse_gradients", "disable_allgather", "monitor_config", "csv_monitor"),
    *("tensorboard", "wandb"),
}
# What the flags set instead.
INSTEAD = {
    "optimizer": "the optimizer is AdamW with --learning_rate and --weight_decay",
    "scheduler": "the schedule is that of --lr_scheduler and --warmup_steps",
    **dict.fromkeys(
        ("fp16", "bf16", "bfloat16", "amp", "torch_autocast"),
        "it would take trainable parameters out of fp32; give --mixed_precision, which is for the backbone alone",
    ),
}


def switched_on(name: str) -> bool:
    """Whether ``ACCELERATE_USE_<name>`` is on. Accelerate knows "true" alone, so any other way to say so is made that.

    Raises:
        FPTError: it is neither on nor off.
    """
    variable = f"ACCELERATE_USE_{name}"
    said = os.environ.get(variable, "").strip()
    if not said:
        os.environ.pop(variable, None)  # accelerate can't read an empty one
        return False
    try:
        on = bool(str_to_bool(said))
    except ValueError as error:
        raise FPTError(f"{variable} is {said!r}; give true or false, or unset it") from error
    os.environ[variable] = "true" if on else "false"
    return on


def wanted_precision(asked: str | None) -> str:
    """The mixed precision that is asked for, else what the launcher says: "no", "bf16" or "fp16".

    Raises:
        FPTError: it is another one.
    """
    source = "--mixed_precision" if asked else PRECISION
    said = asked or os.environ.get(PRECISION) or "no"
    if said.lower() not in PRECISIONS:
        near = did_you_mean(said.lower(), PRECISIONS)
        raise FPTError(f"unknown {source} {said!r}{near}; known: {', '.join(PRECISIONS)}")
    return said.lower()


def check_environment() -> None:
    """Refuse settings of a launcher that this project does not support.

    Raises:
        FPTError: such a setting is on; the message names it.
    """
    for name, what in (("MEGATRON_LM", "Megatron-LM"), ("PARALLELISM_CONFIG", "tensor, context or sequence parallelism")):
        if switched_on(name):
            raise FPTError(f"ACCELERATE_USE_{name} asks for {what}, which this project does not do; leave it out of the launcher")
    steps = os.environ.get(STEPS, AUTO).strip()
    if steps.lower() in ("", AUTO):
        os.environ.pop(STEPS, None)  # accelerate reads a number there
    elif not steps.isdigit() or int(steps) < 1:
        raise FPTError(f"{STEPS} is {steps!r}; give a whole number from 1 up, or unset it")
    downcast = os.environ.get("ACCELERATE_DOWNCAST_BF16", "").lower()
    if downcast not in ("", "0", "no", "false"):
        raise FPTError(f"ACCELERATE_DOWNCAST_BF16 is {downcast!r}, which is for TPUs; unset it and give --mixed_precision bf16")
    known = [backend.lower() for backend in DynamoBackend.list()]
    for name, values in (("BACKEND", known), ("MODE", list(MODES))):
        said = os.environ.get(f"ACCELERATE_DYNAMO_{name}", "").lower()
        if said and said not in values:
            near = did_you_mean(said, values)
            raise FPTError(f"unknown ACCELERATE_DYNAMO_{name} {said!r}{near}; known: {', '.join(values)}")


def check_launcher(args: TrainArguments, model_args: ModelArguments) -> None:
    """Refuse a launcher or a DeepSpeed file that says other than the arguments of a run.

    Raises:
        FPTError: names both.
    """
    check_environment()
    _agree(STEPS, os.environ.get(STEPS), "gradient_accumulation_steps", args.gradient_accumulation_steps)
    _agree(CLIPPING, os.environ.get(CLIPPING), "max_grad_norm", args.max_grad_norm)
    if switched_on("FSDP"):
        said = os.environ.get("FSDP_ACTIVATION_CHECKPOINTING", "false").lower() in ("true", "1", "yes")
        if said != model_args.activation_checkpointing:
            raise FPTError(
                f"FSDP_ACTIVATION_CHECKPOINTING is {said}, --activation_checkpointing is {model_args.activation_checkpointing};"
                " give both the same"
            )
    file = os.environ.get(DEEPSPEED_FILE, "none")
    if switched_on("DEEPSPEED") and file != "none" and Path(file).is_file():
        _check_deepspeed(Path(file), args)


def check_done(accelerator: Accelerator, args: TrainArguments) -> None:
    """Refuse to go on where model and optimizer were prepared for other settings than the arguments say.

    Raises:
        FPTError: they were. `check_launcher` reports the settings that it knows before training; this check covers the others.
    """
    done: dict[str, tuple[Any, float]] = {
        "gradient_accumulation_steps": (accelerator.gradient_accumulation_steps, args.gradient_accumulation_steps)
    }
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        config = accelerator.deepspeed_plugin.deepspeed_config
        done["max_grad_norm"] = (config.get("gradient_clipping"), args.max_grad_norm)
        done["per_device_batch_size"] = (config.get("train_micro_batch_size_per_gpu"), args.per_device_batch_size)
    for flag, (value, wanted) in done.items():
        if value != wanted:
            raise FPTError(f"the launcher's configuration makes it {value} where --{flag} is {wanted}; give both the same")


def compiled_by(accelerator: Accelerator) -> str | None:
    """The backend that the launcher has the model compiled with, None where it has not."""
    backend = accelerator.state.dynamo_plugin.backend
    return None if backend == DynamoBackend.NO else str(backend.value).lower()


def _check_deepspeed(path: Path, args: TrainArguments) -> None:
    """Hold a DeepSpeed file against the arguments."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FPTError(f"the DeepSpeed file {path} can't be read as JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("zero_optimization"), dict):
        raise FPTError(f"the DeepSpeed file {path} has no zero_optimization; take one of ds_configs/ as a start")
    stage = config["zero_optimization"].get("stage", AUTO)
    if stage != AUTO and (isinstance(stage, bool) or stage not in (0, 1, 2, 3)):
        raise FPTError(f"the DeepSpeed file {path}: zero_optimization.stage is {stage!r}; give 0, 1, 2 or 3")
    steps, size = args.gradient_accumulation_steps, args.per_device_batch_size
    # DeepSpeed takes 1 where nothing is said.
    said = {"gradient_accumulation_steps": 1, **config}
    everyone = os.environ.get("WORLD_SIZE", "1")
    total = size * steps * int(everyone) if everyone.isdigit() else None
    settings = {
        "gradient_accumulation_steps": ("gradient_accumulation_steps", steps),
        "gradient_clipping": ("max_grad_norm", args.max_grad_norm),
        "train_micro_batch_size_per_gpu": ("per_device_batch_size", size),
        "train_batch_size": (f"per_device_batch_size {size} times {steps} batches of a step and {everyone} processes", total),
    }
    for name, (flag, value) in settings.items():
        if value is not None:
            missing = "" if name in config else " (not in it, so DeepSpeed's own value)"
            _agree(f"{name} of the DeepSpeed file {path}{missing}", said.get(name), flag, value)
    for name, value in config.items():
        off = isinstance(value, dict) and value.get("enabled", None if name not in INSTEAD else False) in (False, AUTO)
        if name in settings or name in HARMLESS or (off and name not in ("optimizer", "scheduler")):
            continue
        why = INSTEAD.get(name, "it may change what is trained, and is not reported")
        raise FPTError(f"the DeepSpeed file {path} has {name!r}: {why}; remove it from the file")


def _agree(source: str, said: Any, flag: str, value: float) -> None:
    """Refuse another number than that of the flag; "auto" and nothing agree with all."""
    if said is None or (isinstance(said, str) and said.strip().lower() in ("", AUTO)):
        return
    if _number(said, whole=isinstance(value, int)) != value:
        wanted = flag if " " in flag else f"{flag} is {value}"
        raise FPTError(f"{source} is {said}, --{wanted}; give both the same, or leave it to the flag")


def _number(said: Any, whole: bool) -> float:
    """What a file or the environment says, as a number; nan where it is none, or not a whole one where that is needed."""
    if isinstance(said, bool) or (whole and not (isinstance(said, int) or (isinstance(said, str) and said.strip().isdigit()))):
        return math.nan
    try:
        return float(said)
    except (TypeError, ValueError):
        return math.nan

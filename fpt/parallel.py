"""Processes and devices: all that differs between one CPU and a cluster. The model and the loop know none of it.

Every function here that says "collective" is called by all processes at the same time.
"""

from __future__ import annotations

import contextlib
import netrc
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, InitProcessGroupKwargs, gather_object
from torch import nn

from fpt.args import TrainArguments
from fpt.backbones.base import DTYPES
from fpt.errors import FPTError
from fpt.launching.environment import check_launch
from fpt.launching.launched import check_environment, switched_on, wanted_precision
from fpt.optional import need

MOMENTS = ("exp_avg", "exp_avg_sq")


class OwnAccelerator(Accelerator):
    """An accelerator that keeps its settings when another one is made in the same process.

    Accelerate keeps one state for a process, precision included, and looks it up whenever a model is prepared: of two checkpoints
    in one process the second could not be opened, or the first would be computed in the precision of the second.
    """

    def __init__(self, **options: Any) -> None:
        before = AcceleratorState._shared_state
        # With DeepSpeed and FSDP there is one model in a process.
        if before and before.get("distributed_type") not in (DistributedType.DEEPSPEED, DistributedType.FSDP):
            AcceleratorState._shared_state = type(before)()
        tf32 = torch.backends.cuda.matmul.allow_tf32
        super().__init__(**options)
        # Set for compiled models, which would be another precision than is reported.
        torch.backends.cuda.matmul.allow_tf32 = tf32

    def prepare(self, *objects: Any, **options: Any) -> Any:
        """As `Accelerator.prepare`, with this accelerator's settings."""
        with self._settings():
            return super().prepare(*objects, **options)

    def prepare_model(self, *arguments: Any, **options: Any) -> Any:
        """As `Accelerator.prepare_model`, with this accelerator's settings."""
        with self._settings():
            return super().prepare_model(*arguments, **options)

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        before, AcceleratorState._shared_state = AcceleratorState._shared_state, self.state.__dict__
        try:
            yield
        finally:
            AcceleratorState._shared_state = before


def make_accelerator(mixed_precision: str | None = None, **options: Any) -> Accelerator:
    """The accelerator, as the launcher set it up.

    Raises:
        FPTError: a setting makes no sense, or what the launcher was asked for would not be done.
    """
    check_launch()
    check_environment()
    deepspeed, fsdp = switched_on("DEEPSPEED"), switched_on("FSDP")
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    on_cpu = not torch.cuda.is_available()
    if on_cpu and deepspeed:
        if os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "yes"):
            raise FPTError(
                "use_cpu (or --cpu) makes accelerate leave DeepSpeed out; on a machine without GPUs say use_cpu: false with"
                " distributed_type: DEEPSPEED"
            )
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if on_cpu and wanted > 1:
        options["kwargs_handlers"] = [InitProcessGroupKwargs(backend="gloo")]
        # Without this accelerate starts the processes and lets each train alone; with it, it leaves the others out.
        options["cpu"] = not (deepspeed or fsdp)
    precision = wanted_precision(mixed_precision)
    if deepspeed:
        need("deepspeed", "distributed_type: DEEPSPEED of the accelerate configuration")
        # DeepSpeed would bring the trainable tensors to that precision as well; the model does it for the backbone alone.
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    try:
        accelerator = OwnAccelerator(mixed_precision="no" if deepspeed else precision, **options)
    except (ValueError, ImportError, RuntimeError, KeyError) as error:
        raise FPTError(f"the processes or their device can't be set up: {error}") from error
    for asked, kind in ((deepspeed, DistributedType.DEEPSPEED), (fsdp, DistributedType.FSDP)):
        if asked and accelerator.distributed_type != kind:
            raise FPTError(f"the launcher asked for {kind.value}, but it would not be used; check use_cpu in the configuration")
    if accelerator.num_processes != wanted or (wanted > 1 and accelerator.distributed_type == DistributedType.NO):
        raise FPTError(f"the launcher started {wanted} processes, but they would not train together; check its configuration")
    if deepspeed:
        from transformers.integrations import unset_hf_deepspeed_config

        # Or transformers would spread a backbone while it loads. Each process loads the whole of it, so that it can be checked.
        unset_hf_deepspeed_config()
    accelerator.backbone_precision = precision if deepspeed else "no"  # type: ignore[attr-defined]
    return accelerator


def training_accelerator(args: TrainArguments, output: Path) -> Accelerator:
    """The accelerator of a training run, with its tracker.

    Raises:
        FPTError: as `make_accelerator`, or fp16 is asked for on a CPU.
    """
    if args.report_to == "wandb" and "WANDB_MODE" not in os.environ and not logged_in_to_wandb():
        os.environ["WANDB_MODE"] = "offline"
    accelerator = make_accelerator(
        args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if args.report_to == "none" else args.report_to,
        project_dir=str(output / "logs"),
    )
    if precision(accelerator) == "fp16" and accelerator.device.type == "cpu":
        raise FPTError("fp16 needs a GPU, which there is none for this run; on a CPU give --mixed_precision bf16 or no")
    return accelerator


def strategy(accelerator: Accelerator) -> str:
    """How the work is spread, in words."""
    count = accelerator.num_processes
    kind = accelerator.distributed_type
    if kind == DistributedType.DEEPSPEED:
        return f"DeepSpeed ZeRO-{accelerator.deepspeed_plugin.zero_stage}, {_processes(count)}"
    if kind == DistributedType.FSDP:
        return f"FSDP, {_processes(count)}"
    return "one process" if count == 1 else f"DDP, {_processes(count)}"


def precision(accelerator: Accelerator) -> str:
    """The precision that the backbone computes in: what an evaluation needs to give the same scores."""
    return accelerator.mixed_precision if accelerator.backbone_precision == "no" else accelerator.backbone_precision  # type: ignore


def prepare(
    accelerator: Accelerator, model: Any, optimizer: torch.optim.Optimizer, args: TrainArguments
) -> tuple[nn.Module, Any]:
    """Model and optimizer as the strategy runs them."""
    if accelerator.backbone_precision != "no":  # type: ignore[attr-defined]
        model.core_dtype = DTYPES[accelerator.backbone_precision]  # type: ignore[attr-defined]
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        # What the configuration leaves to the command line ("auto").
        accelerator.deepspeed_plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": args.per_device_batch_size,
            "gradient_clipping": args.max_grad_norm,
        }
    return accelerator.prepare(model, optimizer)


def whole(accelerator: Accelerator, parameters: Mapping[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """Collective: copies on the CPU of parameters that may be spread over processes."""
    with _gathered(accelerator, list(parameters.values())):
        return {name: whole_tensor(parameter).detach().cpu().clone() for name, parameter in parameters.items()}


@contextlib.contextmanager
def changing(accelerator: Accelerator, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Collective: parameters that may be spread over processes can be changed inside, alike by all processes."""
    with _gathered(accelerator, list(parameters.values()), modifier_rank=0):
        yield


def optimizer_state(accelerator: Accelerator, optimizer: Any, parameters: Mapping[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """Collective: AdamW's moments and step count of each trainable parameter, ``NAME.exp_avg`` and so on, whole, on the CPU.

    The same tensors whatever the strategy, so a run can go on under another one.
    """
    tensors: dict[str, torch.Tensor] = {}
    _link(optimizer)
    for name, parameter in parameters.items():
        if not parameter.requires_grad:
            continue
        if accelerator.distributed_type == DistributedType.DEEPSPEED:
            from deepspeed.utils import safe_get_full_optimizer_state

            for key in MOMENTS:
                tensors[f"{name}.{key}"] = safe_get_full_optimizer_state(parameter, key).cpu().clone()
            tensors[f"{name}.step"] = torch.tensor(float(_inner_steps(optimizer)))
        else:
            state = optimizer.optimizer.state[parameter]
            for key in (*MOMENTS, "step"):
                tensors[f"{name}.{key}"] = whole_tensor(torch.as_tensor(state[key])).cpu().clone()
    return tensors


def load_optimizer_state(
    accelerator: Accelerator, optimizer: Any, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, torch.Tensor]
) -> None:
    """Collective: put back what `optimizer_state` gave."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        _make_states(optimizer)
    for name, parameter in parameters.items():
        if not parameter.requires_grad:
            continue
        if accelerator.distributed_type == DistributedType.DEEPSPEED:
            from deepspeed.utils import safe_set_full_optimizer_state

            for key in MOMENTS:
                safe_set_full_optimizer_state(parameter, tensors[f"{name}.{key}"].to(accelerator.device), key)
            for state in _inner(optimizer).state.values():
                state["step"] = tensors[f"{name}.step"].to(state["exp_avg"].device, copy=True)
        else:
            state = {key: _like(parameter, tensors[f"{name}.{key}"].clone()) for key in MOMENTS}
            # Where the parameter is: fused operations count there.
            step = tensors[f"{name}.step"].to(parameter.device, copy=True)
            optimizer.optimizer.state[parameter] = {"step": step, **state}


def gather(accelerator: Accelerator, value: Any) -> list[Any]:
    """Collective: a value of each process, in the order of processes."""
    return gather_object([value]) if accelerator.num_processes > 1 else [value]


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Collective: whether `flag` is true in any process."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)


def mean(accelerator: Accelerator, value: torch.Tensor) -> float:
    """Collective: the mean of a number over all processes."""
    return float(accelerator.reduce(value, "mean") if accelerator.num_processes > 1 else value)


def _processes(count: int) -> str:
    return "one process" if count == 1 else f"{count} processes"


@contextlib.contextmanager
def _gathered(accelerator: Accelerator, parameters: list[nn.Parameter], modifier_rank: int | None = None) -> Iterator[None]:
    if accelerator.distributed_type == DistributedType.DEEPSPEED and accelerator.deepspeed_plugin.zero_stage == 3:
        import deepspeed

        with deepspeed.zero.GatheredParameters(parameters, modifier_rank=modifier_rank):
            yield
    else:
        yield


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that FSDP spreads over processes."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _like(parameter: Any, value: torch.Tensor) -> torch.Tensor:
    """`value` where and how `parameter` is."""
    value = value.to(parameter.device)
    if hasattr(parameter, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value


def _inner(optimizer: Any) -> torch.optim.Optimizer:
    """AdamW inside accelerate's and DeepSpeed's wrappers."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _inner_steps(optimizer: Any) -> float:
    """Steps that AdamW has counted; every group counts alike."""
    return max((float(state["step"]) for state in _inner(optimizer).state.values() if "step" in state), default=0.0)


def _make_states(optimizer: Any) -> None:
    """DeepSpeed has no moments to fill before the first step; give each group of flat parameters its own."""
    inner = _inner(optimizer)
    # ZeRO-3 keeps its flat parameters to itself and lends AdamW one at a time.
    flat_groups = getattr(getattr(optimizer, "optimizer", None), "fp32_partitioned_groups_flat", None)
    for flat in flat_groups or [flat for group in inner.param_groups for flat in group["params"]]:
        if flat not in inner.state or "exp_avg" not in inner.state[flat]:
            zeros = torch.zeros_like(flat, dtype=torch.float32)
            inner.state[flat] = {"step": torch.tensor(0.0, device=flat.device), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
    _link(optimizer)


def _link(optimizer: Any) -> None:
    """Let ZeRO-1 and 2 find the moments of every parameter: of several groups they know those of the first only."""
    zero: Any = getattr(optimizer, "optimizer", None)
    if hasattr(zero, "_lazy_init_hp_params_optimizer_state"):
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()


def logged_in_to_wandb() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False

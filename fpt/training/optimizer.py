"""AdamW, and which parameters it treats in which way."""

from __future__ import annotations

from typing import Any

import torch
from transformers import SchedulerType, get_scheduler

from fpt.args import TrainArguments
from fpt.errors import FPTError, did_you_mean
from fpt.models.base import Network

# Kinds of devices that AdamW has a fused operation for.
FUSED = ("cpu", "cuda", "mps", "xpu")


def make_optimizer(model: Network, args: TrainArguments, device: torch.device) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `model`; fused where the device can: one operation a tensor, nothing read back."""
    return torch.optim.AdamW(parameter_groups(model, args), lr=args.learning_rate, fused=device.type in FUSED)


def check_schedule(args: TrainArguments) -> None:
    """Refuse an unknown --lr_scheduler, or one that needs other settings than warmup and number of steps.

    Raises:
        FPTError: the schedule is unknown or cannot be built from these arguments.
    """
    known = [schedule.value for schedule in SchedulerType]
    if args.lr_scheduler not in known:
        near = did_you_mean(args.lr_scheduler, known)
        raise FPTError(f"unknown --lr_scheduler {args.lr_scheduler!r}{near}; known: {', '.join(known)}")
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=args.learning_rate)
    try:
        schedule = get_scheduler(args.lr_scheduler, optimizer, args.warmup_steps, args.max_steps)
        optimizer.step()
        schedule.step()
    except (TypeError, ValueError, KeyError) as error:
        why = str(error).splitlines()[0]
        raise FPTError(f"--lr_scheduler {args.lr_scheduler} needs settings that there are no flags for ({why})") from error


def parameter_groups(model: Network, args: TrainArguments) -> list[dict[str, Any]]:
    """AdamW groups: matrices decay, norms, biases and positions do not; the input layer has its own rate."""
    matrices, plain, embedding = [], [], []
    roles = model.roles()
    for name, parameter in model.trainable_parameters().items():
        if parameter.ndim < 2 or roles.get(name) == "position":
            plain.append(parameter)
        elif roles.get(name) == "input":
            embedding.append(parameter)
        else:
            matrices.append(parameter)
    groups = [
        {"params": matrices, "weight_decay": args.weight_decay},
        {"params": plain, "weight_decay": 0.0},
        {"params": embedding, "weight_decay": args.weight_decay, "lr": args.learning_rate * args.embedding_lr_scale},
    ]
    return [group for group in groups if group["params"]]

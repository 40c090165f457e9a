"""The runs that ``--seeds`` and ``--learning_rates`` ask for, side by side in one process."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fpt.args import DataArguments, ModelArguments, TrainArguments, changed
from fpt.backbones.base import is_drawn
from fpt.errors import FPTError


def several(args: TrainArguments) -> bool:
    """Whether more than one run is asked for."""
    return bool(args.seeds or args.learning_rates)


def seeds_of(args: TrainArguments) -> list[int]:
    """The seeds that are asked for.

    Raises:
        FPTError: they are no whole numbers, or one comes twice.
    """
    return _numbers(args.seeds, int, "--seeds", "1,2,3") if args.seeds else [args.seed]


def variants(args: TrainArguments, output: Path) -> list[TrainArguments]:
    """The arguments of each run: those of a run of its own, with a folder in `output`.

    Raises:
        FPTError: as `seeds_of`.
    """
    if not several(args):
        return [changed(args, output_dir=str(output))]
    rates = _numbers(args.learning_rates, float, "--learning_rates", "1e-3,3e-3") if args.learning_rates else [args.learning_rate]
    if min(rates) <= 0:
        raise FPTError(f"--learning_rates {args.learning_rates} must all be above 0")
    one = {"seeds": None, "learning_rates": None}
    return [
        changed(args, **one, seed=seed, learning_rate=rate, output_dir=str(output / _folder(seed, rate, len(rates) > 1)))
        for rate, seed in itertools.product(rates, seeds_of(args))
    ]


def one_of_each(data: DataArguments, model_args: ModelArguments, args: TrainArguments) -> tuple[DataArguments, ModelArguments]:
    """Runs side by side share one split and one backbone: those of the first seed, unless the arguments name others."""
    if not several(args):
        return data, model_args
    first = seeds_of(args)[0]
    if data.split_seed is None:
        data = changed(data, split_seed=first)
    if model_args.backbone_seed is None and is_drawn(model_args.backbone):
        model_args = changed(model_args, backbone_seed=first)
    return data, model_args


def check_together(args: TrainArguments, accelerator: Accelerator) -> None:
    """Refuse settings that runs side by side in one process do not support.

    Raises:
        FPTError: several processes, fp16 or --push_to_hub together with --seeds or --learning_rates.
    """
    if not several(args):
        return
    asked = "--seeds" if args.seeds else "--learning_rates"
    if accelerator.num_processes > 1:
        raise FPTError(f"{asked} trains several runs in one process; start it without a launcher of several")
    if accelerator.mixed_precision == "fp16":
        raise FPTError(f"{asked} needs --mixed_precision no or bf16; fp16 scales the losses of each run by itself")
    if args.push_to_hub:
        raise FPTError(f"{asked} gives several checkpoints; push the one you want with python -m fpt.hub FOLDER USER/REPOSITORY")


def _folder(seed: int, rate: float, told: bool) -> str:
    return f"seed-{seed}-lr-{rate:g}" if told else f"seed-{seed}"


def _numbers(text: str, kind: Callable[[str], Any], option: str, example: str) -> list[Any]:
    try:
        values = [kind(word) for word in text.split(",")]
    except ValueError:
        raise FPTError(f"{option} {text!r} must be numbers separated by commas: {example}") from None
    if len(set(values)) < len(values):
        raise FPTError(f"{option} {text!r} names a number twice")
    return values

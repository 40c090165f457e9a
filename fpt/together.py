"""Several tunings of one frozen core side by side: `--seeds 1,2,3 --learning_rates 1e-3,3e-3`, one process, one copy of the core.

Each run has its own input layer, norms, positions, readout, optimizer, batches and folder, and comes out as it would alone. The
frozen layers, which are nearly all of the weights and of the work, see the batches of all runs as one row of tokens.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from fpt.args import DataArguments, ModelArguments, TrainArguments, changed
from fpt.backbones import is_drawn, is_norm
from fpt.backbones.packed import PACKED
from fpt.backbones.stack import Stack
from fpt.errors import FPTError
from fpt.model import FPT
from fpt.random_state import OwnRandom, drawing

# How far logits of runs side by side may be from those of each alone, as a share of the largest.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
# Tokens of a row: with more, matrix products gain nothing, and what the way back needs grows.
JOINED_TOKENS = {"cpu": 1280, "other": 16384}
Batch = dict[str, torch.Tensor]
# Loops, their batches and logits, to be learned from at once.
Part = tuple[Sequence[Any], Sequence[Batch], Sequence[torch.Tensor]]


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
    """Runs side by side share one split and one core: those of the first seed, unless the arguments name others."""
    if not several(args):
        return data, model_args
    first = seeds_of(args)[0]
    if data.split_seed is None:
        data = changed(data, split_seed=first)
    if model_args.backbone_seed is None and is_drawn(model_args.backbone):
        model_args = changed(model_args, backbone_seed=first)
    return data, model_args


def check_together(args: TrainArguments, accelerator: Accelerator) -> None:
    """Refuse what several runs in one process can't have.

    Raises:
        FPTError: as said.
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


class Together(nn.Module):
    """Models of one core as one module: its frozen layers are there once, and what is tuned is looked up by run.

    Args:
        models: their frozen parameters are the same tensors.
        log: is told when this core does not allow it, and the runs take turns instead.
    """

    def __init__(self, models: Sequence[FPT], log: Callable[[str], None] = print) -> None:
        super().__init__()
        first, family = models[0], models[0].family
        # No `nn.ModuleList`: a core is looked through for such lists.
        self.models, self.log, self.runs, self.obstacle = list(models), log, _Runs(), ""
        if first.core_dropout:
            self.refuse("dropout inside the backbone would draw the numbers of all runs at once")
            return
        if not isinstance(family, Stack):
            self.refuse(f"{type(first.core).__name__} has no blocks that take several batches")
            return
        self.family = family
        shared = {id(parameter): parameter for model in models for parameter in model.parameters()}
        self.core = copy.deepcopy(first.core, memo=dict(shared))
        for name, module in list(self.core.named_modules()):
            if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
                parent, _, attribute = name.rpartition(".")
                kind = EachNorm if is_norm(module) else Each
                own = [model.core.get_submodule(name) for model in models]
                setattr(self.core.get_submodule(parent), attribute, kind(own, self.runs))

    def refuse(self, why: str) -> None:
        """Let the runs take turns."""
        self.obstacle = why
        self.log(f"side by side: {why}; the runs take turns")

    def train(self, mode: bool = True) -> Together:
        """As `FPT.train`."""
        super().train(mode)
        if not self.obstacle:
            self.core.train(mode and self.models[0].core_dropout)
        return self

    def forward(
        self, active: Sequence[int], batches: Sequence[Batch], random: Sequence[OwnRandom | None] = ()
    ) -> list[torch.Tensor]:
        """Logits (batch, size) of each batch, by the model of that number; `random` is where each draws its dropout from."""
        random = random or [None] * len(active)
        models = [self.models[number] for number in active]
        masks = [batch["attention_mask"] for batch in batches]
        with models[0].precision(masks[0].device.type):
            embeds = [_embed(*each) for each in zip(models, batches, random, strict=True)]
            reads = [model.read(mask) for model, mask in zip(models, masks, strict=True)]
            self.runs.start(active, [mask.numel() for mask in masks], [read.numel() for read in reads])
            states = self.family.packed(self.core, embeds, masks, reads)
            return [_logits(*each) for each in zip(models, states, random, strict=True)]

    def fits(self, batches: Sequence[Batch]) -> bool:
        """Whether these batches can go in one row."""
        config = self.models[0].core.config
        return not self.obstacle and all(self.family.fits(config, batch["inputs"].shape[1]) for batch in batches)

    def on(self, accelerator: Accelerator) -> Callable[..., Iterator[Part]]:
        """How `fpt.training.learn` calls it."""
        if self.obstacle:
            return one_by_one
        self.core.config._attn_implementation = PACKED
        model = accelerator.prepare_model(self)
        kinds = {torch.bfloat16} if accelerator.mixed_precision == "bf16" else {p.dtype for p in self.parameters()}
        tolerance = TOLERANCE[min(kinds, key=lambda dtype: torch.finfo(dtype).bits)]
        most = JOINED_TOKENS.get(accelerator.device.type, JOINED_TOKENS["other"])
        known = {id(one): number for number, one in enumerate(self.models)}
        checked = False

        def forward(loops: Sequence[Any], batches: Sequence[Batch]) -> Iterator[Part]:
            nonlocal checked
            active = [known[id(loop.raw_model)] for loop in loops]
            if not checked and self.fits(batches):
                checked = True
                if why := _why_not(model, loops, active, batches, tolerance):
                    self.refuse(why)
            if not self.fits(batches):
                yield from one_by_one(loops, batches)
                return
            for chosen in rows(batches, most):
                own, theirs = [loops[number] for number in chosen], [batches[number] for number in chosen]
                if len(own) > 1:
                    yield own, theirs, model([active[number] for number in chosen], theirs, [loop.random for loop in own])
                else:
                    yield from one_by_one(own, theirs)

        return forward


def one_by_one(loops: Sequence[Any], batches: Sequence[Batch]) -> Iterator[Part]:
    """Each model on its batch, each with the random numbers of its run."""
    for loop, batch in zip(loops, batches, strict=True):
        with drawing(loop.random):
            logits = loop.model(batch["inputs"], batch["attention_mask"])
        yield [loop], [batch], [logits]


def _embed(model: FPT, batch: Batch, random: OwnRandom | None) -> torch.Tensor:
    """What goes into the backbone, with the dropout that the run draws alone."""
    return model.embed(batch["inputs"]) if not _draws(model, random) else _in_own(random, model.embed, batch["inputs"])


def _logits(model: FPT, states: torch.Tensor, random: OwnRandom | None) -> torch.Tensor:
    """Logits of a run, with the dropout that it draws alone."""
    return model.logits(states) if not _draws(model, random) else _in_own(random, model.logits, states)


def _draws(model: FPT, random: OwnRandom | None) -> bool:
    return random is not None and model.training and model.dropout.p > 0


@torch.compiler.disable
def _in_own(random: OwnRandom | None, call: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """A call that draws from the run's numbers; not compiled, for these live outside of a graph."""
    with drawing(random):
        return call(values)


def rows(batches: Sequence[Batch], most: int) -> Iterator[list[int]]:
    """Numbers of batches that go in one row, which has no more than `most` tokens unless one batch has."""
    row: list[int] = []
    tokens = 0
    for number, batch in enumerate(batches):
        size = batch["attention_mask"].numel()
        if row and tokens + size > most:
            yield row
            row, tokens = [], 0
        row.append(number)
        tokens += size
    yield row


@dataclass
class _Runs:
    """Whose tokens are where in a row: the runs, and how many tokens each has, by the length of the whole row."""

    active: Sequence[int] = ()
    sizes: dict[int, list[int]] = field(default_factory=dict)

    def start(self, active: Sequence[int], *sizes: list[int]) -> None:
        """All tokens, and those that are read, of each run."""
        self.active, self.sizes = active, {sum(each): each for each in sizes}


class Each(nn.Module):
    """A tuned module of each run, on the part of the row that is the run's."""

    def __init__(self, modules: Sequence[nn.Module], runs: _Runs) -> None:
        super().__init__()
        # No `nn.ModuleList`: they belong to the models of the runs, and a family looks for its blocks in such lists.
        self.own, self.runs = list(modules), runs

    @property
    def weight(self) -> torch.Tensor:
        """Adapters ask for its type."""
        return self.own[0].weight  # type: ignore[return-value]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """As the modules; `values` are (tokens,) or (1, tokens, ...)."""
        along = min(1, values.ndim - 1)
        chosen, parts = [self.own[n] for n in self.runs.active], values.split(self.runs.sizes[values.shape[along]], along)
        return torch.cat([module(part) for module, part in zip(chosen, parts, strict=True)], along)


class EachNorm(Each):
    """A norm of each run: when the runs have equally many tokens, normalised at once, then scaled and shifted by run."""

    def __init__(self, modules: Sequence[nn.Module], runs: _Runs) -> None:
        super().__init__(modules, runs)
        self.plain = copy.deepcopy(modules[0]).requires_grad_(False)
        for name, parameter in self.plain.named_parameters():
            parameter.fill_(0.0 if name == "bias" else 1.0)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """As the norms."""
        if len(set(self.runs.sizes[values.shape[1]])) > 1:
            return super().forward(values)
        chosen = [self.own[number] for number in self.runs.active]
        states = self.plain(values).unflatten(1, (len(chosen), -1))
        for_each = (1, len(chosen), *[1] * (states.ndim - 3), -1)
        for name, join in (("weight", torch.mul), ("bias", torch.add)):
            if getattr(chosen[0], name, None) is not None:
                states = join(states, torch.stack([norm.get_parameter(name) for norm in chosen]).view(for_each))
        return states.flatten(1, 2)


@torch.no_grad()
def _why_not(model: nn.Module, loops: Sequence[Any], active: Sequence[int], batches: Sequence[Batch], tolerance: float) -> str:
    """Hold some samples of all runs in one row against each alone; empty when they agree.

    A core may do something with its norms or positions that is not known here.
    """
    every = (model, *(loop.model for loop in loops))
    for one in every:
        one.eval()
    batches = [{name: values[:2] for name, values in batch.items()} for batch in batches]
    expected = [logits for _, _, part in one_by_one(loops, batches) for logits in part]
    scale = max(float(logits.abs().max()) for logits in expected)
    try:
        found = model(active, batches)
        off = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / max(scale, 1e-6)
        why = "" if off <= tolerance else f"logits of this core are {off:.1%} off"
    except (RuntimeError, AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
        why = f"this core can't have it ({str(error).splitlines()[0]})"
    for one in every:
        one.train()
    return why


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

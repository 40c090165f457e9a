"""Several tunings of one frozen backbone side by side, in one process and on one copy of it.

For example `--seeds 1,2,3 --learning_rates 1e-3,3e-3`. Each run has its own input layer, norms, positions, readout, optimizer,
batches and folder, and comes out as it would alone. The frozen layers, which are nearly all of the weights and of the work, see
the batches of all runs as one row of tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from fpt.backbones.base import is_norm
from fpt.backbones.packed import PACKED
from fpt.backbones.stack import Stack
from fpt.data.batches import fed
from fpt.models.fpt import FPT
from fpt.text.log import Log
from fpt.training.random_state import OwnRandom, drawing

# How far logits of runs side by side may be from those of each alone, as a share of the largest.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
# Tokens of a row: with more, matrix products gain nothing, and what the way back needs grows.
JOINED_TOKENS = {"cpu": 1280, "other": 16384}
Batch = dict[str, torch.Tensor]
# Runs, their batches and logits, to be learned from at once.
Part = tuple[Sequence[Any], Sequence[Batch], Sequence[torch.Tensor]]


class Together(nn.Module):
    """Models of one backbone as one module: its frozen layers are there once, and what is trained is looked up by run.

    Args:
        models: their frozen parameters are the same tensors.
        log: gets a line when this backbone does not allow it; the runs then take turns.
    """

    def __init__(self, models: Sequence[FPT], log: Log = print) -> None:
        super().__init__()
        first, family = models[0], models[0].family
        # No `nn.ModuleList`: a backbone is looked through for such lists.
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
            return [_logits(*each) for each in zip(models, states, batches, random, strict=True)]

    def fits(self, batches: Sequence[Batch]) -> bool:
        """Whether these batches can go in one row."""
        config = self.models[0].core.config
        return not self.obstacle and all(self.family.fits(config, batch["attention_mask"].shape[1]) for batch in batches)

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

        def forward(runs: Sequence[Any], batches: Sequence[Batch]) -> Iterator[Part]:
            nonlocal checked
            active = [known[id(run.network)] for run in runs]
            if not checked and self.fits(batches):
                checked = True
                if why := _why_not(model, runs, active, batches, tolerance):
                    self.refuse(why)
            if not self.fits(batches):
                yield from one_by_one(runs, batches)
                return
            for chosen in rows(batches, most):
                own, theirs = [runs[number] for number in chosen], [batches[number] for number in chosen]
                if len(own) > 1:
                    yield own, theirs, model([active[number] for number in chosen], theirs, [run.random for run in own])
                else:
                    yield from one_by_one(own, theirs)

        return forward


def one_by_one(runs: Sequence[Any], batches: Sequence[Batch]) -> Iterator[Part]:
    """Each model on its batch, each with the random numbers of its run."""
    for run, batch in zip(runs, batches, strict=True):
        with drawing(run.random):
            logits = run.model(*fed(batch))
        yield [run], [batch], [logits]


def _embed(model: FPT, batch: Batch, random: OwnRandom | None) -> torch.Tensor:
    """What goes into the backbone, with the dropout that the run draws alone."""
    inputs, _, *vector = fed(batch)
    return model.embed(inputs, *vector) if not _draws(model, random) else _in_own(random, model.embed, inputs, *vector)


def _logits(model: FPT, states: torch.Tensor, batch: Batch, random: OwnRandom | None) -> torch.Tensor:
    """Logits of a run, with the dropout that it draws alone."""
    of = states, batch["attention_mask"], batch["inputs"]
    return model.logits(*of) if not _draws(model, random) else _in_own(random, model.logits, *of)


def _draws(model: FPT, random: OwnRandom | None) -> bool:
    return random is not None and model.training and model.draws


@torch.compiler.disable
def _in_own(random: OwnRandom | None, call: Callable[..., torch.Tensor], *values: torch.Tensor) -> torch.Tensor:
    """A call that draws from the run's numbers; not compiled, for these live outside of a graph."""
    with drawing(random):
        return call(*values)


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
    """A trainable module of each run, on the part of the row that is the run's."""

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
def _why_not(model: nn.Module, runs: Sequence[Any], active: Sequence[int], batches: Sequence[Batch], tolerance: float) -> str:
    """Hold some samples of all runs in one row against each alone; empty when they agree.

    A backbone may do something with its norms or positions that is not known here.
    """
    every = (model, *(run.model for run in runs))
    for one in every:
        one.eval()
    batches = [{name: values[:2] for name, values in batch.items()} for batch in batches]
    expected = [logits for _, _, part in one_by_one(runs, batches) for logits in part]
    scale = max(float(logits.abs().max()) for logits in expected)
    try:
        found = model(active, batches)
        off = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / max(scale, 1e-6)
        why = "" if off <= tolerance else f"logits of this backbone are {off:.1%} off"
    except (RuntimeError, AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
        why = f"this backbone can't have it ({str(error).splitlines()[0]})"
    for one in every:
        one.train()
    return why

"""Several tunings of one frozen core side by side: `--seeds 1,2,3 --learning_rates 1e-3,3e-3`, one process, one copy of the core.

Each run has its own input layer, norms, positions, readout, optimizer, batches and folder, and comes out as it would alone. The
frozen blocks, which are nearly all of the weights and of the work, see the batches of all runs as one larger batch.
"""

from __future__ import annotations

import copy
import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from fpt.args import DataArguments, ModelArguments, TrainArguments, changed
from fpt.backbones import is_drawn, is_norm
from fpt.errors import FPTError
from fpt.files import write_json
from fpt.model import FPT
from fpt.results import is_better

SUMMARY_FILE = "summary.json"
# How far logits of runs side by side may be from those of each alone, as a share of the largest.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
Batch = dict[str, torch.Tensor]


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
    """Models of one core as one module: it is the first of them, with all that is tuned looked up by run.

    Args:
        models: their frozen parameters are the same tensors.
    """

    def __init__(self, models: Sequence[FPT]) -> None:
        super().__init__()
        self.runs = _Runs(list(range(len(models))))
        shared = {id(parameter): parameter for model in models for parameter in model.parameters()}
        self.whole = copy.deepcopy(models[0], memo=dict(shared))
        for name, module in list(self.whole.named_modules()):
            own = name in ("input", "readout")
            inside = name.startswith(("input.", "readout."))
            tuned = any(parameter.requires_grad for parameter in module.parameters(recurse=own))
            if inside or not (own or tuned):
                continue
            theirs = [model.get_submodule(name) for model in models]
            parent, _, attribute = name.rpartition(".")
            kind = EachNorm if is_norm(module) else Each
            setattr(self.whole.get_submodule(parent), attribute, kind(theirs, self.runs))

    def forward(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (runs * batch, size) of the batches of all runs, one after the other."""
        return self.whole(inputs, attention_mask)

    def on(self, accelerator: Accelerator, models: Sequence[nn.Module]) -> Callable[..., list[torch.Tensor]]:
        """How `fpt.training.take_steps` calls it."""
        model = accelerator.prepare_model(self)
        known = {id(one): number for number, one in enumerate(models)}
        checked = False
        kinds = {torch.bfloat16} if accelerator.mixed_precision == "bf16" else {p.dtype for p in self.parameters()}
        lowest = min(kinds, key=lambda dtype: torch.finfo(dtype).bits)

        def forward(loops: Sequence[Any], batches: Sequence[Batch]) -> list[torch.Tensor]:
            nonlocal checked
            self.runs.active = [known[id(loop.raw_model)] for loop in loops]
            self.runs.rows = max(len(batch["inputs"]) for batch in batches)
            if not checked:
                _check_equal(model, [loop.model for loop in loops], batches, TOLERANCE[lowest])
                checked = True
            return _apart(model(*_join(batches)), batches)

        return forward


@dataclass
class _Runs:
    """Which runs a batch is of, and the samples of each."""

    active: list[int]
    rows: int = 1


class Each(nn.Module):
    """A tuned module of each run, on the part of the batch that is the run's.

    What has no batch (positions) goes through all of them, and is repeated for each sample.
    """

    def __init__(self, modules: Sequence[nn.Module], runs: _Runs) -> None:
        super().__init__()
        # No `nn.ModuleList`: they belong to the models of the runs, and a family looks for its blocks in such lists.
        self.own, self.runs = list(modules), runs

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """As the modules."""
        chosen = [self.own[number] for number in self.runs.active]
        if values.ndim < 2 or len(values) == 1:
            whole = [module(values) for module in chosen]
            whole = [states[None] if values.ndim < 2 else states for states in whole]
            return torch.cat(whole).repeat_interleave(self.runs.rows, dim=0)
        parts = values.chunk(len(chosen))
        return torch.cat([module(part) for module, part in zip(chosen, parts, strict=True)])


class EachNorm(Each):
    """A norm of each run: normalised at once, then scaled and shifted by run."""

    def __init__(self, modules: Sequence[nn.Module], runs: _Runs) -> None:
        super().__init__(modules, runs)
        self.plain = copy.deepcopy(modules[0]).requires_grad_(False)
        for name, parameter in self.plain.named_parameters():
            parameter.fill_(0.0 if name == "bias" else 1.0)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """As the norms."""
        chosen = [self.own[number] for number in self.runs.active]
        states = self.plain(values).unflatten(0, (len(chosen), -1))
        for_each = (len(chosen), *[1] * (states.ndim - 2), -1)
        for name, join in (("weight", torch.mul), ("bias", torch.add)):
            if getattr(chosen[0], name, None) is not None:
                states = join(states, torch.stack([norm.get_parameter(name) for norm in chosen]).view(for_each))
        return states.flatten(0, 1)


def _join(batches: Sequence[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and mask of all batches, padded to the longest sample; a batch with fewer samples repeats its last."""
    rows = max(len(batch["inputs"]) for batch in batches)
    tokens = max(batch["inputs"].shape[1] for batch in batches)
    joined = []
    for name in ("inputs", "attention_mask"):
        parts = []
        for batch in batches:
            values = batch[name]
            values = values[torch.arange(rows, device=values.device).clamp(max=len(values) - 1)]
            room = (0, 0) * (values.ndim - 2) + (0, tokens - values.shape[1])
            parts.append(nn.functional.pad(values, room))
        joined.append(torch.cat(parts))
    return joined[0], joined[1]


def _apart(logits: torch.Tensor, batches: Sequence[Batch]) -> list[torch.Tensor]:
    """The logits of each batch, without those of repeated samples."""
    return [part[: len(batch["inputs"])] for part, batch in zip(logits.chunk(len(batches)), batches, strict=True)]


@torch.no_grad()
def _check_equal(model: nn.Module, alone: Sequence[nn.Module], batches: Sequence[Batch], tolerance: float) -> None:
    """Hold the first batch of all runs against that of each alone.

    Raises:
        FPTError: they differ; the core does something with its norms or positions that is not known here.
    """
    for one in (model, *alone):
        one.eval()
    expected = [one(batch["inputs"], batch["attention_mask"]) for one, batch in zip(alone, batches, strict=True)]
    scale = max(float(logits.abs().max()) for logits in expected)
    mend = "train them one by one"
    try:
        found = _apart(model(*_join(batches)), batches)
        off = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / max(scale, 1e-6)
    except (RuntimeError, AttributeError, TypeError, ValueError, IndexError) as error:
        raise FPTError(f"runs with this core can't go side by side ({str(error).splitlines()[0]}); {mend}") from None
    if not off <= tolerance:
        raise FPTError(f"runs with this core can't go side by side: their logits are {off:.1%} off; {mend}")
    for one in (model, *alone):
        one.train()


def best_rate(scores: Sequence[tuple[float, float | None]], metric: str) -> float:
    """The learning rate of the best mean score on the validation split.

    Args:
        scores: learning rate and score of each run.
    """
    by_rate: dict[float, list[float | None]] = defaultdict(list)
    for rate, score in scores:
        by_rate[rate].append(score)
    best: tuple[float, float | None] | None = None
    for rate, values in by_rate.items():
        mean = None if None in values else statistics.fmean(v for v in values if v is not None)
        if best is None or is_better(metric, mean, best[1]):
            best = rate, mean
    assert best is not None
    return best[0]


def write_summary(output: Path, done: Sequence[dict[str, Any]], log: Callable[[str], None]) -> dict[str, Any]:
    """Write ``summary.json`` about runs that went side by side, and say what is in it.

    Args:
        done: results of each run; those that were not picked have no test scores.

    Returns:
        What the file holds: the runs, and for each learning rate mean and standard deviation over the seeds.
    """
    metric = done[0]["primary_metric"]
    runs = [
        {
            "folder": Path(one["arguments"]["output_dir"]).name,
            "seed": one["seed"],
            "learning_rate": one["arguments"]["learning_rate"],
            "best_step": one["best_step"],
            "steps": one["steps"],
            **one["metrics"],
        }
        for one in done
    ]
    rates = []
    for rate in dict.fromkeys(run["learning_rate"] for run in runs):
        own = [run for run in runs if run["learning_rate"] == rate]
        spread = {split: _mean_std([run[split][metric] for run in own]) for split in ("valid", "test") if split in own[0]}
        rates.append({"learning_rate": rate, "seeds": [run["seed"] for run in own], **spread})
    first = done[0]
    summary = {
        "task": first["task"],
        "core": first["core"],
        "split": first["split"],
        "primary_metric": metric,
        "learning_rates": rates,
        "runs": runs,
        "tokens_per_second": round(sum(one["tokens_per_second"] for one in done), 1),
        "mfu": first["mfu"],
    }
    write_json(output / SUMMARY_FILE, summary)
    core, split = first["core"]["name"], first["split"]["method"]
    log(f"\n{first['task']}: core {core}, {split} split, {len(done)} runs side by side; {metric}:")
    for run in runs:
        shown = "  ".join(f"{split} {_shown(run[split][metric])}" for split in ("valid", "test") if split in run)
        log(f"  {run['folder']}: step {run['best_step']} of {run['steps']}, {shown}")
    for rate in rates:
        shown = "  ".join(f"{s} {_shown(rate[s]['mean'])} ± {_shown(rate[s]['std'])}" for s in ("valid", "test") if s in rate)
        log(f"  learning rate {rate['learning_rate']:g}, {len(rate['seeds'])} seeds: {shown}")
    log(f"{summary['tokens_per_second']:,.0f} tokens/s; {output / SUMMARY_FILE}")
    return summary


def _mean_std(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and sample standard deviation; None where a value is not defined, or there is one only."""
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return {"mean": None, "std": None}
    return {"mean": statistics.fmean(known), "std": statistics.stdev(known) if len(known) > 1 else None}


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


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

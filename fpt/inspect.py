"""What a model is made of, before it is trained: `python -m fpt.inspect --backbone gpt2-xl --dataset cifar10`.

A table of the parameters by part, trainable and frozen, the memory that they take, and the FLOPs of a training step. No weights
are loaded: the backbone is built without memory from its configuration, and a step is taken on tensors without numbers.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch

from fpt.args import DataArguments, ModelArguments, TrainArguments, as_dict, changed
from fpt.backbones.base import DTYPES, Backbone, checkpoint_blocks
from fpt.backbones.meta import empty_backbone
from fpt.cli import parse_training
from fpt.data.batches import LengthGroupedBatchSampler
from fpt.data.cache import prepare
from fpt.data.prepared import Prepared
from fpt.errors import FPTError, cli
from fpt.flops import step_flops
from fpt.inputs import Input
from fpt.models.base import MODELS
from fpt.models.fpt import FPT, build_model
from fpt.models.frozen import Frozen, check_length, longest_sample, spec_of, tuning_of
from fpt.models.input_init import with_positions, with_sides
from fpt.models.tuning import Tuning
from fpt.outputs import Output
from fpt.tasks.base import TASKS
from fpt.text.table import plain_table

# A trainable number: itself, its gradient, and AdamW's two moments, all in fp32.
BYTES_TRAINABLE = 4 * 4
# Arguments of ``train.py`` that change neither sizes nor FLOPs.
NOT_READ = (
    *(name for name in as_dict(TrainArguments()) if name not in ("per_device_batch_size", "seed")),
    *("backbone_seed", "input_init", "input_scale", "orthogonal_gain", "lora_alpha", "core_dropout"),
)


@dataclass(frozen=True)
class Row:
    """One part of a model."""

    part: str
    trainable: int
    frozen: int
    frozen_bytes: int

    @property
    def memory(self) -> int:
        """Bytes of weights, gradients and optimizer state."""
        return self.trainable * BYTES_TRAINABLE + self.frozen_bytes


def empty_model(backbone: Backbone, inputs: Input, output: Output, tuning: Tuning) -> FPT:
    """An FPT around `backbone` without memory for its weights."""
    parts = backbone.family.parts(backbone.model)
    for name, parameter in backbone.model.named_parameters():
        if parts[name] not in ("ln", "pos", *tuning.parts):
            parameter.data = parameter.data.to(DTYPES[backbone.spec.dtype])
    with torch.device("meta"):
        return build_model(backbone, inputs, output, tuning)


def rows_of(model: FPT) -> list[Row]:
    """Parameters of each part, in the order that the data takes."""
    backbone = model.family.parts(model.core)
    trainable: dict[str, int] = defaultdict(int)
    frozen: dict[str, int] = defaultdict(int)
    size: dict[str, int] = defaultdict(int)
    for name, parameter in model.named_parameters():
        part = backbone.get(name.removeprefix("core."), "in" if name.startswith("input.") else "out")
        if name == "input.positions":
            part = "pos"
        elif "lora_" in name:
            part = "lora"
        if parameter.requires_grad:
            trainable[part] += parameter.numel()
        else:
            frozen[part] += parameter.numel()
            size[part] += parameter.nbytes
    order = ("in", "pos", "ln", "attn", "ff", "other", "lora", "out")
    return [Row(part, trainable[part], frozen[part], size[part]) for part in order if trainable[part] or frozen[part]]


def describe(model: FPT, inputs: Input, batch_size: int, tokens: int) -> str:
    """The table of `rows_of`, with totals and FLOPs."""
    rows = rows_of(model)
    total = Row("total", sum(r.trainable for r in rows), sum(r.frozen for r in rows), sum(r.frozen_bytes for r in rows))
    cells = [[r.part, f"{r.trainable:,}", f"{r.frozen:,}", f"{r.memory / 2**20:,.1f}"] for r in (*rows, total)]
    forward, backward = step_flops(model, inputs, batch_size, tokens)
    share = total.trainable / (total.trainable + total.frozen)
    return "\n".join(
        [
            plain_table(["part", "trainable", "frozen", "memory MiB"], cells, [8, 15, 15, 13]),
            f"trainable: {share:.3%} of the parameters; memory: weights, and for trainable ones gradients and AdamW's moments",
            f"a step on {batch_size} x {tokens} tokens: {forward / 1e9:,.1f} GFLOPs forward, {backward / 1e9:,.1f} backward",
        ]
    )


def tokens_of_a_batch(prepared: Prepared, batch_size: int) -> int:
    """Tokens of the longest sequence of a batch, on average over an epoch of the training split."""
    lengths = np.asarray(prepared.samples("train").lengths)
    return round(np.mean([lengths[b].max() for b in LengthGroupedBatchSampler(lengths, batch_size, 0)]))


@dataclass(frozen=True)
class EmptyRun:
    """What a command line of ``train.py`` would train, without memory for its weights; `tokens` is of a batch.

    `checkpointed` is true where blocks are to be computed again for the backward pass; the model itself is as it is without that.
    """

    prepared: Prepared
    core: Backbone
    tuning: Tuning
    inputs: Input
    model: FPT
    tokens: int
    checkpointed: bool = False


def empty_run(data: DataArguments, model_args: ModelArguments, args: TrainArguments) -> EmptyRun:
    """Prepare the data and build the model that the arguments name.

    Raises:
        FPTError: as `fpt.training.run`.
    """
    kind = MODELS[model_args.model]
    if not isinstance(kind, Frozen):
        raise FPTError(f"--model {kind.name} has no frozen backbone; give fpt, full or lstm")
    kind.check(model_args)
    model_args = changed(model_args, **kind.fixed)
    backbone = empty_backbone(spec_of(model_args, args.seed))
    prepared = prepare(TASKS[data.dataset], data, args.seed, print)
    tuning = tuning_of(model_args, prepared.output)
    check_length(prepared, backbone)
    inputs = with_sides(prepared.input, model_args.side_width, model_args.side_dropout)
    inputs = with_positions(inputs, backbone, model_args.input_positions, longest_sample(prepared))
    model = empty_model(backbone, inputs, prepared.output, tuning)
    tokens = tokens_of_a_batch(prepared, args.per_device_batch_size)
    return EmptyRun(prepared, backbone, tuning, inputs, model, tokens, model_args.activation_checkpointing)


def inspect(data: DataArguments, model_args: ModelArguments, args: TrainArguments) -> str:
    """What the command prints."""
    run = empty_run(data, model_args, args)
    layers, width = len(run.core.family.blocks(run.core.model)), run.core.hidden_size
    head = f"{run.core.spec.name}, {layers} layers of width {width}, on {run.prepared.task.name}; --tune {run.tuning.label}"
    if run.checkpointed:
        checkpoint_blocks(run.core)
    return f"{head}\n{describe(run.model, run.inputs, args.per_device_batch_size, run.tokens)}"


def main() -> None:
    """Read the arguments of ``train.py`` and print."""
    print(inspect(*parse_training(__doc__ or "", unread=NOT_READ, why="nothing is trained here")))


if __name__ == "__main__":
    cli(main)

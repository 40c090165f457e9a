"""The frozen transformer itself, and its two relatives of the paper that are trained as a whole.

``fpt``: arXiv 2103.05247, section 2.1. ``full``: the same network, every weight trained (section 3.3 has it for the full
transformer). ``lstm``: the paper's recurrent network, every weight trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelerate.utils import set_seed

from fpt.args import ModelArguments, TrainArguments, changed
from fpt.backbones.base import NONE, Backbone, BackboneSpec, checkpoint_blocks, is_drawn
from fpt.backbones.loading import load_backbone
from fpt.data.prepared import Prepared
from fpt.errors import FPTError
from fpt.models.base import MODELS, Made, TrainedModel
from fpt.models.fpt import build_model
from fpt.models.input_init import init_input, with_positions, with_sides
from fpt.models.tuning import Tuning, parse_parts, parse_widths
from fpt.outputs import Output
from fpt.tasks.base import SPLITS
from fpt.text.log import Log


class Frozen(TrainedModel):
    """A backbone, and what is trained around it.

    Args:
        fixed: arguments of the model that this name stands for.
    """

    source = "arXiv 2103.05247"

    def __init__(self, name: str, **fixed: Any) -> None:
        self.name, self.fixed = name, fixed

    def check(self, args: ModelArguments) -> Any:
        """All arguments are its own, but those that its name stands for."""
        for name, value in self.fixed.items():
            if getattr(args, name) not in (value, getattr(ModelArguments(), name)):
                raise FPTError(f"--model {self.name} stands for --{name} {value}; leave --{name} {getattr(args, name)} out")
        return self.own_options(args)

    def make_each(self, prepared: Prepared, model_args: ModelArguments, each: Sequence[TrainArguments], log: Log) -> list[Made]:
        """Load the backbone once, and build what is trained around it for each run, from the seed of each."""
        self.check(model_args)
        model_args = changed(model_args, **self.fixed)
        tuning = tuning_of(model_args, prepared.output)
        backbone = load_backbone(spec_of(model_args, each[0].seed), log, tuning.parts)
        check_length(prepared, backbone)
        prepared.input = with_sides(prepared.input, model_args.side_width, model_args.side_dropout)
        prepared.input = with_positions(prepared.input, backbone, model_args.input_positions, longest_sample(prepared))
        backbones = [backbone, *(backbone.twin(tuning.parts) for _ in each[1:])]
        made = [self._made(own, prepared, model_args, tuning, args) for own, args in zip(backbones, each, strict=True)]
        trainable, total = made[0].network.count()
        log(
            f"backbone: {backbone.spec.name}, {backbone.spec.num_layers or 'no'} layers of width {backbone.hidden_size}, weights"
            f" sha256 {backbone.spec.short_hash}…; input starts at {made[0].input_start}"
        )
        log(f"parameters: {trainable:,} trainable ({tuning.label}) of {total:,} ({trainable / total:.2%})")
        if len(made) > 1:
            log(f"side by side: {len(made)} runs on this backbone")
        return made

    def _made(
        self, backbone: Backbone, prepared: Prepared, model_args: ModelArguments, tuning: Tuning, args: TrainArguments
    ) -> Made:
        # Loading may draw numbers; what is new is the same however the backbone came.
        set_seed(args.seed)
        model = build_model(backbone, prepared.input, prepared.output, tuning, args.dropout)
        model.core_dropout = model_args.core_dropout
        if model_args.activation_checkpointing:
            checkpoint_blocks(backbone)
        how = model_args.input_init, model_args.input_scale, model_args.orthogonal_gain
        start = init_input(model, backbone, prepared.tokenizer, *how)
        return Made(model, backbone.spec, tuning, start)


def tuning_of(args: ModelArguments, output: Output) -> Tuning:
    """What the arguments say is trained.

    Args:
        output: what the answer is.

    Raises:
        FPTError: they can't be understood.
    """
    return Tuning(
        parse_parts(args.tune),
        args.lora_rank,
        args.lora_alpha,
        parse_widths(args.input_layers, "--input_layers"),
        parse_widths(args.readout_layers, "--readout_layers"),
        args.readout or default_readout(args.backbone, output),
    )


def default_readout(backbone: str, output: Output) -> str:
    """What is read where nothing was asked for: without a backbone the last token knows nothing of the others."""
    if output.default_readout is not None:
        return output.default_readout
    return "mean" if (backbone == "none" or backbone.startswith(NONE)) and output.tokens == 1 else "last"


def spec_of(args: ModelArguments, seed: int) -> BackboneSpec:
    """The backbone that the arguments name; a random one is drawn from `seed` unless they have another."""
    seed = args.backbone_seed if args.backbone_seed is not None else seed
    drawn = seed if is_drawn(args.backbone) else None
    return BackboneSpec(args.backbone, args.backbone_revision, drawn, args.num_layers, args.core_dtype)


def longest_sample(prepared: Prepared) -> int:
    """Tokens of the longest sample of all splits."""
    return max(int(prepared.samples(split).lengths.max()) for split in SPLITS)


def check_length(prepared: Prepared, backbone: Backbone) -> None:
    """Refuse samples with more tokens than the backbone has positions.

    Raises:
        FPTError: the longest sample does not fit.
    """
    limit, longest = backbone.family.max_tokens(backbone.model.config), longest_sample(prepared)
    if limit is not None and longest > limit:
        room = limit - (prepared.input.vector is not None)
        fix = f"cut them with --max_length {room}" if prepared.tokenizer else "make larger tokens"
        raise FPTError(
            f"samples of {prepared.task.name} have up to {longest:,} tokens, backbone {backbone.spec.name!r} takes at most"
            f" {limit:,}; {fix}, or use a backbone without such a limit"
        )


MODELS.register("fpt")(Frozen("fpt"))
MODELS.register("full")(Frozen("full", tune="full"))
MODELS.register("lstm")(Frozen("lstm", tune="full", backbone="lstm"))

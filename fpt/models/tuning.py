"""What is trained: parts of the backbone and the layers around it, by name.

Parts: ``ln`` (norms), ``pos`` (learned positions), ``attn`` (attention), ``ff`` (feed-forward layers), ``in`` (input layer),
``out`` (readout), ``lora`` (low-rank adapters of the backbone's linear layers, arXiv 2106.09685, through PEFT). The paper's FPT
is ``ln,pos,in,out`` (arXiv 2103.05247, section 2.1; what each part brings is in 3.12).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fpt.errors import FPTError, did_you_mean
from fpt.models.pooling import READOUTS

PARTS = ("ln", "pos", "attn", "ff", "in", "out", "lora")
# Of the input layer or the readout.
MOST_HIDDEN_LAYERS = 100
EVERYTHING = ("ln", "pos", "attn", "ff", "other", "in", "out")
PRESETS = {
    "fpt": ("ln", "pos", "in", "out"),
    "ln+attn": ("ln", "pos", "attn", "in", "out"),
    "lora": ("lora", "in", "out"),
    "readout": ("out",),
    "none": ("out",),
    "full": EVERYTHING,
    "all": EVERYTHING,
}


@dataclass(frozen=True)
class Tuning:
    """What is trained, and the shape of what is added to the backbone.

    Attributes:
        parts: of the backbone and around it; ``other`` is what is in no named part and only trained with everything else.
        lora_rank, lora_alpha: of the adapters, when ``lora`` is among the parts.
        input_layers, readout_layers: widths of hidden layers between the input and the backbone, and between it and the answer.
        readout: what is read of the states; see `fpt.models.pooling`.
    """

    parts: tuple[str, ...] = PRESETS["fpt"]
    lora_rank: int = 8
    lora_alpha: float = 16.0
    input_layers: tuple[int, ...] = ()
    readout_layers: tuple[int, ...] = ()
    readout: str = "last"

    def __post_init__(self) -> None:
        for name in ("parts", "input_layers", "readout_layers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        widths = (self.lora_rank, *self.input_layers, *self.readout_layers)
        if min(widths) < 1 or len(widths) > MOST_HIDDEN_LAYERS or not math.isfinite(self.lora_alpha):
            raise ValueError(f"a width or rank below 1, more than {MOST_HIDDEN_LAYERS} hidden layers, or a lora_alpha not finite")

        if self.readout not in READOUTS:
            raise ValueError(f"readout {self.readout!r:.50} is not one of {', '.join(READOUTS)}")

    def to_dict(self) -> dict[str, Any]:
        """JSON values for `Tuning(**values)`."""
        return asdict(self)

    @property
    def label(self) -> str:
        """The preset's name, or the parts."""
        return next((name for name, parts in PRESETS.items() if set(parts) == set(self.parts)), ",".join(self.parts))


def parse_parts(text: str) -> tuple[str, ...]:
    """The parts that ``--tune`` names: a preset, or parts separated by commas.

    Raises:
        FPTError: there is no such part.
    """
    if text in PRESETS:
        return PRESETS[text]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PARTS:
            known = (*PARTS, *PRESETS)
            raise FPTError(
                f"unknown --tune {name!r}{did_you_mean(name, known)}; known: parts {', '.join(PARTS)} (several with commas),"
                f" or one of {', '.join(PRESETS)}"
            )
    return tuple(part for part in PARTS if part in names)


def parse_widths(text: str | None, option: str) -> tuple[int, ...]:
    """Widths of hidden layers, separated by commas.

    Raises:
        FPTError: a width is no whole number above 0.
    """
    try:
        widths = tuple(int(word) for word in text.split(",")) if text else ()
    except ValueError:
        widths = (0,)
    if any(width < 1 for width in widths):
        raise FPTError(f"{option} {text!r} must be widths of layers, separated by commas: 512 or 512,256")
    return widths


def perceptron(dim_in: int, widths: tuple[int, ...], dim_out: int) -> nn.Module:
    """A linear layer, or one behind hidden layers of `widths` with ReLU, as the paper's code has it."""
    if not widths:
        return nn.Linear(dim_in, dim_out)
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(dim_in, width), nn.ReLU()]
        dim_in = width
    return nn.Sequential(*layers, nn.Linear(dim_in, dim_out))


def add_lora(model: PreTrainedModel, tuning: Tuning) -> None:
    """Put adapters into all linear layers of the backbone; they start as zero, so nothing changes yet."""
    from peft import LoraConfig, inject_adapter_in_model

    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    config = LoraConfig(
        r=tuning.lora_rank,
        lora_alpha=tuning.lora_alpha,  # type: ignore[arg-type]  # any number does
        target_modules=names,
        fan_in_fan_out=transposed,
        bias="none",
    )
    inject_adapter_in_model(config, model)


def merge_lora(model: PreTrainedModel) -> None:
    """Add trained adapters to the weights that they belong to, and take them out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in [(n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)]:
        layer.merge()
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, layer.get_base_layer())

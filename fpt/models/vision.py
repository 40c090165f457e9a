"""Two networks that are trained from scratch on pictures: ``vit`` (arXiv 2010.11929) of transformers, and ``cnn``, a ResNet-18
(arXiv 1512.03385) of torchvision with the stem for small pictures and group norms, which need no running statistics."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired

import torch
from torch import nn
from typing_extensions import TypedDict

from fpt.args import arg
from fpt.data.prepared import Prepared
from fpt.errors import FPTError
from fpt.flags.checks import WIDTH, Range, check_heads, check_ranges
from fpt.inputs import Input
from fpt.models.base import MODELS, Network, NetworkModel
from fpt.outputs import Output
from fpt.tasks.images import ImageTask, unpatch


class PictureShape(TypedDict):
    """Pixels and channels of a picture; pixels of the side of a patch, and of its overlap with the next one."""

    height: int
    width: int
    channels: int
    patch: int
    overlap: NotRequired[int]


class PictureNetwork(Network):
    """A network on pictures that come as patches.

    Args:
        network: gives logits of (batch, channels, height, width).
        shape: height, width, channels and patch: pixels of a side.
    """

    def __init__(self, network: nn.Module, shape: Mapping[str, Any]) -> None:
        super().__init__()
        self.network, self.picture = network, dict(shape)

    def forward(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (batch, size) of patches (batch, tokens, patch * patch * channels), all of them real."""
        whole = self.picture
        pictures = unpatch(inputs, whole["height"], whole["width"], whole["channels"], whole["patch"], whole.get("overlap", 0))
        out = self.network(pictures.permute(0, 3, 1, 2).contiguous())
        return (out if isinstance(out, torch.Tensor) else out.logits).float()


class PictureModel(NetworkModel):
    """What the two share."""

    shape_type = PictureShape

    def shape(self, prepared: Prepared) -> dict[str, Any]:
        """Of the pictures and their patches."""
        task = prepared.task
        if not isinstance(task, ImageTask):
            raise FPTError(f"--model {self.name} reads pictures; {task.name} has none")
        height, width, channels = task.shape(prepared.args)
        cut = {"patch": task.patch_size(prepared.args), "overlap": task.overlap(prepared.args)}
        return {"height": height, "width": width, "channels": channels, **cut}

    def network(self, inputs: Input, output: Output, options: Any, shape: Mapping[str, Any], dropout: float) -> Network:
        """The network for a task."""
        return PictureNetwork(self.build(output.size, options, shape, dropout), shape)

    @abstractmethod
    def build(self, size: int, options: Any, shape: Mapping[str, Any], dropout: float) -> nn.Module:
        """The network on whole pictures, with `size` logits."""


@dataclass
class VitOptions:
    """Shape of the network."""

    _argument_group_name = "vit"
    vit_width: int = arg(192, "Width of the states.")
    vit_layers: int = arg(9, "Blocks.")
    vit_heads: int = arg(3, "Attention heads.")

    def __post_init__(self) -> None:
        check_ranges(self, vit_width=WIDTH, vit_layers=Range(1, 1_000), vit_heads=Range(1, 1_000))
        check_heads(self.vit_width, self.vit_heads, "vit_width", "vit_heads")


class Vit(PictureModel):
    """ViT on the task's patches."""

    name = "vit"
    source = "arXiv 2010.11929"
    options = VitOptions

    def build(self, size: int, options: VitOptions, shape: Mapping[str, Any], dropout: float) -> nn.Module:
        """As `PictureModel.build`."""
        # Imported late, here and below: not every run needs it.
        from transformers import ViTConfig, ViTForImageClassification

        made: Any = ViTConfig
        config = made(
            hidden_size=options.vit_width,
            num_hidden_layers=options.vit_layers,
            num_attention_heads=options.vit_heads,
            intermediate_size=4 * options.vit_width,
            hidden_dropout_prob=dropout,
            image_size=(shape["height"], shape["width"]),
            patch_size=shape["patch"],
            num_channels=shape["channels"],
            num_labels=size,
        )
        return ViTForImageClassification(config)


class Cnn(PictureModel):
    """ResNet-18 for small pictures."""

    name = "cnn"
    packages = ("torchvision",)
    source = "arXiv 1512.03385"

    def build(self, size: int, options: None, shape: Mapping[str, Any], dropout: float) -> nn.Module:
        """As `PictureModel.build`."""
        from torchvision.models import resnet18

        network = resnet18(num_classes=size, norm_layer=functools.partial(nn.GroupNorm, 32))
        network.conv1 = nn.Conv2d(shape["channels"], 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
        network.fc = nn.Sequential(nn.Dropout(dropout), network.fc)
        return network


MODELS.register("vit")(Vit())
MODELS.register("cnn")(Cnn())

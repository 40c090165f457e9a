"""Backbones without memory for their weights: what shapes there will be is known before any memory is taken."""

from __future__ import annotations

from transformers import PreTrainedConfig

from fpt.backbones.base import RUN, Backbone, BackboneSpec, family_of, fuse_activations
from fpt.backbones.loading import core_config, shorten, weightless
from fpt.errors import FPTError


def backbone_of_config(config: PreTrainedConfig, spec: BackboneSpec) -> Backbone:
    """The backbone of an architecture on the meta device, with the first layers that `spec` asks for.

    Raises:
        FPTError: it has not so many.
    """
    family = family_of(config)
    model = weightless(family, config)
    family.take_table(model)
    fuse_activations(model)
    shorten(model, family, spec.num_layers)
    return Backbone(model, family, spec, None, None, 1.0)


def empty_backbone(spec: BackboneSpec) -> Backbone:
    """The backbone that `spec` names, on the meta device.

    Raises:
        FPTError: its configuration is not available, or it has fewer layers than `spec` asks for.
    """
    if spec.name.startswith(RUN):
        raise FPTError(f"--backbone {spec.name}: a run is inspected by the backbone that it started from")
    return backbone_of_config(core_config(spec), spec)

"""Backbones without memory for their weights: what shapes there will be is known before any memory is taken."""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig
from transformers.initialization import no_init_weights

from fpt.backbones.base import RUN, Core, CoreSpec, family_of, fuse_activations
from fpt.backbones.loading import core_config
from fpt.errors import FPTError


def core_of_config(config: PreTrainedConfig, spec: CoreSpec) -> Core:
    """The backbone of an architecture on the meta device, with the first layers that `spec` asks for.

    Raises:
        FPTError: it has not so many.
    """
    family = family_of(config)
    with torch.device("meta"), no_init_weights():
        model = family.build(config)
    family.take_table(model)
    fuse_activations(model)
    core = Core(model, family, spec, None, None, 1.0)
    if spec.num_layers is not None:
        shorten_core(core, spec.num_layers)
    return core


def shorten_core(core: Core, num_layers: int) -> None:
    """Keep the first layers.

    Raises:
        FPTError: there are not so many.
    """
    count = len(core.family.blocks(core.model))
    if not 1 <= num_layers <= count:
        raise FPTError(f"--num_layers {num_layers} is not between 1 and the backbone's {count} layers")
    core.family.shorten(core.model, num_layers)


def empty_core(spec: CoreSpec) -> Core:
    """The backbone that `spec` names, on the meta device.

    Raises:
        FPTError: its configuration is not available, or it has fewer layers than `spec` asks for.
    """
    if spec.name.startswith(RUN):
        raise FPTError(f"--backbone {spec.name}: a run is inspected by the backbone that it started from")
    return core_of_config(core_config(spec), spec)

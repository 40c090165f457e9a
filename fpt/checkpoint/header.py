"""The header of a file of weights, held against the model that a configuration describes before memory is taken for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from fpt.errors import FPTError

# Some hundred bytes a tensor; one of the library's own limit would take gigabytes to read.
LARGEST_HEADER = 16 * 2**20
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its shape, and its type as safetensors names it."""

    shape: tuple[int, ...]
    dtype: str


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file, by name; their numbers are not read.

    Raises:
        FPTError: it is not a whole safetensors file.
    """
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
        if size > LARGEST_HEADER:
            raise ValueError(f"a header of {size:,} bytes")
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: Stored(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise FPTError(f"{path} is no whole safetensors file: {error}; copy the checkpoint again") from error


def check_header(shell: Mapping[str, nn.Parameter], header: Mapping[str, Stored], where: str) -> None:
    """Refuse a file whose tensors are not those of the model.

    Args:
        shell: parameters that the file must hold, by name; on the meta device.
        where: the file is, for the error.

    Raises:
        FPTError: a tensor is missing, or one too many, or has another shape or no floating-point type.
    """
    check_names(shell, header, where)
    for name, parameter in shell.items():
        stored = header[name]
        check_shape(name, stored.shape, tuple(parameter.shape), where)
        if stored.dtype not in FLOATS:
            raise FPTError(f"{where}: {name} has numbers of a wrong type ({stored.dtype}); train again, or copy it again")


def check_tensors(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse tensors that are not those of the model, or not finite.

    Raises:
        FPTError: names, shapes or types differ, or a number is not finite.
    """
    check_names(parameters, tensors, where)
    for name, parameter in parameters.items():
        tensor = tensors[name]
        check_shape(name, tuple(tensor.shape), tuple(parameter.shape), where)
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise FPTError(f"{where}: {name} has numbers that are not finite or of a wrong type; train again, or copy it again")


def check_names(parameters: Mapping[str, object], tensors: Mapping[str, object], where: str) -> None:
    """Refuse other names than those of the parameters.

    Raises:
        FPTError: a name is missing, or one too many.
    """
    if missing := sorted(set(parameters) - set(tensors)):
        raise FPTError(f"{where} lacks {len(missing)} tensors of this backbone, the first one {missing[0]}")
    if extra := sorted(set(tensors) - set(parameters)):
        raise FPTError(f"{where} has {len(extra)} tensors that this backbone has not, the first one {extra[0][:100]}")


def check_shape(name: str, found: tuple[int, ...], needed: tuple[int, ...], where: str) -> None:
    """Refuse another shape.

    Raises:
        FPTError: it is one.
    """
    if found != needed:
        raise FPTError(f"{where}: {name} has shape {found}, this backbone needs {needed}")

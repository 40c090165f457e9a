"""Read a checkpoint, and put it on its core."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from fpt.backbones import DTYPES, NO_CODE, Core, CoreSpec, build_empty, family_of, load_core
from fpt.baselines import MODELS, Network
from fpt.checkpoint.config import CONFIG, WEIGHTS, read_config
from fpt.checkpoint.remote import is_hub_name, pull
from fpt.errors import FPTError
from fpt.files import recover_folder
from fpt.inputs import Input, input_from_dict
from fpt.model import FPT, build_model
from fpt.outputs import Output, output_from_dict
from fpt.tuning import Tuning, merge_lora


def find_checkpoint(path: str, log: Callable[[str], None] = lambda line: None) -> Path:
    """The checkpoint folder at `path`: the folder itself, the ``checkpoint/`` of a run, or that of ``user/repo[@revision]``.

    Raises:
        FPTError: there is none.
    """
    folder = Path(path).expanduser()
    if not folder.exists() and is_hub_name(path):
        folder = pull(path, log)
    for candidate in (folder, folder / "checkpoint"):
        recover_folder(candidate) if candidate.parent.is_dir() else None
        if (candidate / CONFIG).is_file() and (candidate / WEIGHTS).is_file():
            return candidate
    if not folder.exists():
        raise FPTError(f"checkpoint {path} is not there; give the --output_dir of a finished run or its checkpoint/ folder")
    raise FPTError(f"{path} is no checkpoint: it has no {CONFIG} with {WEIGHTS} beside it")


def load_checkpoint(
    folder: Path, log: Callable[[str], None] = lambda line: None, backbone: str | None = None
) -> tuple[Network, PreTrainedTokenizerBase | None, dict]:
    """Load core and tuned tensors.

    Args:
        backbone: where the core is, when that is not where it was in training; it must be the same core.

    Returns:
        The model in evaluation mode, the tokenizer (None for a task on numbers) and the configuration.

    Raises:
        FPTError: files are damaged, the core has other weights or shapes, or it can't be had.
    """
    config = read_config(folder)
    tensors = _read_tensors(folder / WEIGHTS)
    _check_numbers(config, tensors, folder)
    with _understood(folder):
        if "network" in config:
            model = _baseline(config, tensors, folder)
        elif config["full"]:
            model = _full_model(config, tensors, folder)
        else:
            model, _ = _on_core(config, tensors, folder, log, backbone)
    return model.eval(), _tokenizer(folder) if config["tokenizer_sha256"] else None, config


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, **NO_CODE)
    except Exception as error:  # of many kinds, some of them the tokenizers' own
        raise FPTError(f"{folder}: its tokenizer can't be read ({_short(error)}); copy the checkpoint again") from None


def trained_core(where: str, log: Callable[[str], None]) -> Core:
    """The core of a checkpoint as its training left it, to be the core of another run.

    Raises:
        FPTError: as `load_checkpoint`.
    """
    folder = find_checkpoint(where)
    config = read_config(folder)
    if "network" in config:
        raise FPTError(f"{where} is a run of --model {config['model']}, which has no core")
    tensors = _read_tensors(folder / WEIGHTS)
    _check_numbers(config, tensors, folder)
    with _understood(folder):
        if config["full"]:
            model = _full_model(config, tensors, folder)
            spec = CoreSpec(config["core"]["name"])
            core = Core(model.core, model.family, spec, None, None, model.family.input_std(model.core, None))
        else:
            _, core = _on_core(config, tensors, folder, log)
    merge_lora(core.model)
    return core


def _on_core(
    config: dict[str, Any], tensors: dict[str, torch.Tensor], folder: Path, log: Callable[[str], None], where: str | None = None
) -> tuple[FPT, Core]:
    known = {f.name for f in fields(CoreSpec)}
    spec = CoreSpec(**{k: v for k, v in config["core"].items() if k in known})
    if where:
        spec.name, spec.revision = where, None
    inputs, output, tuning = _ends(config)
    core = load_core(spec, log, tuning.parts)
    model = build_model(core, inputs, output, tuning)
    load_tuned(model, tensors, str(folder / WEIGHTS))
    return model, core


def _baseline(config: dict[str, Any], tensors: dict[str, torch.Tensor], folder: Path) -> Network:
    inputs, output, _ = _ends(config)
    about = config["network"]
    kind: Any = MODELS[about["name"]]
    model = kind.network(inputs, output, about["options"], about["shape"])
    load_tuned(model, tensors, str(folder / WEIGHTS))
    return model


def _ends(config: dict[str, Any]) -> tuple[Input, Output, Tuning]:
    tuning = Tuning(**config.get("tuning", {}))
    return input_from_dict(config["input"]), output_from_dict(config["output"]), tuning


@contextlib.contextmanager
def _understood(folder: Path) -> Iterator[None]:
    """A configuration that makes no sense ends in an error of its reader or of the library that builds from it.

    Raises:
        FPTError: instead of these.
    """
    try:
        yield
    except FPTError:
        raise
    except Exception as error:
        raise FPTError(f"{folder / CONFIG} can't be understood ({_short(error)}); copy the checkpoint again") from None


def load_tuned(model: Network, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Copy tuned tensors into `model`.

    Raises:
        FPTError: names or shapes are not those of the parameters that a checkpoint of the model holds.
    """
    _copy(model.own_parameters(), tensors, where)


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, "pt"):
            return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FPTError(f"{path} is no whole safetensors file: {error}; copy the checkpoint again") from None


def _full_model(config: dict[str, Any], tensors: dict[str, torch.Tensor], folder: Path) -> FPT:
    known = {name.removeprefix("core."): tensor for name, tensor in tensors.items() if name.startswith("core.")}

    def check(core: nn.Module) -> None:
        _check_tensors(dict(core.named_parameters()), known, str(folder / WEIGHTS))

    core = build_empty(config["core_config"], check, len(tensors))
    model = FPT(core, family_of(core.config), *_ends(config), core_dtype=DTYPES[config["core"]["dtype"]])
    # Kept in the precision it was trained in, so that the scores are the same.
    for name, parameter in model.named_parameters():
        if name in tensors:
            parameter.data = parameter.data.to(tensors[name].dtype)
    _copy(dict(model.named_parameters()), tensors, str(folder / WEIGHTS))
    return model


def _check_numbers(config: dict[str, Any], tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Refuse a configuration that asks for more than its tensors can fill, before any memory is taken for it.

    Raises:
        FPTError: as said.
    """
    most = sum(tensor.numel() for tensor in tensors.values())

    def check(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                check(str(key), inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                check(name, inner)
        elif isinstance(value, int) and not isinstance(value, bool):
            limit = len(tensors) if name.endswith("layers") and name not in ("input_layers", "readout_layers") else most
            if abs(value) > limit:
                raise FPTError(
                    f"{folder / CONFIG}: {name} {value:,} asks for more than {WEIGHTS} holds; copy the checkpoint again"
                )

    for part in ("input", "tuning", "network"):
        check(part, config.get(part, {}))


def _check_tensors(parameters: dict[str, nn.Parameter], tensors: dict[str, torch.Tensor], where: str) -> None:
    if missing := sorted(set(parameters) - set(tensors)):
        raise FPTError(f"{where} lacks {len(missing)} tensors of this core, the first one {missing[0]}")
    if extra := sorted(set(tensors) - set(parameters)):
        raise FPTError(f"{where} has {len(extra)} tensors that this core has not, the first one {extra[0]}")
    for name, parameter in parameters.items():
        tensor = tensors[name]
        if parameter.shape != tensor.shape:
            raise FPTError(f"{where}: {name} has shape {tuple(tensor.shape)}, this core needs {tuple(parameter.shape)}")
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise FPTError(f"{where}: {name} has numbers that are not finite or of a wrong type; train again, or copy it again")


def _copy(parameters: dict[str, nn.Parameter], tensors: dict[str, torch.Tensor], where: str) -> None:
    _check_tensors(parameters, tensors, where)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _short(error: BaseException) -> str:
    """An error of someone else's in a few words."""
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__

"""Read a checkpoint, and put it on its backbone.

Nothing in it is trusted: its configuration is validated as a whole; then the model that it describes is built without memory for
its weights and held against the header of the file of weights; only then memory is taken, as much as the header says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from fpt.backbones.base import DTYPES, RUN, Backbone, BackboneSpec, family_of
from fpt.backbones.loading import SOURCES, Loaded, build_from_config, config_from_dict, load_backbone, shorten
from fpt.backbones.meta import backbone_of_config, empty_backbone
from fpt.backbones.weights import Weights
from fpt.blame import SLIPS, is_bug
from fpt.checkpoint.config import CONFIG, WEIGHTS, CheckpointConfig, read_config
from fpt.checkpoint.header import check_header, check_tensors, read_header
from fpt.checkpoint.remote import is_hub_name, pull
from fpt.data.open_tokenizer import open_tokenizer
from fpt.errors import FPTError
from fpt.files.disk import refusals
from fpt.files.whole import read_stably, user_path, whole_folder
from fpt.inputs import Tokens
from fpt.models.base import MODELS, Network, NetworkModel
from fpt.models.fpt import FPT, build_model
from fpt.models.tuning import merge_lora
from fpt.text.log import Log, silent

# Runs that started from the backbone of another run, one after the other.
LONGEST_CHAIN = 8
# What values that make no sense end in, in libraries and in our own checks.
REFUSALS = (ValueError, RuntimeError, ArithmeticError, OSError, SafetensorError, StrictDataclassError)


def find_checkpoint(path: str, log: Log = silent) -> Path:
    """The checkpoint folder at `path`: the folder itself, the ``checkpoint/`` of a run, or that of ``user/repo[@revision]``.

    Raises:
        FPTError: there is none.
    """
    folder = user_path(path)
    with refusals(f"checkpoint {path} can't be read"):
        there = folder.exists()
    if not there and is_hub_name(path):
        folder = pull(path, log)
    for candidate in (folder, folder / "checkpoint"):
        if (found := whole_folder(candidate, (CONFIG, WEIGHTS))) is not None:
            return found
    if not there:
        raise FPTError(f"checkpoint {path} is not there; give the --output_dir of a finished run or its checkpoint/ folder")
    raise FPTError(f"{path} is no checkpoint: it has no {CONFIG} with {WEIGHTS} beside it")


def load_checkpoint(
    folder: Path, log: Log = silent, backbone: str | None = None
) -> tuple[Network, PreTrainedTokenizerBase | None, CheckpointConfig]:
    """Load backbone and trainable tensors.

    Args:
        backbone: where the backbone is, when that is not where it was in training; it must be the same one.

    Returns:
        The model in evaluation mode, the tokenizer (None for a task on numbers) and the configuration.

    Raises:
        FPTError: files are damaged, the backbone has other weights or shapes, or is not available.
    """
    (model,), tokenizer, (config,) = load_checkpoints([folder], log, backbone)
    return model, tokenizer, config


def load_checkpoints(
    folders: Sequence[Path], log: Log = silent, backbone: str | None = None
) -> tuple[list[Network], PreTrainedTokenizerBase | None, list[CheckpointConfig]]:
    """As `load_checkpoint`, of several at once: models of one backbone share its frozen weights.

    Returns:
        The models, the tokenizer of the first one, and the configurations.
    """
    models: list[Network] = []
    reads: list[_Read] = []
    loaded: dict[str, Backbone] = {}
    for folder in folders:
        read = _read(folder, log, backbone)
        with understood(folder):
            key = _backbone_key(read.config)
            if key in loaded:
                spare = loaded[key].twin(read.config.tuning.parts)
                model: Network = _around(read, spare, str(folder / WEIGHTS))
            else:
                model, found = _build(read, folder, log)
                if key is not None and found is not None:
                    loaded[key] = found
        models.append(model.eval())
        reads.append(read)
    return models, reads[0].tokenizer, [read.config for read in reads]


def _backbone_key(config: CheckpointConfig) -> str | None:
    """What models with the same frozen weights have in common; None where a model has weights of its own."""
    if config.full or config.network is not None or "lora" in config.tuning.parts:
        return None
    core = config.core
    return f"{core.sha256} {core.num_layers} {core.dtype} {sorted(config.tuning.parts)}"


def trained_backbone(where: str, log: Log) -> Backbone:
    """The backbone of a checkpoint as its training left it, to be the backbone of another run.

    Raises:
        FPTError: as `load_checkpoint`.
    """
    folder = find_checkpoint(where, log)
    read = _read(folder, log)
    with understood(folder):
        model, backbone = _build(read, folder, log)
        if backbone is None:
            if not isinstance(model, FPT):
                raise FPTError(f"{where} is a run of --model {read.config.model}, which has no backbone")
            std = model.family.input_std(model.core, None)
            backbone = Backbone(model.core, model.family, BackboneSpec(read.config.core.name), None, None, std)
    merge_lora(backbone.model)
    return backbone


def load_trainable(model: Network, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Copy trained tensors into `model`.

    Raises:
        FPTError: names or shapes are not those of the parameters that a checkpoint of the model holds.
    """
    _copy(model.own_parameters(), tensors, where)


@contextlib.contextmanager
def understood(folder: Path) -> Iterator[None]:
    """Turn the error of a library that can't build what a configuration describes into one line about the file.

    Raises:
        FPTError: instead of these. Other errors are bugs of this package, and are raised as they are.
    """
    try:
        yield
    except FPTError:
        raise
    except MemoryError as error:
        raise FPTError(f"there is not enough memory for the model of {folder}") from error
    except (*REFUSALS, *SLIPS) as error:
        if is_bug(error):
            raise
        raise FPTError(f"{folder / CONFIG} can't be understood ({_short(error)}); copy the checkpoint again") from error


@dataclass(frozen=True)
class _Read:
    """All of a checkpoint that must be of one version: its run may replace it meanwhile."""

    config: CheckpointConfig
    tensors: dict[str, torch.Tensor]
    tokenizer: PreTrainedTokenizerBase | None


def _read(folder: Path, log: Log, backbone: str | None = None) -> _Read:
    def read(place: Path) -> _Read:
        config = read_config(place)
        if backbone is not None:
            config = replace(config, core=replace(config.core, name=backbone, revision=None))
        with understood(place):
            _check_shell(config, place, log)
        try:
            tensors = load_file(place / WEIGHTS)
        except (SafetensorError, OSError) as error:
            raise FPTError(f"{place / WEIGHTS} is no whole safetensors file: {error}; copy the checkpoint again") from error
        return _Read(config, tensors, _tokenizer(place, config) if config.tokenizer_sha256 else None)

    return read_stably(folder, read)


def _build(read: _Read, folder: Path, log: Log) -> tuple[Network, Backbone | None]:
    """The model of a checkpoint, and the backbone that it is on, where that is not in the checkpoint itself."""
    config, where = read.config, str(folder / WEIGHTS)
    if config.full:
        return _full_model(config, read.tensors, where), None
    if config.network is not None:
        model: Network = _baseline(config)
        load_trainable(model, read.tensors, where)
        return model, None
    backbone = load_backbone(config.core, log, config.tuning.parts)
    return _around(read, backbone, where), backbone


def _around(read: _Read, backbone: Backbone, where: str) -> FPT:
    """A model on its backbone."""
    config = read.config
    model = build_model(backbone, config.input, config.output, config.tuning)
    load_trainable(model, read.tensors, where)
    return model


def _check_shell(config: CheckpointConfig, folder: Path, log: Log) -> None:
    """Hold the model that the configuration describes against the header of its weights. No memory is taken for either.

    Raises:
        FPTError: they do not fit.
    """
    header = read_header(folder / WEIGHTS)
    if config.network is not None:
        _check_counts(config, len(header), folder)
        with torch.device("meta"):
            shell = _baseline(config).own_parameters()
    else:
        with torch.device("meta"):
            backbone = _empty_backbone(config, log)
            model = build_model(backbone, config.input, config.output, config.tuning)
        # A checkpoint of the whole model has the frozen parameters as well.
        shell = dict(model.named_parameters()) if config.full else model.own_parameters()
    named = "" if config.full or config.network else f" (backbone {config.core.name!r})"
    check_header(shell, header, f"{folder / WEIGHTS}{named}")


def _empty_backbone(config: CheckpointConfig, log: Log, chain: int = 0) -> Backbone:
    """The backbone of a checkpoint on the meta device; of a run on the backbone of another run, that of the first one."""
    if chain > LONGEST_CHAIN:
        raise FPTError(f"backbone {config.core.name!r}: more than {LONGEST_CHAIN} runs start from one another's backbone")
    if config.full:
        return backbone_of_config(config_from_dict(config.core_config or {}), BackboneSpec(config.core.name))
    if not config.core.name.startswith(RUN):
        return empty_backbone(config.core)
    before = find_checkpoint(config.core.name.removeprefix(RUN), log)
    backbone = _empty_backbone(read_stably(before, read_config), log, chain + 1)
    shorten(backbone.model, backbone.family, config.core.num_layers)
    return backbone


def _check_counts(config: CheckpointConfig, tensors: int, folder: Path) -> None:
    """Refuse a baseline of more layers than the file has tensors: each takes time, also without memory for its weights."""

    def check(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                check(str(key), inner)
        elif isinstance(value, int) and name.endswith("layers") and value > tensors:
            raise FPTError(f"{folder / CONFIG}: {name} {value:,} asks for more than {WEIGHTS} holds; copy the checkpoint again")

    assert config.network is not None
    check("options", config.network.options)
    check("shape", config.network.shape)


def _baseline(config: CheckpointConfig) -> Network:
    about = config.network
    kind = MODELS[config.model]
    assert about is not None and isinstance(kind, NetworkModel)
    return kind.rebuilt(about, config.input, config.output)


def _full_model(config: CheckpointConfig, tensors: dict[str, torch.Tensor], where: str) -> FPT:
    backbone = build_from_config(config_from_dict(config.core_config or {}))
    ends = config.input, config.output, config.tuning
    model = FPT(backbone, family_of(backbone.config), *ends, core_dtype=DTYPES[config.core.dtype])
    # Kept in the precision it was trained in, so that the scores are the same.
    for name, parameter in model.named_parameters():
        if name in tensors:
            parameter.data = parameter.data.to(tensors[name].dtype)
    _copy(dict(model.named_parameters()), tensors, where)
    return model


def _copy(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, torch.Tensor], where: str) -> None:
    check_tensors(parameters, tensors, where)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _tokenizer(folder: Path, config: CheckpointConfig) -> PreTrainedTokenizerBase:
    """The tokenizer beside a checkpoint, whose ids must have rows in its embedding."""
    assert isinstance(config.input, Tokens)
    try:
        return open_tokenizer(folder, config.input.vocab_size)
    except FPTError as error:
        raise FPTError(f"{error}; copy the checkpoint again") from error


def _short(error: BaseException) -> str:
    """An error of someone else's in a few words."""
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


def _backbone_of_run(spec: BackboneSpec, log: Log, weights: Weights) -> Loaded:
    """A backbone as an earlier run left it, with the input table of the backbone that it started from."""
    backbone = trained_backbone(spec.name.removeprefix(RUN), log)
    return backbone.model, backbone.tokenizer, backbone.spec.revision, backbone.token_embedding


SOURCES[RUN] = _backbone_of_run

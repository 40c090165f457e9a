"""From the name of a backbone to its weights: a registered name, a folder, a GGUF file, the Hub, an earlier run, or a seed."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.utils import logging as hub_logging
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights

from fpt.backbones.base import (
    DTYPES,
    MOST_LAYERS,
    NONE,
    RANDOM,
    RUN,
    SMALL_PARTS,
    Backbone,
    BackboneSpec,
    Family,
    backbone_names,
    backbones_here,
    family_of,
    fuse_activations,
    is_drawn,
)
from fpt.backbones.none import NoneConfig
from fpt.backbones.weights import Weights, _seeded, draw
from fpt.blame import is_bug
from fpt.data.open_tokenizer import find_tokenizer
from fpt.errors import FPTError, did_you_mean
from fpt.files.whole import cache_home, new_folder, sha256_file, user_path
from fpt.text.log import Log, silent
from fpt.untrusted import pretrained

# Bytes of a backbone's own input table; more than large backbones have.
LARGEST_TABLE = 8 * 2**30


def load_backbone(spec: BackboneSpec, log: Log = silent, keep_fp32: Collection[str] = SMALL_PARTS) -> Backbone:
    """Load or draw the backbone that `spec` names and check it against ``spec.sha256`` when that is given.

    Args:
        keep_fp32: parts that are kept in fp32 whatever ``spec.dtype`` says: those that will be trained.

    Raises:
        FPTError: unknown name, no network, or other weights than the hash says.
    """
    if spec.dtype not in DTYPES:
        raise FPTError(f"unknown --core_dtype {spec.dtype!r}; known: {', '.join(DTYPES)}")
    weights = Weights(DTYPES[spec.dtype], {*keep_fp32, *SMALL_PARTS})
    if spec.name.startswith(RUN) and RUN not in SOURCES:
        # Such a backbone is read as a checkpoint, with the help of this file; that module registers how.
        importlib.import_module("fpt.checkpoint.load")
    prefix = next((p for p in SOURCES if spec.name.startswith(p)), None)
    load = SOURCES[prefix] if prefix else _random if is_drawn(spec.name) else _pretrained
    model, tokenizer, revision, table = load(spec, log, weights)
    family = family_of(model.config)
    if table is None:
        table = family.take_table(model)
    model.config.tie_word_embeddings = False  # there is no table any more; PEFT would look for it
    fuse_activations(model)
    keep = shorten(model, family, spec.num_layers)
    weights.settle(model, family.parts(model))
    std = family.input_std(model, table)
    seed = (spec.seed or 0) if is_drawn(spec.name) else None
    loaded = BackboneSpec(spec.name, revision, seed, keep, spec.dtype, weights.sha256(model), _hub_id(spec.name))
    if spec.sha256 and loaded.sha256 != spec.sha256:
        raise FPTError(
            f"backbone {spec.name!r} has other weights (sha256 {loaded.short_hash}…) than the checkpoint was"
            f" trained on ({spec.sha256[:12]}…, revision {spec.revision}); load that revision of the backbone"
        )
    return Backbone(model, family, loaded, table, tokenizer, std)


def config_from_dict(values: dict[str, Any]) -> PreTrainedConfig:
    """The architecture that ``PreTrainedConfig.to_dict`` described.

    Raises:
        FPTError: it has more blocks than any backbone, or transformers does not know its type.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise FPTError(f"backbone of model_type {str(kind)[:50]!r}: transformers does not know it")
    config = pretrained.config_from_dict(values)
    check_layers(config, kind)
    return config


def check_layers(config: PreTrainedConfig, name: str) -> None:
    """Refuse more blocks than any backbone has: each takes time, also without memory for its weights.

    Raises:
        FPTError: there are too many of them, or none.
    """
    layers = getattr(config, "num_hidden_layers", 1)
    if not isinstance(layers, int) or not 1 <= layers <= MOST_LAYERS:
        raise FPTError(f"backbone {name!r} has {layers!r} layers; between 1 and {MOST_LAYERS:,} are possible")


def weightless(family: Family, config: PreTrainedConfig) -> PreTrainedModel:
    """A model of `config` on the meta device: its shapes without memory for its weights."""
    with torch.device("meta"), no_init_weights():
        return family.build(config)


def build_from_config(config: PreTrainedConfig) -> PreTrainedModel:
    """A backbone of an architecture, its weights to be loaded by the caller; without its input table, which is not used.

    Raises:
        ValueError: that table would be too large to be built for a moment.
    """
    family = family_of(config)
    table = family.take_table(weightless(family, config))
    if table is not None and table.nbytes > LARGEST_TABLE:
        raise ValueError(f"an input table of {table.nbytes / 2**30:,.0f} GiB")
    model = family.build(config)
    family.take_table(model)
    fuse_activations(model)
    model.config.tie_word_embeddings = False
    return model


def core_config(spec: BackboneSpec) -> PreTrainedConfig:
    """The architecture of the backbone that `spec` names, without its weights.

    Raises:
        FPTError: it is not available, or has more blocks than any backbone.
    """
    if spec.name.startswith(NONE):
        return NoneConfig(hidden_size=core_config(replace(spec, name=spec.name.removeprefix(NONE))).hidden_size)
    name = spec.name.removeprefix(RANDOM)
    names = backbone_names()
    if name in names:
        with contextlib.suppress(FPTError):
            return names[name].random_config(name)
        name = names[name].hub_ids[name]
    path = Path(name).expanduser()
    try:
        where = converted_gguf(path) if path.suffix == ".gguf" and path.is_file() else name
        config = pretrained.read_config(pretrained.fetch(where, spec.revision, weights=False))
    except FPTError:
        raise
    except Exception as error:  # of any kind: network, files, formats, configurations
        if is_bug(error):
            raise
        raise FPTError(_why_not(spec.name, names, error)) from error
    check_layers(config, spec.name)
    return config


def load_pretrained(
    where: str, revision: str | None = None, family: Family | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, str | None]:
    """Load a model and its tokenizer from a folder or the Hub with transformers; pickled weights are refused.

    Raises:
        OSError, ValueError: it is not there, the Hub can't be reached, or it can't be read.
        FPTError: its tokenizer does not fit or would do harm.
    """
    found = pretrained.fetch(where, revision)
    config = pretrained.read_config(found)
    family = family or family_of(config)
    model = pretrained.open_model(found, family.model_class, config, **family.model_options)
    tokenizer = find_tokenizer(found.folder, getattr(config, "vocab_size", None), of_backbone=True)
    # For a folder without a tokenizer transformers makes one that knows no word.
    if tokenizer is not None and tokenizer.vocab_size < 2:
        tokenizer = None
    return model, tokenizer, found.revision or revision


def load_named(
    name: str, family: Family, revision: str | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, str | None]:
    """Load the registered backbone `name` of a family; otherwise as `load_pretrained`."""
    where, known = family.locate(name, revision)
    if where.endswith(".gguf"):
        return *load_gguf(Path(where)), known
    return load_pretrained(where, known, family)


def converted_gguf(path: Path) -> Path:
    """Folder with a GGUF file's model, de-quantized to fp32.

    Reading GGUF takes transformers many seconds, so the result is kept as safetensors in the cache, under the file's hash.
    """
    key = f"{sha256_file(path)[:16]}-transformers-{transformers.__version__}"
    folder = cache_home() / "cores" / key
    if not folder.is_dir():
        with new_folder(folder) as new:
            _convert_gguf(path, new)
    return folder


def load_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """Load a GGUF file, de-quantized to fp32; see `converted_gguf`."""
    model, tokenizer, _ = load_pretrained(str(converted_gguf(path)))
    return model, tokenizer


def _convert_gguf(path: Path, folder: Path) -> None:
    pretrained.open_gguf(path).save_pretrained(folder)
    if (tokenizer := find_tokenizer(path)) is not None:
        tokenizer.save_pretrained(folder)


# What a source gives: model, tokenizer, revision, and the input table when it was taken out already.
Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase | None, str | None, torch.Tensor | None]


def _pretrained(spec: BackboneSpec, log: Log, weights: Weights) -> Loaded:
    names = backbone_names()
    path = user_path(spec.name)
    # Each retry would print two lines; the final outcome is one line of ours.
    hub_logging.set_verbosity_error()
    try:
        if spec.name in names:
            log(f"backbone: loading {spec.name}{'' if names[spec.name].is_here(spec.name) else ' from the Hub'}")
            return *load_named(spec.name, names[spec.name], spec.revision), None
        if path.suffix == ".gguf" and path.is_file():
            return *load_gguf(path), None, None
        log(f"backbone: loading {path if path.is_dir() else f'{spec.name} from the Hub'}")
        return *load_pretrained(str(path) if path.is_dir() else spec.name, spec.revision), None
    except FPTError:
        raise
    except Exception as error:  # as above
        if is_bug(error):
            raise
        raise FPTError(_why_not(spec.name, names, error)) from error


def _random(spec: BackboneSpec, log: Log, weights: Weights) -> Loaded:
    """A backbone of the named shape with weights as transformers initialises them, drawn from the spec's seed.

    Block by block, each settled before the next one is drawn: a backbone of any precision has the same numbers, and the memory
    is that of the precision it is kept in.
    """
    config = core_config(spec)
    family = family_of(config)
    model = weightless(family, config)
    model.train(False)
    parts = family.parts(model)
    with _seeded(spec.seed or 0):
        for block in family.blocks(model):
            draw(block, model)
            prefix = next(name for name, module in model.named_modules() if module is block)
            weights.settle(block, parts, prefix)
        draw(model, model)
    return model, None, None, None


def _hub_id(name: str) -> str | None:
    """The Hub id of a pretrained backbone, None for random backbones and files."""
    names = backbone_names()
    if name in names:
        return names[name].hub_ids.get(name) if names[name].pretrained else None
    return None if name.startswith((RANDOM, RUN, NONE)) or os.path.exists(os.path.expanduser(name)) else name


def _why_not(name: str, names: dict[str, Family], error: Exception) -> str:
    here = f"backbones that are here: {', '.join(backbones_here())}"
    if os.path.exists(os.path.expanduser(name)):
        return f"backbone {name!r} can't be loaded: {str(error).splitlines()[0]}; {here}"
    near = did_you_mean(name, [*names, *(RANDOM + n for n in names)])
    if name in names or "/" in name:
        near = ""
    text = str(error)
    if "connect" in text or "offline" in text.lower():
        what = "the Hub can't be reached and there is no copy in its cache"
    else:
        what = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return f"backbone {name!r}{near}: {what}; {here}"


def shorten(model: PreTrainedModel, family: Family, num_layers: int | None) -> int | None:
    """Keep the first `num_layers` blocks, all when it is None; returns how many are kept, None where there are none.

    Raises:
        FPTError: there are not so many.
    """
    count = len(family.blocks(model))
    if num_layers is None:
        return count or None
    if not count:
        raise FPTError(f"--num_layers {num_layers}: there is no backbone that could have them")
    if not 1 <= num_layers <= count:
        raise FPTError(f"--num_layers {num_layers} is not between 1 and the backbone's {count} layers")
    family.shorten(model, num_layers)
    return num_layers


SOURCES: dict[str, Callable[[BackboneSpec, Callable[[str], None], Weights], Loaded]] = {RANDOM: _random, NONE: _random}

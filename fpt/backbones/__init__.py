"""Cores: one file a family of architectures.

A new family is one new file here that registers an instance of `Family`; a core is named by ``--backbone``:

* a registered name (``gpt2``, ``smollm2``),
* ``random:NAME``: the same shape with random weights drawn from ``--backbone_seed``,
* a folder, a ``.gguf`` file or a Hub id of any decoder that transformers knows.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from huggingface_hub.utils import logging as hub_logging
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from fpt.errors import FPTError, did_you_mean
from fpt.files import cache_home, new_folder, sha256_file
from fpt.registry import Registry

RANDOM = "random:"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class CoreSpec:
    """All that is needed to get the same frozen core again.

    Attributes:
        name: what ``--backbone`` was given.
        hub_id: the Hub's page of the core, where there is one.
        revision: commit of the Hub repository or release of the package that the weights are from.
        seed: of a random core, None for a pretrained one.
        num_layers: the first layers that are used.
        dtype: precision that the frozen weights are kept in.
        sha256: hash of the frozen weights in fp32 (see `frozen_sha256`).
    """

    name: str
    revision: str | None = None
    seed: int | None = None
    num_layers: int | None = None
    dtype: str = "fp32"
    sha256: str | None = None
    hub_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON values."""
        return asdict(self)


@dataclass
class Core:
    """A core in memory.

    Attributes:
        model: takes ``inputs_embeds`` (batch, tokens, hidden) and ``attention_mask``, gives ``last_hidden_state``.
        family: knows which parameters are norms and positions.
        token_embedding: (vocabulary, hidden) the core's own input table, taken out of the model.
        tokenizer: of that table, or None when there is none (random cores, a folder without one).
    """

    model: PreTrainedModel
    family: Family
    spec: CoreSpec
    token_embedding: torch.Tensor
    tokenizer: PreTrainedTokenizerBase | None

    @property
    def hidden_size(self) -> int:
        """Width of the core's states."""
        return self.token_embedding.shape[1]


class Family:
    """How one family of architectures is built, loaded and taken apart.

    The defaults find everything by module type and fit most decoders of transformers; a family overrides what differs.

    Attributes:
        model_types: the ``model_type`` of the configurations that it serves.
        hub_ids: short name -> Hub id of the cores that go by a name.
    """

    model_types: tuple[str, ...] = ()
    hub_ids: Mapping[str, str] = MappingProxyType({})
    position_names: tuple[str, ...] = ("wpe", "embed_positions", "position_embeddings")

    def names(self) -> list[str]:
        """Short names that ``--backbone`` takes for this family."""
        return list(self.hub_ids)

    def is_here(self, name: str) -> bool:
        """Whether `name` can be loaded without the network."""
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(self.hub_ids[name], "config.json"), str)

    def random_config(self, name: str) -> PreTrainedConfig:
        """Configuration of the registered core `name`, without the network."""
        raise FPTError(f"{RANDOM}{name}: there is no built-in configuration of {name!r}; give a folder or Hub id instead")

    def load(self, name: str, revision: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, str | None]:
        """Return model, tokenizer and revision of the registered core `name`."""
        return load_pretrained(self.hub_ids[name], revision)

    def norms(self, model: nn.Module) -> list[str]:
        """Names of the parameters of all normalisation layers."""
        return [
            f"{prefix}.{name}"
            for prefix, module in model.named_modules()
            if type(module).__name__.endswith(("Norm", "LayerNorm")) or isinstance(module, nn.LayerNorm)
            for name, _ in module.named_parameters(recurse=False)
        ]

    def positions(self, model: nn.Module) -> list[str]:
        """Names of the learned position embeddings; empty for rotary or relative positions."""
        return [n for n, _ in model.named_parameters() if any(part in self.position_names for part in n.split("."))]

    def layers(self, model: nn.Module) -> tuple[nn.Module, str]:
        """The module that holds the list of blocks, and the attribute's name."""
        lists = [(len(m), n) for n, m in model.named_modules() if isinstance(m, nn.ModuleList)]
        if not lists:
            raise FPTError(f"{type(model).__name__} has no list of blocks; --num_layers can't shorten it")
        parent, _, attribute = max(lists)[1].rpartition(".")
        return model.get_submodule(parent), attribute


FAMILIES: Registry[Family] = Registry("backbone family", "fpt.backbones")


def backbone_names() -> dict[str, Family]:
    """Every registered core name, with its family."""
    return {name: FAMILIES[key] for key in FAMILIES for name in FAMILIES[key].names()}


def cores_here() -> list[str]:
    """Names of the cores that need no network on this machine."""
    names = backbone_names()
    return [n for n in names if names[n].is_here(n)] + [f"{RANDOM}{n}" for n in names]


def family_of(config: PreTrainedConfig) -> Family:
    """The family that serves `config`, or the defaults of `Family`."""
    for key in FAMILIES:
        if config.model_type in FAMILIES[key].model_types:
            return FAMILIES[key]
    return Family()


def load_core(spec: CoreSpec, log: Callable[[str], None] = lambda line: None) -> Core:
    """Load or draw the core that `spec` names and check it against ``spec.sha256`` when that is given.

    Raises:
        FPTError: unknown name, no network, or other weights than the hash says.
    """
    if spec.dtype not in DTYPES:
        raise FPTError(f"unknown --core_dtype {spec.dtype!r}; known: {', '.join(DTYPES)}")
    if spec.name.startswith(RANDOM):
        model, tokenizer, revision, seed = _random(spec)
    else:
        model, tokenizer, revision = _pretrained(spec, log)
        seed = None
    family = family_of(model.config)
    keep = _shorten(model, family, spec.num_layers)
    embedding = model.get_input_embeddings().weight.detach().clone()
    # The table is not part of the core: inputs come through the tuned embedding, and a vocabulary is large.
    model.set_input_embeddings(None)
    core = Core(
        model, family, CoreSpec(spec.name, revision, seed, keep, spec.dtype, hub_id=_hub_id(spec.name)), embedding, tokenizer
    )
    core.spec.sha256 = frozen_sha256(core)
    if spec.sha256 and core.spec.sha256 != spec.sha256:
        raise FPTError(
            f"backbone {spec.name!r} has other frozen weights (sha256 {core.spec.sha256[:12]}…) than the checkpoint was"
            f" trained on ({spec.sha256[:12]}…, revision {spec.revision}); load that revision of the core"
        )
    return core


def frozen_sha256(core: Core) -> str:
    """Hash of names, shapes and fp32 bytes of the weights that stay frozen: all but norms and positions."""
    tuned = {*core.family.norms(core.model), *core.family.positions(core.model)}
    digest = hashlib.sha256()
    for name, tensor in sorted(core.model.named_parameters()):
        if name not in tuned:
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()


def build_empty(config: dict[str, Any]) -> PreTrainedModel:
    """A core of the architecture in `config` (``PreTrainedConfig.to_dict``), its weights to be loaded by the caller."""
    config = dict(config)
    model = AutoModel.from_config(AutoConfig.for_model(config.pop("model_type"), **config), dtype=torch.float32)
    model.set_input_embeddings(None)
    return model


def load_pretrained(
    where: str, revision: str | None = None, **kwargs: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, str | None]:
    """Load a model and its tokenizer from a folder or the Hub with transformers; pickled weights are refused.

    Raises:
        OSError: it is not there, or the Hub can't be reached.
    """
    safe = {} if "gguf_file" in kwargs else {"use_safetensors": True}
    model = AutoModel.from_pretrained(where, revision=revision, dtype=torch.float32, **safe, **kwargs)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, revision=revision, **kwargs)
    except (OSError, ValueError):
        tokenizer = None
    # For a folder without a tokenizer transformers makes one that knows no word.
    if tokenizer is not None and tokenizer.vocab_size < 2:
        tokenizer = None
    return model, tokenizer, getattr(model.config, "_commit_hash", None) or revision


def load_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """Load a GGUF file, de-quantized to fp32.

    Reading GGUF takes transformers many seconds, so the result is kept as safetensors in the cache, under the file's hash.
    """
    key = f"{sha256_file(path)[:16]}-transformers-{transformers.__version__}"
    folder = cache_home() / "cores" / key
    if not folder.is_dir():
        with new_folder(folder) as new:
            _convert_gguf(path, new)
    model, tokenizer, _ = load_pretrained(str(folder))
    return model, tokenizer


def _convert_gguf(path: Path, folder: Path) -> None:
    model, tokenizer, _ = load_pretrained(str(path.parent), gguf_file=path.name)
    config = model.config.to_dict()
    # Weights are plain fp32 from here on; with the note on quantization transformers refuses to write them.
    config.pop("quantization_config", None)
    plain = AutoModel.from_config(AutoConfig.for_model(config.pop("model_type"), **config), dtype=torch.float32)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _pretrained(spec: CoreSpec, log: Callable[[str], None]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, str | None]:
    names = backbone_names()
    path = Path(spec.name).expanduser()
    # Each retry would be two lines on the terminal; what happened in the end is told in one.
    hub_logging.set_verbosity_error()
    try:
        if spec.name in names:
            log(f"backbone: loading {spec.name}{'' if names[spec.name].is_here(spec.name) else ' from the Hub'}")
            return names[spec.name].load(spec.name, spec.revision)
        if path.suffix == ".gguf" and path.is_file():
            return *load_gguf(path), None
        log(f"backbone: loading {path if path.is_dir() else f'{spec.name} from the Hub'}")
        return load_pretrained(str(path) if path.is_dir() else spec.name, spec.revision)
    except FPTError:
        raise
    except Exception as error:
        raise FPTError(_why_not(spec.name, names, error)) from None


def _hub_id(name: str) -> str | None:
    """The Hub id of a pretrained core, None for random cores and files."""
    names = backbone_names()
    if name in names:
        return names[name].hub_ids.get(name)
    return None if name.startswith(RANDOM) or os.path.exists(os.path.expanduser(name)) else name


def _why_not(name: str, names: dict[str, Family], error: Exception) -> str:
    here = f"cores that are here: {', '.join(cores_here())}"
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


def _random(spec: CoreSpec) -> tuple[PreTrainedModel, None, None, int]:
    """A core of the named shape with weights as transformers initialises them, drawn from the spec's seed."""
    name = spec.name.removeprefix(RANDOM)
    names = backbone_names()
    if name in names:
        config = names[name].random_config(name)
    else:
        try:
            config = AutoConfig.from_pretrained(os.path.expanduser(name), revision=spec.revision)
        except Exception as error:
            raise FPTError(_why_not(spec.name, names, error)) from None
    seed = spec.seed if spec.seed is not None else 0
    with _seeded(seed):
        return AutoModel.from_config(config, dtype=torch.float32), None, None, seed


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _shorten(model: PreTrainedModel, family: Family, num_layers: int | None) -> int:
    owner, attribute = family.layers(model)
    blocks = getattr(owner, attribute)
    if num_layers is None:
        return len(blocks)
    if not 1 <= num_layers <= len(blocks):
        raise FPTError(f"--num_layers {num_layers} is not between 1 and the core's {len(blocks)} layers")
    setattr(owner, attribute, blocks[:num_layers])
    model.config.num_hidden_layers = num_layers
    if hasattr(model.config, "layer_types") and model.config.layer_types:
        model.config.layer_types = model.config.layer_types[:num_layers]
    return num_layers

"""Cores: one file a family of architectures.

A new family is one new file here that registers an instance of `Family`; a core is named by ``--backbone``:

* a registered name (``gpt2``, ``smollm2``, ``bert``, ``vit``, ``lstm``, ...),
* ``random:NAME``: the same shape with random weights drawn from ``--backbone_seed``,
* ``run:DIR``: the core as an earlier run of ``train.py`` left it,
* a folder, a ``.gguf`` file or a Hub id of any model that transformers knows.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from huggingface_hub.utils import logging as hub_logging
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import NewGELUActivation
from transformers.initialization import no_init_weights

from fpt import pretrained
from fpt.data.open_tokenizer import find_tokenizer
from fpt.errors import FPTError, did_you_mean
from fpt.files import cache_home, new_folder, release_pages, sha256_file, user_path
from fpt.registry import Registry

RANDOM, RUN = "random:", "run:"
# Bytes of a core's own input table; more than large cores have.
LARGEST_TABLE = 8 * 2**30
# No backbone has more blocks.
MOST_LAYERS = 2_000
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Parts of a core: norms, positions, attention, feed-forward, and the rest.
CORE_PARTS = ("ln", "pos", "attn", "ff", "other")
# These few stay in fp32 whatever --core_dtype says: most runs tune them.
SMALL_PARTS = ("ln", "pos")


@dataclass
class CoreSpec:
    """All that is needed to get the same core again.

    Attributes:
        name: what ``--backbone`` was given.
        hub_id: the Hub's page of the core, where there is one.
        revision: commit of the Hub repository or release of the package that the weights are from.
        seed: of a random core, None for a pretrained one.
        num_layers: the first layers that are used.
        dtype: precision that the frozen weights are kept in.
        sha256: hash of all weights in fp32, before any tuning (see `Weights`).
    """

    name: str
    revision: str | None = None
    seed: int | None = None
    num_layers: int | None = None
    dtype: str = "fp32"
    sha256: str | None = None
    hub_id: str | None = None

    @property
    def short_hash(self) -> str:
        """The start of the hash, for people."""
        return (self.sha256 or "")[:12]

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON values."""
        return asdict(self)


@dataclass
class Core:
    """A core in memory.

    Attributes:
        model: the blocks, without an input table; see `Family.states`.
        family: knows its parts and how to run it.
        token_embedding: (vocabulary, hidden) the core's own input table, taken out of the model; None where it has none.
        tokenizer: of that table, or None when there is none (random cores, a folder without one).
        input_std: standard deviation of the states that the core expects as inputs.
    """

    model: PreTrainedModel
    family: Family
    spec: CoreSpec
    token_embedding: torch.Tensor | None
    tokenizer: PreTrainedTokenizerBase | None
    input_std: float

    @property
    def hidden_size(self) -> int:
        """Width of the core's states."""
        return self.model.config.hidden_size

    def twin(self, tuned: Collection[str]) -> Core:
        """The same core with copies of the parts that will be tuned; what stays frozen is shared."""
        parts = self.family.parts(self.model)
        shared = {id(parameter): parameter for name, parameter in self.model.named_parameters() if parts[name] not in tuned}
        return replace(self, model=copy.deepcopy(self.model, memo=dict(shared)))


class Family:
    """How one family of architectures is built, loaded, taken apart and run.

    The defaults find everything by module type and fit most models of transformers; a family overrides what differs.

    Attributes:
        model_types: the ``model_type`` of the configurations that it serves.
        hub_ids: short name -> Hub id of the cores that go by a name.
        model_class: the class of transformers that builds it.
        model_options: extra arguments of that class.
        position_names, attention_names, feed_forward_names: parts of parameter names that say what a parameter is.
        pretrained: whether its named cores have weights to load; those of others are drawn from the seed.
    """

    model_types: tuple[str, ...] = ()
    hub_ids: Mapping[str, str] = MappingProxyType({})
    model_class: Any = AutoModel
    model_options: Mapping[str, Any] = MappingProxyType({})
    position_names: tuple[str, ...] = ("wpe", "embed_positions", "position_embeddings", "relative_attention_bias")
    attention_names: tuple[str, ...] = ("attn", "self_attn", "attention", "self_attention", "SelfAttention", "linear_attn")
    feed_forward_names: tuple[str, ...] = ("mlp", "feed_forward", "intermediate", "output", "ffn", "DenseReluDense")
    pretrained: bool = True

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

    def build(self, config: PreTrainedConfig) -> PreTrainedModel:
        """A model of `config` in fp32, initialised as transformers does."""
        return pretrained.build(self.model_class, config, **self.model_options)

    def load(self, name: str, revision: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, str | None]:
        """Return model, tokenizer and revision of the registered core `name`."""
        return load_pretrained(self.hub_ids[name], revision, family=self)

    def parts(self, model: Any) -> dict[str, str]:
        """The part, one of `CORE_PARTS`, of each of the core's parameters by name."""
        norms = {prefix for prefix, module in model.named_modules() if is_norm(module)}

        def part(name: str) -> str:
            words = name.split(".")
            if name.rpartition(".")[0] in norms:
                return "ln"
            # A block's attention may hold a layer called "output": the first match counts.
            for kind, names in (("pos", self.position_names), ("attn", self.attention_names), ("ff", self.feed_forward_names)):
                if any(word in names for word in words):
                    return kind
            return "other"

        return {name: part(name) for name, _ in model.named_parameters()}

    def blocks(self, model: Any) -> nn.ModuleList:
        """The list of blocks: the longest one.

        Raises:
            FPTError: there is none.
        """
        owner, attribute = self._block_list(model)
        return getattr(owner, attribute)

    def shorten(self, model: PreTrainedModel, num_layers: int) -> None:
        """Keep the first `num_layers` blocks."""
        owner, attribute = self._block_list(model)
        setattr(owner, attribute, getattr(owner, attribute)[:num_layers])
        model.config.num_hidden_layers = num_layers
        for name in ("layer_types", "attention_window"):
            if isinstance(getattr(model.config, name, None), list):
                setattr(model.config, name, getattr(model.config, name)[:num_layers])

    def take_table(self, model: Any) -> torch.Tensor | None:
        """Take what is not used out of `model`: its input table, which is returned.

        Inputs come through the tuned embedding, and a vocabulary is large.
        """
        table = model.get_input_embeddings().weight.detach()
        model.set_input_embeddings(None)
        return table

    def input_std(self, model: Any, table: torch.Tensor | None) -> float:
        """Standard deviation of the states that the core expects as inputs."""
        return float(table.float().std()) if table is not None else 0.02

    def max_tokens(self, config: PreTrainedConfig) -> int | None:
        """The longest sequence that it takes; None where there is no such limit."""
        return None

    def states(self, model: Any, embeds: torch.Tensor, attention_mask: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """Run the core.

        Args:
            embeds: (batch, tokens, hidden) inputs, padded on the right.
            attention_mask: (batch, tokens), 1 for real tokens and 0 for padding.
            read: (batch, wanted) positions of the states that are wanted.

        Returns:
            (batch, wanted, hidden) states after the last norm.
        """
        whole = model(inputs_embeds=embeds, attention_mask=attention_mask, use_cache=False).last_hidden_state
        return take(whole, read)

    def _block_list(self, model: Any) -> tuple[nn.Module, str]:
        lists = [(len(m), n) for n, m in model.named_modules() if isinstance(m, nn.ModuleList)]
        if not lists:
            raise FPTError(f"{type(model).__name__} has no list of blocks; it can't be a core")
        parent, _, attribute = max(lists)[1].rpartition(".")
        return model.get_submodule(parent), attribute


def checkpoint_blocks(core: Core) -> None:
    """Let the blocks of `core` keep their inputs alone for the backward pass, and compute the rest again (arXiv 1604.06174).

    The last block is left as it is: the backward pass begins there.
    """
    for block in core.family.blocks(core.model)[:-1]:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def fuse_activations(model: nn.Module) -> None:
    """GPT-2's GELU as one operation: transformers has it as eight, each with a tensor that the backward pass keeps."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def is_norm(module: nn.Module) -> bool:
    """Whether it is a normalisation layer: most are classes of their model's own, called ...LayerNorm or ...RMSNorm."""
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("Norm")


def take(states: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    """States (batch, wanted, hidden) of (batch, tokens, hidden) at the positions `read` (batch, wanted)."""
    return states[torch.arange(len(states), device=states.device)[:, None], read]


FAMILIES: Registry[Family] = Registry("backbone family", "fpt.backbones")


def backbone_names() -> dict[str, Family]:
    """Every registered core name, with its family."""
    return {name: FAMILIES[key] for key in FAMILIES for name in FAMILIES[key].names()}


def cores_here() -> list[str]:
    """Names of the cores that need no network on this machine."""
    names = backbone_names()
    return [n for n in names if names[n].is_here(n)] + [f"{RANDOM}{n}" for n in names if names[n].pretrained]


def family_of(config: PreTrainedConfig) -> Family:
    """The family that serves `config`, or the defaults of `Family`."""
    for key in FAMILIES:
        if config.model_type in FAMILIES[key].model_types:
            return FAMILIES[key]
    return Family()


def is_drawn(name: str) -> bool:
    """Whether the weights of the core `name` are drawn from a seed."""
    names = backbone_names()
    return name.startswith(RANDOM) or (name in names and not names[name].pretrained)


def load_core(spec: CoreSpec, log: Callable[[str], None] = lambda line: None, keep_fp32: Collection[str] = SMALL_PARTS) -> Core:
    """Load or draw the core that `spec` names and check it against ``spec.sha256`` when that is given.

    Args:
        keep_fp32: parts that are kept in fp32 whatever ``spec.dtype`` says: those that will be tuned.

    Raises:
        FPTError: unknown name, no network, or other weights than the hash says.
    """
    if spec.dtype not in DTYPES:
        raise FPTError(f"unknown --core_dtype {spec.dtype!r}; known: {', '.join(DTYPES)}")
    weights = Weights(DTYPES[spec.dtype], {*keep_fp32, *SMALL_PARTS})
    prefix = next((p for p in SOURCES if spec.name.startswith(p)), None)
    load = SOURCES[prefix] if prefix else _random if is_drawn(spec.name) else _pretrained
    model, tokenizer, revision, table = load(spec, log, weights)
    family = family_of(model.config)
    if table is None:
        table = family.take_table(model)
    model.config.tie_word_embeddings = False  # there is no table any more; PEFT would look for it
    fuse_activations(model)
    keep = _shorten(model, family, spec.num_layers)
    weights.settle(model, family.parts(model))
    std = family.input_std(model, table)
    seed = (spec.seed or 0) if is_drawn(spec.name) else None
    loaded = CoreSpec(spec.name, revision, seed, keep, spec.dtype, weights.sha256(model), _hub_id(spec.name))
    if spec.sha256 and loaded.sha256 != spec.sha256:
        raise FPTError(
            f"backbone {spec.name!r} has other weights (sha256 {loaded.short_hash}…) than the checkpoint was"
            f" trained on ({spec.sha256[:12]}…, revision {spec.revision}); load that revision of the core"
        )
    return Core(model, family, loaded, table, tokenizer, std)


class Weights:
    """Hashes each weight of a core once, then brings it to the precision it is kept in.

    Both are done weight by weight, so that there are never two copies of a core.
    """

    def __init__(self, dtype: torch.dtype, keep_fp32: set[str]) -> None:
        self.dtype, self.keep_fp32 = dtype, keep_fp32
        self.digests: dict[str, bytes] = {}

    @torch.no_grad()
    def settle(self, module: nn.Module, parts: Mapping[str, str], prefix: str = "") -> None:
        """Hash and convert what has not been yet; `prefix` is what comes before the names of `module` in the core's."""
        for name, parameter in module.named_parameters(prefix=prefix):
            if name in self.digests:
                continue
            digest = hashlib.sha256(f"{tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().float().cpu().contiguous().numpy().data)
            self.digests[name] = digest.digest()
            parameter.requires_grad_(False)
            if parts[name] not in self.keep_fp32 and parameter.dtype != self.dtype:
                before = parameter.data
                parameter.data = before.to(self.dtype)
                release_pages(before)

    def sha256(self, model: Any) -> str:
        """Hash of names, shapes and fp32 bytes of all weights of `model`."""
        digest = hashlib.sha256()
        for name, _ in sorted(model.named_parameters()):
            digest.update(name.encode() + self.digests[name])
        return digest.hexdigest()


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


def build_from_config(config: PreTrainedConfig) -> PreTrainedModel:
    """A backbone of an architecture, its weights to be loaded by the caller; without its input table, which is not used.

    Raises:
        ValueError: that table would be too large to be built for a moment.
    """
    family = family_of(config)
    with torch.device("meta"), no_init_weights():
        table = family.take_table(family.build(config))
    if table is not None and table.nbytes > LARGEST_TABLE:
        raise ValueError(f"an input table of {table.nbytes / 2**30:,.0f} GiB")
    model = family.build(config)
    family.take_table(model)
    fuse_activations(model)
    model.config.tie_word_embeddings = False
    return model


def core_config(spec: CoreSpec) -> PreTrainedConfig:
    """The architecture of the backbone that `spec` names, without its weights.

    Raises:
        FPTError: it is not available, or has more blocks than any backbone.
    """
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
    except Exception as error:
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
    tokenizer = find_tokenizer(found.folder, getattr(config, "vocab_size", None), of_core=True)
    # For a folder without a tokenizer transformers makes one that knows no word.
    if tokenizer is not None and tokenizer.vocab_size < 2:
        tokenizer = None
    return model, tokenizer, found.revision or revision


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


def _pretrained(spec: CoreSpec, log: Callable[[str], None], weights: Weights) -> Loaded:
    names = backbone_names()
    path = user_path(spec.name)
    # Each retry would be two lines on the terminal; what happened in the end is told in one.
    hub_logging.set_verbosity_error()
    try:
        if spec.name in names:
            log(f"backbone: loading {spec.name}{'' if names[spec.name].is_here(spec.name) else ' from the Hub'}")
            return *names[spec.name].load(spec.name, spec.revision), None
        if path.suffix == ".gguf" and path.is_file():
            return *load_gguf(path), None, None
        log(f"backbone: loading {path if path.is_dir() else f'{spec.name} from the Hub'}")
        return *load_pretrained(str(path) if path.is_dir() else spec.name, spec.revision), None
    except FPTError:
        raise
    except Exception as error:
        raise FPTError(_why_not(spec.name, names, error)) from None


def _run(spec: CoreSpec, log: Callable[[str], None], weights: Weights) -> Loaded:
    """A core as an earlier run left it, with the input table of the core that it started from."""
    # Imported late: a checkpoint is read with the help of this file.
    from fpt.checkpoint import trained_core

    core = trained_core(spec.name.removeprefix(RUN), log)
    return core.model, core.tokenizer, core.spec.revision, core.token_embedding


def _random(spec: CoreSpec, log: Callable[[str], None], weights: Weights) -> Loaded:
    """A core of the named shape with weights as transformers initialises them, drawn from the spec's seed.

    Block by block, each settled before the next one is drawn: a core of any precision has the same numbers, and the memory
    is that of the precision it is kept in.
    """
    config = core_config(spec)
    family = family_of(config)
    with torch.device("meta"), no_init_weights():
        model = family.build(config)
    model.train(False)
    parts = family.parts(model)
    with _seeded(spec.seed or 0):
        for block in family.blocks(model):
            draw(block, model)
            prefix = next(name for name, module in model.named_modules() if module is block)
            weights.settle(block, parts, prefix)
        draw(model, model)
    return model, None, None, None


@torch.no_grad()
def draw(part: nn.Module, model: PreTrainedModel) -> None:
    """Give memory to what is still without in `part`, and initialise it as `model` does."""
    new = []
    for module in part.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                value = torch.full(parameter.shape, torch.nan, dtype=torch.float32)
                value = nn.Parameter(value, requires_grad=parameter.requires_grad)
                setattr(module, name, value)
                new.append(value)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype))
    part.apply(model._initialize_weights)
    for value in new:
        if value.isnan().any():  # transformers leaves it to the constructor
            value.normal_(std=0.02)


def _hub_id(name: str) -> str | None:
    """The Hub id of a pretrained core, None for random cores and files."""
    names = backbone_names()
    if name in names:
        return names[name].hub_ids.get(name) if names[name].pretrained else None
    return None if name.startswith((RANDOM, RUN)) or os.path.exists(os.path.expanduser(name)) else name


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


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _shorten(model: PreTrainedModel, family: Family, num_layers: int | None) -> int:
    count = len(family.blocks(model))
    if num_layers is None:
        return count
    if not 1 <= num_layers <= count:
        raise FPTError(f"--num_layers {num_layers} is not between 1 and the core's {count} layers")
    family.shorten(model, num_layers)
    return num_layers


SOURCES: dict[str, Callable[[CoreSpec, Callable[[str], None], Weights], Loaded]] = {RANDOM: _random, RUN: _run}

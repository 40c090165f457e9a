"""Backbones: one file a family of architectures.

A new family is one new file here that registers an instance of `Family`; a backbone is named by ``--backbone``:

* a registered name (``gpt2``, ``smollm2``, ``bert``, ``vit``, ``lstm``, ...),
* ``none``, or ``none:NAME``: no backbone, in the width of GPT-2 or of NAME (see `fpt.backbones.none`),
* ``random:NAME``: the same shape with random weights drawn from ``--backbone_seed``,
* ``run:DIR``: the backbone as an earlier run of ``train.py`` left it,
* a folder, a ``.gguf`` file or a Hub id of any model that transformers knows.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import NewGELUActivation

from fpt.errors import FPTError
from fpt.registry import Registry
from fpt.untrusted import pretrained

RANDOM, RUN, NONE = "random:", "run:", "none:"
# No backbone has more blocks.
MOST_LAYERS = 2_000
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Parts of a backbone: norms, positions, attention, feed-forward, and the rest.
BACKBONE_PARTS = ("ln", "pos", "attn", "ff", "other")
# These few stay in fp32 whatever --core_dtype says: most runs tune them.
SMALL_PARTS = ("ln", "pos")


@dataclass
class BackboneSpec:
    """All that is needed to get the same backbone again.

    Attributes:
        name: what ``--backbone`` was given.
        hub_id: the Hub's page of the backbone, where there is one.
        revision: commit of the Hub repository or release of the package that the weights are from.
        seed: of a random backbone, None for a pretrained one.
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
class Backbone:
    """A backbone in memory.

    Attributes:
        model: the blocks, without an input table; see `Family.states`.
        family: knows its parts and how to run it.
        token_embedding: (vocabulary, hidden) the backbone's own input table, taken out of the model; None where it has none.
        tokenizer: of that table, or None when there is none (random backbones, a folder without one).
        input_std: standard deviation of the states that the backbone expects as inputs.
    """

    model: PreTrainedModel
    family: Family
    spec: BackboneSpec
    token_embedding: torch.Tensor | None
    tokenizer: PreTrainedTokenizerBase | None
    input_std: float

    @property
    def hidden_size(self) -> int:
        """Width of the backbone's states."""
        return self.model.config.hidden_size

    def twin(self, trainable: Collection[str]) -> Backbone:
        """The same backbone with copies of the parts that will be trained; what stays frozen is shared."""
        parts = self.family.parts(self.model)
        shared = {id(parameter): parameter for name, parameter in self.model.named_parameters() if parts[name] not in trainable}
        return replace(self, model=copy.deepcopy(self.model, memo=dict(shared)))


class Family:
    """How one family of architectures is built, loaded, taken apart and run.

    The defaults find everything by module type and fit most models of transformers; a family overrides what differs.

    Attributes:
        model_types: the ``model_type`` of the configurations that it serves.
        hub_ids: short name -> Hub id of the backbones that go by a name.
        model_class: the class of transformers that builds it.
        model_options: extra arguments of that class.
        position_names, attention_names, feed_forward_names: parts of parameter names that say what a parameter is.
        pretrained: whether its named backbones have weights to load; those of others are drawn from the seed.
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
        """Configuration of the registered backbone `name`, without the network."""
        raise FPTError(f"{RANDOM}{name}: there is no built-in configuration of {name!r}; give a folder or Hub id instead")

    def build(self, config: PreTrainedConfig) -> PreTrainedModel:
        """A model of `config` in fp32, initialised as transformers does."""
        return pretrained.build(self.model_class, config, **self.model_options)

    def locate(self, name: str, revision: str | None) -> tuple[str, str | None]:
        """Where the registered backbone `name` is, a Hub id, a folder or a GGUF file, and the revision to record.

        Raises:
            FPTError: it is not available.
        """
        return self.hub_ids[name], revision

    def parts(self, model: Any) -> dict[str, str]:
        """The part, one of `BACKBONE_PARTS`, of each of the backbone's parameters by name."""
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

        Inputs come through the trainable embedding, and a vocabulary is large.
        """
        table = model.get_input_embeddings().weight.detach()
        model.set_input_embeddings(None)
        return table

    def input_std(self, model: Any, table: torch.Tensor | None) -> float:
        """Standard deviation of the states that the backbone expects as inputs."""
        return float(table.float().std()) if table is not None else 0.02

    def max_tokens(self, config: PreTrainedConfig) -> int | None:
        """The longest sequence that it takes; None where there is no such limit."""
        return None

    def states(self, model: Any, embeds: torch.Tensor, attention_mask: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """Run the backbone.

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
            raise FPTError(f"{type(model).__name__} has no list of blocks; it can't be a backbone")
        parent, _, attribute = max(lists)[1].rpartition(".")
        return model.get_submodule(parent), attribute


def checkpoint_blocks(backbone: Backbone) -> None:
    """Let the blocks of `backbone` keep their inputs alone for the backward pass, and compute the rest again (arXiv 1604.06174).

    The last block is left as it is: the backward pass begins there.
    """
    for block in backbone.family.blocks(backbone.model)[:-1]:
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
    """Every registered backbone name, with its family."""
    return {name: FAMILIES[key] for key in FAMILIES for name in FAMILIES[key].names()}


def backbones_here() -> list[str]:
    """Names of the backbones that need no network on this machine."""
    names = backbone_names()
    return [n for n in names if names[n].is_here(n)] + [f"{RANDOM}{n}" for n in names if names[n].pretrained]


def family_of(config: PreTrainedConfig) -> Family:
    """The family that serves `config`, or the defaults of `Family`."""
    for key in FAMILIES:
        if config.model_type in FAMILIES[key].model_types:
            return FAMILIES[key]
    return Family()


def is_drawn(name: str) -> bool:
    """Whether the weights of the backbone `name` are drawn from a seed."""
    names = backbone_names()
    return name.startswith(RANDOM) or (name in names and not names[name].pretrained)

"""What a model's ``config.json`` may say: a configuration describes the model, and leads nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from transformers import PreTrainedConfig

# Entries of a configuration that lead elsewhere: to code, other files and repositories, or to how transformers itself works.
# Private ones and those that stand for methods are left out as well (see below). A backbone has no labels.
ELSEWHERE = {
    *("auto_map", "custom_pipelines", "custom_generate", "configuration_files", "transformers_weights", "adapter_config"),
    *("attn_implementation", "experts_implementation", "kernel_config", "use_kernels", "fusion_config", "distributed_config"),
    *("backbone", "backbone_kwargs", "use_timm_backbone", "use_pretrained_backbone", "pretrained_backbone", "tokenizer_class"),
    *("torch_dtype", "dtype", "id2label", "label2id", "num_labels", "problem_type", "return_dict", "output_hidden_states"),
    *("torchscript", "tokenizer_file", "vocab_file", "processor_class", "feature_extractor_type"),
}
ENTRIES = {"model_type", "rope_scaling"}  # attributes of configuration classes that are entries of files too
FIELDS = {field.name for field in fields(cast(Any, PreTrainedConfig))}
# Models of another library, which fetches them by name.
OTHER_LIBRARIES = ("timm_backbone", "timm_wrapper")
# Layers of a model, and numbers that stand for none of its sizes (positions without weights, the base of rotary ones).
MOST_LAYERS, MOST_ANYWAY = 10_000, 2**24


def clean_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a configuration that describe a model, without those that lead elsewhere.

    Raises:
        ValueError: its type is missing, another library's, or quantized, or it has more layers than make sense.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str):
        raise ValueError("its config.json names no model_type")
    return _cleaned(values)


def _cleaned(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        if value.get("quantization_config"):
            raise ValueError(
                "its weights are quantized (quantization_config); use the repository with its full-precision weights"
            )
        if (kind := value.get("model_type")) in OTHER_LIBRARIES:
            raise ValueError(f"its model_type {kind} belongs to another library, which fetches models by name")
        return {str(k): _cleaned(v, str(k)) for k, v in value.items() if _describes_a_model(str(k))}
    if isinstance(value, (list, tuple)):
        return [_cleaned(inner, name) for inner in value]
    if isinstance(value, int) and abs(value) > MOST_LAYERS and re.search(r"(layers?|blocks|depths?|stages)$", name):
        raise ValueError(f"its config.json asks for {name} {value:,}, which makes no sense")
    return value


def _describes_a_model(name: str) -> bool:
    if name in ENTRIES:
        return True
    # What is a method or a property of configurations would be replaced by the entry.
    return not (name.startswith("_") or name in ELSEWHERE or (name not in FIELDS and hasattr(PreTrainedConfig, name)))


def check_sizes(values: Any, held: int, name: str = "") -> None:
    """Refuse a configuration with a number that its weights can't fill, before anything is built.

    Args:
        held: how many numbers the weights are.

    Raises:
        ValueError: there is one.
    """
    if isinstance(values, Mapping):
        for key, inner in values.items():
            check_sizes(inner, held, str(key))
    elif isinstance(values, (list, tuple)):
        for inner in values:
            check_sizes(inner, held, name)
    elif isinstance(values, int) and abs(values) > max(held, MOST_ANYWAY):
        raise ValueError(f"its config.json asks for {name} {values:,}, and its weights are {held:,} numbers")


def check_implementation(config: PreTrainedConfig) -> PreTrainedConfig:
    """`config`, if nothing in it chooses how attention is computed: that could be fetched as a kernel.

    Raises:
        ValueError: something does.
    """
    parts = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    for part in parts:
        if getattr(part, "_attn_implementation", None) or getattr(part, "_experts_implementation", None):
            raise ValueError("its configuration chooses how attention is computed, which a file must not")
    return config

"""The one door to transformers: each configuration, model and tokenizer of someone else is opened here, and nowhere else.

Files of a model can lead transformers elsewhere: to Python code (after a question on the terminal), to other repositories (an
adapter's base, attention kernels, a vision backbone, a conversion bot), to files outside of the folder, to pickles. So files are
fetched by name, from the one repository that was named; transformers is shown a folder that holds only a cleaned configuration
and weights in safetensors; and while it reads that, it has no network and no terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel, dynamic_module_utils
from transformers.initialization import no_init_weights
from transformers.integrations import hub_kernels

from fpt.errors import FPTError
from fpt.untrusted.bounded_json import read_json, short
from fpt.untrusted.model_config import ELSEWHERE, check_implementation, check_sizes, clean_config

# Code for some layers comes from repositories of the Hub when the package `kernels` is installed: not here.
hub_kernels._kernels_enabled = False
# transformers asks on the terminal for so many seconds whether a repository's code may run; with 0 it never asks.
dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# A tokenizer's own format, and those from before it, which are converted.
TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
VOCABULARIES = ("vocab.txt", "vocab.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
OLD_TOKENIZER = (*VOCABULARIES, "merges.txt", "added_tokens.json", SPECIAL_TOKENS, TOKENIZER_CONFIG)
FILES = (CONFIG, INDEX, TOKENIZER, *OLD_TOKENIZER)
# Larger than published ones by far.
CONFIG_BYTES, CONFIG_VALUES = 4 * 2**20, 200_000
# How a repository of the Hub is called; a few old ones have no owner.
REPOSITORY = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
SHARD = re.compile(r"[\w][\w.-]*\.safetensors")


@dataclass(frozen=True)
class Repository:
    """The folder with a model's files, and the commit of the Hub that they are from; None for a folder of the user's."""

    folder: Path
    revision: str | None = None


def announce(name: str, revision: str | None) -> None:
    """Print which repository is asked for at the Hub, in the first process; nothing when the Hub must not be asked."""
    if os.environ.get("RANK", "0") == "0" and not constants.HF_HUB_OFFLINE:
        print(f"Hub: fetching {name}, revision {revision or 'main'}", file=sys.stderr, flush=True)


def fetch(where: str | Path, revision: str | None = None, weights: bool = True) -> Repository:
    """Find the files of a model: in a folder, or in one repository of the Hub, which is printed before it is asked.

    Args:
        revision: of the repository.
        weights: whether to fetch its weights too.

    Raises:
        OSError: it is neither, or it is not there.
        ValueError: its list of weights makes no sense.
    """
    folder = Path(where).expanduser()
    if folder.is_dir():
        return Repository(folder)
    if not REPOSITORY.fullmatch(str(where)):
        raise OSError(f"{where} is neither a folder nor the name of a repository on the Hub")
    announce(str(where), revision)
    folder = _download(str(where), revision, FILES)
    if weights:
        _download(str(where), folder.name, shards(folder) or [WEIGHTS])
    return Repository(folder, folder.name)


def _download(name: str, revision: str | None, files: Iterable[str]) -> Path:
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise OSError(f"can't connect to the Hub for {name}, and there is no copy in its cache") from error
    except Exception as error:  # which HTTP client it uses is huggingface_hub's own affair
        raise OSError(f"the Hub does not give {name}, revision {revision or 'main'}: {short(error)}") from error


def shards(folder: Path) -> list[str]:
    """Names of the files with weights in `folder`, or those that its list names; empty where there are none.

    Raises:
        ValueError: the list names something else than files in the folder.
    """
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [WEIGHTS] if (folder / WEIGHTS).is_file() else []
    listed = _read_json(folder / INDEX, 64 * 2**20, 1_000_000).get("weight_map")
    names = set(listed.values()) if isinstance(listed, dict) and all(isinstance(n, str) for n in listed.values()) else {""}
    if wrong := sorted(name for name in names if not SHARD.fullmatch(name)):
        raise ValueError(f"{folder / INDEX} lists {wrong[0][:100]!r}, which is not the name of a safetensors file beside it")
    return sorted(names)


def config_from_dict(values: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration that `values` describe (``PreTrainedConfig.to_dict``), cleaned.

    Raises:
        ValueError: the type is not known, or as `clean_config`.
    """
    clean = clean_config(values)
    with sealed():
        return check_implementation(AutoConfig.for_model(clean.pop("model_type"), **clean))


def read_config(found: Repository) -> PreTrainedConfig:
    """The configuration of a model's files, cleaned.

    Raises:
        OSError, ValueError: it can't be read, transformers does not know it, or as `clean_config`.
    """
    with _shown(found.folder, []) as folder, sealed():
        return check_implementation(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))


def build(model_class: Any, config: PreTrainedConfig, **options: Any) -> PreTrainedModel:
    """A model of `config` in fp32, initialised as transformers does.

    Args:
        model_class: of transformers, or one of its Auto classes.
        options: of the class.
    """
    with sealed():
        if hasattr(model_class, "from_config"):
            return model_class.from_config(config, dtype=torch.float32, trust_remote_code=False, **options)
        return model_class._from_config(config, dtype=torch.float32, **options)


def open_model(
    found: Repository, model_class: Any, config: PreTrainedConfig | None = None, new: str | None = None, **options: Any
) -> PreTrainedModel:
    """The model in `found`, in fp32.

    Args:
        config: of the model, where it was read already or changed.
        new: start of the names of weights that may be missing or of another shape, and are made new then.
        options: of the class.

    Raises:
        OSError, ValueError: the files do not have the weights of such a model, or transformers can't read them.
    """
    config = config or read_config(found)
    names = shards(found.folder)
    if not names:
        raise OSError(f"{found.folder} has no {WEIGHTS}; pickled weights are not read")
    held = _numbers(found.folder, names)
    check_sizes(config.to_dict(), held)
    with torch.device("meta"), no_init_weights():
        wanted = sum(p.numel() for n, p in build(model_class, config, **options).named_parameters() if not _is_new(n, new))
    if wanted > held * 1.5 + 1e6:
        raise ValueError(f"its configuration describes a model of {wanted:,} numbers, and its weights are {held:,}")
    with _shown(found.folder, [*names, INDEX]) as folder, sealed():
        model, loading = model_class.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=new is not None,
            output_loading_info=True,
            **options,
        )
    lacking = [*loading["missing_keys"], *(key[0] for key in loading["mismatched_keys"])]
    if lacking := sorted(key for key in lacking if not _is_new(key, new)):
        raise ValueError(f"its files lack {len(lacking)} weights of the model, the first one {lacking[0]}")
    return model


def _is_new(name: str, new: str | None) -> bool:
    return new is not None and name.startswith(new)


def _numbers(folder: Path, names: Iterable[str]) -> int:
    """How many numbers the weights in `folder` are, by the headers of their files."""
    total = 0
    for name in names:
        with safe_open(folder / name, "pt") as file:
            for key in file.keys():  # noqa: SIM118
                count = 1
                for size in file.get_slice(key).get_shape():
                    count *= size
                total += count
    return total


def open_gguf(path: Path) -> PreTrainedModel:
    """The model in a GGUF file, de-quantized to fp32, with its weights as plain tensors.

    Raises:
        OSError, ValueError: it can't be read.
    """
    with _beside_nothing(path) as copy, sealed():
        model = AutoModel.from_pretrained(
            copy.parent, gguf_file=str(copy), dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
    config = model.config.to_dict()
    # Weights are plain fp32 from here on; with the note on quantization transformers refuses to write them.
    config.pop("quantization_config", None)
    plain = build(AutoModel, config_from_dict(config))
    plain.load_state_dict(model.state_dict(), assign=True)
    return plain


def convert_tokenizer(source: Path, target: Path) -> None:
    """Write the tokenizer of a folder in an old format, or of a GGUF file, to the folder `target` as ``tokenizer.json``.

    To be called in a process of its own (see `fpt.data.open_tokenizer`): what it reads is not checked before.
    """
    if source.is_file():
        with _beside_nothing(source) as copy, sealed():
            found = AutoTokenizer.from_pretrained(
                copy.parent, gguf_file=str(copy), local_files_only=True, trust_remote_code=False
            )
    else:
        with _shown(source, [name for name in OLD_TOKENIZER if name != TOKENIZER_CONFIG]) as folder, sealed():
            if (source / TOKENIZER_CONFIG).is_file():
                values = _read_json(source / TOKENIZER_CONFIG, CONFIG_BYTES, CONFIG_VALUES)
                kept = {k: v for k, v in values.items() if k not in ELSEWHERE - {"tokenizer_class"} and not k.endswith("_file")}
                (folder / TOKENIZER_CONFIG).write_text(json.dumps(kept), encoding="utf-8")
            found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    found.save_pretrained(target)


@contextlib.contextmanager
def sealed() -> Iterator[None]:
    """Within it nothing can be fetched or asked: huggingface_hub is offline, and standard input is not there."""
    before, keyboard = constants.HF_HUB_OFFLINE, sys.stdin
    constants.HF_HUB_OFFLINE, sys.stdin = True, None
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, sys.stdin = before, keyboard


@contextlib.contextmanager
def _shown(source: Path, names: Iterable[str]) -> Iterator[Path]:
    """A folder with the cleaned configuration of `source` (where it has one) and links to its files `names`, no others."""
    with _temporary() as folder:
        if (source / CONFIG).is_file() or not names:
            clean = clean_config(_read_json(source / CONFIG, CONFIG_BYTES, CONFIG_VALUES))
            (folder / CONFIG).write_text(json.dumps(clean), encoding="utf-8")
        for name in names:
            if (source / name).is_file():
                _link(source / name, folder / name)
        yield folder


def _read_json(path: Path, most_bytes: int, most_values: int) -> dict[str, Any]:
    try:
        return read_json(path, most_bytes, most_values)
    except FPTError as error:
        raise ValueError(str(error)) from error


@contextlib.contextmanager
def _beside_nothing(path: Path) -> Iterator[Path]:
    """The file `path` in a folder of its own."""
    with _temporary() as folder:
        _link(path, folder / path.name)
        yield folder / path.name


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fpt-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _link(source: Path, target: Path) -> None:
    for make in (os.symlink, os.link, shutil.copyfile):
        with contextlib.suppress(OSError):  # Windows has no symbolic links for everyone, and hard ones on one drive only
            make(source.resolve(), target)
            return
    raise OSError(f"{source} can't be linked or copied to {target.parent}")

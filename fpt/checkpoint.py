"""Frozen-core checkpoints: the tuned tensors in safetensors, with everything needed to find the frozen ones again.

A checkpoint is a folder::

    model.safetensors   tuned tensors, input layer and readout, fp32, by their names in `FPT`
    config.json         task, labels, input, core (name, revision, seed, sha256 of its weights), what is tuned, training, hashes
    tokenizer.json, tokenizer_config.json
    README.md           model card

Nothing in it is pickled.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from fpt import __version__
from fpt.backbones import DTYPES, NO_CODE, Core, CoreSpec, build_empty, family_of, load_core
from fpt.baselines import MODELS, Network
from fpt.errors import FPTError
from fpt.files import new_folder, recover_folder, sha256_file, write_json, write_text
from fpt.hub import is_hub_name, pull
from fpt.inputs import Input, input_from_dict
from fpt.model import FPT, build_model
from fpt.outputs import Output, output_from_dict
from fpt.results import shown_metric
from fpt.tuning import Tuning, merge_lora

WEIGHTS, CONFIG, CARD, TOKENIZER = "model.safetensors", "config.json", "README.md", "tokenizer.json"
MISSING = object()
# What a configuration must have, and of which type.
REQUIRED: dict[str, Any] = {
    **{"task": str, "input": dict, "output": dict, "core": dict, "core.name": str, "core.dtype": str, "full": bool},
    **{"model_sha256": str, "tokenizer_sha256": (str, NoneType), "eval_batch_size": int, "training": dict, "training.seed": int},
    **{"data": dict, "data.arguments": dict, "data.request": dict, "data.request.split_seed": int, "data.data_sha256": str},
}
# What it may have.
OPTIONAL: dict[str, Any] = {"tuning": dict, "network": dict, "model": str, "mixed_precision": str, "core_config": dict}


def save_checkpoint(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    config: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase | None,
    full_of: Network | None = None,
) -> None:
    """Write a checkpoint in one step; an earlier one in `folder` stays until the new one is whole.

    Args:
        tensors: the tuned tensors by name.
        config: task, input, output, core and whatever else describes the run.
        tokenizer: of tasks on text.
        full_of: write this model's frozen tensors as well, so that it loads without its core.
    """
    if isinstance(full_of, FPT):
        tensors = {**full_of.state_dict(), **tensors}
        config = {**config, "core_config": _plain_config(full_of)}
    with new_folder(folder) as new:
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, new / WEIGHTS, metadata={"format": "pt"})
        if tokenizer is not None:
            tokenizer.save_pretrained(new)
        config = {
            "fpt_version": __version__,
            **config,
            "full": isinstance(full_of, FPT),
            "model_sha256": sha256_file(new / WEIGHTS),
            "tokenizer_sha256": sha256_file(new / TOKENIZER) if tokenizer is not None else None,
        }
        write_json(new / CONFIG, config)
        write_text(new / CARD, model_card(config))


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


def add_test_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write the scores of the test split into the configuration and the model card."""
    config = {**json.loads((folder / CONFIG).read_text(encoding="utf-8")), "test_metrics": metrics}
    write_json(folder / CONFIG, config)
    write_text(folder / CARD, model_card(config))


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json``, and check the hashes that it gives of the other files.

    Raises:
        FPTError: a file is missing, truncated or changed.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FPTError(f"{folder / CONFIG} can't be read: {error}; copy the checkpoint again") from None
    missing = [name for name in REQUIRED if _entry(config, name) is MISSING]
    if missing:
        raise FPTError(f"{folder / CONFIG} lacks {', '.join(missing)}; it was not written by train.py")
    for name, kind in {**REQUIRED, **OPTIONAL}.items():
        value = _entry(config, name)
        if value is not MISSING and (not isinstance(value, kind) or (kind is int and not 0 <= value < 2**63)):
            raise FPTError(f"{folder / CONFIG}: {name} is {str(value)[:50]!r}, which makes no sense; copy the checkpoint again")
    for name, key in ((WEIGHTS, "model_sha256"), (TOKENIZER, "tokenizer_sha256")):
        if config[key] is None and name == TOKENIZER:
            continue  # a task on numbers has none
        if not (folder / name).is_file():
            raise FPTError(f"{folder} has no {name}; copy the checkpoint again")
        if sha256_file(folder / name) != config[key]:
            raise FPTError(f"{folder / name} is truncated or was changed: its sha256 is not the one in {CONFIG}")
    return config


def _entry(config: Any, name: str) -> Any:
    """The value at ``a.b.c``, or MISSING."""
    for part in name.split("."):
        if not isinstance(config, dict) or part not in config:
            return MISSING
        config = config[part]
    return config


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


def model_card(config: dict[str, Any]) -> str:
    """The model card (README.md) of a checkpoint, with the metadata that the Hub reads."""
    core, training = config["core"], config.get("training", {})
    scores = {split: config.get(f"{split}_metrics") or {} for split in ("valid", "test")}
    names = config["output"].get("label_names")
    positive = f" (positive: {names[1]})" if config["output"]["kind"] == "classes" and len(names or ()) == 2 else ""
    labels = f"; labels: {', '.join(names)}{positive}" if names else ""
    metrics = [m for m in scores["valid"] if any(s.get(m) is not None for s in scores.values())]
    cells = {m: [shown_metric(s[m]) if s.get(m) is not None else "" for s in scores.values()] for m in metrics}
    rows = "\n".join(f"| {m} | {' | '.join(values)} |" for m, values in cells.items())
    settings = ", ".join(f"{k} {v}" for k, v in training.items())
    kind = "Frozen Pretrained Transformer" if "network" not in config else f"Baseline {config['model']}"
    data = config.get("data", {})
    licence = training.get("license") or "not said; heed those of the data and of the core"
    return (
        f"---\n{_metadata(config, scores['test'])}\n---\n\n"
        f"# {kind} for {config['task']}\n\n"
        f"Core `{core['name']}` ({core.get('num_layers')} layers, revision {core.get('revision')}, seed {core.get('seed')},"
        f" sha256 of its weights `{core.get('sha256')}`). Tuned: {', '.join(config.get('tuning', {}).get('parts', ['all']))}"
        f" ({config.get('trainable_parameters', 0):,} of {config.get('total_parameters', 0):,} parameters).\n\n"
        f"Data: {data.get('source')}, {data.get('licence')}{labels}.\n\n"
        f"Training: {settings}. Model of step {config.get('step')}, picked on the validation split:\n\n"
        f"| metric | valid | test |\n|---|---|---|\n{rows}\n\n"
        "Score or use it:\n\n```\npython evaluate.py --checkpoint DIR_OR_REPO\n"
        "python evaluate.py --checkpoint DIR_OR_REPO --predict inputs.csv --output predictions.csv\n```\n\n"
        '```python\nimport fpt\n\nmodel = fpt.load("DIR_OR_REPO")\nmodel.predict([...])\n```\n\n'
        f"Trained with:\n\n```\n{config.get('command', '')}\n```\n\n"
        f"Licence: {licence}.\n"
    )


def _metadata(config: dict[str, Any], test: dict[str, Any]) -> str:
    """The YAML head of a model card."""
    from huggingface_hub import EvalResult, ModelCardData

    core, task = config["core"], config["task"]
    shown = {name: value for name, value in test.items() if value is not None}
    results = [
        EvalResult(
            task_type=config["output"]["kind"],
            dataset_type=task,
            dataset_name=task,
            dataset_split="test",
            metric_type=name,
            metric_value=round(value, 6),
        )
        for name, value in shown.items()
    ]
    data = ModelCardData(
        library_name="fpt",
        tags=["frozen-pretrained-transformer"],
        base_model=core.get("hub_id"),
        datasets=[task.removeprefix("hub:")] if task.startswith("hub:") else None,
        metrics=sorted(shown) or None,
        license=config.get("training", {}).get("license"),
        model_name=f"fpt-{task}" if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


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


def _plain_config(model: FPT) -> dict[str, Any]:
    """The core's architecture as JSON values, without where it came from."""
    config = model.core.config.to_dict()
    for key in ("_name_or_path", "quantization_config", "transformers_version"):
        config.pop(key, None)
    return json.loads(json.dumps(config, default=str))

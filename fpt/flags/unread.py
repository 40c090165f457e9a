"""Flags that were given and that the chosen task or model does not read.

A run that ignored them would not be the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from fpt.args import DataArguments, ModelArguments, Training, as_dict
from fpt.backbones.base import NONE, RANDOM, RUN, backbone_names, is_drawn
from fpt.data.own_options import OwnOptions
from fpt.errors import FPTError
from fpt.flags.hints import of_molecules
from fpt.models.base import MODELS, Estimator, Model
from fpt.models.frozen import Frozen
from fpt.models.tuning import parse_parts
from fpt.options import own_options
from fpt.tasks.audio import AudioOptions, AudioTask
from fpt.tasks.base import TASKS, GeneratedTask, Task
from fpt.tasks.forecast import ForecastTask
from fpt.tasks.images import ImageTask
from fpt.tasks.own import OwnTask
from fpt.tasks.own_schema import InputOptions
from fpt.tasks.rows import NumberRows
from fpt.tasks.series import SeriesTask
from fpt.tasks.sides import count_sides
from fpt.tasks.text import Letters, Smiles

OF_SOUND = ("features", "seconds", "num_mels", "frames_per_token")
OF_PICTURES = ("image_size", "patch_overlap", "gray", "background")
OF_NUMBERS = ("numbers_per_token", "standardise")
OF_TEXT = ("tokenizer", "vocab_size", "augment", "augment_each_epoch", "sample_vector", "vector_columns")
OF_SIDES = ("environments", "kmers", "side_buckets", "tokens")
# All that an estimator reads of how others are trained.
OF_ESTIMATORS = ("output_dir", "overwrite", "seed", "calibrate")
Reasons = dict[str, str]


def unread_flags(found: Training) -> Reasons:
    """Why flags that were given are not read, by name.

    Raises:
        FPTError: there is no such task or model.
    """
    given = found.given
    model = MODELS[found.model.model]
    reasons = found.training.unread(given)
    for one in found.more:
        reasons |= one.unread(given) if hasattr(one, "unread") else {}
    reasons |= _unread_by_model(model, found.model, given)
    if isinstance(model, Estimator):
        of_training = [name for name in as_dict(found.training) if name not in OF_ESTIMATORS]
        why = f"--model {model.name} is fitted at once, without steps or a checkpoint"
        reasons |= {name: why for name in (*of_training, *OF_TEXT, *OF_SIDES, "max_length") if name in given}
    chosen = _task(found.data)
    if chosen is not None:
        task, options = chosen
        reasons |= _unread_by_task(task, options, found.data, model, given)
        if isinstance(model, Frozen):
            reasons |= _unread_by_input(task, found.data, found.model, given)
    return reasons


def _task(data: DataArguments) -> tuple[Task | GeneratedTask, object] | None:
    """The task and its options; None where only the data itself says what it is, or the options make no sense."""
    task = TASKS[data.dataset]
    if data.given_options.get("input_type", "") is None:
        return None
    try:
        options = task.completed(own_options(task.options, data.given_options, task.name))
        return task.configured(options), options
    except FPTError:
        return None


def _unread_by_model(model: Model, args: ModelArguments, given: Collection[str]) -> Reasons:
    own = [name for name in as_dict(args) if name not in ("model", "model_options")]
    if not isinstance(model, Frozen):
        reasons = {name: f"it is for a frozen backbone; --model {model.name} has none" for name in own if name in given}
        if "embedding_lr_scale" in given:
            reasons["embedding_lr_scale"] = f"--model {model.name} has no input embedding of its own rate"
        options = model.own_options(args)
        reasons |= options.unread(given) if hasattr(options, "unread") else {}
        return reasons
    reasons = {
        name: f"--model {model.name} stands for --{name} {value}"
        for name, value in model.fixed.items()
        if name in given and getattr(args, name) != value
    }
    parts = parse_parts(model.fixed.get("tune", args.tune))
    if "lora" not in parts:
        reasons |= {name: "it is for --tune lora" for name in ("lora_rank", "lora_alpha") if name in given}
    if "in" not in parts and "embedding_lr_scale" in given:
        reasons["embedding_lr_scale"] = f"--tune {args.tune} leaves the input layer as it is"
    return reasons | _unread_by_backbone(model.fixed.get("backbone", args.backbone), given)


def _unread_by_backbone(name: str, given: Collection[str]) -> Reasons:
    reasons = {}
    if name == "none" or name.startswith(NONE):
        own = ("num_layers", "core_dtype", "core_dropout", "activation_checkpointing", "lora_rank", "lora_alpha")
        reasons = {flag: f"--backbone {name} has no layers" for flag in own if flag in given}
    if "backbone_seed" in given and not is_drawn(name):
        reasons["backbone_seed"] = f"it is for random backbones; --backbone {name} has weights"
    path = Path(name).expanduser()
    shape = name.removeprefix(RANDOM)
    here = path.exists() or name.startswith(RUN) or path.suffix == ".gguf"
    drawn = is_drawn(name) and (shape in backbone_names() or Path(shape).expanduser().exists())
    if "backbone_revision" in given and (here or drawn):
        reasons["backbone_revision"] = f"--backbone {name} is not from the Hub"
    return reasons


def _unread_by_task(
    task: Task | GeneratedTask, options: object, data: DataArguments, model: Model, given: Collection[str]
) -> Reasons:
    if isinstance(task, GeneratedTask):
        names = ("data_dir", "cache_dir", "num_proc", "max_bad_fraction", "max_length", "keep_notation", *OF_TEXT, *OF_SIDES)
        return {name: f"{task.name} is generated, from no files and without text" for name in names if name in given}
    reasons: Reasons = {}
    tokenizer = task.tokenizer and (data.tokenizer or task.tokenizer)
    if tokenizer is None:
        reasons |= dict.fromkeys((*OF_TEXT, *OF_SIDES), f"{task.name} is made of numbers, not of text")
        if isinstance(task, ForecastTask):
            reasons |= {"max_length": "--lookback says how long a window is", "max_bad_fraction": "a series has no rows to spare"}
        if isinstance(task, ImageTask | AudioTask):
            reasons["max_length"] = (
                f"patches and --{'seconds' if isinstance(task, AudioTask) else 'patch_size'} say how long a sample is"
            )
    elif not count_sides(data):
        reasons |= dict.fromkeys(OF_SIDES, "it is for tokens with --environments or --kmers")
    if tokenizer is not None and tokenizer != "bpe":
        reasons["vocab_size"] = f"it is for --tokenizer bpe; {task.name} is cut by {tokenizer}"
    if not isinstance(getattr(task, "modality", None), Smiles):
        of_smiles = ("augment", "augment_each_epoch", "keep_notation", "environments", "tokens", "sample_vector")
        reasons |= dict.fromkeys(of_smiles, _has_none(task, "SMILES", "smiles"))
    elif model.name == "mat":
        reasons |= dict.fromkeys((*OF_TEXT, *OF_SIDES, "max_length"), "--model mat reads molecules as graphs")
    if not isinstance(task, OwnTask):
        reasons["vector_columns"] = f"it is for columns of your own table (csv:FILE, hub:NAME); {task.name} has none"
    if not isinstance(getattr(task, "modality", None), Letters):
        reasons["kmers"] = _has_none(task, "proteins and nucleotides", "protein")
    if data.environments is None:
        reasons["tokens"] = "it is for SMILES with --environments"
    reasons |= _unread_options(task, options, model) | _unread_of_file(data)
    if isinstance(task, SeriesTask) and isinstance(model, Estimator):
        reasons |= dict.fromkeys(("patch_size", "patch_stride"), f"--model {model.name} reads whole series, without tokens")
    return {name: why for name, why in reasons.items() if name in given}


def _has_none(task: Task, what: str, input_type: str) -> str:
    """Why a flag for inputs of a kind is not read; of a user's own data it is the user who says what it holds."""
    if read_as := getattr(task, "input_type", None):
        return f"it is for {what}; {task.name} is read as {read_as} (where it holds {what}, give --input_type {input_type})"
    return f"it is for {what}; {task.name} has none"


def _unread_options(task: Task, options: object, model: Model) -> Reasons:
    """Of the options of a user's own data and of sounds."""
    reasons: Reasons = {}
    kinds = (
        ("sound", "audio", AudioTask, OF_SOUND),
        ("pictures", "image", ImageTask, OF_PICTURES),
        ("numbers", "numbers", NumberRows, OF_NUMBERS),
    )
    for what, input_type, kind, names in kinds:
        if not isinstance(task, kind):
            reasons |= {name: _has_none(task, what, input_type) for name in names if hasattr(options, name)}
    has_patches = isinstance(task, AudioTask | ImageTask)
    is_smiles = isinstance(getattr(task, "modality", None), Smiles)
    if not has_patches and hasattr(options, "features") and (model.name == "morgan" or is_smiles):
        reasons["features"] = of_molecules(model.name)
    if not has_patches and isinstance(options, InputOptions):
        reasons["patch_size"] = f"it is for pictures and sound; {task.name} has none"
    if isinstance(options, AudioOptions) and isinstance(task, AudioTask):
        unused = ("num_mels", "frames_per_token") if options.features == "raw" else ("patch_size",)
        reasons |= dict.fromkeys(unused, f"--features {options.features} has none")
    kind_of_label = options.label_type if isinstance(options, OwnOptions) else None
    if kind_of_label is not None and kind_of_label != "multilabel":
        reasons["label_delimiter"] = "it is for --label_type multilabel"
    if kind_of_label in ("number", "multilabel"):
        reasons["positive_label"] = "it is for two classes"
    if kind_of_label == "number":
        reasons["label_case"] = "it is for classes"
    return reasons


def _unread_of_file(data: DataArguments) -> Reasons:
    """How a file is read, by its ending."""
    if not data.dataset.startswith("csv:"):
        return {}
    names = [suffix.lower() for suffix in Path(data.dataset).suffixes if suffix.lower() not in (".gz", ".bz2", ".xz")]
    ending = names[-1] if names else ""
    unused = {
        ".parquet": ("delimiter", "encoding", "sheet"),
        ".xlsx": ("delimiter", "encoding"),
        ".xlsm": ("delimiter", "encoding"),
        **dict.fromkeys((".json", ".jsonl", ".ndjson"), ("delimiter", "sheet")),
    }
    return dict.fromkeys(unused.get(ending, ("sheet",)), f"{ending or 'such'} files have none")


def _unread_by_input(task: Task | GeneratedTask, data: DataArguments, args: ModelArguments, given: Collection[str]) -> Reasons:
    tokens = task.tokenizer is not None
    reasons: Reasons = {}
    if tokens:
        reasons["input_positions"] = f"it is for patches of numbers; {task.name} is made of text"
        if not args.input_layers:
            reasons["orthogonal_gain"] = f"it is for patches of numbers and --input_layers; {task.name} is made of text"
    if not count_sides(data):
        reasons["side_width"] = "it is for tokens with --environments or --kmers"
    if not count_sides(data) and not data.carries_vector:
        of_samples = "--sample_vector or --vector_columns"
        reasons["side_dropout"] = f"it is for tokens with --environments or --kmers, and for samples with {of_samples}"
    if not tokens or args.input_layers:
        reasons["input_init"] = "it is for an embedding of tokens; linear layers start orthogonal"
    return {name: why for name, why in reasons.items() if name in given}

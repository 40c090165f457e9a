"""The arguments of `train.py` and `evaluate.py`, as dataclasses; each one is a group of ``--help``. `fpt.cli` reads them.

Each checks its values when it is made, and its ``unread`` names the flags that others of its own leave without a meaning.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar, cast

from fpt.flags import checks
from fpt.flags.checks import check_known, check_ranges, number_list

T = TypeVar("T")
PRECISIONS = ("no", "bf16", "fp16")
SPLITS = ("train", "valid", "test")
CALIBRATIONS = ("temperature",)
READOUTS = ("last", "mean", "attention", "all")
VECTORS = ("counts", "descriptors", "counts+descriptors")
# Those of transformers that need no settings of their own.
SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt")


def arg(default: Any, help: str, **extra: Any) -> Any:
    """A dataclass field with a help text."""
    return field(default=default, metadata={"help": help, **extra})


@dataclass
class DataArguments:
    """What to train on, how it is split and tokenized."""

    _argument_group_name = "data"
    dataset: str = arg("cyp3a4", "Task to train on; with --help its own arguments are listed too. An unknown name lists all.")
    data_dir: str | None = arg(None, "Folder with raw downloads in the layout of the upstream loader (pytdc: tdc/*.tab).")
    cache_dir: str | None = arg(None, "Where preprocessed Arrow files are kept; $FPT_HOME or ~/.cache/fpt when not given.")
    split: str | None = arg(
        None,
        "How train, valid and test are made: given, stratified, scaffold, random, official, tdc (its ADMET benchmark), ...; the"
        " task's own by default.",
    )
    split_seed: int | None = arg(None, "Seed of the split; --seed when not given.")
    tokenizer: str | None = arg(
        None,
        "For tasks on text: atom (of a SMILES), char, word, bpe (trained on the train split), or a tokenizer's hub id or path;"
        " the task's own by default.",
    )
    vocab_size: int = arg(512, "Vocabulary size of --tokenizer bpe.")
    max_length: int | None = arg(None, "Longest sequence in tokens, longer ones are cut and counted; the task's own by default.")
    environments: int | None = arg(
        None,
        "For SMILES: each atom's token carries its Morgan environments of radius 0 to R, hashed; 2 is the radius of ECFP4.",
    )
    kmers: int | None = arg(
        None, "For proteins and nucleotides: each residue's token carries the hashed k-mer of this length around it."
    )
    side_buckets: int = arg(4096, "Hash buckets of --environments, for each radius, or of --kmers.")
    tokens: str = arg("all", "With --environments, the tokens that are kept of a SMILES: all, or atoms alone.")
    sample_vector: str | None = arg(
        None,
        "For SMILES: numbers of the whole molecule that become its first token: counts (of Morgan environments, as ECFP4 counts"
        " them), descriptors (RDKit's 2D descriptors, standardised on train) or counts+descriptors.",
    )
    vector_columns: str | None = arg(
        None,
        "For your own texts, SMILES and proteins: columns of numbers, separated by commas, that become the first token of their"
        " row, together with --sample_vector where both are given; standardised on train, a missing number is the mean.",
    )
    augment: int = arg(0, "Random SMILES written for each training molecule besides the given one (0: none).")
    augment_each_epoch: bool = arg(
        False, "Write each training molecule as another random SMILES in every epoch; unlike --augment it stores none."
    )
    keep_notation: bool = arg(
        False, "Tokenize SMILES as they are written; by default they are made canonical (rdkit), so that notation tells nothing."
    )
    max_bad_fraction: float = arg(0.01, "Share of rows that may be unusable; they are left out and listed in rejected.csv.")
    num_proc: int | None = arg(None, "Processes that preprocess the data; all cores when not given.")
    # The task's own arguments as they were given, by name.
    given_options: dict[str, Any] = field(default_factory=dict, init=False)
    # The same with their defaults, once `fpt.tasks.base.resolve` has read them: an instance of `fpt.tasks.base.Task.options`.
    options: object = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_ranges(self, split_seed=checks.SEED, vocab_size=checks.COUNT, max_length=checks.COUNT)
        check_ranges(self, environments=checks.Range(0, 8), kmers=checks.Range(1, 64), side_buckets=checks.Range(1, 1 << 22))
        check_known(self, tokens=("all", "atoms"))
        if self.sample_vector is not None:
            check_known(self, sample_vector=VECTORS)
        check_ranges(self, augment=checks.Range(0, 10_000), max_bad_fraction=checks.SHARE, num_proc=checks.Range(1, 4096))

    @property
    def carries_vector(self) -> bool:
        """Whether a sample has numbers that become its first token."""
        return self.sample_vector is not None or self.vector_columns is not None

    @property
    def longest(self) -> int:
        """--max_length, once `fpt.tasks.base.resolve` has given it the task's own value."""
        assert self.max_length is not None
        return self.max_length

    def stored_options(self) -> dict[str, Any]:
        """The task's own arguments by name, as files record them."""
        return self.given_options if self.options is None else asdict(cast(Any, self.options))


@dataclass
class ModelArguments:
    """Which frozen backbone, and what is trained around it."""

    _argument_group_name = "model"
    model: str = arg(
        "fpt",
        "What is trained: fpt (the frozen transformer) or a baseline: full, lstm, mat, morgan, chemprop, ast, vit, cnn; with"
        " --help its own arguments are listed too.",
    )
    backbone: str = arg(
        "gpt2",
        "Backbone: a name (gpt2, gpt2-xl, smollm2, pythia-160m, bert, roberta, minilm, longformer, t5-small, vit, lstm, ...; an"
        " unknown one lists all), random:NAME, run:DIR (as an earlier run left it), a .gguf file, or any hub id or path.",
    )
    backbone_revision: str | None = arg(None, "Branch, tag or commit of a backbone from the Hub.")
    backbone_seed: int | None = arg(None, "Seed of a random backbone; --seed when not given.")
    num_layers: int | None = arg(None, "Use only the first K layers of the backbone; all when not given.")
    core_dtype: str = arg(
        "fp32", "Precision that the frozen weights are kept in: fp32, bf16 or fp16. Trainable tensors stay fp32."
    )
    tune: str = arg(
        "fpt",
        "What is trained: parts of ln, pos, attn, ff, in, out, lora, separated by commas; or fpt (ln,pos,in,out), ln+attn, lora"
        " (lora,in,out), readout or none (out), full or all.",
    )
    lora_rank: int = arg(8, "Rank of the adapters of --tune lora.")
    lora_alpha: float = arg(16.0, "Scale of the adapters of --tune lora, divided by their rank.")
    core_dropout: bool = arg(False, "Let the backbone's own dropout act in training, as the paper's code does (GPT-2: 0.1).")
    activation_checkpointing: bool = arg(
        False,
        "Keep only the states between blocks for the backward pass, and compute the rest again: less memory, more time.",
    )
    input_layers: str | None = arg(None, "Widths of hidden layers before the backbone, separated by commas: 512,256.")
    readout: str | None = arg(
        None,
        "What is read of a sequence: last (its last token, which lets the last block compute that one alone), mean (over all"
        " tokens), attention (a mean with learned weights) or all (all tokens side by side, for forecasts); last when not given,"
        " mean for --backbone none, all for forecasts.",
    )
    readout_layers: str | None = arg(None, "Widths of hidden layers of the readout, separated by commas.")
    orthogonal_gain: float | None = arg(
        None,
        "Gain of the orthogonal start of linear input layers (the paper's code: 1.41); what suits the backbone when not given.",
    )
    input_init: str = arg(
        "core", "Start of the input embedding: core (the backbone's own embedding of each token's text) or normal."
    )
    input_scale: float | None = arg(
        None, "Factor on the start of the input layer; 1 for tokens and 4 for patches when not given."
    )
    side_width: int = arg(64, "Width of the embedding of each side that a token carries (--environments, --kmers).")
    side_dropout: float = arg(
        0.0, "Probability that a side of a token, or a number of --sample_vector or --vector_columns, is left out in training."
    )
    input_positions: str = arg(
        "auto",
        "For patches: learned (trainable position embeddings), none, or auto (learned where the backbone has none of its own).",
    )
    # A baseline's own arguments as they were given, by name; see `fpt.models.base.Model.options`.
    given_options: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        check_ranges(self, backbone_seed=checks.SEED, num_layers=checks.COUNT, lora_rank=checks.WIDTH)
        check_ranges(self, side_width=checks.Range(1, 1 << 14), side_dropout=checks.Range(0, 0.99))
        positive = checks.Range(0, 10**6, above=True)
        check_ranges(self, lora_alpha=positive, orthogonal_gain=positive, input_scale=positive)
        check_known(self, core_dtype=("fp32", "bf16", "fp16"), input_init=("core", "normal"))
        check_known(self, input_positions=("auto", "learned", "none"))
        if self.readout is not None:
            check_known(self, readout=READOUTS)


@dataclass
class TrainArguments:
    """The optimisation and what is written down."""

    _argument_group_name = "training"
    output_dir: str | None = arg(None, "Folder of this run: checkpoint/, results.json, state/, ...; runs/DATASET by default.")
    overwrite: bool = arg(False, "Delete a run that is already in --output_dir.")
    resume: bool = arg(False, "Go on with the run in --output_dir from its last saved state.")
    seed: int = arg(1, "Seed of initialisation, batch order and dropout.")
    seeds: str | None = arg(
        None,
        "Several seeds separated by commas: their runs train side by side on one copy of the backbone, each as it would alone.",
    )
    max_steps: int = arg(5000, "Optimizer steps.")
    per_device_batch_size: int = arg(16, "Samples in a batch on each device.")
    gradient_accumulation_steps: int = arg(1, "Batches that make one optimizer step.")
    learning_rate: float = arg(5e-4, "Peak learning rate of AdamW.")
    learning_rates: str | None = arg(
        None, "Several learning rates side by side, likewise; only the best one on the validation split is scored on test."
    )
    embedding_lr_scale: float = arg(1.0, "Factor on the learning rate of the input embedding.")
    weight_decay: float = arg(0.01, "AdamW weight decay; norms, biases and positions have none.")
    warmup_steps: int = arg(50, "Steps of linear warmup.")
    lr_scheduler: str = arg("cosine", "Schedule after the warmup, by its name in transformers: cosine, linear, ...")
    max_grad_norm: float = arg(0.5, "Gradient norm to clip at (0: no clipping).")
    dropout: float = arg(0.0, "Dropout on the input embedding and before the readout.")
    label_smoothing: float = arg(0.0, "Share of a class label that is spread over all classes in the training loss.")
    ema: float = arg(
        0.0,
        "Decay of an exponential moving average of the trained parameters, such as 0.995; it is what is evaluated and kept"
        " (0: none).",
    )
    calibrate: str | None = arg(
        None,
        "temperature: divide the logits of the finished model by one number, fitted on the validation split, so that its"
        " probabilities are as often right as they say; not for regressions.",
    )
    mixed_precision: str | None = arg(None, "no, bf16 or fp16; what `accelerate config` says when not given.")
    eval_steps: int = arg(250, "Evaluate on the validation split every N steps.")
    eval_batch_size: int = arg(64, "Samples in an evaluation batch on each device.")
    early_stopping_patience: int = arg(0, "Stop after N evaluations without a better validation score (0: never).")
    save_steps: int | None = arg(None, "Save a resumable state every N steps; --eval_steps when not given.")
    keep_last: int = arg(1, "Resumable states to keep.")
    save_full: bool = arg(False, "Also write the whole model, frozen backbone included, to full/.")
    report_to: str = arg("none", "wandb (offline when not logged in), tensorboard or none.")
    project: str = arg("fpt", "Project name for the tracker.")
    push_to_hub: str | None = arg(None, "USER/REPOSITORY that the checkpoint is sent to at the end.")
    hub_private: bool = arg(False, "Make that repository private, if it is made by this.")
    license: str | None = arg(None, "Licence of the checkpoint, for its model card: apache-2.0, mit, ...")

    def __post_init__(self) -> None:
        counts = (
            "max_steps",
            "per_device_batch_size",
            "gradient_accumulation_steps",
            "eval_steps",
            "eval_batch_size",
            "keep_last",
        )
        check_ranges(self, seed=checks.SEED, save_steps=checks.COUNT, **dict.fromkeys(counts, checks.COUNT))
        check_ranges(self, warmup_steps=checks.COUNT_OR_NONE, early_stopping_patience=checks.COUNT_OR_NONE)
        from_0 = checks.Range(0, 10**6)
        check_ranges(self, learning_rate=checks.RATE, embedding_lr_scale=from_0, weight_decay=from_0, max_grad_norm=from_0)
        check_ranges(self, dropout=checks.DROPOUT, label_smoothing=checks.Range(0, 0.99), ema=checks.Range(0, 0.99999))
        check_known(self, lr_scheduler=SCHEDULES, mixed_precision=PRECISIONS, report_to=("none", "tensorboard", "wandb"))
        if self.calibrate is not None:
            check_known(self, calibrate=CALIBRATIONS)
        if self.seeds is not None:
            number_list(self.seeds, int, checks.SEED, "--seeds", "1,2,3")
        if self.learning_rates is not None:
            number_list(self.learning_rates, float, checks.RATE, "--learning_rates", "1e-3,3e-3")

    def unread(self, given: Collection[str]) -> dict[str, str]:
        """Why flags have no meaning beside the others."""
        reasons = {
            "hub_private": "" if self.push_to_hub else "it is for --push_to_hub",
            "project": "" if self.report_to != "none" else "it is for --report_to wandb or tensorboard",
            "learning_rate": "--learning_rates has them" if self.learning_rates else "",
            "seed": "--seeds has them" if self.seeds else "",
            "warmup_steps": "--lr_scheduler constant has no warmup" if self.lr_scheduler == "constant" else "",
        }
        return {name: why for name, why in reasons.items() if why and name in given}


@dataclass
class Training:
    """A command line that says what is trained.

    Attributes:
        given: names of the flags that were given, in a record of an earlier run not counted.
        more: instances of further dataclasses.
    """

    data: DataArguments
    model: ModelArguments
    training: TrainArguments
    given: frozenset[str] = frozenset()
    more: tuple[Any, ...] = ()
    log: list[str] = field(default_factory=list)


def changed(arguments: T, **changes: Any) -> T:
    """A copy of `arguments` with some other values. (`dataclasses.replace` would lose `DataArguments.options`.)"""
    new = copy.copy(arguments)
    for name, value in changes.items():
        setattr(new, name, value)
    return new


def flat(did: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a run, as its results have them, with those of its task and baseline beside the others."""
    nested = ("options", "model_options")
    own = {k: v for name in nested for k, v in (did.get(name) or {}).items()}
    return {**{k: v for k, v in did.items() if k not in nested}, **own}


def flags(values: Mapping[str, Any]) -> list[str]:
    """Arguments as words of a command line; None is left out."""
    return [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))]


def as_dict(arguments: Any) -> dict[str, Any]:
    """The arguments as plain values, for result files and trackers."""
    values = {f.name: getattr(arguments, f.name) for f in fields(arguments)}
    if isinstance(arguments, DataArguments):
        del values["given_options"]
        values["options"] = arguments.stored_options()
    elif isinstance(arguments, ModelArguments):
        values["model_options"] = values.pop("given_options")
    return values

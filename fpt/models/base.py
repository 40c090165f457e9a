"""What ``--model`` names: the frozen transformer itself, and the baselines that it is held against.

A new baseline is one new file here that registers an instance of `NetworkModel` (trained by the same loop as everything else) or
of `Estimator` (fitted at once, as scikit-learn does) in `MODELS`. Same splits, same metrics, same ``results.json``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate.utils import set_seed
from torch import nn

from fpt.args import ModelArguments, TrainArguments
from fpt.backbones.base import BackboneSpec
from fpt.errors import FPTError
from fpt.models.tuning import Tuning
from fpt.options import own_options
from fpt.registry import Registry
from fpt.results import Evaluation
from fpt.tasks.base import GeneratedTask, Task
from fpt.text.log import Log

if TYPE_CHECKING:
    from fpt.data.prepared import Prepared
    from fpt.inputs import Input
    from fpt.outputs import Output


class Network(nn.Module):
    """What the training loop trains: a module that gives logits of ``(inputs, attention_mask)``, see `fpt.data.batches.collate`.

    Unless a class says otherwise, all of it is trained and a checkpoint holds all of it.
    """

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """What a checkpoint holds, by name."""
        return dict(self.named_parameters())

    def count(self) -> tuple[int, int]:
        """Number of trainable and of all parameters."""
        return sum(p.numel() for p in self.trainable_parameters().values()), sum(p.numel() for p in self.parameters())

    def described(self) -> dict[str, Any]:
        """What a checkpoint must know of it besides its options, to build it again without what it started from; JSON values."""
        return {}

    def roles(self) -> dict[str, str]:
        """Parameters that the optimizer treats in a way of their own: "input" (another rate), "position" (no weight decay)."""
        return {}


@dataclass(frozen=True)
class NetworkRecord:
    """What a checkpoint needs to build a baseline again: its name, its own options with ``dropout``, and what `shape` gave."""

    name: str
    options: dict[str, Any]
    shape: dict[str, Any]


@dataclass
class Made:
    """A network that is ready to be trained, and what results and checkpoints record of it.

    Attributes:
        core: the backbone; of a baseline its name and seed, and no weights.
        tuning: of a frozen transformer, with `input_start`: how its input layer was initialised.
        baseline: of a baseline, to be built again.
    """

    network: Network
    core: BackboneSpec
    tuning: Tuning | None = None
    input_start: str | None = None
    baseline: NetworkRecord | None = None


class Model(ABC):
    """One entry of ``--model``.

    Attributes:
        name: what ``--model`` takes.
        source: paper or package.
        options: a dataclass of its own arguments (with `fpt.args.arg`), or None.
        packages: optional packages that it can't work without; keys of `fpt.optional.EXTRAS`.
    """

    name: str
    source: str
    options: type | None = None
    packages: tuple[str, ...] = ()

    def view(self, task: Task | GeneratedTask) -> Task | GeneratedTask:
        """The task with the features that the model reads.

        Raises:
            FPTError: the model can't read it.
        """
        return task

    def check(self, args: ModelArguments) -> Any:
        """The model's own options with their defaults: an instance of `options`, None for a model without any.

        Raises:
            FPTError: something was given that it does not have.
        """
        allowed = {"model", "given_options"}
        given = [f.name for f in fields(args) if f.name not in allowed and getattr(args, f.name) != f.default]
        if given:
            raise FPTError(f"--{given[0]} is for a frozen backbone; --model {self.name} has none")
        return self.own_options(args)

    def own_options(self, args: ModelArguments) -> Any:
        """As `check`, of the model's own options alone."""
        return own_options(self.options, args.given_options, f"--model {self.name}")

    def core(self, seed: int) -> BackboneSpec:
        """Return what stands in place of a backbone in results and checkpoints."""
        return BackboneSpec(self.name, seed=seed)


class TrainedModel(Model):
    """A model that the training loop trains in steps."""

    @abstractmethod
    def make_each(self, prepared: Prepared, model_args: ModelArguments, each: Sequence[TrainArguments], log: Log) -> list[Made]:
        """Build the networks of runs that go side by side, one per entry of `each`.

        Raises:
            FPTError: the model or its backbone can't be built, or there are several runs and it can't train them so.
        """


class NetworkModel(TrainedModel):
    """A network that the training loop trains as a whole.

    Attributes:
        sources: its options that name trained weights to start from. A checkpoint has weights of its own.
        shape_type: type of the values that `shape` gives; those of a checkpoint are checked against it. None for any values.
    """

    sources: tuple[str, ...] = ()
    shape_type: Any = None

    @abstractmethod
    def network(self, inputs: Input, output: Output, options: Any, shape: Mapping[str, Any], dropout: float) -> Network:
        """The network, initialised at random.

        Args:
            options: what `check` gave.
            shape: what `shape` gave.
            dropout: what ``--dropout`` says.
        """

    def rebuilt(self, record: NetworkRecord, inputs: Input, output: Output) -> Network:
        """The network of a checkpoint, initialised at random. Trained weights that it started from are not fetched again."""
        stored = {**record.options, **dict.fromkeys(self.sources)}
        own = {f.name: stored[f.name] for f in fields(self.options)} if self.options else {}
        options = own_options(self.options, own, f"--model {self.name}")
        return self.network(inputs, output, options, record.shape, stored["dropout"])

    def shape(self, prepared: Prepared) -> dict[str, Any]:
        """What the network must know of the data besides inputs and output; JSON values.

        Raises:
            FPTError: the model can't read such data.
        """
        return {}

    def make(self, prepared: Prepared, model_args: ModelArguments, args: TrainArguments, log: Log) -> Made:
        """Build it for a task."""
        options, shape = self.check(model_args), self.shape(prepared)
        network = self.network(prepared.input, prepared.output, options, shape, args.dropout)
        trainable, _ = network.count()
        log(f"model: {self.name} ({self.source}), {trainable:,} parameters")
        shape = {**shape, **network.described()}
        stored = {} if options is None else asdict(options)
        record = NetworkRecord(self.name, {**stored, "dropout": args.dropout}, shape)
        return Made(network, self.core(args.seed), baseline=record)

    def make_each(self, prepared: Prepared, model_args: ModelArguments, each: Sequence[TrainArguments], log: Log) -> list[Made]:
        """Networks of runs that go side by side, drawn from the seed of each.

        Raises:
            FPTError: there are several; nothing of them would be shared.
        """
        if len(each) > 1:
            raise FPTError(
                f"--seeds and --learning_rates are for tunings of one frozen backbone; give --model {self.name} one --seed"
            )
        set_seed(each[0].seed)
        return [self.make(prepared, model_args, each[0], log)]


@dataclass
class Fitted:
    """What an `Estimator` found.

    Attributes:
        predictions: for each of valid and test (samples, columns), as `Output.metrics` takes them.
        chosen: the settings that were best on the validation split, JSON values.
        history: each setting that was tried, with its scores on valid.
    """

    predictions: dict[str, np.ndarray]
    chosen: dict[str, Any]
    history: list[Evaluation]


class Estimator(Model):
    """A model that is fitted at once, without steps."""

    @abstractmethod
    def fit(self, prepared: Prepared, options: Any, seed: int, log: Log) -> Fitted:
        """Fit on train, choose settings on valid; `options` are what `check` gave."""


MODELS: Registry[Model] = Registry("model", "fpt.models")

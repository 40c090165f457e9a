"""What ``--model`` names: the frozen transformer itself, and the baselines that it is held against.

A new baseline is one new file here that registers an instance of `NetworkModel` (trained by the same loop as everything else) or
of `Estimator` (fitted at once, as scikit-learn does) in `MODELS`. Same splits, same metrics, same ``results.json``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate.utils import set_seed
from torch import nn

from fpt.args import ModelArguments, TrainArguments, own_options
from fpt.errors import FPTError
from fpt.registry import Registry
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


@dataclass
class Made:
    """A network that is ready to be trained, and what results and checkpoints say of it.

    Attributes:
        backbone: JSON values of a `fpt.backbones.base.BackboneSpec`; of a baseline its name and seed.
        config: what its checkpoint needs besides, to be built again.
        results: what its results say besides.
    """

    network: Network
    core: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)


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

    def check(self, args: ModelArguments) -> dict[str, Any]:
        """The model's own options with their defaults.

        Raises:
            FPTError: something was given that it does not have.
        """
        allowed = {"model", "model_options"}
        given = [f.name for f in fields(args) if f.name not in allowed and getattr(args, f.name) != f.default]
        if given:
            raise FPTError(f"--{given[0]} is for a frozen backbone; --model {self.name} has none")
        return self.own_options(args)

    def own_options(self, args: ModelArguments) -> dict[str, Any]:
        """As `check`, of the model's own options alone."""
        return own_options(self.options, args.model_options, f"--model {self.name}")

    def core(self, seed: int) -> dict[str, Any]:
        """What stands where results name the backbone."""
        none = dict.fromkeys(("revision", "num_layers", "sha256", "hub_id"))
        return {"name": self.name, "seed": seed, "dtype": "fp32", **none}


class NetworkModel(Model):
    """A network that the training loop trains as a whole.

    Attributes:
        sources: its options that name trained weights to start from. A checkpoint has weights of its own.
    """

    sources: tuple[str, ...] = ()

    @abstractmethod
    def network(self, inputs: Input, output: Output, options: Mapping[str, Any], shape: Mapping[str, Any]) -> Network:
        """The network, initialised at random.

        Args:
            shape: what `shape` gave.
        """

    def shape(self, prepared: Prepared) -> dict[str, Any]:
        """What the network must know of the data besides inputs and output; JSON values.

        Raises:
            FPTError: the model can't read such data.
        """
        return {}

    def make(self, prepared: Prepared, model_args: ModelArguments, args: TrainArguments, log: Log) -> Made:
        """Build it for a task."""
        options, shape = self.check(model_args), self.shape(prepared)
        network = self.network(prepared.input, prepared.output, {**options, "dropout": args.dropout}, shape)
        trainable, _ = network.count()
        log(f"model: {self.name} ({self.source}), {trainable:,} parameters")
        shape = {**shape, **network.described()}
        about = {"name": self.name, "options": {**options, "dropout": args.dropout}, "shape": shape}
        return Made(network, self.core(args.seed), {"network": about})

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
        history: of each setting that was tried, JSON values.
    """

    predictions: dict[str, np.ndarray]
    chosen: dict[str, Any]
    history: list[dict[str, Any]]


class Estimator(Model):
    """A model that is fitted at once, without steps."""

    @abstractmethod
    def fit(self, prepared: Prepared, options: Mapping[str, Any], seed: int, log: Log) -> Fitted:
        """Fit on train, choose settings on valid."""


MODELS: Registry[Model] = Registry("model", "fpt.models")

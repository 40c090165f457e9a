"""What a chemist would try first: Morgan fingerprints (ECFP4: radius 2, 2,048 bits) or descriptors, and a classical model.

Any task on SMILES, classes or a number. Settings are chosen on the validation split: the number of trees of the boosting and its
rate, the strength of the penalty of the linear model.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

import numpy as np

from fpt.args import ModelArguments, arg
from fpt.data.prepared import Prepared
from fpt.data.samples import numbers
from fpt.errors import FPTError
from fpt.flags import checks
from fpt.flags.checks import check_known, check_ranges, number_list
from fpt.metrics import is_better
from fpt.models.base import MODELS, Estimator, Fitted
from fpt.models.estimators import ESTIMATORS, PACKAGES, Problem
from fpt.models.molecule_features import KINDS, molecules_only, read_features
from fpt.optional import need
from fpt.outputs import Classes, Value
from fpt.results import Evaluation
from fpt.tasks.base import GeneratedTask, Task
from fpt.tasks.molecules import BITS, RADIUS, fingerprints
from fpt.text.log import Log

__all__ = ["Morgan", "MorganOptions", "all_classes", "fingerprints"]
# Bits keep the one rate of their published results.
RATES = {"bits": (0.1,)}
OTHER_RATES = (0.05, 0.1)


@dataclass
class MorganOptions:
    """The classical model."""

    _argument_group_name = "morgan"
    estimator: str = arg(
        "boosting",
        "boosting (gradient-boosted trees of scikit-learn), lightgbm or catboost (the same by packages of their own), or linear"
        " (logistic or ridge regression).",
    )
    morgan_features: str = arg(
        "bits",
        "bits (whether a substructure occurs), counts (how often), descriptors (RDKit's 2D descriptors) or counts+descriptors.",
    )
    trees: int = arg(400, "Largest number of trees; the best multiple of 10 on the validation split is taken.")
    tree_rates: str | None = arg(
        None,
        "Learning rates of the boosting, the best one on the validation split is taken; 0.05,0.1 when not given (bits: 0.1).",
    )

    def __post_init__(self) -> None:
        check_known(self, estimator=ESTIMATORS, morgan_features=KINDS)
        check_ranges(self, trees=checks.Range(1, 100_000))
        self.rates()

    def rates(self) -> tuple[float, ...]:
        """Learning rates to try."""
        if self.tree_rates is None:
            return RATES.get(self.morgan_features, OTHER_RATES)
        return tuple(number_list(self.tree_rates, float, checks.RATE, "--tree_rates", "0.05,0.1"))

    def unread(self, given: Collection[str]) -> dict[str, str]:
        """Why flags have no meaning beside the others."""
        if self.estimator != "linear":
            return {}
        return {name: "--estimator linear has no trees" for name in ("trees", "tree_rates") if name in given}


def all_classes(probabilities: np.ndarray, present: np.ndarray, size: int) -> np.ndarray:
    """Probabilities (samples, size) of all classes; an estimator gives those of those that are `present` in training."""
    whole = np.zeros((len(probabilities), size))
    whole[:, present] = probabilities
    return whole


class Morgan(Estimator):
    """ECFP4 and a classical model."""

    name = "morgan"
    source = "ECFP4 with scikit-learn"
    options = MorganOptions
    packages = ("rdkit",)

    def view(self, task: Task | GeneratedTask) -> Task | GeneratedTask:
        """As it is, when it has molecules."""
        return molecules_only(self.name, task)

    def check(self, args: ModelArguments) -> MorganOptions:
        """The model's own options with their defaults.

        Raises:
            FPTError: something was given that it does not have, or the package of the estimator is missing.
        """
        options: MorganOptions = super().check(args)
        if package := PACKAGES.get(options.estimator):
            need(package, f"--estimator {options.estimator}")
        return options

    def fit(self, prepared: Prepared, options: MorganOptions, seed: int, log: Log) -> Fitted:
        """Fit on train; the setting with the best primary metric on valid is taken."""
        if not isinstance(prepared.output, Classes | Value):
            raise FPTError(
                f"--model morgan predicts one class or one number; the labels of {prepared.task.name} are of another kind"
            )
        number = isinstance(prepared.output, Value)
        log(f"model: {self.name}, {options.estimator} on {_described(options.morgan_features)}")
        smiles = {split: list(rows["text"]) for split, rows in prepared.splits.items()}
        features = read_features(options.morgan_features, smiles, prepared.args.num_proc, log)
        labels = {split: numbers(rows, "label") for split, rows in prepared.splits.items()}
        present = np.unique(labels["train"])
        primary, best = prepared.primary_metric, None
        history: list[Evaluation] = []
        for setting, predictions in ESTIMATORS[options.estimator](
            Problem(features, labels["train"], number, seed, options.trees, options.rates())
        ):
            if number:
                predictions = {s: p[:, None] for s, p in predictions.items()}
            else:
                predictions = {s: all_classes(p, present, prepared.output.size) for s, p in predictions.items()}
            metrics = prepared.output.metrics(labels["valid"], predictions["valid"])
            history.append(cast(Evaluation, {**setting, "valid": metrics}))
            if best is None or is_better(primary, metrics[primary], best[0]):
                best = metrics[primary], setting, predictions
        assert best is not None
        log(f"model: {', '.join(f'{k} {v:g}' for k, v in best[1].items())} is best on valid")
        of_features = {} if options.morgan_features == "bits" else {"features": options.morgan_features}
        return Fitted(best[2], {"estimator": options.estimator, **of_features, **best[1]}, history)


def _described(kind: str) -> str:
    """Features in words."""
    shape = f"fingerprints of radius {RADIUS} and {BITS:,} bits"
    return {
        "bits": shape,
        "counts": f"counts of {shape}",
        "descriptors": "descriptors",
        "counts+descriptors": f"counts of {shape} and descriptors",
    }[kind]


MODELS.register("morgan")(Morgan())

"""What a chemist would try first: Morgan fingerprints (ECFP4: radius 2, 2,048 bits) and a classical model of scikit-learn.

Rogers and Hahn, J. Chem. Inf. Model. 2010, 50, 742. Any task on SMILES, classes or a number. Settings are chosen on the
validation split: the number of trees of the boosting, the strength of the penalty of the linear model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from fpt.args import arg
from fpt.data.prepared import Prepared
from fpt.data.samples import numbers
from fpt.errors import FPTError
from fpt.flags.checks import check_known
from fpt.metrics import is_better
from fpt.models.base import MODELS, Estimator, Fitted
from fpt.outputs import Classes, Value
from fpt.results import Evaluation
from fpt.tasks.base import GeneratedTask, Task
from fpt.tasks.text import Smiles, chemistry
from fpt.text.log import Log

RADIUS, BITS = 2, 2048
TREES, SHOWN = 400, 10
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

# Predictions of valid and test for one setting, and the setting.
Tried = tuple[dict[str, Any], dict[str, np.ndarray]]


@dataclass
class MorganOptions:
    """The classical model."""

    _argument_group_name = "morgan"
    estimator: str = arg("boosting", "boosting (gradient-boosted trees) or linear (logistic or ridge regression).")

    def __post_init__(self) -> None:
        check_known(self, estimator=("boosting", "linear"))


def fingerprints(smiles: list[str]) -> np.ndarray:
    """Morgan fingerprints (molecules, 2048), 0 or 1.

    Raises:
        ValueError: rdkit can't read one.
    """
    chem = chemistry()
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    out = np.zeros((len(smiles), BITS), dtype=np.uint8)
    for row, text in zip(out, smiles, strict=True):
        molecule = chem.MolFromSmiles(text)
        if molecule is None:
            raise ValueError(f"invalid SMILES {text!r}")
        row[:] = generator.GetFingerprintAsNumPy(molecule)
    return out


def boosted(features: dict[str, np.ndarray], labels: np.ndarray, number: bool, seed: int) -> Iterator[Tried]:
    """Gradient boosting after every 10 trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind: Any = HistGradientBoostingRegressor if number else HistGradientBoostingClassifier
    model = kind(max_iter=TREES, early_stopping=False, random_state=seed).fit(features["train"], labels)
    stages = {s: (model.staged_predict if number else model.staged_predict_proba)(features[s]) for s in ("valid", "test")}
    for trees, (valid, test) in enumerate(zip(stages["valid"], stages["test"], strict=True), 1):
        if trees % SHOWN == 0:
            yield {"trees": trees}, {"valid": valid, "test": test}


def linear(features: dict[str, np.ndarray], labels: np.ndarray, number: bool, seed: int) -> Iterator[Tried]:
    """Logistic or ridge regression with penalties of several strengths."""
    from sklearn.linear_model import LogisticRegression, Ridge

    for strength in PENALTIES:
        model: Any = Ridge(alpha=1 / strength) if number else LogisticRegression(C=strength, max_iter=2000, random_state=seed)
        model.fit(features["train"].astype(np.float64), labels)
        answer = model.predict if number else model.predict_proba
        yield {"C": strength}, {s: answer(features[s].astype(np.float64)) for s in ("valid", "test")}


ESTIMATORS: dict[str, Callable[..., Iterator[Tried]]] = {"boosting": boosted, "linear": linear}


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
        if not isinstance(getattr(task, "modality", None), Smiles):
            raise FPTError(f"--model morgan reads molecules; {task.name} has no SMILES")
        return task

    def fit(self, prepared: Prepared, options: Mapping[str, Any], seed: int, log: Log) -> Fitted:
        """Fit on train; the setting with the best primary metric on valid is taken."""
        name = options["estimator"]
        if not isinstance(prepared.output, Classes | Value):
            raise FPTError(
                f"--model morgan predicts one class or one number; the labels of {prepared.task.name} are of another kind"
            )
        number = isinstance(prepared.output, Value)
        log(f"model: {self.name}, {name} on fingerprints of radius {RADIUS} and {BITS:,} bits")
        features = {split: fingerprints(list(rows["text"])) for split, rows in prepared.splits.items()}
        labels = {split: numbers(rows, "label") for split, rows in prepared.splits.items()}
        primary, best = prepared.primary_metric, None
        history: list[Evaluation] = []
        for setting, predictions in ESTIMATORS[name](features, labels["train"], number, seed):
            if number:
                predictions = {s: p[:, None] for s, p in predictions.items()}
            else:
                present = np.unique(labels["train"])
                predictions = {s: all_classes(p, present, prepared.output.size) for s, p in predictions.items()}
            metrics = prepared.output.metrics(labels["valid"], predictions["valid"])
            history.append(cast(Evaluation, {**setting, "valid": metrics}))
            if best is None or is_better(primary, metrics[primary], best[0]):
                best = metrics[primary], setting, predictions
        assert best is not None
        log(f"model: {', '.join(f'{k} {v:g}' for k, v in best[1].items())} is best on valid")
        return Fitted(best[2], {"estimator": name, **best[1]}, history)


MODELS.register("morgan")(Morgan())

"""Classical models on a table of numbers, by their names for ``--estimator``; each gives predictions of all settings tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fpt.models.molecule_features import Features
from fpt.optional import need

# Of the boosting, every tenth number of trees is tried.
STEP = 10
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

# Predictions of valid and test for one setting, and the setting.
Tried = tuple[dict[str, Any], dict[str, np.ndarray]]
SCORED = ("valid", "test")


@dataclass(frozen=True)
class Problem:
    """What an estimator is fitted to.

    Attributes:
        labels: (molecules,) of train.
        number: they are numbers, not classes.
        trees, rates: of boosting: the largest number of trees, and each learning rate to try.
    """

    features: Features
    labels: np.ndarray
    number: bool
    seed: int
    trees: int
    rates: tuple[float, ...]

    def settings(self, rate: float, trees: int) -> dict[str, Any]:
        """A setting of boosting as results have it: the rate only where several are tried."""
        return {"trees": trees} if len(self.rates) == 1 else {"trees": trees, "rate": rate}


def boosting(problem: Problem) -> Iterator[Tried]:
    """Gradient boosting of scikit-learn."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind: Any = HistGradientBoostingRegressor if problem.number else HistGradientBoostingClassifier
    rows = problem.features.splits
    for rate in problem.rates:
        model = kind(max_iter=problem.trees, learning_rate=rate, early_stopping=False, random_state=problem.seed)
        model.fit(rows["train"], problem.labels)
        answer = model.staged_predict if problem.number else model.staged_predict_proba
        stages = zip(*(answer(rows[s]) for s in SCORED), strict=True)
        for trees, (valid, test) in enumerate(stages, 1):
            if trees % STEP == 0 or trees == problem.trees:
                yield problem.settings(rate, trees), {"valid": valid, "test": test}


def linear(problem: Problem) -> Iterator[Tried]:
    """Logistic or ridge regression with penalties of several strengths."""
    from sklearn.linear_model import LogisticRegression, Ridge

    rows = problem.features.for_linear_models()
    for strength in PENALTIES:
        model: Any = (
            Ridge(alpha=1 / strength)
            if problem.number
            else LogisticRegression(C=strength, max_iter=2000, random_state=problem.seed)
        )
        model.fit(rows["train"], problem.labels)
        answer = model.predict if problem.number else model.predict_proba
        yield {"C": strength}, {s: answer(rows[s]) for s in SCORED}


def lightgbm(problem: Problem) -> Iterator[Tried]:
    """Gradient boosting of LightGBM."""
    package = need("lightgbm", "--estimator lightgbm")
    kind = package.LGBMRegressor if problem.number else package.LGBMClassifier
    rows = problem.features.splits
    for rate in problem.rates:
        model = kind(
            n_estimators=problem.trees,
            learning_rate=rate,
            random_state=problem.seed,
            n_jobs=torch.get_num_threads(),
            deterministic=True,
            force_row_wise=True,  # either way is deterministic, and a choice by measured time is not
            verbosity=-1,
        )
        model.fit(rows["train"], problem.labels)
        answer = model.predict if problem.number else model.predict_proba
        for trees in _stages(problem.trees):
            yield problem.settings(rate, trees), {s: np.asarray(answer(rows[s], num_iteration=trees)) for s in SCORED}


def catboost(problem: Problem) -> Iterator[Tried]:
    """Gradient boosting of CatBoost."""
    package = need("catboost", "--estimator catboost")
    kind = package.CatBoostRegressor if problem.number else package.CatBoostClassifier
    rows = problem.features.splits
    for rate in problem.rates:
        model = kind(
            iterations=problem.trees,
            learning_rate=rate,
            random_seed=problem.seed,
            thread_count=torch.get_num_threads(),
            verbose=False,
            allow_writing_files=False,
        )
        model.fit(rows["train"], problem.labels)
        answer = model.predict if problem.number else model.predict_proba
        for trees in _stages(problem.trees):
            yield problem.settings(rate, trees), {s: np.asarray(answer(rows[s], ntree_end=trees)) for s in SCORED}


def _stages(trees: int) -> list[int]:
    """Numbers of trees to try."""
    return sorted({*range(STEP, trees + 1, STEP), trees})


ESTIMATORS: dict[str, Callable[[Problem], Iterator[Tried]]] = {
    "boosting": boosting,
    "linear": linear,
    "lightgbm": lightgbm,
    "catboost": catboost,
}
# Optional packages that one can't work without.
PACKAGES = {"lightgbm": "lightgbm", "catboost": "catboost"}

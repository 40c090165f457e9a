"""Ways to cut rows into train, valid and test, each decided by a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fpt.errors import FPTError

FRACTIONS = [0.7, 0.1, 0.2]


def cut_valid(count: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a validation split from `count` training rows, for sources that have only train and test.

    Returns:
        Sorted row numbers of train and of valid.
    """
    order = np.random.default_rng(seed).permutation(count)
    size = max(1, round(count * fraction))
    return np.sort(order[size:]), np.sort(order[:size])


def random_split(count: int, seed: int, labels: Sequence[int] | np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Cut rows into 0.7/0.1/0.2 at random; with `labels` each split has every label's share.

    Returns:
        Sorted row numbers of each split.

    Raises:
        FPTError: a label is too rare to be in every split.
    """
    from sklearn.model_selection import train_test_split

    strata = None if labels is None else np.asarray(labels)
    # Whole rows: a share of a share would be rounded twice.
    sizes = [max(1, round(count * fraction)) for fraction in FRACTIONS]
    try:
        kept, test = train_test_split(np.arange(count), test_size=sizes[2], random_state=seed, stratify=strata)
        train, valid = train_test_split(
            kept,
            test_size=sizes[1],
            random_state=seed,
            stratify=None if strata is None else strata[kept],
        )
    except ValueError as error:
        raise FPTError(f"the rows can't be split: {error}; give more rows of each class, or another --split") from None
    return {"train": np.sort(train), "valid": np.sort(valid), "test": np.sort(test)}


def tdc_random_split(count: int, seed: int) -> dict[str, np.ndarray]:
    """Cut rows into 0.7/0.1/0.2 as pytdc's random split does.

    Returns:
        Row numbers of each split, in pytdc's order.
    """
    from tdc.utils.split import create_fold

    parts = create_fold(pd.DataFrame({"row": range(count)}), seed, FRACTIONS)
    return {name: part["row"].to_numpy() for name, part in parts.items()}


def scaffold_split(smiles: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    """Cut molecules into 0.7/0.1/0.2 by Bemis-Murcko scaffold with pytdc's own splitter.

    Returns:
        Row numbers of each split, in pytdc's order.
    """
    from tdc.utils.split import create_scaffold_split

    rows = pd.DataFrame({"Drug": list(smiles), "row": range(len(smiles))})
    parts = create_scaffold_split(rows, seed, FRACTIONS, "Drug")
    return {name: part["row"].to_numpy() for name, part in parts.items()}

"""Ways to cut rows into train, valid and test, each decided by a seed; splits that the data comes with are kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from fpt.errors import FPTError
from fpt.optional import need

NAMES = ("train", "valid", "test")
FRACTIONS = [0.7, 0.1, 0.2]
# What is cut from the training rows of data that comes with a part of its splits.
VALID_OF_TRAIN, TEST_OF_TRAIN = 0.1, 0.2
GIVEN, AUTO = "given", "auto"
# Names that data sets give their splits, in any case, also "train_set", "val2017", "test-images".
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development", "eval", "evaluation", "validate"), "valid"),
    **dict.fromkeys(("test", "testing", "tst", "te", "holdout", "hold-out", "hold_out"), "test"),
}
AROUND = re.compile(r"[ _.-]?(?:set|split|data|images?|audio|\d+)?$")
# A class needs this many rows for a stratified split.
FEWEST = 3


@dataclass
class Parts:
    """Which rows are in which split.

    Attributes:
        rows: row numbers of each of `NAMES`, sorted.
        method: how they were made, in words: "given", "stratified", "given; valid cut from train (stratified)".
        notes: lines for the user.
        unused: row numbers that are in none, with the reason.
    """

    rows: dict[str, np.ndarray]
    method: str
    notes: list[str] = field(default_factory=list)
    unused: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """What a split may go by.

    Attributes:
        given: the data's own name of each row's split; empty where it has none.
        strata: the class or the size group of each row; None for no stratification.
        names: of the strata, for messages.
        smiles: molecules, for scaffold splits.
        groups: of rows that belong together.
    """

    given: Sequence[str]
    strata: np.ndarray | None
    names: Sequence[str] = ()
    smiles: Sequence[str] | None = None
    groups: Sequence[str] | None = None

    def take(self, which: np.ndarray) -> Rows:
        """Some of the rows."""

        def some(values: Sequence[str] | None) -> list[str] | None:
            return None if values is None else [values[i] for i in which]

        strata = None if self.strata is None else self.strata[which]
        return Rows(some(self.given) or [], strata, self.names, some(self.smiles), some(self.groups))


def split_name(name: str) -> str:
    """Which of train, valid and test a data set's own name of a split means; empty for any other."""
    name = name.strip().casefold()
    return SPLIT_NAMES.get(name) or SPLIT_NAMES.get(AROUND.sub("", name), "")


def make_parts(rows: Rows, method: str, seed: int, has_given: bool) -> Parts:
    """Keep the splits that are given, and cut those that are missing.

    Args:
        method: what ``--split`` says; `AUTO` takes the given ones, else groups, scaffolds or strata.
        has_given: whether the data names splits at all.

    Raises:
        FPTError: given splits are asked for and there are none, or rows can't be cut that way.
    """
    if method == GIVEN and not has_given:
        raise FPTError("--split given: the data names no splits; pass --split_column, or another --split")
    if has_given and method in (AUTO, GIVEN):
        return _complete(rows, seed)
    how = _default(rows) if method == AUTO else method
    parts = Parts(cut(rows, FRACTIONS, how, seed), _described(rows, how))
    if has_given:
        parts.notes.append(f"the splits that the data names are not used (--split {method})")
    return parts


def _default(rows: Rows) -> str:
    return "scaffold" if rows.smiles is not None else "stratified"


def _described(rows: Rows, how: str) -> str:
    if rows.groups is not None:
        return "group"
    return "random" if how == "stratified" and rows.strata is None else how


def _complete(rows: Rows, seed: int) -> Parts:
    """The given splits; those without rows are cut from train."""
    mapped = np.array([split_name(name) for name in rows.given], dtype=object)
    found = {name: np.flatnonzero(mapped == name) for name in NAMES}
    nameless = np.flatnonzero(mapped == "").tolist()
    other = Counter(rows.given[i] or "no name" for i in nameless)
    notes = [f"{count:,} rows of the split {name!r} are not used" for name, count in other.items()]
    unused = {i: f"in the split {rows.given[i]!r}" for i in nameless}
    if not len(found["train"]):
        named = ", ".join(sorted({name for name in rows.given if name})) or "none"
        raise FPTError(
            f"the data's own splits have no labelled training rows (found: {named}); pass --split stratified to cut new ones"
        )
    missing = [name for name in ("valid", "test") if not len(found[name])]
    method = GIVEN
    if missing:
        how = _default(rows)
        shares = {"valid": VALID_OF_TRAIN, "test": TEST_OF_TRAIN}
        fractions = [1 - sum(shares[name] for name in missing), *(shares[n] if n in missing else 0.0 for n in ("valid", "test"))]
        train = found["train"]
        parts = cut(rows.take(train), fractions, how, seed)
        found |= {name: train[part] for name, part in parts.items() if name in ("train", *missing)}
        method = f"{GIVEN}; {' and '.join(missing)} cut from train ({_described(rows, how)})"
        notes.append(f"the data has no {' and no '.join(missing)} split with labels: cut from train ({_described(rows, how)})")
    if rows.groups is not None:
        _check_groups(rows.groups, found)
    return Parts(found, method, notes, unused)


def _check_groups(groups: Sequence[str], parts: dict[str, np.ndarray]) -> None:
    homes: dict[str, set[str]] = {}
    for name, part in parts.items():
        for i in part:
            homes.setdefault(groups[i], set()).add(name)
    crossing = [group for group, names in homes.items() if len(names) > 1]
    if crossing:
        raise FPTError(
            f"{len(crossing):,} groups of --group_column are in more than one of the given splits, the first one {crossing[0]!r};"
            " pass --split stratified to cut by group, or leave --group_column out"
        )


def cut(rows: Rows, fractions: Sequence[float], how: str, seed: int) -> dict[str, np.ndarray]:
    """Cut rows into shares of train, valid and test (a share of 0 stays empty); groups stay whole in any way.

    Raises:
        FPTError: a split would be empty, or a class is too rare.
    """
    count = len(rows.given)
    if rows.groups is not None:
        return _group_split(rows.groups, fractions, seed)
    if how == "scaffold":
        assert rows.smiles is not None
        return scaffold_split(rows.smiles, seed, fractions)
    strata = rows.strata if how == "stratified" else None
    return random_split(count, seed, strata, rows.names, fractions)


def _group_split(groups: Sequence[str], fractions: Sequence[float], seed: int) -> dict[str, np.ndarray]:
    from sklearn.model_selection import GroupShuffleSplit

    keys = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    wanted = sum(fraction > 0 for fraction in fractions)
    if keys.max(initial=-1) + 1 < wanted:
        raise FPTError(f"--group_column has {keys.max(initial=-1) + 1} groups; at least {wanted} are needed, one per split")
    left, parts = np.arange(len(groups)), {name: np.zeros(0, dtype=np.int64) for name in NAMES}
    for name, fraction in (("test", fractions[2]), ("valid", fractions[1])):
        if fraction > 0:
            share = min(0.9, max(fraction * len(groups) / len(left), 1 / len(np.unique(keys[left]))))
            kept, out = next(GroupShuffleSplit(1, test_size=share, random_state=seed).split(left, groups=keys[left]))
            parts[name], left = left[out], left[kept]
    return {name: np.sort(part) for name, part in (parts | {"train": left}).items()}


def cut_valid(count: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a validation split from `count` training rows, for sources that have only train and test.

    Returns:
        Sorted row numbers of train and of valid.
    """
    order = np.random.default_rng(seed).permutation(count)
    size = max(1, round(count * fraction))
    return np.sort(order[size:]), np.sort(order[:size])


def random_split(
    count: int,
    seed: int,
    labels: Sequence[int] | np.ndarray | None = None,
    names: Sequence[str] = (),
    fractions: Sequence[float] = tuple(FRACTIONS),
) -> dict[str, np.ndarray]:
    """Cut rows into 0.7/0.1/0.2 (or other shares) at random; with `labels` each split has every label's share.

    Args:
        names: of the labels, for the message about rare ones.

    Returns:
        Sorted row numbers of each split.

    Raises:
        FPTError: a label is too rare to be in every split.
    """
    from sklearn.model_selection import train_test_split

    strata = None if labels is None else np.asarray(labels)
    if strata is not None:
        _check_rare(strata, names)
    # Whole rows: a share of a share would be rounded twice.
    sizes = [max(1, round(count * fraction)) if fraction else 0 for fraction in fractions]
    left, parts = np.arange(count), {name: np.zeros(0, dtype=np.int64) for name in NAMES}
    try:
        for name, size in (("test", sizes[2]), ("valid", sizes[1])):
            if size:
                # Fewer rows than classes: there is no share for each.
                own = None if strata is None or size < len(np.unique(strata[left])) else strata[left]
                left, parts[name] = train_test_split(left, test_size=size, random_state=seed, stratify=own)
    except ValueError as error:
        raise FPTError(f"the rows can't be split: {error}; add rows of each class, or pass --split random") from error
    return {name: np.sort(part) for name, part in (parts | {"train": left}).items()}


def _check_rare(strata: np.ndarray, names: Sequence[str]) -> None:
    values, counts = np.unique(strata, return_counts=True)
    rare = [(names[int(v)] if int(v) < len(names) else str(v), int(c)) for v, c in zip(values, counts, strict=True) if c < FEWEST]
    if rare:
        shown = ", ".join(f"{name!r} ({count} {'row' if count == 1 else 'rows'})" for name, count in rare[:5])
        more = f" and {len(rare) - 5} more" if len(rare) > 5 else ""
        numeric = bool(names) and all(re.fullmatch(r"-?\d+", name) for name in names)
        quantities = ", or --label_type number if they are quantities" if numeric else ""
        raise FPTError(
            f"the rows can't be split: classes with fewer than {FEWEST} rows can't be in every split: {shown}{more};"
            f" add rows, leave these classes out, or pass --split random{quantities}"
        )


def tdc_random_split(count: int, seed: int) -> dict[str, np.ndarray]:
    """Cut rows into 0.7/0.1/0.2 as pytdc's random split does.

    Returns:
        Row numbers of each split, in pytdc's order.
    """
    need("tdc", "--split random of a TDC set")
    from tdc.utils.split import create_fold

    parts = create_fold(pd.DataFrame({"row": range(count)}), seed, FRACTIONS)
    return {name: part["row"].to_numpy() for name, part in parts.items()}


def scaffold_split(smiles: Sequence[str], seed: int, fractions: Sequence[float] = tuple(FRACTIONS)) -> dict[str, np.ndarray]:
    """Cut molecules into 0.7/0.1/0.2 (or other shares) by Bemis-Murcko scaffold with pytdc's own splitter.

    Returns:
        Row numbers of each split, in pytdc's order.

    Raises:
        FPTError: a split is empty, since too many molecules share a scaffold.
    """
    need("tdc", "--split scaffold")
    from tdc.utils.split import create_scaffold_split

    rows = pd.DataFrame({"Drug": list(smiles), "row": range(len(smiles))})
    parts = create_scaffold_split(rows, seed, list(fractions), "Drug")
    found = {name: part["row"].to_numpy() if "row" in part else np.zeros(0, dtype=np.int64) for name, part in parts.items()}
    empty = [name for name, fraction in zip(NAMES, fractions, strict=True) if fraction and not len(found[name])]
    if empty:
        raise FPTError(
            f"--split scaffold leaves {' and '.join(empty)} without molecules: {_largest_scaffold(smiles)};"
            " pass --split stratified"
        )
    return found


def _largest_scaffold(smiles: Sequence[str]) -> str:
    from rdkit.Chem.Scaffolds import MurckoScaffold

    counts = Counter(MurckoScaffold.MurckoScaffoldSmiles(smiles=text, includeChirality=False) for text in smiles)
    scaffold, count = counts.most_common(1)[0]
    shape = f"the scaffold {scaffold}" if scaffold else "no ring and so no scaffold"
    return f"{count:,} of {len(smiles):,} molecules have {shape}"

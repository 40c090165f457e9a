"""TDC's ADMET benchmark group: a fixed test split, and train and valid as pytdc cuts them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from conftest import molecules

from fpt.args import DataArguments
from fpt.data.cache import prepare
from fpt.errors import FPTError
from fpt.tasks.base import TASKS
from fpt.tasks.tdc_benchmark import FRACTIONS, benchmark_files
from fpt.text.log import silent


def write_group(folder: Path, set_name: str = "cyp3a4_veith", test: int = 60) -> list[tuple[str, int]]:
    """A set of the group as pytdc unpacks it."""
    place = folder / "admet_group" / set_name
    place.mkdir(parents=True)
    rows = molecules()
    table = pd.DataFrame(
        {"Drug_ID": [f"d{i}" for i in range(len(rows))], "Drug": [s for s, _ in rows], "Y": [y for _, y in rows]}
    )
    table[:-test].to_csv(place / "train_val.csv", index=False)
    table[-test:].to_csv(place / "test.csv", index=False)
    return rows


@pytest.mark.parametrize("seed", [1, 3])
def test_splits_are_those_that_pytdc_gives(tmp_path: Path, seed: int) -> None:
    from tdc.benchmark_group import admet_group

    write_group(tmp_path)
    prepared = prepare(TASKS["cyp3a4"], DataArguments(data_dir=str(tmp_path), split="tdc", split_seed=seed), 1, silent)
    group = admet_group.__new__(admet_group)  # its own constructor asks a server
    group.name, group.path, group.file_format = "admet_group", str(tmp_path / "admet_group"), "csv"
    group.dataset_names = ["cyp3a4_veith"]
    train, valid = group.get_train_valid_split(seed=seed, benchmark="cyp3a4_veith")
    assert list(prepared.splits["train"]["id"]) == list(train.Drug_ID)
    assert list(prepared.splits["valid"]["id"]) == list(valid.Drug_ID)
    test = pd.read_csv(tmp_path / "admet_group" / "cyp3a4_veith" / "test.csv")
    assert list(prepared.splits["test"]["id"]) == list(test.Drug_ID)
    assert sum(FRACTIONS) == 1


def test_the_test_split_is_the_same_for_every_seed(tmp_path: Path) -> None:
    write_group(tmp_path)
    one, two = (
        prepare(TASKS["cyp3a4"], DataArguments(data_dir=str(tmp_path), split="tdc", split_seed=seed), 1, silent)
        for seed in (1, 2)
    )
    assert one.splits["test"]["id"] == two.splits["test"]["id"]
    assert one.splits["train"]["id"] != two.splits["train"]["id"]
    assert one.manifest.data_sha256 == two.manifest.data_sha256
    assert "admet_group/cyp3a4_veith" in one.manifest.origin


def test_a_row_that_cannot_be_read_is_named_with_its_file(tmp_path: Path) -> None:
    write_group(tmp_path)
    path = tmp_path / "admet_group" / "cyp3a4_veith" / "test.csv"
    table = pd.read_csv(path)
    table.loc[2, "Drug"] = "C1CC"
    table.to_csv(path, index=False)
    prepared = prepare(TASKS["cyp3a4"], DataArguments(data_dir=str(tmp_path), split="tdc"), 1, silent)
    assert prepared.rejected.row.tolist() == ["test.csv:3"]
    assert len(prepared.splits["test"]) == 59


def test_both_files_are_needed_and_a_set_outside_the_group_has_no_such_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_group(tmp_path)
    (tmp_path / "admet_group" / "cyp3a4_veith" / "test.csv").unlink()
    assert benchmark_files(tmp_path, "cyp3a4_veith") == []

    def unreachable(*_: object) -> None:
        raise FPTError("TDC can't be reached")

    monkeypatch.setattr("fpt.tasks.tdc_benchmark.download_benchmark", unreachable)
    with pytest.raises(FPTError, match=r"train_val.csv and test.csv into DIR/admet_group/cyp3a4_veith/"):
        prepare(TASKS["cyp3a4"], DataArguments(data_dir=str(tmp_path), split="tdc"), 1, silent)
    with pytest.raises(FPTError, match="unknown --split 'tdc' for tdc/tox21:NR-AR; known: random, scaffold"):
        prepare(TASKS["tdc/tox21:NR-AR"], DataArguments(data_dir=str(tmp_path), split="tdc"), 1, silent)


def test_a_broken_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tdc.benchmark_group

    from fpt.tasks.tdc_benchmark import download_benchmark

    def broken(path: str) -> None:
        (Path(path) / "admet_group").mkdir()
        raise SystemExit("the server is down")

    monkeypatch.setattr(tdc.benchmark_group, "admet_group", broken)
    with pytest.raises(FPTError, match="TDC can't be reached"):
        download_benchmark(tmp_path / "raw")
    assert list((tmp_path / "raw").iterdir()) == []

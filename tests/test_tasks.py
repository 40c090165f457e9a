"""Raw data to splits: reading, checking, resolving and caching CYP3A4."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import molecules, write_tdc

from fpt.args import DataArguments
from fpt.data.cache import prepare
from fpt.errors import FPTError
from fpt.tasks.base import TASKS
from fpt.tasks.tdc import Cyp3a4
from fpt.tasks.tdc_tables import content_sha256, read_table

TASK = TASKS["cyp3a4"]


def quiet(line: str) -> None:
    pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "can't be read as a table"),
        ("Drug_ID\tDrug\tY\n", "a header line and no rows"),
        ("Drug_ID\tDrug\tY\n1\tC\t\n", "no row with a label"),
        ("Drug_ID\tDrug\tY\n1\tC\t0\n2\tC\n3\tC\t1\n", "record 2 has 2 cells where the header has 3"),
        ("a\tb\n1\t2\n", "no column Drug_ID, Drug, Y"),
        ('Drug_ID\tDrug\tY\n1\t"C\t0\n', "can't be read as a table"),
        ("Drug_ID\tDrug\tY\n1\tC\t0\n2\tCC\t2\n", "labels outside {0,1}, the first one '2' for Drug_ID 2"),
        ("Drug_ID\tDrug\tY\n1\tC\tyes\n", "labels outside {0,1}, the first one 'yes'"),
    ],
)
def test_a_malformed_table_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "cyp3a4_veith.tab"
    path.write_text(text)
    with pytest.raises(FPTError, match=message.replace("{", r"\{")) as error:
        read_table(path, binary=True)
    assert str(path) in str(error.value)


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cyp3a4_veith.tab"
    path.write_bytes(b"\xff\xfe\x00Drug" * 50)
    with pytest.raises(FPTError, match=r"can't be read|no rows"):
        read_table(path)


def test_tab_and_comma_files_of_the_same_rows_have_one_hash(tmp_path: Path) -> None:
    rows = [("CCO", 1), ("c1ccccc1", 0), ("CCN", 1)]
    tab = read_table(write_tdc(tmp_path, rows) / "tdc" / "cyp3a4_veith.tab")
    (tmp_path / "x.csv").write_text("Drug_ID,Drug,Y\n0.0,CCO,1\n1.0,c1ccccc1,0\n2.0,CCN,1\n")
    comma = read_table(tmp_path / "x.csv")
    assert list(tab.label) == [1, 0, 1]
    assert content_sha256(tab) == content_sha256(comma)
    assert content_sha256(tab) != content_sha256(tab.iloc[::-1])


def test_invalid_smiles_are_set_aside_with_row_and_reason(tmp_path: Path) -> None:
    rows = molecules()
    rows[3], rows[7] = ("C1CC", 0), (" ", 1)
    args = DataArguments(data_dir=str(write_tdc(tmp_path, rows)))
    prepared = prepare(TASK, args, 1, quiet)
    assert list(zip(prepared.rejected.row, prepared.rejected.id, prepared.rejected.reason, strict=True)) == [
        ("4", "3.0", "invalid SMILES"),
        ("8", "7.0", "empty SMILES"),
    ]
    ids = {i for split in prepared.splits.values() for i in split["id"]}
    assert len(ids) == len(rows) - 2
    assert not ids & {"3.0", "7.0"}
    assert prepared.manifest.rejected == 2


def test_scaffolds_do_not_cross_splits(data_dir: Path) -> None:
    from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

    prepared = prepare(TASK, DataArguments(data_dir=str(data_dir)), 1, quiet)
    scaffolds = {name: {MurckoScaffoldSmiles(t) for t in rows["text"]} for name, rows in prepared.splits.items()}
    assert not scaffolds["train"] & scaffolds["valid"]
    assert not scaffolds["train"] & scaffolds["test"]
    assert not scaffolds["valid"] & scaffolds["test"]


def test_a_split_without_both_classes_is_refused(tmp_path: Path) -> None:
    args = DataArguments(data_dir=str(write_tdc(tmp_path, [(s, 0) for s, _ in molecules()])))
    with pytest.raises(FPTError, match="1 classes"):
        prepare(TASK, args, 1, quiet)
    assert not list(tmp_path.glob("home/arrow/*/*/manifest.json"))


def test_second_preparation_comes_from_arrow_without_reading_or_tokenizing(data_dir: Path, monkeypatch) -> None:
    args = DataArguments(data_dir=str(data_dir))
    first = prepare(TASK, args, 1, quiet)

    def fail(*a, **k):
        raise AssertionError("the work was repeated")

    monkeypatch.setattr(Cyp3a4, "split", fail)
    monkeypatch.setattr("fpt.data.features._encode", fail)
    log: list[str] = []
    second = prepare(TASK, args, 1, log.append)
    assert any("same content" in line for line in log)
    for name in first.splits:
        assert first.splits[name]["input_ids"] == second.splits[name]["input_ids"]


@pytest.mark.parametrize(
    "change",
    [{"split": "random"}, {"split_seed": 2}, {"tokenizer": "bpe", "vocab_size": 40}, {"max_length": 9}, {"augment": 2}],
)
def test_whatever_changes_the_output_changes_the_cache_key(data_dir: Path, home: Path, change: dict) -> None:
    prepare(TASK, DataArguments(data_dir=str(data_dir)), 1, quiet)
    prepare(TASK, DataArguments(data_dir=str(data_dir), **change), 1, quiet)
    assert len(list(home.glob("arrow/cyp3a4/*/manifest.json"))) == 2


def test_other_data_under_the_same_name_is_another_cache_entry(data_dir: Path, home: Path) -> None:
    args = DataArguments(data_dir=str(data_dir))
    first = prepare(TASK, args, 1, quiet)
    write_tdc(data_dir, molecules()[10:])
    second = prepare(TASK, args, 1, quiet)
    assert first.manifest.data_sha256 != second.manifest.data_sha256
    assert sum(second.manifest.rows.values()) == len(molecules()) - 10


def test_resolution_order_is_told_step_by_step(tmp_path: Path, data_dir: Path, monkeypatch) -> None:
    package = tmp_path / "package"
    (package / "data" / "datasets").mkdir(parents=True)
    table = pd.read_csv(data_dir / "tdc" / "cyp3a4_veith.tab", sep="\t", dtype=str)
    table.to_csv(package / "data" / "datasets" / "CYP3A4_Veith.csv", index=False)
    monkeypatch.setattr("fpt.tasks.sources.package_folder", lambda name: package)
    monkeypatch.setattr("fpt.tasks.sources.metadata.version", lambda name: "1.0")
    log: list[str] = []
    empty = tmp_path / "empty"
    empty.mkdir()
    prepared = prepare(TASK, DataArguments(data_dir=str(empty)), 1, log.append)
    places = [line.split(":")[1].strip().split()[0] for line in log]
    assert places == ["Arrow", "--data_dir", "download", "package", "preprocessing"]
    assert prepared.manifest.origin == "package molalkit 1.0, CYP3A4_Veith.csv"
    # From now on the Arrow cache answers, without a look at the package.
    monkeypatch.setattr("fpt.tasks.sources.package_folder", lambda name: pytest.fail("the package was asked"))
    log.clear()
    prepare(TASK, DataArguments(), 1, log.append)
    assert len(log) == 1
    assert "Arrow cache: /" in log[0]


@pytest.mark.usefixtures("no_packages")
def test_no_data_anywhere_names_what_to_put_where(monkeypatch, home: Path) -> None:
    def unreachable(url, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr("requests.get", unreachable)
    with pytest.raises(FPTError, match=r"put cyp3a4_veith\.tab .* into DIR/tdc/ and give --data_dir DIR"):
        prepare(TASK, DataArguments(), 1, quiet)
    assert not list(home.rglob("*.tab"))


@pytest.mark.usefixtures("no_packages")
def test_a_download_that_is_an_error_page_is_not_kept(monkeypatch, home: Path) -> None:
    class Page:
        def __init__(self) -> None:
            self.headers = {"content-length": "30"}

        def iter_content(self, size: int):
            return [b"<html>Service down</html>\n"]

    monkeypatch.setattr("requests.get", lambda url, **kwargs: Page())
    with pytest.raises(FPTError, match="no data for cyp3a4"):
        prepare(TASK, DataArguments(), 1, quiet)
    assert not list(home.rglob("*.tab"))


@pytest.mark.usefixtures("no_packages")
def test_a_users_own_file_is_not_taken_for_the_published_data_later(data_dir: Path, monkeypatch) -> None:
    prepare(TASK, DataArguments(data_dir=str(data_dir)), 1, quiet)
    monkeypatch.setattr("fpt.tasks.tdc.download", lambda *a: (_ for _ in ()).throw(FPTError("asked")))
    with pytest.raises(FPTError, match="asked"):
        prepare(TASK, DataArguments(), 1, quiet)


def test_a_stopped_preparation_leaves_no_entry(data_dir: Path, home: Path, monkeypatch) -> None:
    def stop(*a, **k):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("datasets.Dataset.save_to_disk", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(TASK, DataArguments(data_dir=str(data_dir)), 1, quiet)
    assert list(home.glob("arrow/cyp3a4/*")) == []
    prepare(TASK, DataArguments(data_dir=str(data_dir)), 1, quiet)
    (manifest,) = home.glob("arrow/cyp3a4/*/manifest.json")
    assert json.loads(manifest.read_text())["rows"]


def test_unknown_names_suggest_the_nearest(data_dir: Path) -> None:
    with pytest.raises(FPTError, match="did you mean 'cyp3a4'"):
        TASKS["cyp3a5"]
    with pytest.raises(FPTError, match="unknown --split 'scafold' for cyp3a4; known: random, scaffold"):
        prepare(TASK, DataArguments(data_dir=str(data_dir), split="scafold"), 1, quiet)
    with pytest.raises(FPTError, match="did you mean 'atom'"):
        prepare(TASK, DataArguments(data_dir=str(data_dir), tokenizer="atoms"), 1, quiet)
    with pytest.raises(FPTError, match="is not a folder"):
        prepare(TASK, DataArguments(data_dir=str(data_dir / "nope")), 1, quiet)


def test_variants_are_the_same_molecule_and_depend_on_the_seed_alone() -> None:
    from rdkit import Chem

    smiles = "CCOC(=O)c1ccc(N)cc1Cl"
    first = TASK.modality.variants(smiles, 5, 3)
    assert len(first) == 5
    assert first == TASK.modality.variants(smiles, 5, 3)
    assert {Chem.CanonSmiles(s) for s in first} == {Chem.CanonSmiles(smiles)}


def test_real_split_is_pytdcs_own(real_data: Path) -> None:
    from rdkit.Chem import CanonSmiles
    from tdc.single_pred import ADME

    prepared = prepare(TASK, DataArguments(data_dir=str(real_data)), 1, quiet)
    expected = ADME(name="CYP3A4_Veith", path=str(real_data / "tdc")).get_split(method="scaffold", seed=1, frac=[0.7, 0.1, 0.2])
    assert {k: len(v) for k, v in prepared.splits.items()} == {"train": 8629, "valid": 1232, "test": 2467}
    for name, rows in expected.items():
        assert [CanonSmiles(drug) for drug in rows.Drug] == list(prepared.splits[name]["text"])
        assert list(rows.Y) == list(prepared.splits[name]["label"])

"""Files of time series: what a ``.ts`` or ``.tsv`` file holds, and one line for each way in which it can be wrong."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from fpt.data.series import Series, filled, series_of
from fpt.data.ts_files import read_series
from fpt.errors import FPTError
from fpt.files.whole import package_folder

HEADER = "# a comment\n@problemName X\n@timeStamps false\n@missing false\n@univariate false\n@equalLength false\n"
TWO = HEADER + "@dimensions 2\n@classLabel true a b\n@data\n"


def write(folder: Path, text: str, name: str = "x.ts") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str, name: str = "x.ts") -> str:
    with pytest.raises(FPTError) as caught:
        read_series(write(folder, text, name))
    assert "\n" not in str(caught.value) and name in str(caught.value)
    return str(caught.value)


def test_channels_lengths_labels_and_comments(tmp_path: Path) -> None:
    found = read_series(write(tmp_path, TWO + "1,2,3:4,5,6:a\n# not a series\n\n-1e-3, 2:NaN,?:b\n"))
    assert (found.kind, found.classes, found.labels, found.channels) == ("classes", ("a", "b"), ("a", "b"), 2)
    assert found.lengths.tolist() == [3, 2] and found.lines == (10, 13)
    np.testing.assert_array_equal(found.series[0], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(found.series[1], [[-1e-3, 2], [np.nan, np.nan]])
    assert len(read_series(tmp_path / "x.ts", most=1).series) == 1


def test_numbers_as_targets_and_files_without_labels(tmp_path: Path) -> None:
    numbers = HEADER.replace("@univariate false", "@univariate true") + "@targetlabel true\n@data\n1,2:0.5\n3,4:-2\n"
    found = read_series(write(tmp_path, numbers))
    assert (found.kind, found.labels, found.classes) == ("number", ("0.5", "-2"), ())
    none = read_series(write(tmp_path, HEADER + "@classLabel false\n@data\n1,2:3,4\n"))
    assert (none.kind, none.labels, none.channels) == ("", (), 2)
    assert "line 9: the target 'nan' is not a finite number" in refused(tmp_path, numbers.replace("0.5", "nan"))


def test_a_table_of_tabs_has_labels_first_and_ends_with_nan(tmp_path: Path) -> None:
    found = read_series(write(tmp_path, "2\t1.5\t2\tNaN\tNaN\n10.0\t1\tNaN\t3\t4\n", "x.tsv"))
    assert found.classes == ("2", "10") and found.labels == ("2", "10") and found.lengths.tolist() == [2, 4]
    assert np.isnan(found.series[1][0, 1])
    assert found.odd == {"series with nan at the end, taken for their end": 1}
    assert "line 1: no tab between the label and the values" in refused(tmp_path, "1,2,3\n", "x.tsv")
    assert "line 2: value 1 of channel 1 is 'x', not a number" in refused(tmp_path, "1\t2\n1\tx\n", "x.tsv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; copy or download it again"),
        ("<!doctype html>\n<html>", "is a web page (HTML), not a file of time series"),
        (HEADER + "@classLabel true a b\n", "has no line @data; is it a whole .ts file?"),
        (TWO, "has a header and no series"),
        ("1,2,3:a\n", "line 1: '1,2,3:a' stands before @data"),
        (TWO.replace("@timeStamps false", "@timeStamps true") + "(0,1):a", "@timeStamps true: values with time stamps are not"),
        (TWO + "(0,1),(1,2):(0,1),(1,2):a", "line 10: values with time stamps"),
        (TWO + "1,2:3,4:a\n1,2:3,x:b", "line 11: value 2 of channel 2 is 'x', not a number"),
        (TWO + "1,2:3,4:a\n1,,2:3,4,5:b", "line 11: value 2 of channel 1 is '', not a number"),
        (TWO + "1,2:3,4:a\n1,2:3:b", "line 11: channel 2 has 1 values, channel 1 has 2"),
        (TWO + "1,2:3,4:a\n:3:b", "line 11: channel 1 has no values"),
        (TWO + "1,2:3,4:a\n1,2:b", "line 11: 1 channels, the header says 2"),
        (TWO.replace("@dimensions 2\n", "") + "1,2:3,4:a\n1,2:b", "line 10: 1 channels, the first"),
        (TWO + "1,2:3,4:c", "line 10: the label 'c' is not a class of @classLabel (a, b); is the line whole?"),
        (TWO + "1,2:3,4:a\n1,2", "line 11: no label after a ':'; is the file whole?"),
        (TWO + "1,inf:3,4:a", "line 10: value 2 of channel 1 is inf; fp32 can't hold it"),
        (TWO + "1,1e300:3,4:a", "line 10: value 2 of channel 1 is 1e+300; fp32 can't hold it"),
        (TWO.replace("@equalLength false", "@equalLength true") + "1:2:a\n1,2:3,4:b", "line 11: 2 values per channel where"),
        (TWO.replace("@equalLength false", "@equalLength true\n@seriesLength 5") + "1:2:a", "line 11: 1 values per channel"),
        (TWO.replace("@dimensions 2", "@dimensions two") + "1:2:a", "@dimensions is 'two'; it must be a whole number"),
        (TWO.replace("@univariate false", "@univariate maybe") + "1:2:a", "@univariate is 'maybe'; it must be true or false"),
        (TWO.replace("@classLabel true a b", "@classLabel true a a") + "1:2:a", "@classLabel names a class twice"),
        (TWO.replace("@classLabel true", "@classLabel yes") + "1:2:a", "@classlabel is 'yes'; it must be true or false"),
        (TWO.replace("@univariate false", "@univariate true") + "1:2:a", "@univariate true and 2 dimensions contradict"),
    ],
)
def test_each_fault_is_one_line_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)


def test_what_is_no_text_and_no_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.ts").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(FPTError, match=r"stands before @data|no line @data"):
        read_series(tmp_path / "x.ts")
    with pytest.raises(FPTError, match="can't be read"):
        read_series(tmp_path / "there-is-none.ts")
    with pytest.raises(FPTError, match=r"its ending '\.csv' is not one of \.ts, \.tsv"):
        read_series(write(tmp_path, "1", "x.csv"))


def test_a_tag_that_is_not_known_is_counted(tmp_path: Path) -> None:
    found = read_series(write(tmp_path, "@author me\n" + TWO + "1:2:a\n"))
    assert found.odd == {"header tags that are not read (@author)": 1}


def test_missing_values_lie_between_known_ones() -> None:
    nan = np.nan
    np.testing.assert_array_equal(filled(np.array([[nan, 1, nan, nan, 4, nan]])), [[1, 1, 2, 3, 4, 4]])
    with pytest.raises(ValueError, match="no value in the whole series"):
        filled(np.full((2, 3), nan))
    with pytest.raises(ValueError, match="no value in channel 2 of 2"):
        filled(np.array([[1, 2], [nan, nan]]))


def test_a_series_in_python_is_an_array_a_list_or_a_text() -> None:
    for cell in (np.ones((2, 3)), [[1, 1, 1], [1.0, 1, 1]], "1,1,1:1,1,1", Series(np.ones((2, 3)))):
        np.testing.assert_array_equal(series_of(cell), np.ones((2, 3)))
    assert series_of([1, 2, 3]).shape == (1, 3)
    for cell, why in (
        (np.zeros((2, 0)), "an array of shape"),
        (np.zeros((1, 2, 3)), "an array of shape"),
        ([[1, 2], [3]], "not an array of numbers"),
        ("1,x", "value 2 of channel 1 is 'x'"),
        ([1.0, np.inf], "not finite"),
        (None, "an array of shape"),
    ):
        with pytest.raises(ValueError, match=why):
            series_of(cell)


def test_files_are_read_as_aeon_reads_them() -> None:
    folder = package_folder("aeon")
    if folder is None:
        pytest.skip("aeon is not installed")
    try:
        load = importlib.import_module("aeon.datasets").load_from_ts_file
    except ImportError as error:
        pytest.skip(f"aeon can't be imported: {error}")
    for name in ("JapaneseVowels", "BasicMotions", "GunPoint", "PickupGestureWiimoteZ", "Covid3Month", "OSULeaf"):
        path = folder / "datasets" / "data" / name / f"{name}_TRAIN.ts"
        theirs, labels = load(str(path))
        found = read_series(path)
        assert len(theirs) == len(found.series)
        for mine, other in zip(found.series, theirs, strict=True):
            np.testing.assert_array_equal(mine, other)
        if found.kind == "number":
            np.testing.assert_array_equal(np.array(found.labels, dtype=float), labels)
        else:
            assert [label.lower() for label in found.labels] == list(labels)  # as it writes them

"""Time stamps of a user's series: read, sorted, completed; every guess told."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from fpt.data.timeline import Timeline, even_grid
from fpt.data.times import next_times, read_times, shown_time
from fpt.errors import FPTError


def grid(cells: list, time_format: str | None = None, frequency: str | None = None, duplicates: str = "error") -> Timeline:
    times, steps, notes = read_times(cells, time_format, "column 'date'")
    values = np.arange(len(times), dtype=np.float64)[:, None]
    found = even_grid(times, values, steps, frequency, duplicates, "x.csv")
    found.notes = [*notes, *found.notes]
    return found


def ahead(line: Timeline, count: int = 2) -> list[str]:
    return [shown_time(time, line.frequency) for time in next_times(int(line.times[-1]), line.frequency, count)]


@pytest.mark.parametrize(
    ("cells", "frequency", "following"),
    [
        (
            list(pd.date_range("2020-01-30", periods=50, freq="h").astype(str)),
            "h",
            ["2020-02-01 02:00:00", "2020-02-01 03:00:00"],
        ),
        (list(pd.date_range("2020-01-31", periods=40, freq="ME").astype(str)), "ME", ["2023-05-31", "2023-06-30"]),
        (list(pd.date_range("2019-11-01", periods=40, freq="MS").astype(str)), "MS", ["2023-03-01", "2023-04-01"]),
        ([f"{year}-01-01" for year in range(1949, 1980)], "YS", ["1980-01-01", "1981-01-01"]),
        (list(pd.date_range("2020-01-01", periods=20, freq="B").astype(str)), "B", ["2020-01-29", "2020-01-30"]),
        ([f"202001{day:02d}" for day in range(1, 20)], "D", ["2020-01-20", "2020-01-21"]),
        ([str(step) for step in range(0, 100, 2)], "2", ["100", "102"]),
        ([str(3600 * step) for step in range(500_000, 500_050)], "h", ["2027-01-17 10:00:00", "2027-01-17 11:00:00"]),
        (["1970-01-01", "1970-01-02", "1970-01-03"], "D", ["1970-01-04", "1970-01-05"]),
        ([pd.Timestamp("2020-01-01") + pd.Timedelta(minutes=15 * step) for step in range(8)], "15min", None),
    ],
)
def test_the_frequency_is_found_and_goes_on(cells: list, frequency: str, following: list[str] | None) -> None:
    line = grid(cells)
    assert (line.frequency, len(line.times)) == (frequency, len(cells))
    if following is not None:
        assert ahead(line) == following


def test_the_day_first_is_told_from_the_month_first_or_asked_for() -> None:
    days = grid([f"{day:02d}/01/2020" for day in range(1, 29)])
    assert days.frequency == "D" and any("%d/%m/%Y (--time_format)" in note for note in days.notes)
    months = grid([f"{month:02d}/01/2020" for month in range(1, 13)], "%m/%d/%Y")
    assert months.frequency == "MS"
    with pytest.raises(FPTError, match=r"'01/01/2020' may be %d/%m/%Y or %m/%d/%Y; pass --time_format"):
        grid([f"{number:02d}/01/2020" for number in (1, 2, 5, 9, 11)])


def test_rows_are_sorted_gaps_are_completed_and_both_are_counted() -> None:
    cells = list(pd.date_range("2020-01-01", periods=10, freq="h").astype(str))
    kept = [0, 1, 5, 2, 6, 7, 9]
    line = grid([cells[number] for number in kept])
    assert np.isnan(line.values[[3, 4, 8], 0]).all() and line.values[5, 0] == 2 and line.values[2, 0] == 3
    assert any("1 rows come before the row above them" in note for note in line.notes)
    assert any("3 of 10 times are not there (most at once: 2, from 2020-01-01 03:00:00)" in note for note in line.notes)


def test_a_time_that_occurs_twice() -> None:
    cells = ["2020-01-01", "2020-01-02", "2020-01-02", "2020-01-03"]
    with pytest.raises(FPTError, match=r"1 times with several rows of different values .*--duplicate_times"):
        grid(cells)
    for policy, value in (("first", 1.0), ("last", 2.0), ("mean", 1.5)):
        assert grid(cells, duplicates=policy).values[1, 0] == value
    times, steps, _ = read_times(cells, None, "date")
    same = even_grid(times, np.array([[0.0], [np.nan], [np.nan], [1.0]]), steps, None, "error", "x.csv")
    assert len(same.times) == 3 and any("1 rows twice" in note for note in same.notes)


def test_offsets_are_brought_to_utc_and_not_mixed() -> None:
    line = grid(["2020-03-29T01:00+01:00", "2020-03-29T03:00+02:00", "2020-03-29T04:00+02:00"])
    assert shown_time(line.times[0], "h") == "2020-03-29 00:00:00" and len(line.times) == 3
    assert any("brought to UTC" in note for note in line.notes)
    with pytest.raises(FPTError, match="1 of 3 times have an offset to UTC"):
        grid(["2020-03-29T01:00+01:00", "2020-03-29T03:00", "2020-03-29T04:00"])


@pytest.mark.parametrize(
    ("cells", "options", "said"),
    [
        (["2020-01-01", "soon", "2020-01-03"], {}, "'soon' in row 2 is not a date and time"),
        (["2020-01-01", "", "2020-01-03"], {}, "no time in 1 rows (first: row 2)"),
        (["2020-01-01", "2020-01-01", "2020-01-01"], {"duplicates": "last"}, "1 different times"),
        (["2020-01-01", "2020-01-02", "2020-01-03", "2029-01-01"], {"frequency": "s"}, "more than 100 times as long"),
        ([f"2020-01-01 0{hour}" for hour in ("0:00", "1:00", "2:00", "2:30")], {}, "1 of 4 times are not on a grid of h"),
        (["2020-01-01", "2020-01-02", "2020-01-03"], {"frequency": "banana"}, "unknown --frequency 'banana'"),
        (["2020-01-01", "2020-01-02", "2020-01-03"], {"frequency": "-1D"}, "unknown --frequency '-1D'"),
        (["1", "2", "3"], {"frequency": "h"}, "must be a whole number of steps"),
        (["1.5", "2", "3"], {}, "numbers of steps must be whole"),
        (["01.02.2020", "02.02.2020", "2020-02-03"], {}, "'01.02.2020' in row 1 is not a date and time"),
        (["9999-01-01", "9999-01-02", "9999-01-03"], {}, "times must be between 1678 and 2261"),
        (["a", "b", "c"], {"time_format": "step"}, "--time_format step reads numbers"),
    ],
)
def test_what_can_not_be_read_is_said_in_one_line(cells: list[str], options: dict, said: str) -> None:
    with pytest.raises(FPTError, match=re.escape(said)) as caught:
        grid(cells, **options)
    assert "\n" not in str(caught.value)

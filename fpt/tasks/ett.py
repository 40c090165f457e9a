"""Electricity Transformer data (arXiv 2012.07436, https://github.com/zhouhaoyi/ETDataset, CC BY-ND 4.0): ``ett/ETTh1``, ``ETTh2``
(a row an hour), ``ETTm1``, ``ETTm2`` (every 15 minutes); 7 series of two years, cut at 12, 4 and 4 months as every paper does.

The raw file is ``ETT-small/NAME.csv``, as all repositories of the field read it.
"""

from __future__ import annotations

import functools
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from fpt.args import DataArguments
from fpt.data.files import read_table
from fpt.data.time_table import SeriesOptions, SeriesTable, read_series_table
from fpt.errors import FPTError, did_you_mean
from fpt.files.whole import new_folder
from fpt.tasks.base import TASKS, Source
from fpt.tasks.forecast import ForecastTask
from fpt.tasks.sources import Download, Ladder
from fpt.text.log import Log

URL = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small"
COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
# Rows of a month of 30 days.
MONTHS = {"ETTh1": 30 * 24, "ETTh2": 30 * 24, "ETTm1": 30 * 24 * 4, "ETTm2": 30 * 24 * 4}


class Ett(ForecastTask):
    """One set.

    Args:
        name: ETTh1, ETTh2, ETTm1 or ETTm2, in any case.

    Raises:
        FPTError: there is no such set.
    """

    source = "https://github.com/zhouhaoyi/ETDataset"
    licence = "CC BY-ND 4.0"

    def __init__(self, name: str) -> None:
        known = {one.lower(): one for one in MONTHS}
        if name.lower() not in known:
            raise FPTError(f"unknown ETT set {name!r}{did_you_mean(name, MONTHS)}; known: {', '.join(MONTHS)}")
        self.set_name = known[name.lower()]
        self.name = f"ett/{self.set_name}"

    def reading(self, args: DataArguments) -> SeriesOptions:
        return SeriesOptions("date", COLUMNS)

    def locate(self, args: DataArguments, log: Log) -> Source:
        """The file in --data_dir, an earlier download, or the repository of the set."""
        file = f"{self.set_name}.csv"
        ladder = Ladder(
            self.name,
            functools.partial(_find, file),
            self._read,
            f"{file} into DIR/ett/ETT-small/",
            downloads=f"ett/{self.set_name}",
        )

        def fetch() -> Source:
            with new_folder(ladder.download_folder) as new:
                urllib.request.urlretrieve(f"{URL}/{file}", new / file)
            return ladder.downloaded(f"{URL}/{file}")

        return ladder.locate(args, log, Download(f"{URL}/{file}", fetch))

    def _read(self, files: Sequence[Path], origin: str) -> Source:
        series = read_series_table(read_table(files[0]), SeriesOptions("date", COLUMNS), files[0].name)
        if len(series) < 20 * MONTHS[self.set_name]:
            raise FPTError(
                f"{files[0]} has {len(series):,} rows of {20 * MONTHS[self.set_name]:,}; it is cut off: fetch it again"
            )
        return Source(series, f"{origin}, {files[0].name}", series.sha256())

    def borders(self, source: SeriesTable, args: DataArguments) -> tuple[int, int, int]:
        """12, 4 and 4 months of 30 days."""
        month = MONTHS[self.set_name]
        return 12 * month, 16 * month, 20 * month


def _find(file: str, root: Path) -> list[Path]:
    places = (root / "ett" / "ETT-small", root / "ETT-small", root)
    return [place / file for place in places if (place / file).is_file()][:1]


TASKS.register("ett/NAME")(Ett)  # type: ignore[arg-type]

"""What ``evaluate.py`` is asked for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from fpt.args import SPLITS, arg
from fpt.flags import checks
from fpt.flags.checks import check_known, check_ranges


@dataclass
class EvaluateArguments:
    """Metrics of a checkpoint, or predictions for a file."""

    _argument_group_name = "evaluation"
    checkpoint: list[str] = field(
        metadata={
            "help": "Folder that train.py wrote (a run, or its checkpoint/), or USER/REPOSITORY[@REVISION] of the Hub; several"
            " predict together, by the mean of their predictions."
        }
    )
    backbone: str | None = arg(None, "Where the backbone is, when it is not where it was in training; its hash is checked.")
    split: str = arg("test", "Split to score: train, valid or test.")
    predict: str | None = arg(None, "File with inputs to predict instead: CSV, TSV, JSON, Parquet or Excel, as for training.")
    column: str | None = arg(
        None, "Columns of --predict to read, separated by commas; those of the training data, or the only one, when not given."
    )
    delimiter: str | None = arg(None, "Of --predict: a character, or comma, tab, semicolon, bar; as its rows show by default.")
    encoding: str | None = arg(None, "Of --predict: utf-8, utf-16, latin-1, cp1252, ...; UTF-8 when not given.")
    decimal: str | None = arg(None, "Decimal separator in --predict, . or , ; what its cells show when not given.")
    sheet: str | None = arg(None, "Sheet of an Excel file; the first one when not given.")
    output: str | None = arg(None, "Where predictions (CSV) or metrics (JSON) are written.")
    test_time_augment: int = arg(
        0, "For SMILES: predict the mean over the given one and N random ones of the same molecule (0: the given one alone)."
    )
    fetch_data: bool = arg(False, "Fetch the dataset of the Hub that the checkpoint names, where it is not in the cache.")
    raw_cells: bool = arg(
        False,
        "Leave cells of --predict as they are. By default an apostrophe is put before texts that a spreadsheet would run as"
        " formulas (= + - @ at the start; not numbers).",
    )
    data_dir: str | None = arg(None, "Folder with raw downloads, as for train.py.")
    cache_dir: str | None = arg(None, "Where preprocessed Arrow files are kept, as for train.py.")
    eval_batch_size: int | None = arg(None, "Samples in a batch; as in training when not given.")
    num_proc: int | None = arg(None, "Processes that preprocess the data; all cores when not given.")

    def __post_init__(self) -> None:
        if isinstance(self.checkpoint, str):
            self.checkpoint = [self.checkpoint]
        check_ranges(self, test_time_augment=checks.Range(0, 1000))
        check_ranges(self, eval_batch_size=checks.COUNT, num_proc=checks.Range(1, 4096))
        check_known(self, split=SPLITS)

    def unread(self, given: Collection[str]) -> dict[str, str]:
        """Why flags have no meaning beside the others."""
        of_a_split, of_a_file = (
            ("split", "data_dir", "cache_dir", "num_proc"),
            ("column", "delimiter", "encoding", "decimal", "sheet"),
        )
        names, why = (of_a_split, "--predict reads a file, not a split") if self.predict else (of_a_file, "it is for --predict")
        return {name: why for name in names if name in given}

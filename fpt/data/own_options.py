"""What the flags of every task on a user's own data say."""

from __future__ import annotations

from dataclasses import dataclass

from fpt.args import arg


@dataclass
class OwnOptions:
    """What the columns of your data are for."""

    _argument_group_name = "your data"
    label_column: str | None = arg(None, "Column with the label; a usual name (label, target, y, ...) when not given.")
    label_type: str | None = arg(
        None, "classes, number or multilabel (several labels per row); what the labels look like when not given."
    )
    positive_label: str | None = arg(
        None,
        "Of two classes the one that AUROC and AUPRC are of; the one named so (1, yes, active, ...) or the rarer one by default.",
    )
    label_delimiter: str | None = arg(None, "Between the labels of a row that has several; one of | ; , when not given.")
    label_case: str | None = arg(None, "keep or ignore: whether labels that differ in case only are different classes.")
    id_column: str | None = arg(
        None,
        "Column with the samples' ids; a column named so with unique values by default; none for row numbers.",
    )
    split_column: str | None = arg(
        None, "Column that says train, valid or test; a column named split with such values by default; none for none."
    )
    group_column: str | None = arg(None, "Column with groups (patients, batches, ...): no group is in two splits.")
    missing: str | None = arg(
        None,
        "Rows with missing values: drop, error, or mean (of inputs); as bad rows, within --max_bad_fraction, when not given.",
    )
    missing_values: str | None = arg(
        None, "Texts that mean no value, separated by commas; NA, nan, None, null and the like when not given."
    )
    deduplicate: bool = arg(False, "Keep one row of each input; inputs with different classes are left out.")
    _may_be_empty = ("missing_values", "skip_folders")

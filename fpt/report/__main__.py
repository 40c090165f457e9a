"""One page about runs: `python -m fpt.report runs/experiments/cyp3a4/small --output report.html`.

Tables (mean and standard deviation over seeds, beside published values where an experiment has them), learning curves, ROC, PR
and calibration curves or a confusion matrix, attention on chosen samples, and a t-SNE of what the readout reads. The page needs
nothing but itself; the same tables as Markdown are written beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fpt.cli import read_arguments
from fpt.errors import FPTError, cli
from fpt.files.output_paths import check_output_file
from fpt.files.whole import write_text
from fpt.report.page import build
from fpt.report.runs import find_runs

# Whose attention is shown.
MOST_SAMPLES = 10_000


def main() -> None:
    """Read the command line and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m fpt.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("runs", nargs="+", help="runs of train.py, or folders that hold some (an experiment)")
    parser.add_argument("--output", default="report.html", help="the page; the Markdown goes beside it")
    parser.add_argument("--title", default="Frozen pretrained transformers", help="of the page")
    parser.add_argument("--samples", type=int, default=6, help="test samples to show the attention of (0: none)")
    parser.add_argument("--data_dir", help="folder with raw downloads, as for train.py, to look into the models")
    args = read_arguments(parser)
    if not 0 <= args.samples <= MOST_SAMPLES:
        raise FPTError(f"--samples {args.samples} must be at least 0 and at most {MOST_SAMPLES:,}")
    if args.data_dir and not args.samples:
        raise FPTError("--data_dir is not read: --samples 0 looks into no model. Leave it out")
    output = check_report(args.output, args.runs)
    page, text = build(find_runs(args.runs), args.title, args.samples, args.data_dir, print)
    write_text(output, page)
    write_text(output.with_suffix(".md"), text)
    print(f"{output} ({len(page) / 2**20:.1f} MiB), {output.with_suffix('.md')}")


def check_report(text: str, runs: Sequence[str]) -> Path:
    """Return the path of the page, if neither it nor the Markdown beside it replaces something else.

    Raises:
        FPTError: one of them would (see `check_output_file`), or it is not the name of a page.
    """
    if Path(text).suffix.lower() not in (".html", ".htm"):
        raise FPTError(f"--output {text} is not the name of a page; give one that ends in .html")
    output = check_output_file("--output", text, {f"{run}": run for run in runs})
    twin = output.with_suffix(".md")
    if twin.exists() and not output.exists():
        raise FPTError(f"--output {text}: the Markdown beside it would replace {twin}; give another name, or remove that file")
    check_output_file(f"--output {text}: the Markdown beside it,", twin, {f"{run}": run for run in runs})
    return output


if __name__ == "__main__":
    cli(main)

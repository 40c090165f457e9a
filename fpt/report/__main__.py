"""One page about runs: `python -m fpt.report runs/experiments/cyp3a4/small --output report.html`.

Tables (mean and standard deviation over seeds, beside published values where an experiment has them), learning curves, ROC, PR
and calibration curves or a confusion matrix, attention on chosen samples, and a t-SNE of what the readout reads. The page needs
nothing but itself; the same tables as Markdown are written beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fpt.errors import FPTError, cli
from fpt.files import write_text
from fpt.report.page import build
from fpt.report.runs import find_runs


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
    args = parser.parse_args()
    output = _page_file(args.output)
    if args.samples < 0:
        raise FPTError(f"--samples {args.samples} must be at least 0")
    page, text = build(find_runs(args.runs), args.title, args.samples, args.data_dir, print)
    for path, content in ((output, page), (output.with_suffix(".md"), text)):
        try:
            write_text(path, content)
        except OSError as error:
            raise FPTError(f"--output {args.output}: {path} can't be written: {error.strerror or error}") from error
    print(f"{output} ({len(page) / 2**20:.1f} MiB), {output.with_suffix('.md')}")


def _page_file(text: str) -> Path:
    """The file of ``--output``. Its ending keeps a page from replacing results, or its own Markdown.

    Raises:
        FPTError: it is a folder or not the name of a page.
    """
    path = Path(text)
    if path.is_dir() or path.suffix.lower() not in (".html", ".htm"):
        raise FPTError(f"--output {text} is not the name of a page; give one that ends in .html")
    return path


if __name__ == "__main__":
    cli(main)

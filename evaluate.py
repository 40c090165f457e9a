#!/usr/bin/env python
"""Score a checkpoint on a split, or predict a CSV file with it: `python evaluate.py --checkpoint runs/cyp3a4`."""

from fpt.args import EvaluateArguments, parse
from fpt.errors import cli


def main() -> None:
    (args,) = parse(__doc__, EvaluateArguments)
    # Imported late, so that --help answers at once.
    from fpt.evaluation import run

    run(args)


if __name__ == "__main__":
    cli(main)

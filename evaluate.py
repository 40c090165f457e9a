#!/usr/bin/env python
"""Score a checkpoint on its own split, or predict for a file.

python evaluate.py --checkpoint runs/cyp3a4                                        # the test split again
python evaluate.py --checkpoint runs/cyp3a4 --predict mine.csv --output out.csv    # SMILES, text or file names
python evaluate.py --checkpoint user/fpt-cyp3a4                                    # from the Hub
"""

from fpt.args import EvaluateArguments
from fpt.cli import parse
from fpt.errors import cli


def main() -> None:
    (args,) = parse(__doc__, EvaluateArguments)
    # Imported late, so that --help answers at once.
    from fpt.evaluation.run import run

    run(args)


if __name__ == "__main__":
    cli(main)

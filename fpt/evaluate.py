"""Score a checkpoint on its own split, or predict for a file.

fpt-evaluate --checkpoint runs/cyp3a4                                           # the test split again
fpt-evaluate --checkpoint runs/cyp3a4 --predict mine.csv --output out.csv       # SMILES, text or file names
fpt-evaluate --checkpoint user/fpt-cyp3a4                                       # from the Hub
"""

from __future__ import annotations

from fpt.cli import parse
from fpt.errors import cli
from fpt.evaluation.arguments import EvaluateArguments


def main(description: str = __doc__ or "") -> None:
    """Read the command line, and score or predict.

    Args:
        description: what ``--help`` begins with.
    """
    (args,) = parse(description, EvaluateArguments)
    # Imported late, so that --help answers at once.
    from fpt.evaluation.run import run

    run(args)


def command() -> None:
    """`main` as a command of its own, with errors of one line."""
    cli(main)


if __name__ == "__main__":
    command()

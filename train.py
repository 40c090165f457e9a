#!/usr/bin/env python
"""Train a Frozen Pretrained Transformer: `accelerate launch train.py --dataset cyp3a4`."""

from fpt.args import parse_training
from fpt.errors import cli


def main() -> None:
    arguments = parse_training(__doc__)
    # Imported late, so that --help answers at once.
    from fpt.training import run

    run(*arguments)


if __name__ == "__main__":
    cli(main)

#!/usr/bin/env python
"""Train a Frozen Pretrained Transformer: `accelerate launch train.py --dataset cyp3a4`."""

from fpt.args import DataArguments, ModelArguments, TrainArguments, parse
from fpt.errors import cli


def main() -> None:
    data, model, training = parse(__doc__, DataArguments, ModelArguments, TrainArguments)
    # Imported late, so that --help answers at once.
    from fpt.training import run

    run(data, model, training)


if __name__ == "__main__":
    cli(main)

"""Train a Frozen Pretrained Transformer (arXiv 2103.05247) on another modality.

fpt-train --dataset cyp3a4                                             # GPT-2 from the Hub, on molecules
fpt-train --dataset cyp3a4 --backbone random:gpt2                      # does the pretraining matter?
fpt-train --dataset cyp3a4 --model mat                                 # a baseline on the same split
fpt-train --dataset csv:mine.csv --input_type smiles --input_column smiles --label_column active
accelerate launch --num_processes 2 -m fpt.train --dataset cifar10     # several processes
fpt-train --dataset cyp3a4 --output_dir runs/cyp3a4 --resume
"""

from __future__ import annotations

from fpt.cli import parse_training
from fpt.errors import cli


def main(description: str = __doc__ or "") -> None:
    """Read the command line and train.

    Args:
        description: what ``--help`` begins with.
    """
    arguments = parse_training(description)
    # Imported late, so that --help answers at once.
    from fpt.training import run

    run(*arguments)


def command() -> None:
    """`main` as a command of its own, with errors of one line."""
    cli(main)


if __name__ == "__main__":
    command()

"""Checkpoints on the Hub: `python -m fpt.hub runs/cyp3a4 user/repo` pushes one; ``user/repo[@revision]`` reads one everywhere."""

from __future__ import annotations

import argparse

from fpt.checkpoint import find_checkpoint, read_config
from fpt.checkpoint.remote import check_push, push
from fpt.errors import cli


def main() -> None:
    """Push the checkpoint of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder that train.py wrote: a run, or its checkpoint/")
    parser.add_argument("repo", help="USER/REPOSITORY")
    parser.add_argument("--private", action="store_true", help="make the repository private, if it is made by this")
    args = parser.parse_args()
    check_push(args.repo)
    folder = find_checkpoint(args.checkpoint)
    read_config(folder)  # a damaged one is not published
    push(folder, args.repo, args.private)


if __name__ == "__main__":
    cli(main)

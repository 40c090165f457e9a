"""What training takes of memory, beside the peers, each in a process of its own.

    python benchmarks/memory.py --backbone gpt2-xl --batch_size 4 --workload cifar10 --data_dir raw --universal_computation CLONE

The contenders are those of `benchmarks/peers.py`; ours-ckpt is ours with --activation_checkpointing. Shown are the largest
resident set before the backbone is there, once it is loaded, and after some steps, in GiB. What is needed is the packages,
weights and what the planner (`fpt.plan`) counts for a step.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from backbones import peak, warm_up
from peers import arguments, contenders, load, ours, write_backbone

from fpt.data.prepared import Prepared
from fpt.errors import cli


def makers(args: argparse.Namespace) -> dict[str, Any]:
    """Contenders, and ours once more."""
    found = contenders(args)
    found.pop("trainer-group")
    return {"ours": found.pop("ours"), "ours-ckpt": partial(ours, checkpointing=True), **found}


def alone(name: str, prepared: Prepared, args: argparse.Namespace, folder: Path, found: Any) -> None:
    """Take a few steps, and tell what they took."""
    with contextlib.ExitStack() as held:
        warm_up()
        before = peak()
        one = makers(args)[name](prepared, folder, args.batch_size, args.bf16, held)
        loaded = peak()
        weights = sum(p.numel() * p.element_size() for p in one.model.parameters())
        done = one.turn(args.steps, 1)
        found.put([*(size / 2**30 for size in (before, weights, loaded, peak())), done.samples / done.seconds])


def in_a_process(target: Any, *arguments: Any) -> Any:
    """What `target` puts into the queue that is its last argument, in a process of its own; None when it fails."""
    spawn = multiprocessing.get_context("spawn")
    found = spawn.Queue()
    process = spawn.Process(target=target, args=(*arguments, found))
    process.start()
    process.join()
    return found.get() if process.exitcode == 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--workload", default="cyp3a4", help="task to train on")
    parser.add_argument("--steps", type=int, default=2, help="steps to take")
    args = parser.parse_args()
    prepared, spawn = load(args.workload, args), multiprocessing.get_context("spawn")
    print(
        f"{args.workload}, {args.backbone}, batches of {args.batch_size}, {'bf16' if args.bf16 else 'fp32'}, {args.steps} steps\n"
    )
    print("| loop | packages | weights | with the backbone | peak | samples/s |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        writer = spawn.Process(target=write_backbone, args=(Path(folder), args.backbone, args.layers, args.core_dropout))
        writer.start()
        writer.join()
        for name in makers(args):
            sizes = in_a_process(alone, name, prepared, args, Path(folder))
            row = " | ".join(f"{value:.2f}" for value in sizes) if sizes else "did not end | | | |"
            print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    cli(main)

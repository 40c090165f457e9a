"""What it brings to train several seeds side by side: `--seeds 1,2,3,4,5` against five runs one after the other.

    python benchmarks/seeds.py --backbone random:gpt2 --workloads cyp3a4 bit-memory cifar10 --data_dir raw

Both take the same steps of the same loops in turns, in one process; the median over rounds is shown, and the share of the peak of
plain matrix products (MFU). Memory is measured in processes of their own: weights and optimizer are counted, the largest resident
set is read from the system.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from backbones import peak, warm_up
from memory import in_a_process
from peers import Turn, flops_of_sample, learn_from, load, loops_of

from fpt.args import ModelArguments
from fpt.data.prepared import Prepared
from fpt.errors import cli
from fpt.flops import matmul_peak
from fpt.training import Run
from fpt.training.loop import batches as batches_of
from fpt.training.shared_backbone import Together, one_by_one


def held_by(loops: list[Run]) -> int:
    """Bytes of weights and of the optimizers' moments, each tensor once."""
    tensors: list[torch.Tensor] = [parameter for loop in loops for parameter in loop.network.parameters()]
    tensors += [
        value
        for loop in loops
        for state in loop.plain_optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def memory(prepared: Prepared, seeds: list[int], args: argparse.Namespace, found: Any) -> None:
    """Take steps, and tell what they took."""
    with contextlib.ExitStack() as held:
        warm_up()
        before = peak()
        loops = loops_of(prepared, model_arguments(args), seeds, args.batch_size, args.bf16, held)
        learn_from(loops, [batches_of(loop) for loop in loops], args.steps, forward_of(loops))
        found.put((before, held_by(loops), peak()))


def model_arguments(args: argparse.Namespace) -> ModelArguments:
    """The backbone."""
    return ModelArguments(backbone=args.backbone, num_layers=args.layers, input_init="normal", backbone_seed=1)


def forward_of(loops: list[Run]) -> Any:
    """How they learn side by side."""
    if len(loops) == 1:
        return one_by_one
    models = [loop.network for loop in loops]
    return Together(models).on(loops[0].accelerator)  # type: ignore[arg-type]


def speeds(prepared: Prepared, seeds: list[int], args: argparse.Namespace) -> tuple[dict[str, list[Turn]], nn.Module]:
    """Turns of both ways, and the network without memory."""
    with contextlib.ExitStack() as held:
        loops = loops_of(prepared, model_arguments(args), seeds, args.batch_size, args.bf16, held)
        streams, forward = [batches_of(loop) for loop in loops], forward_of(loops)

        def after(steps: int) -> Turn:
            done = Turn()
            for loop, stream in zip(loops, streams, strict=True):
                own = learn_from([loop], [stream], steps, one_by_one)
                done = Turn(*(getattr(done, name) + getattr(own, name) for name in vars(done)))
            return done

        ways = {"one after the other": after, "side by side": lambda steps: learn_from(loops, streams, steps, forward)}
        turns: dict[str, list[Turn]] = {name: [] for name in ways}
        for number in range(args.rounds + 1):
            for name, way in ways.items():
                done = way(args.steps if number else 1)
                turns[name] += [done] if number else []  # the first warms up
        return turns, loops[0].shell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="random:gpt2", help="backbone, as for train.py")
    parser.add_argument("--layers", type=int, help="first blocks of the backbone; all when not given")
    parser.add_argument("--workloads", nargs="+", default=["bit-memory"], help="tasks to train on")
    parser.add_argument("--data_dir", help="folder with raw downloads, as for train.py")
    parser.add_argument("--vocab_size", type=int, help="text in tokens of a BPE of this vocabulary")
    parser.add_argument("--runs", type=int, default=5, help="seeds side by side")
    parser.add_argument("--batch_size", type=int, default=16, help="samples in a batch of each")
    parser.add_argument("--bf16", action="store_true", help="matrix products in bf16")
    parser.add_argument("--steps", type=int, default=4, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    args = parser.parse_args()
    seeds = list(range(1, args.runs + 1))
    device, dtype = torch.device("cuda" if torch.cuda.is_available() else "cpu"), torch.bfloat16 if args.bf16 else torch.float32
    for name in args.workloads:
        text = {"tokenizer": "bpe", "vocab_size": args.vocab_size} if args.vocab_size else {}
        prepared = load(name, args, **text)
        length = round(float(prepared.samples("train").lengths.mean()))
        taken = [in_a_process(memory, prepared, chosen, args) for chosen in (seeds[:1], seeds)]
        turns, shell = speeds(prepared, seeds, args)
        flops = flops_of_sample(shell, prepared, args.batch_size) / length
        most = max(matmul_peak(device, dtype, args.runs * args.batch_size * length, shell.width) for _ in range(3))  # type: ignore[arg-type]
        rates = {way: statistics.median(turn.tokens / turn.seconds for turn in done) for way, done in turns.items()}
        first = rates["one after the other"]
        print(
            f"\n{name}, {length} tokens on average, {args.runs} runs of batches of {args.batch_size}, {args.backbone},"
            f" {'bf16' if args.bf16 else 'fp32'}, {args.rounds} x {args.steps} steps\n\n"
            "| way | tokens/s | MFU | ratio | weights and optimizer, GiB | peak, GiB |\n|---|---|---|---|---|---|"
        )
        for (way, rate), sizes_of in zip(rates.items(), taken, strict=True):
            before, held, highest = (size / 2**30 for size in sizes_of or [math.nan] * 3)
            sizes = f"{held:.2f} | {highest:.2f} ({before:.2f} before)"
            print(f"| {way} | {rate:,.0f} | {rate * flops / most:.0%} | {rate / first:.2f} | {sizes} |", flush=True)


if __name__ == "__main__":
    cli(main)

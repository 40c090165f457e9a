"""Each backbone: does it load and train, how many parameters are trainable, how much memory and time does a step take?

    python benchmarks/backbones.py --backbones random:gpt2 random:gpt2-xl random:gpt2-xl,bf16 smollm2 lstm

A step is forward, backward and AdamW on the trainable tensors, batch 16 x 64 patches of 48 numbers, 10 classes. Each backbone has
its own process; the peak is the largest resident set since it started, the base what Python and the packages take without a
backbone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))


def peak() -> int:
    """The largest resident set of this process so far, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return psutil.Process().memory_info().rss


def warm_up() -> None:
    """A small step, so that the base has all that a first step loads."""
    import torch

    layer = torch.nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(layer.parameters())
    states = layer(torch.randn(4, 2, 64, 64))
    torch.nn.functional.scaled_dot_product_attention(states, states, states, is_causal=True).sum().backward()
    optimizer.step()


def measure(name: str, dtype: str, tune: str, batch: int, tokens: int, steps: int) -> dict[str, float | int | str]:
    """Load a backbone and train a few steps."""
    import torch

    from fpt.backbones.base import BackboneSpec
    from fpt.backbones.loading import load_backbone
    from fpt.inputs import Patches
    from fpt.inspect import empty_backbone, empty_model, step_flops
    from fpt.models.fpt import build_model
    from fpt.models.input_init import init_input
    from fpt.models.tuning import Tuning, parse_parts
    from fpt.outputs import Classes

    warm_up()
    base = peak()
    start = time.perf_counter()
    tuning = Tuning(parse_parts(tune))
    backbone = load_backbone(BackboneSpec(name, dtype=dtype, seed=1), keep_fp32=tuning.parts)
    loaded = time.perf_counter() - start
    after_load = peak()
    output = Classes(tuple("0123456789"))
    model = build_model(backbone, Patches(48), output, tuning).train()
    init_input(model, backbone, None)
    spec = backbone.spec
    del backbone  # a run needs the backbone's own input table no longer
    optimizer = torch.optim.AdamW(model.trainable_parameters().values(), lr=1e-3)
    values, mask = torch.randn(batch, tokens, 48), torch.ones(batch, tokens, dtype=torch.long)
    labels = torch.randint(0, 10, (batch,))
    times, losses = [], []
    for _ in range(steps + 1):
        start = time.perf_counter()
        loss = output.loss(model(values, mask), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        times.append(time.perf_counter() - start)
    highest = peak()
    seconds = statistics.median(times[1:])
    flops = sum(step_flops(empty_model(empty_backbone(spec), Patches(48), output, tuning), Patches(48), batch, tokens))
    trainable, total = model.count()
    return {
        "core": f"{name} {dtype}",
        "trainable": trainable,
        "total": total,
        "weights": sum(p.nbytes for p in model.parameters()),
        "base": base,
        "after_load": after_load,
        "peak": highest,
        "load_seconds": loaded,
        "step_seconds": seconds,
        "flops": flops,
        "learns": losses[-1] < losses[0],
    }


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which backbones are measured, and on what."""
    parser.add_argument("--backbones", nargs="+", default=["random:gpt2"], help="names for --backbone; NAME,bf16 for a precision")
    parser.add_argument("--tune", default="fpt", help="what is trained")
    parser.add_argument("--batch_size", type=int, default=16, help="samples in a batch")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a sample")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_shape(parser)
    parser.add_argument("--steps", type=int, default=3, help="steps to time, after one to warm up; the median is shown")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    shape = (args.batch_size, args.tokens, args.steps)
    if args.one:
        name, _, dtype = args.backbones[0].partition(",")
        print(json.dumps(measure(name, dtype or "fp32", args.tune, *shape)))
        return
    print(f"--tune {args.tune}, batch {args.batch_size} x {args.tokens} tokens, {psutil.cpu_count()} CPU cores")
    print(
        f"{'backbone':<26}{'trainable':>11}{'weights':>9}{'loaded':>8}{'peak GiB':>9}{'load s':>8}{'step s':>8}{'GFLOP/s':>9}"
        "  learns"
    )
    for backbone in args.backbones:
        command = [sys.executable, __file__, "--one", "--backbones", backbone, "--tune", args.tune]
        command += ["--batch_size", str(shape[0]), "--tokens", str(shape[1]), "--steps", str(shape[2])]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
        if done.returncode:
            print(f"{backbone:<26}{done.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        r = json.loads(done.stdout.splitlines()[-1])
        gib = {k: f"{r[k] / 2**30:.2f}" for k in ("weights", "after_load", "peak")}
        print(
            f"{r['core']:<26}{r['trainable']:>11,}{gib['weights']:>9}{gib['after_load']:>8}{gib['peak']:>9}{r['load_seconds']:>8.1f}"
            f"{r['step_seconds']:>8.2f}{r['flops'] / r['step_seconds'] / 1e9:>9.0f}  {'yes' if r['learns'] else 'NO'}",
            flush=True,
        )


if __name__ == "__main__":
    main()

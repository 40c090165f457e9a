"""How a step's time grows with tokens, batch, layers and the backbone, beside what the operations would take at the matmul peak.

    python benchmarks/scaling.py --plot docs/scaling.png --backbones gpt2 gpt2-medium gpt2-large gpt2-xl

A step is forward, backward, clipping and AdamW on the trainable tensors of a random GPT-2; evaluation is the forward pass of
batches of 64. One thing is varied at a time, from batches of 16 samples of 64 tokens on twelve layers of gpt2.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from fpt.backbones.base import BackboneSpec
from fpt.backbones.loading import load_backbone
from fpt.errors import cli
from fpt.flops import matmul_peak, on_meta, step_flops
from fpt.inputs import Patches
from fpt.models.fpt import FPT, build_model
from fpt.outputs import Classes

INPUT, OUTPUT = Patches(48), Classes(tuple("0123456789"))
PANELS = {"tokens of a sample": "tokens", "samples of a batch": "batch", "layers": "layers", "width of the backbone": "core"}


@dataclass(frozen=True)
class Point:
    """What is measured."""

    core: str = "gpt2"
    layers: int | None = None
    batch: int = 16
    tokens: int = 64


@dataclass(frozen=True)
class Found:
    """Seconds of a step, of one at the matmul peak, and tokens a second in training and in evaluation."""

    point: Point
    width: int
    layers: int
    seconds: float
    limit: float
    trained: float
    evaluated: float


def build(point: Point) -> FPT:
    """A random backbone of that many layers, ready to train."""
    return build_model(
        load_backbone(BackboneSpec(f"random:{point.core}", seed=1, num_layers=point.layers)), INPUT, OUTPUT
    ).train()


def timed(call: object, repeats: int) -> float:
    """Seconds of a call, the best of some as for the peak, after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()  # type: ignore[operator]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def measure(point: Point, repeats: int) -> Found:
    """Train and evaluate a little."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(point)
    flops = sum(step_flops(on_meta(model), INPUT, point.batch, point.tokens))
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.trainable_parameters().values(), lr=1e-4)
    values = torch.randn(point.batch, point.tokens, INPUT.dim, device=device)
    mask = torch.ones(point.batch, point.tokens, dtype=torch.long, device=device)
    labels = torch.randint(0, 10, (point.batch,), device=device)

    def step() -> None:
        OUTPUT.loss(model(values, mask), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    many, mask_of_many = values.repeat(-(-64 // point.batch), 1, 1)[:64], mask.repeat(-(-64 // point.batch), 1)[:64]

    @torch.inference_mode()
    def evaluate() -> None:
        model(many, mask_of_many)

    seconds = timed(step, repeats)
    model.eval()
    evaluated = 64 * point.tokens / timed(evaluate, 1)
    peak = max(matmul_peak(device, torch.float32, point.batch * point.tokens, model.width) for _ in range(2))
    layers = len(model.family.blocks(model.core))
    return Found(point, model.width, layers, seconds, flops / peak, point.batch * point.tokens / seconds, evaluated)


def plot(found: dict[str, list[Found]], path: Path) -> None:
    """Four panels, one for each thing that was varied."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(13, 3.2), constrained_layout=True)
    for axis, (title, field) in zip(axes, PANELS.items(), strict=True):
        points = found[title]
        x = [one.width if field == "core" else one.layers if field == "layers" else getattr(one.point, field) for one in points]
        axis.loglog(x, [one.seconds for one in points], "o-", label="measured")
        axis.loglog(x, [one.limit for one in points], "--", label="at the matmul peak")
        axis.set(xlabel=title, xticks=x, xticklabels=[str(n) for n in x])
        axis.minorticks_off()
    axes[0].set_ylabel("seconds of a step")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", nargs="+", type=int, default=[16, 32, 64, 128, 256], help="tokens of a sample")
    parser.add_argument("--batches", nargs="+", type=int, default=[2, 4, 8, 16, 32], help="samples of a batch")
    parser.add_argument("--layers", nargs="+", type=int, default=[2, 4, 8, 12], help="first layers of the backbone")
    parser.add_argument("--backbones", nargs="+", default=["gpt2", "gpt2-medium", "gpt2-large"], help="backbones by name")
    parser.add_argument("--steps", type=int, default=3, help="steps to time; the best is shown")
    parser.add_argument("--plot", type=Path, help="picture to write")
    args = parser.parse_args()
    base = Point()
    series = {
        "tokens of a sample": [replace(base, tokens=n) for n in args.tokens],
        "samples of a batch": [replace(base, batch=n) for n in args.batches],
        "layers": [replace(base, layers=n) for n in args.layers],
        "width of the backbone": [replace(base, core=name) for name in args.backbones],
    }
    known: dict[Point, Found] = {}
    print("| core | layers | batch | tokens | step s | at the peak s | MFU | tokens/s | evaluation tokens/s | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for point in dict.fromkeys(point for points in series.values() for point in points):
        one = known[point] = measure(point, args.steps)
        print(
            f"| {point.core} | {one.layers} | {point.batch} | {point.tokens} | {one.seconds:.3f} | {one.limit:.3f} |"
            f" {one.limit / one.seconds:.0%} | {one.trained:,.0f} | {one.evaluated:,.0f} | {one.evaluated / one.trained:.2f} |",
            flush=True,
        )
    if args.plot:
        plot({title: [known[point] for point in points] for title, points in series.items()}, args.plot)


if __name__ == "__main__":
    cli(main)

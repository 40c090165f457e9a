"""Does the data keep up with the model? Batches a second of each task's loader against training steps a second of GPT-2 small.

    python benchmarks/loader.py --data_dir raw --datasets bit-memory mnist cifar10 speech-commands cyp3a4

The model has GPT-2 small's shape and random weights; a step is forward, backward and AdamW on the trainable tensors.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from fpt.args import DataArguments
from fpt.backbones.base import BackboneSpec
from fpt.backbones.loading import load_backbone
from fpt.data.batches import LengthGroupedBatchSampler, make_loader
from fpt.data.cache import prepare
from fpt.data.prepared import Prepared
from fpt.errors import cli
from fpt.models.fpt import build_model
from fpt.tasks.base import TASKS


def batches(prepared: Prepared, batch_size: int) -> Iterator[dict[str, torch.Tensor]]:
    """Training batches without end, as `train.py` reads them."""
    samples = prepared.samples("train")
    sampler = LengthGroupedBatchSampler(samples.lengths, batch_size, seed=1)
    loader = make_loader(samples, sampler, prepared.input, prepared.output)
    for epoch in itertools.count():
        sampler.start_epoch(epoch)
        samples.start_epoch(epoch)
        yield from loader


def loader_rate(prepared: Prepared, batch_size: int, seconds: float) -> float:
    """Batches a second, measured over `seconds` after a first batch."""
    stream = batches(prepared, batch_size)
    next(stream)
    start = time.perf_counter()
    for count, _ in enumerate(stream, 1):
        if time.perf_counter() - start > seconds:
            return count / (time.perf_counter() - start)
    raise AssertionError("the stream has no end")


def step_rate(prepared: Prepared, batch_size: int, steps: int, device: str) -> float:
    """Training steps a second, after one to warm up."""
    model = build_model(load_backbone(BackboneSpec("random:gpt2", seed=1)), prepared.input, prepared.output).to(device)
    optimizer = torch.optim.AdamW(model.trainable_parameters().values(), lr=1e-4)
    stream = batches(prepared, batch_size)

    def step() -> None:
        batch = {name: tensor.to(device) for name, tensor in next(stream).items()}
        loss = prepared.output.loss(model(batch["inputs"], batch["attention_mask"]), batch["labels"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # wait for the device

    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["cyp3a4"], help="tasks to measure")
    parser.add_argument("--data_dir", help="folder with raw downloads, as for train.py")
    parser.add_argument("--batch_size", type=int, default=16, help="samples in a batch")
    parser.add_argument("--steps", type=int, default=5, help="training steps to time")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long a loader is timed")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"batches of {args.batch_size} on {device}, {torch.get_num_threads()} threads")
    print(f"{'dataset':<18}{'tokens':>8}{'batches/s':>12}{'steps/s':>10}{'ratio':>9}")
    for name in args.datasets:
        prepared = prepare(TASKS[name], DataArguments(dataset=name, data_dir=args.data_dir), 1, lambda line: None)
        loaded = loader_rate(prepared, args.batch_size, args.seconds)
        trained = step_rate(prepared, args.batch_size, args.steps, device)
        tokens = prepared.samples("train").lengths.mean()
        print(f"{name:<18}{tokens:>8.0f}{loaded:>12.1f}{trained:>10.3f}{loaded / trained:>8.0f}x", flush=True)


if __name__ == "__main__":
    cli(main)

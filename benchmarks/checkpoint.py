#!/usr/bin/env python
"""Size of a frozen-core checkpoint against the full model, and the time to save and load each.

python benchmarks/checkpoint.py --checkpoint runs/quickstart
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from fpt.backbones.loading import load_backbone
from fpt.checkpoint import WEIGHTS, Scored, find_checkpoint, load_checkpoint, read_config, save_checkpoint
from fpt.errors import cli


def seconds(action: Callable[[], object], repeats: int) -> float:
    """Median wall time of `action`."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="run or checkpoint folder")
    parser.add_argument("--repeats", type=int, default=5, help="times each action is timed; the median is shown")
    args = parser.parse_args()
    folder = find_checkpoint(args.checkpoint)
    model, tokenizer, config = load_checkpoint(folder)
    spec, scored = config.core, Scored(config.step, config.valid_metrics)
    trainable = model.own_parameters()
    with tempfile.TemporaryDirectory() as temporary:
        small, full = Path(temporary) / "small", Path(temporary) / "full"
        rows = [
            ("trainable tensors only", small, lambda: save_checkpoint(small, trainable, config, scored, tokenizer)),
            ("--save_full", full, lambda: save_checkpoint(full, trainable, config, scored, tokenizer, full_of=model)),
        ]
        print(f"backbone {spec.name}, {spec.num_layers} layers; median of {args.repeats}")
        print(f"{'checkpoint':<20}{'bytes':>14}{'save s':>9}{'check s':>9}{'load s':>9}")
        sizes = []
        for name, path, save in rows:
            saved = seconds(save, args.repeats)
            sizes.append((path / WEIGHTS).stat().st_size)
            checked = seconds(partial(read_config, path), args.repeats)
            loaded = seconds(partial(load_checkpoint, path), args.repeats)
            print(f"{name:<20}{sizes[-1]:>14,}{saved:>9.3f}{checked:>9.3f}{loaded:>9.3f}")
        alone = seconds(lambda: load_backbone(spec), args.repeats)
        print(f"ratio {sizes[0] / sizes[1]:.3%}; of the first load, the backbone alone takes {alone:.2f} s")


if __name__ == "__main__":
    cli(main)

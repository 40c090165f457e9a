"""How near does the planner come? The memory that `fpt.plan` expects of a training step against what a step takes on this CPU.

    python benchmarks/plan.py --backbones random:gpt2 random:gpt2-medium random:gpt2-large random:gpt2-xl

Measured is the largest resident set of a process that loads a backbone and trains, less what Python and the packages took before.
glibc is told to give back what is freed at once, as a GPU's allocator would use it again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from backbones import add_shape

from fpt.backbones.base import BackboneSpec
from fpt.errors import cli
from fpt.inputs import Patches
from fpt.inspect import empty_backbone, empty_model
from fpt.models.tuning import Tuning, parse_parts
from fpt.outputs import Classes
from fpt.plan import GIB, ONE, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_shape(parser)
    args = parser.parse_args()
    print(f"--tune {args.tune}, batch {args.batch_size} x {args.tokens} tokens")
    print(f"{'backbone':<26}{'planned GiB':>12}{'measured':>10}{'error':>8}")
    for backbone in args.backbones:
        name, _, dtype = backbone.partition(",")
        spec = BackboneSpec(name, dtype=dtype or "fp32")
        model = empty_model(empty_backbone(spec), Patches(48), Classes(tuple("0123456789")), Tuning(parse_parts(args.tune)))
        planned = sum(measure(model, Patches(48), args.tokens).memory(ONE, 1, args.batch_size).values())
        command = [
            sys.executable,
            str(Path(__file__).with_name("backbones.py")),
            "--one",
            "--backbones",
            backbone,
            "--tune",
            args.tune,
        ]
        command += ["--batch_size", str(args.batch_size), "--tokens", str(args.tokens), "--steps", "1"]
        env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=env)
        if done.returncode:
            print(f"{backbone:<26}{done.stderr.strip().splitlines()[-1]}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        measured = found["peak"] - found["base"]
        print(f"{backbone:<26}{planned / GIB:>12.2f}{measured / GIB:>10.2f}{planned / measured - 1:>8.1%}", flush=True)


if __name__ == "__main__":
    cli(main)

"""Trackers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fpt.args import TrainArguments, flat


def start_trackers(accelerator: Accelerator, args: TrainArguments, arguments: dict[str, Any], output: Path) -> bool:
    """Open the tracker that ``--report_to`` names; returns whether there is one."""
    if args.report_to == "none":
        return False
    logs = output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    config = {k: v for k, v in flat(arguments).items() if v is not None}
    name = output.name
    accelerator.init_trackers(args.project, config=config, init_kwargs={"wandb": {"dir": str(logs), "name": name}})
    return True

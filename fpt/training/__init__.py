"""Training: a run from its arguments to ``results.json``.

Read `setup.run` first, then `loop`: the steps of one run or of several side by side.
"""

from fpt.training.loop import Loop, learn, take_steps
from fpt.training.optimizer import parameter_groups
from fpt.training.records import Job, Progress
from fpt.training.setup import run

__all__ = ["Job", "Loop", "Progress", "learn", "parameter_groups", "run", "take_steps"]

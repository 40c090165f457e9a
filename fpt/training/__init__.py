"""Training: a run from its arguments to ``results.json``.

Read `setup.run` first, then `loop`: the steps of one run or of several side by side. `running.Run` is a run in progress.
"""

from fpt.training.loop import learn, take_steps
from fpt.training.optimizer import parameter_groups
from fpt.training.records import Job, Progress
from fpt.training.running import Run
from fpt.training.setup import run

__all__ = ["Job", "Progress", "Run", "learn", "parameter_groups", "run", "take_steps"]

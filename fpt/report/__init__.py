"""One page about runs; ``python -m fpt.report DIR`` writes it."""

from fpt.report.page import build, fragment
from fpt.report.runs import Row, find_runs, read_rows

__all__ = ["Row", "build", "find_runs", "fragment", "read_rows"]

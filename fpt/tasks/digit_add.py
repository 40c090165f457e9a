"""Sum of numbers that are written as digits, the course project's ``digit-add`` (https://github.com/panpiort8/dl-project).

A sample is ``num_numbers`` numbers of up to ``num_digits`` digits; each digit is a token, a one of ten places, and ``+`` is the
eleventh: ``[3] [+] [7]``. The answer is the sum, as a number: mean absolute error. Drawn on the fly from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fpt.args import DataArguments, arg
from fpt.flags.checks import Range, check_ranges
from fpt.options import options_of
from fpt.outputs import Value
from fpt.tasks.base import TASKS, GeneratedTask

PLUS = 10


@dataclass
class AddOptions:
    """Sizes of digit-add."""

    _argument_group_name = "digit-add"
    num_numbers: int = arg(2, "Numbers to add.")
    num_digits: int = arg(1, "Digits of each number, leading zeros included.")

    def __post_init__(self) -> None:
        check_ranges(self, num_numbers=Range(1, 10**4), num_digits=Range(1, 15))


class DigitAdd(GeneratedTask):
    """What is the sum?"""

    name = "digit-add"
    source = "https://github.com/panpiort8/dl-project"
    options = AddOptions

    def dim(self, args: DataArguments) -> int:
        """A one in eleven places."""
        return PLUS + 1

    def output(self, args: DataArguments) -> Value:
        """The sum; its mean and deviation follow from uniform numbers."""
        o = options_of(args, AddOptions)
        count, top = o.num_numbers, 10**o.num_digits
        return Value(mean=count * (top - 1) / 2, std=float(np.sqrt(count * (top**2 - 1) / 12)))

    def sample(self, rng: np.random.Generator, args: DataArguments) -> tuple[np.ndarray, Any]:
        """Draw numbers."""
        o = options_of(args, AddOptions)
        count, digits = o.num_numbers, o.num_digits
        numbers = rng.integers(0, 10**digits, count)
        text = "+".join(f"{n:0{digits}d}" for n in numbers)
        tokens = [PLUS if c == "+" else int(c) for c in text]
        return np.eye(PLUS + 1, dtype=np.float32)[tokens].ravel(), float(numbers.sum())


TASKS.register("digit-add")(DigitAdd())

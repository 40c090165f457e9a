"""The paper's two generated tasks (arXiv 2103.05247, section 2.2): remember bits, and combine them.

``bit-memory``: five strings of 1,000 random bits, then one of them again with each bit masked at 0.5; give the whole string.
Strings come in patches of 50 bits, so a sample is 6 * 20 = 120 tokens of 50 numbers (-1, 1, and 0 where masked), and the
answer is read at the last 20.

``bit-xor``: two strings of 5 bits, one bit a token: 10 tokens of 1 number (-1 or 1); give the elementwise XOR, read at the
last 5 tokens.

The metric of both is the share of right bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fpt.args import DataArguments, arg
from fpt.errors import FPTError
from fpt.flags.checks import SHARE, Range, check_ranges
from fpt.options import options_of
from fpt.outputs import Bits
from fpt.tasks.base import TASKS, GeneratedTask

PAPER = "https://arxiv.org/abs/2103.05247, section 2.2"


class BitOptions:
    """What the options of both tasks have."""

    num_bits: int
    num_patterns: int
    patch_size: int


@dataclass
class MemoryOptions(BitOptions):
    """Sizes of bit-memory."""

    _argument_group_name = "bit-memory"
    num_bits: int = arg(1000, "Bits in a string.")
    num_patterns: int = arg(5, "Strings to remember.")
    patch_size: int = arg(50, "Bits in a token; divides --num_bits.")
    mask_probability: float = arg(0.5, "Probability that a bit of the query is masked.")

    def __post_init__(self) -> None:
        check_sizes(self)
        check_ranges(self, mask_probability=SHARE)


@dataclass
class XorOptions(BitOptions):
    """Sizes of bit-xor."""

    _argument_group_name = "bit-xor"
    num_bits: int = arg(5, "Bits in a string.")
    num_patterns: int = arg(2, "Strings to combine.")
    patch_size: int = arg(1, "Bits in a token; divides --num_bits.")

    def __post_init__(self) -> None:
        check_sizes(self)


def check_sizes(options: BitOptions) -> None:
    """Refuse sizes out of range.

    Raises:
        FPTError: a size is out of range; the message names its flag.
    """
    check_ranges(options, num_bits=Range(1, 10**6), num_patterns=Range(1, 10**4), patch_size=Range(1, 10**6))


class _BitTask(GeneratedTask):
    """What the two share: strings of bits in patches, and an answer as long as one string."""

    def dim(self, args: DataArguments) -> int:
        """Bits in a token."""
        o = options_of(args, BitOptions)
        if o.num_bits % o.patch_size:
            raise FPTError(f"--patch_size {o.patch_size} must divide --num_bits {o.num_bits}")
        return o.patch_size

    def output(self, args: DataArguments) -> Bits:
        """The bits of one string, at the tokens of the last one."""
        return Bits(tokens=options_of(args, BitOptions).num_bits // self.dim(args), size=self.dim(args))


class BitMemory(_BitTask):
    """Give back the string that a masked query is of."""

    name = "bit-memory"
    source = PAPER
    options = MemoryOptions

    def sample(self, rng: np.random.Generator, args: DataArguments) -> tuple[np.ndarray, Any]:
        """Draw strings and a query."""
        o = options_of(args, MemoryOptions)
        bits = rng.integers(0, 2, (o.num_patterns, o.num_bits), dtype=np.int8)
        wanted = bits[rng.integers(o.num_patterns)]
        seen = rng.random(o.num_bits) >= o.mask_probability
        return np.concatenate([2 * bits - 1, ((2 * wanted - 1) * seen)[None]]).ravel(), wanted


class BitXor(_BitTask):
    """Give the elementwise XOR of strings."""

    name = "bit-xor"
    source = PAPER
    options = XorOptions

    def sample(self, rng: np.random.Generator, args: DataArguments) -> tuple[np.ndarray, Any]:
        """Draw strings."""
        o = options_of(args, XorOptions)
        bits = rng.integers(0, 2, (o.num_patterns, o.num_bits), dtype=np.int8)
        return (2 * bits - 1).ravel(), np.bitwise_xor.reduce(bits, axis=0)


TASKS.register("bit-memory")(BitMemory())
TASKS.register("bit-xor")(BitXor())

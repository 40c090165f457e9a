"""Frozen Pretrained Transformers (arXiv 2103.05247) as scalable training scripts.

The way of the data is the layout of the package::

    tasks/ -> data/ -> backbones/ -> models/ -> training/ -> checkpoint/ -> evaluation/ -> report/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fpt.optional import hide_broken_packages
from fpt.version import __version__ as __version__

if TYPE_CHECKING:
    from fpt.evaluation.predictor import Predictor

hide_broken_packages()


def load(checkpoint: str | list[str], backbone: str | None = None) -> Predictor:
    """A trained model, ready to predict raw inputs; see `fpt.evaluation.predictor.Predictor`.

    Args:
        checkpoint: a run of ``train.py``, its ``checkpoint/``, or ``user/repo[@revision]`` of the Hub; a list of them for the
            mean of their predictions.
        backbone: where the backbone is, when that is not where it was in training; it must be the same backbone.

    Raises:
        FPTError: it is not there, damaged, or its backbone is not available.
    """
    from fpt.evaluation.predictor import Predictor

    return Predictor(checkpoint, backbone)

"""Frozen Pretrained Transformers (arXiv 2103.05247) as scalable training scripts.

The way of the data is the layout of the package::

    tasks/ -> data.py -> backbones/ -> model.py -> training.py -> checkpoint.py -> results.py
"""

__version__ = "0.1.0"

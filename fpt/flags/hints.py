"""What to give in place of a flag that is for another kind of data."""

from __future__ import annotations


def of_molecules(model: str) -> str:
    """In place of ``--features``, which is for sounds, with ``--model`` `model`."""
    if model == "morgan":
        return "it is for sounds; the features of molecules that --model morgan reads are named by --morgan_features"
    return (
        "it is for sounds; numbers that a network reads of a whole molecule are named by --sample_vector, the features of"
        " --model morgan by --morgan_features"
    )

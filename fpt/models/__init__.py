"""Models that ``--model`` names; see `fpt.models.base` and, for the frozen pretrained transformer itself, `fpt.models.fpt`."""

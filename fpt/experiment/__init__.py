"""Tables of runs from one file: `python -m fpt.experiment`, see `fpt.experiment.__main__`."""

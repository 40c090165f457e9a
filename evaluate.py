#!/usr/bin/env python
"""Score a checkpoint on its own split, or predict for a file.

python evaluate.py --checkpoint runs/cyp3a4                                        # the test split again
python evaluate.py --checkpoint runs/cyp3a4 --predict mine.csv --output out.csv    # SMILES, text or file names
python evaluate.py --checkpoint user/fpt-cyp3a4                                    # from the Hub
"""

import fpt.evaluate
from fpt.errors import cli


def main() -> None:
    fpt.evaluate.main(__doc__ or "")


if __name__ == "__main__":
    cli(main)

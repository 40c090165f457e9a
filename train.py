#!/usr/bin/env python
"""Train a Frozen Pretrained Transformer (arXiv 2103.05247) on another modality.

accelerate launch train.py --dataset cyp3a4                            # GPT-2 from the Hub, on molecules
accelerate launch train.py --dataset cyp3a4 --backbone random:gpt2     # does the pretraining matter?
accelerate launch train.py --dataset cyp3a4 --model mat                # a baseline on the same split
accelerate launch train.py --dataset csv:mine.csv --input_type smiles --input_column smiles --label_column active
accelerate launch train.py --dataset cyp3a4 --seeds 1,2,3              # side by side, on one copy of the backbone
accelerate launch --config_file accelerate_configs/multi_gpu.yaml train.py --dataset cifar10
accelerate launch train.py --dataset cyp3a4 --output_dir runs/cyp3a4 --resume
accelerate launch train.py --config runs/cyp3a4/run.json --seed 2 --output_dir runs/again    # an earlier run, changed
"""

import fpt.train
from fpt.errors import cli


def main() -> None:
    fpt.train.main(__doc__ or "")


if __name__ == "__main__":
    cli(main)

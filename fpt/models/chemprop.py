"""The directed message-passing network of chemprop (Yang et al., J. Chem. Inf. Model. 2019, 59, 3370), by its package.

Any task on SMILES, classes or a number. Network, optimizer, schedule and their defaults are those of chemprop 2's command line,
except for 30 epochs in place of 50. As for all models here, the epoch is picked by the primary metric on valid (chemprop picks by
the loss). It is trained on the CPU.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from tqdm.auto import tqdm

from fpt.args import arg
from fpt.data.prepared import Prepared
from fpt.data.samples import numbers
from fpt.errors import FPTError
from fpt.flags.checks import DROPOUT, WIDTH, Range, check_ranges
from fpt.metrics import is_better
from fpt.models.base import MODELS, Estimator, Fitted
from fpt.models.molecule_features import molecules_only
from fpt.outputs import Classes, Output, Value
from fpt.results import Evaluation
from fpt.tasks.base import GeneratedTask, Task
from fpt.text.log import Log

WARMUP_EPOCHS = 2


@dataclass
class ChempropOptions:
    """Shape and training of the network; the defaults are chemprop's, but for the epochs."""

    _argument_group_name = "chemprop"
    chemprop_epochs: int = arg(30, "Epochs; the best one on the validation split is taken. The rate rises in the first 2.")
    chemprop_hidden_size: int = arg(300, "Width of the messages and of the hidden layer of the readout.")
    chemprop_depth: int = arg(3, "Message-passing steps.")
    chemprop_dropout: float = arg(0.0, "Dropout in messages and readout.")
    chemprop_batch_size: int = arg(64, "Molecules in a batch.")

    def __post_init__(self) -> None:
        # With fewer epochs than those of the warmup the rate would not come down.
        check_ranges(self, chemprop_epochs=Range(WARMUP_EPOCHS + 1, 100_000), chemprop_hidden_size=WIDTH)
        check_ranges(self, chemprop_depth=Range(1, 100), chemprop_dropout=DROPOUT, chemprop_batch_size=Range(1, 2**20))


def molecules(smiles: list[str], labels: np.ndarray | None = None) -> Any:
    """chemprop's dataset of SMILES; graphs are made once and kept."""
    from chemprop.data import MoleculeDatapoint, MoleculeDataset

    targets = [None] * len(smiles) if labels is None else np.asarray(labels, dtype=np.float64)[:, None]
    rows = MoleculeDataset([MoleculeDatapoint.from_smi(text, y) for text, y in zip(smiles, targets, strict=True)])
    rows.cache = True
    return rows


def build_network(output: Output, options: ChempropOptions, scaler: Any = None) -> Any:
    """chemprop's network for labels of a kind, initialised at random.

    Args:
        scaler: of a number, as chemprop's dataset gives it.
    """
    from chemprop.models import MPNN
    from chemprop.nn import (
        BinaryClassificationFFN,
        BondMessagePassing,
        MulticlassClassificationFFN,
        NormAggregation,
        RegressionFFN,
        UnscaleTransform,
    )

    width = options.chemprop_hidden_size
    shape = {"input_dim": width, "hidden_dim": width, "dropout": options.chemprop_dropout}
    readout: Any
    if isinstance(output, Value):
        readout = RegressionFFN(output_transform=UnscaleTransform.from_standard_scaler(scaler), **shape)
    elif output.size == 2:
        readout = BinaryClassificationFFN(**shape)
    else:
        readout = MulticlassClassificationFFN(n_classes=output.size, **shape)
    messages = BondMessagePassing(d_h=width, depth=options.chemprop_depth, dropout=options.chemprop_dropout)
    return MPNN(messages, NormAggregation(), readout, warmup_epochs=WARMUP_EPOCHS)


def predict(network: Any, rows: Any, output: Output, batch_size: int) -> np.ndarray:
    """Predictions (molecules, columns) as `Output.metrics` takes them."""
    from chemprop.data import collate_batch

    training = network.training
    network.eval()
    batches = torch.utils.data.DataLoader(rows, batch_size, collate_fn=collate_batch)
    with torch.no_grad():
        found = torch.cat([network(batch.bmg) for batch in batches]).double().numpy()
    network.train(training)
    if isinstance(output, Value):
        return found
    if output.size == 2:
        return np.concatenate([1 - found, found], axis=1)
    # They come in fp32 and sum to 1 in that precision only.
    return found[:, 0] / found[:, 0].sum(axis=1, keepdims=True)


class Best:
    """The weights of the best epoch so far, and the scores of all."""

    def __init__(self, metric: str) -> None:
        self.metric, self.score, self.epoch = metric, None, 0
        self.history: list[Evaluation] = []
        self.weights: dict[str, torch.Tensor] = {}

    def add(self, network: Any, metrics: Mapping[str, float | None]) -> None:
        """Take note of an epoch."""
        self.history.append(cast("Evaluation", {"epoch": len(self.history) + 1, "valid": dict(metrics)}))
        score: Any = metrics[self.metric]
        if not self.weights or is_better(self.metric, score, self.score):
            self.score, self.epoch = score, len(self.history)
            self.weights = copy.deepcopy(network.state_dict())


def train(network: Any, rows: Any, options: ChempropOptions, seed: int, best: Best, score: Any) -> None:
    """Train a network with lightning, without files of its own; `best` gets the scores that `score` computes after each epoch."""
    from chemprop.data import build_dataloader
    from lightning.pytorch import Callback, Trainer

    class AfterEpoch(Callback):
        def on_train_epoch_end(self, trainer: Any, network: Any) -> None:
            metrics = score(network)
            best.add(network, metrics)
            bar.set_postfix({best.metric: f"{metrics[best.metric]:.4f}"} if metrics[best.metric] is not None else {})
            bar.update()

    with warnings.catch_warnings(), tqdm(total=options.chemprop_epochs, desc="chemprop", unit="epoch", dynamic_ncols=True) as bar:
        warnings.filterwarnings("ignore", module="lightning")
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=options.chemprop_epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[AfterEpoch()],
        )
        trainer.fit(network, build_dataloader(rows, options.chemprop_batch_size, seed=seed))


class Chemprop(Estimator):
    """chemprop's D-MPNN."""

    name = "chemprop"
    source = "chemprop (J. Chem. Inf. Model. 2019, 59, 3370)"
    options = ChempropOptions
    packages = ("rdkit", "chemprop")

    def view(self, task: Task | GeneratedTask) -> Task | GeneratedTask:
        """As it is, when it has molecules."""
        return molecules_only(self.name, task)

    def fit(self, prepared: Prepared, options: ChempropOptions, seed: int, log: Log) -> Fitted:
        """Train on train; the epoch with the best primary metric on valid is taken."""
        output = prepared.output
        if not isinstance(output, Classes | Value):
            raise FPTError(
                f"--model chemprop predicts one class or one number; the labels of {prepared.task.name} are of another kind"
            )
        for name in ("lightning", "lightning.pytorch"):  # they say which devices there are, and praise their makers
            logging.getLogger(name).setLevel(logging.ERROR)
        labels = {split: numbers(rows, "label") for split, rows in prepared.splits.items()}
        smiles = {split: list(rows["text"]) for split, rows in prepared.splits.items()}
        train_rows = molecules(smiles["train"], labels["train"])
        network = build_network(output, options, train_rows.normalize_targets() if isinstance(output, Value) else None)
        log(f"model: {self.name}, {sum(p.numel() for p in network.parameters()):,} parameters, {options.chemprop_epochs} epochs")
        valid, best = molecules(smiles["valid"]), Best(prepared.primary_metric)

        def score(network: Any) -> Mapping[str, float | None]:
            return output.metrics(labels["valid"], predict(network, valid, output, options.chemprop_batch_size))

        train(network, train_rows, options, seed, best, score)
        network.load_state_dict(best.weights)
        log(f"model: epoch {best.epoch} is best on valid")
        rows = {"valid": valid, "test": molecules(smiles["test"])}
        predictions = {split: predict(network, rows[split], output, options.chemprop_batch_size) for split in rows}
        return Fitted(predictions, {"epoch": best.epoch}, best.history)


MODELS.register("chemprop")(Chemprop())

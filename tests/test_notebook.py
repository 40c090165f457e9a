"""The example notebook, top to bottom, with small settings in its settings cell."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from conftest import molecules, write_tdc
from hub_server import TOKEN, HubServer
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent


def test_the_notebook_runs_and_pushes(llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tdc(tmp_path / "raw", molecules())
    notebook = nbformat.read(ROOT / "examples" / "fpt_colab.ipynb", as_version=4)
    settings = next(cell for cell in notebook.cells if cell.source.startswith("BACKBONE = "))
    values = {
        "BACKBONE": str(llama_dir),
        "NUM_LAYERS": None,
        "DATA_DIR": str(tmp_path / "raw"),
        "STEPS": 8,
        "OUTPUT_DIR": str(tmp_path / "run"),
        "REPO": "user/notebook",
    }
    assert [line.split(" = ")[0] for line in settings.source.splitlines()] == list(values)
    settings.source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    with HubServer() as hub:
        monkeypatch.delenv("HF_HUB_OFFLINE")
        for name, value in {
            **{"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"},
            **{"FPT_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", "no_proxy": "127.0.0.1"},
        }.items():
            monkeypatch.setenv(name, value)
        client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
        client.execute()
        assert "model.safetensors" in hub.repositories["user/notebook"].commits[-1][1]
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(str(output.get("data", {}).get("text/plain", "")) + str(output.get("text", "")) for output in shown)
    assert "'reason': 'invalid SMILES'" in text
    pages = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert any(page.count("<img") == 5 for page in pages)  # four molecules and a t-SNE
    assert (tmp_path / "run" / "report.html").exists()
    assert "HF_HUB_OFFLINE" not in os.environ

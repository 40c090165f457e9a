"""From a run to the Hub and back, over a server on this machine that breaks when told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest
import yaml
from conftest import molecules, short_run, write_tdc
from hub_server import TOKEN, HubServer

import fpt
import fpt.checkpoint.remote
from fpt.checkpoint import find_checkpoint
from fpt.checkpoint.remote import FILES, is_hub_name, push
from fpt.errors import FPTError
from fpt.files.whole import sha256_file
from fpt.training import run

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write_tdc(folder / "raw", molecules())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPT_HOME", str(folder / "home"))
        run(*short_run(folder / "raw", llama_dir, folder / "run"))
    return folder


def python(hub: HubServer, folder: Path, *arguments: str, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    env |= {"FPT_HOME": str(folder / "home"), "FPT_HUB_WAIT": "0.01", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    env |= {"HF_TOKEN": token} if token else {}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=env, timeout=300)


def push_run(folder: Path) -> str:
    return push(find_checkpoint(str(folder / "run")), "user/repo", log=lambda line: None)


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: sha256_file(file) for file in folder.iterdir()}


def test_train_push_and_score_again_from_the_hub(hub: HubServer, trained: Path, llama_dir: Path, tmp_path: Path) -> None:
    run_ = tmp_path / "run"
    out = python(
        hub, tmp_path, "train.py", "--data_dir", str(trained / "raw"), "--backbone", str(llama_dir), "--output_dir", str(run_),
        "--max_steps", "8", "--eval_steps", "4", "--push_to_hub", "user/fpt-cyp3a4", "--hub_private", "True", "--license", "mit",
    )  # fmt: skip
    assert out.returncode == 0, out.stderr[-3000:]
    assert f"pushed to {hub.url}/user/fpt-cyp3a4/commit/" in out.stdout
    repository = hub.repositories["user/fpt-cyp3a4"]
    assert repository.private
    (commit, files), *_ = repository.commits
    assert {*files} == {*FILES}
    for name, data in files.items():
        assert data == (run_ / "checkpoint" / name).read_bytes()
    head = yaml.safe_load(files["README.md"].decode().split("---")[1])
    results = json.loads((run_ / "results.json").read_text())
    (entry,) = head["model-index"]
    told = {m["type"]: m["value"] for m in entry["results"][0]["metrics"]}
    assert told["auprc"] == pytest.approx(results["metrics"]["test"]["auprc"], abs=1e-6)
    assert (head["license"], head["library_name"]) == ("mit", "fpt")
    assert "train.py --dataset cyp3a4 --data_dir RAW" in files["README.md"].decode()
    assert str(tmp_path) not in files["README.md"].decode().replace(str(llama_dir), "")

    for name in ("user/fpt-cyp3a4", f"user/fpt-cyp3a4@{commit}"):
        again = python(
            hub, tmp_path / "elsewhere", "evaluate.py", "--checkpoint", name, "--data_dir", str(trained / "raw"),
            "--output", str(tmp_path / "again.json"),
        )  # fmt: skip
        assert again.returncode == 0, again.stderr[-3000:]
        scores = json.loads((tmp_path / "again.json").read_text())["metrics"]["test"]
        assert scores == pytest.approx(results["metrics"]["test"], abs=1e-6)
    hidden = python(hub, tmp_path / "stranger", "evaluate.py", "--checkpoint", "user/fpt-cyp3a4", token=None)
    assert hidden.returncode == 2
    assert "is not available from the Hub" in hidden.stderr


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("POST /api/repos/create", "cut"),
        ("POST .*/preupload/", 503),
        ("POST .*/objects/batch", "cut"),
        ("PUT /lfs/", 500),
        ("POST .*/commit/", "cut"),
    ],
)
def test_a_push_survives_a_broken_connection(pattern: str, what: int | str, here: HubServer, trained: Path) -> None:
    fault = here.fault(pattern, what)
    before = hashes(trained / "run" / "checkpoint")
    push_run(trained)
    assert fault.met == 1
    assert {*here.repositories["user/repo"].commits[-1][1]} == {*FILES}
    # What has arrived is not sent again.
    assert sum(line.startswith("PUT /lfs/") for line in here.asked) == (2 if "PUT" in pattern else 1)
    assert hashes(trained / "run" / "checkpoint") == before


@pytest.mark.parametrize(
    ("fault", "token", "message"),
    [
        (("POST .*/commit/", 500, 99), TOKEN, "failed 5 times: status 500"),
        (("POST .*/commit/", 403, 99), TOKEN, "was refused: status 403"),
        (None, "hf_wrong", "was refused: status 401"),
    ],
)
def test_a_push_that_fails_loses_nothing(fault, token, message: str, here: HubServer, trained: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    if fault:
        here.fault(*fault)
    before = hashes(trained / "run" / "checkpoint")
    with pytest.raises(FPTError, match=message) as error:
        push_run(trained)
    assert "is whole, push it again with `python -m fpt.hub" in str(error.value)
    assert hashes(trained / "run" / "checkpoint") == before


def test_a_push_without_a_token_is_refused_before_training(settings, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(FPTError, match="needs a token that may write: run `hf auth login`, or set HF_TOKEN"):
        run(*settings(push_to_hub="user/repo"))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    with pytest.raises(FPTError, match="--push_to_hub nobody: give USER/REPOSITORY"):
        run(*settings(push_to_hub="nobody"))
    assert not (tmp_path / "run").exists()


def test_a_run_that_could_not_be_pushed_is_finished(here: HubServer, settings, tmp_path: Path) -> None:
    here.fault("PUT /lfs/", 400, 99)
    with pytest.raises(FPTError, match="was refused: status 400"):
        run(*settings(push_to_hub="user/repo"))
    assert (tmp_path / "run" / "results.json").exists()
    here.faults.clear()
    assert push_run(tmp_path).startswith(f"{here.url}/user/repo/commit/")


@pytest.mark.parametrize(
    ("pattern", "what", "message"),
    [
        ("GET /user/repo/resolve/.*/model.safetensors", "garble", "model.safetensors is truncated or was changed"),
        ("(GET|HEAD) .*config.json", 403, "is not available from the Hub"),
    ],
)
def test_what_arrives_damaged_is_refused(pattern: str, what: int | str, message: str, here: HubServer, trained: Path) -> None:
    push_run(trained)
    here.fault(pattern, what, 99)
    with pytest.raises(FPTError, match=message):
        fpt.load("user/repo")


def test_a_fetch_survives_a_broken_connection(here: HubServer, trained: Path) -> None:
    push_run(trained)
    fault = here.fault("GET /user/repo/resolve/.*/model.safetensors", 503)
    assert fpt.load("user/repo").config.task == "cyp3a4"
    assert fault.met == 1


@pytest.mark.parametrize("name", ["user/nothing", "user/repo@nothing"])
def test_what_is_not_on_the_hub_is_one_line(name: str, here: HubServer, trained: Path) -> None:
    push_run(trained)
    with pytest.raises(FPTError, match=f"{name} is not a folder here, and is not available from the Hub: .*status 404"):
        fpt.load(name)


def test_load_from_the_hub_and_predict(here: HubServer, trained: Path) -> None:
    push_run(trained)
    inputs = ["CCO", "no molecule", "c1ccccc1Cl"]
    assert fpt.load("user/repo").predict(inputs) == fpt.load(str(trained / "run")).predict(inputs)


def test_predictions_in_python_are_those_of_the_script(trained: Path) -> None:
    table = pd.read_csv(trained / "run" / "predictions.csv")
    rows = pd.read_csv(trained / "raw" / "tdc" / "cyp3a4_veith.tab", sep="\t").set_index("Drug_ID")
    smiles = [rows.Drug[float(i)] for i in table.id]
    found = fpt.load(str(trained / "run")).predict(smiles)
    assert [f["prediction"] for f in found] == list(table.prediction)
    assert [f["probabilities"]["inhibitor"] for f in found] == pytest.approx(list(table.probability_inhibitor), abs=1e-6)
    (bad,) = fpt.load(str(trained / "run")).predict(["("])
    assert bad == {"prediction": None, "reason": "invalid SMILES"}
    assert fpt.load(str(trained / "run")).predict([]) == []


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("user/repo", True), ("user/repo@v1.0", True), ("user/repo@refs/pr/1", True), ("user", False), ("../repo", False),
        ("user/../x", False), ("/user/repo", False), ("user/repo@", False), ("user/re po", False), ("user/repo@../x", False),
    ],
)  # fmt: skip
def test_names_of_repositories(text: str, good: bool) -> None:
    assert is_hub_name(text) is good


def test_a_missing_checkpoint_is_one_line_without_a_network(tmp_path: Path) -> None:
    with pytest.raises(FPTError, match="runs/nothing is not a folder here, and is not available from the Hub"):
        fpt.load("runs/nothing")

"""Whatever a folder or a repository says, no code of it runs, no question is asked, and nothing else is fetched."""

from __future__ import annotations

import builtins
import io
import json
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from conftest import molecules, short_run, write_tdc
from hub_server import HubServer
from safetensors.torch import load_file, save_file
from transformers import ASTConfig, ASTForAudioClassification, AutoModel
from traps import AUTO, LEADS, publish, put_traps

import fpt
from fpt.args import DataArguments
from fpt.backbones.base import BackboneSpec
from fpt.backbones.loading import core_config, load_backbone
from fpt.checkpoint import load_checkpoint
from fpt.data.tokenizers import build_tokenizer
from fpt.errors import FPTError
from fpt.evaluation.arguments import EvaluateArguments
from fpt.evaluation.run import run as evaluate
from fpt.files.whole import sha256_file
from fpt.models.ast import _trained
from fpt.training import run
from fpt.untrusted import pretrained


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: HubServer) -> Iterator[list[str]]:
    """A machine with a network where anything that must not happen is written down; the keyboard would say yes."""
    done: list[str] = []
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    monkeypatch.setattr(builtins, "input", lambda *a: done.append("asked") or "y")
    for name in ("get_class_from_dynamic_module", "get_cached_module_file"):
        monkeypatch.setattr(transformers.dynamic_module_utils, name, lambda *a, **k: done.append("code") or dict)
    for name in ("get_kernel", "load_and_register_attn_kernel", "lazy_load_kernel"):
        monkeypatch.setattr(transformers.integrations.hub_kernels, name, lambda *a, **k: done.append("kernel"))
    monkeypatch.setattr(transformers.modeling_utils, "lazy_import_flash_attention", lambda *a, **k: done.append("kernel"))
    connect = socket.socket.connect

    def to_the_server(self: socket.socket, to: Any) -> None:
        if to[1] != here.server_port:
            done.append(f"connection to {to}")
        connect(self, to)

    monkeypatch.setattr(socket.socket, "connect", to_the_server)
    yield done
    assert sys.stdin.read(1) == "y"
    assert done == []
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> str:
    return load_backbone(BackboneSpec(str(llama_dir))).spec.sha256


@pytest.mark.parametrize("name", LEADS)
def test_a_folder_that_leads_elsewhere_is_the_model_that_it_is(
    name: str, llama_dir: Path, honest: str, tmp_path: Path, trap: list[str], here: HubServer
) -> None:
    folder = tmp_path / "core"
    shutil.copytree(llama_dir, folder)
    put_traps(folder, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **LEADS[name]}))
    backbone = load_backbone(BackboneSpec(str(folder)))
    assert backbone.spec.sha256 == honest
    assert backbone.tokenizer is not None and backbone.model.config._attn_implementation == "sdpa"
    assert backbone.model.config.name_or_path != "evil/other" and not hasattr(backbone.model, "peft_config")
    assert load_backbone(BackboneSpec(f"random:{folder}")).hidden_size == backbone.hidden_size
    assert pretrained.config_from_dict({**config, **LEADS[name]}).hidden_size == backbone.hidden_size
    assert here.asked == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized"),
        ({"model_type": "evil", "auto_map": AUTO}, "evil"),
        ({"model_type": "timm_wrapper", "architecture": "hf-hub:evil/other"}, "another library"),
        ({"model_type": None}, "no model_type"),
        ({"model_type": ["llama"]}, "no model_type"),
        ({"num_hidden_layers": 10**9}, "makes no sense"),
        ({"max_position_embeddings": 10**12}, "asks for max_position_embeddings"),
        ({"hidden_size": 2**20, "vocab_size": 2**20, "num_key_value_heads": 4}, "describes a model of"),
        ({"num_hidden_layers": 4}, "lack 9 weights"),
        ({"vocab_size": 10**6}, "describes a model of"),
        ({"model_type": "detr", "backbone": "evil/other", "use_timm_backbone": False}, "."),
    ],
)
def test_a_configuration_that_can_not_be_is_one_line(
    change: dict[str, Any], message: str, llama_dir: Path, tmp_path: Path, trap: list[str], here: HubServer
) -> None:
    shutil.copytree(llama_dir, tmp_path / "core")
    config = json.loads((tmp_path / "core" / "config.json").read_text())
    (tmp_path / "core" / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(FPTError, match=message) as error:
        load_backbone(BackboneSpec(str(tmp_path / "core")))
    assert "\n" not in str(error.value)
    assert here.asked == []


def test_an_adapter_alone_does_not_bring_its_base(llama_dir: Path, tmp_path: Path, trap: list[str], here: HubServer) -> None:
    put_traps(tmp_path, tmp_path)
    with pytest.raises(FPTError, match="can't be loaded"):
        load_backbone(BackboneSpec(str(tmp_path)))
    assert here.asked == []


def test_weights_are_files_beside_their_list(llama_dir: Path, tmp_path: Path, trap: list[str], honest: str) -> None:
    shutil.copytree(llama_dir, tmp_path / "core")
    (tmp_path / "core" / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    names = load_file(tmp_path / "elsewhere.safetensors")
    for listed in ("../elsewhere.safetensors", str(tmp_path / "elsewhere.safetensors"), "pytorch_model.bin", 5):
        (tmp_path / "core" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, listed)}))
        with pytest.raises(FPTError, match="not the name of a safetensors file"):
            load_backbone(BackboneSpec(str(tmp_path / "core")))
    half = len(names) // 2
    shards = {n: f"model-0000{1 + (i >= half)}-of-00002.safetensors" for i, n in enumerate(names)}
    for shard in set(shards.values()):
        save_file({n: t for n, t in names.items() if shards[n] == shard}, tmp_path / "core" / shard, metadata={"format": "pt"})
    (tmp_path / "core" / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    assert load_backbone(BackboneSpec(str(tmp_path / "core"))).spec.sha256 == honest


def test_of_a_repository_only_its_named_files_are_fetched_and_that_is_said_before(
    llama_dir: Path, honest: str, tmp_path: Path, trap: list[str], here: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(llama_dir, tmp_path / "core")
    put_traps(tmp_path / "core", tmp_path)
    config = json.loads((tmp_path / "core" / "config.json").read_text())
    (tmp_path / "core" / "config.json").write_text(json.dumps({**config, "auto_map": LEADS["auto_map of another repository"]}))
    publish(here, "someone/core", tmp_path / "core", "c" * 40)
    said_first = []
    announce = pretrained.announce
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "announce", lambda *a: (said_first.append(list(here.asked)), announce(*a)))
        backbone = load_backbone(BackboneSpec("someone/core"))
    assert (backbone.spec.sha256, backbone.spec.revision, backbone.spec.hub_id) == (honest, "c" * 40, "someone/core")
    assert backbone.tokenizer is not None
    assert said_first == [[]] and here.asked
    assert "Hub: fetching someone/core, revision main\n" in capsys.readouterr().err
    # The other one is a list that huggingface_hub itself asks for, once a day.
    assert {line for line in here.asked if "/someone/core" not in line} <= {"GET /api/agent-harnesses"}
    fetched = {line.split("/")[-1].split("?")[0] for line in here.asked if "/resolve/" in line}
    assert fetched == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    load_backbone(BackboneSpec("someone/core", "c" * 40))
    assert f"revision {'c' * 40}\n" in capsys.readouterr().err


def test_a_repository_of_pickles_is_refused_and_no_bot_is_asked(
    llama_dir: Path, tmp_path: Path, trap: list[str], here: HubServer
) -> None:
    shutil.copytree(llama_dir, tmp_path / "core")
    put_traps(tmp_path / "core", tmp_path)
    (tmp_path / "core" / "model.safetensors").unlink()
    publish(here, "someone/pickles", tmp_path / "core", "d" * 40)
    with pytest.raises(FPTError, match="pickled weights are not read"):
        load_backbone(BackboneSpec("someone/pickles"))
    assert {line for line in here.asked if "/someone/pickles" not in line} <= {"GET /api/agent-harnesses"}
    assert not any("pytorch_model" in line for line in here.asked)


def test_no_question_is_asked_even_where_the_door_is_passed_by(trap: list[str], llama_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(llama_dir, tmp_path / "core")
    (tmp_path / "core" / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": AUTO}))
    with pytest.raises(ValueError, match="execute"):
        transformers.AutoConfig.from_pretrained(tmp_path / "core")


def test_the_network_comes_back(here: HubServer) -> None:
    keyboard = sys.stdin
    with pytest.raises(ZeroDivisionError), pretrained.sealed():
        assert huggingface_hub.constants.is_offline_mode() and sys.stdin is None
        with pytest.raises(OSError):
            huggingface_hub.model_info("someone/core")
        raise ZeroDivisionError
    assert not huggingface_hub.constants.is_offline_mode() and sys.stdin is keyboard
    assert here.asked == []


def test_a_checkpoints_tokenizer_is_the_file_beside_it(
    tmp_path: Path, llama_dir: Path, trap: list[str], here: HubServer, capsys
) -> None:
    named = tmp_path / "named"
    smiles, args = [smiles for smiles, _ in molecules()], DataArguments(tokenizer="bpe", vocab_size=60)
    build_tokenizer(smiles, args, words=False).save_pretrained(named)
    groups = short_run(write_tdc(tmp_path / "raw", molecules()), llama_dir, tmp_path / "run")
    groups[0].tokenizer = str(named)
    run(*groups)
    scores = json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]["test"]
    before = fpt.load(str(tmp_path / "run")).predict(["CCO", "c1ccccc1Cl"])
    # Someone else's: their tokenizer is named by where it was, here a repository of the Hub.
    shutil.rmtree(named)
    config = json.loads((tmp_path / "run/checkpoint/config.json").read_text())
    config["data"]["arguments"]["tokenizer"] = "evil/tokenizer"
    (tmp_path / "run/checkpoint/config.json").write_text(json.dumps(config))
    for cache in (None, str(tmp_path / "another")):
        report = str(tmp_path / "again.json")
        raw = None if cache is None else str(tmp_path / "raw")
        evaluate(EvaluateArguments(checkpoint=str(tmp_path / "run"), data_dir=raw, cache_dir=cache, output=report))
        assert json.loads(Path(report).read_text())["metrics"]["test"] == scores
    assert fpt.load(str(tmp_path / "run")).predict(["CCO", "c1ccccc1Cl"]) == before
    assert here.asked == []
    # Without the file nothing is fetched either.
    config["tokenizer_sha256"] = None
    (tmp_path / "run/checkpoint/config.json").write_text(json.dumps(config))
    with pytest.raises(FPTError, match="needs a tokenizer_sha256"):
        evaluate(EvaluateArguments(checkpoint=str(tmp_path / "run"), data_dir=str(tmp_path / "raw")))
    assert here.asked == []


def test_a_checkpoints_tokenizer_must_fit_its_embedding(tmp_path: Path, llama_dir: Path) -> None:
    run(*short_run(write_tdc(tmp_path / "raw", molecules()), llama_dir, tmp_path / "run"))
    folder = tmp_path / "run" / "checkpoint"
    build_tokenizer(["".join(map(chr, range(33, 900)))], DataArguments(tokenizer="char")).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tokenizer_sha256": sha256_file(folder / "tokenizer.json")}))
    with pytest.raises(FPTError, match=r"has 871 tokens with ids up to 870, and the embedding has \d+ rows"):
        load_checkpoint(folder)


def test_a_tokenizer_of_the_hub_is_the_users_own_word(
    tmp_path: Path, trap: list[str], here: HubServer, llama_dir: Path, capsys
) -> None:
    put_traps(tmp_path, tmp_path)
    shutil.copy(llama_dir / "tokenizer.json", tmp_path / "tokenizer.json")
    publish(here, "someone/tokenizer", tmp_path, "e" * 40)
    tokenizer = build_tokenizer([], DataArguments(tokenizer="someone/tokenizer"))
    assert tokenizer("CCO")["input_ids"] and tokenizer.pad_token_id is not None
    assert "Hub: fetching someone/tokenizer, revision main\n" in capsys.readouterr().err
    assert not any(name in line for line in here.asked for name in ("evil", "safetensors", "adapter", "template", ".bin", ".py"))
    with pytest.raises(FPTError, match="--tokenizer 'someone/nothing' is neither"):
        build_tokenizer([], DataArguments(tokenizer="someone/nothing"))


def test_a_trained_ast_has_a_new_readout_and_no_other_new_weight(tmp_path: Path, trap: list[str], llama_dir: Path) -> None:
    shape: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ASTForAudioClassification(ASTConfig(**shape, max_length=32, num_mel_bins=16, num_labels=3)).save_pretrained(tmp_path / "ast")
    model = _trained(str(tmp_path / "ast"), 5)
    assert model.classifier.dense.out_features == 5
    weights = load_file(tmp_path / "ast" / "model.safetensors")
    lost = next(name for name in weights if "layernorm" in name)
    save_file({n: t for n, t in weights.items() if n != lost}, tmp_path / "ast" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FPTError, match=r"--ast_checkpoint .* lack 1 weights"):
        _trained(str(tmp_path / "ast"), 5)
    with pytest.raises(FPTError, match="of the type llama, not an AST"):
        _trained(str(llama_dir), 5)


def test_building_leaves_nothing_behind(llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = core_config(BackboneSpec(f"random:{llama_dir}"))
    model = pretrained.build(AutoModel, config)
    found = pretrained.open_model(pretrained.fetch(llama_dir), AutoModel)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in found.named_parameters()}
    assert all(torch.equal(t, found.state_dict()[n]) for n, t in load_file(llama_dir / "model.safetensors").items())
    assert [*tmp_path.iterdir()] == []

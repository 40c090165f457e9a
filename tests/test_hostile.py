"""Whatever a file says: a result, or one clear error; nothing of it is run, and it takes no memory that it does not fill."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import molecules, short_run, write_tdc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from fpt import state
from fpt.checkpoint import load_checkpoint, read_config, trained_core
from fpt.errors import FPTError
from fpt.evaluation.files import read_inputs
from fpt.experiment import read_experiment
from fpt.files import sha256_file
from fpt.report import read_rows
from fpt.tasks import TASKS
from fpt.tasks.audio import read_wave
from fpt.tasks.cifar10 import read_parquet
from fpt.tasks.images import decode
from fpt.tasks.listops import read_tsv
from fpt.tasks.mnist import read_idx
from fpt.tasks.remote_homology import read_json, read_lmdb, read_plain
from fpt.tasks.tdc import read_table
from fpt.training import run

SEED = 9


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut out, put in, repeated or cut short."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 40])):
        at = rng.randrange(len(out) + 1)
        what = rng.randrange(6)
        if what == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif what == 1 and at < len(out):
            out[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif what == 2:
            del out[at : at + rng.choice([1, 2, 8, 100])]
        elif what == 3:
            out[at:at] = rng.randbytes(rng.choice([1, 4, 8, 64]))
        elif what == 4:
            out[at:at] = out[max(0, at - 64) : at]
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


def survives(read: Callable[[bytes], Any], data: bytes, count: int, *errors: type[Exception]) -> tuple[int, int]:
    """Read so many damaged copies; returns how many were read and how many refused."""
    rng = random.Random(SEED)
    good = bad = 0
    for number in range(count):
        copy = damaged(data, rng)
        try:
            read(copy)
            good += 1
        except errors as error:
            assert str(error), f"an error without words for copy {number}"
            bad += 1
        except Exception as error:
            raise AssertionError(f"copy {number} of {len(copy)} bytes: {type(error).__name__}: {error}") from error
    assert good + bad == count
    return good, bad


def through_file(path: Path, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    def do(data: bytes) -> Any:
        path.write_bytes(data)
        return read(path)

    return do


# Files of data: 8,500 damaged copies.


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_sounds(kind: str) -> None:
    out = io.BytesIO()
    soundfile.write(out, np.sin(np.arange(800) / 9), 8000, format=kind)
    good, bad = survives(read_wave, out.getvalue(), 1000, ValueError)
    assert min(good, bad) > 0


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_pictures(kind: str) -> None:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(out, kind)
    good, bad = survives(lambda data: decode(data, 16, 16, 3), out.getvalue(), 1000, ValueError)
    assert bad > 0
    assert good + bad == 1000


def test_tables_of_molecules(tmp_path: Path) -> None:
    write_tdc(tmp_path, molecules()[:12])
    data = (tmp_path / "tdc" / "cyp3a4_veith.tab").read_bytes()
    good, bad = survives(through_file(tmp_path / "x.tab", read_table), data, 1000, FPTError)
    assert min(good, bad) > 0


def test_tables_to_predict(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfsmiles,note\nCCO,"a, b"\nc1ccccc1,\n'
    read = through_file(tmp_path / "x.csv", lambda path: read_inputs(path, "smiles", TASKS["cyp3a4"]).rows)
    good, bad = survives(read, data, 1000, FPTError)
    assert min(good, bad) > 0


def test_tables_of_listops(tmp_path: Path) -> None:
    data = b"Source\tTarget\n( ( ( [MAX 2 ) 9 ) ] )\t9\n( ( ( [MIN 2 ) 9 ) ] )\t2\n"
    good, bad = survives(through_file(tmp_path / "x.tsv", read_tsv), data, 500, FPTError)
    assert min(good, bad) > 0


def test_digits(tmp_path: Path) -> None:
    data = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (2, 4, 4)) + bytes(range(32))
    good, bad = survives(through_file(tmp_path / "x", lambda path: read_idx(path, 3)), data, 500, FPTError)
    assert min(good, bad) > 0


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"img": [{"bytes": b"abc", "path": None}] * 4, "label": [0, 1, 2, 3]})
    pq.write_table(table, tmp_path / "x.parquet")
    read = through_file(tmp_path / "y.parquet", lambda path: read_parquet([path]))
    _, bad = survives(read, (tmp_path / "x.parquet").read_bytes(), 500, FPTError)
    assert bad > 0


def test_entries_of_proteins(tmp_path: Path) -> None:
    entry = {"primary": "MKV" * 9, "fold_label": 3, "id": "d1", "evolution": np.zeros((3, 4)), "ss": [1, 2, (3, "x")]}
    good, bad = survives(read_plain, pickle.dumps(entry), 2000, ValueError)
    assert min(good, bad) > 0
    json_entry = json.dumps([{"primary": "MKV", "fold_label": 1}]).encode()
    survives(through_file(tmp_path / "x.json", lambda path: list(read_json(path))), json_entry, 500, FPTError)


def write_lmdb(folder: Path, entries: dict[str, Any]) -> bytes:
    """The file of a base with these entries."""
    with lmdb.open(str(folder / "x.lmdb"), map_size=1 << 20, subdir=False) as base, base.begin(write=True) as write:
        for key, value in entries.items():
            write.put(key.encode(), pickle.dumps(value))
    return (folder / "x.lmdb").read_bytes()


def test_bases_of_proteins(tmp_path: Path) -> None:
    # Pages are read by a process of their own, so these take time: 40 here, FPT_LMDB_COPIES for more.
    entries = {str(i): {"primary": "MKV" * i, "fold_label": i} for i in range(1, 60)} | {"0": {}, "num_examples": 60}
    data = write_lmdb(tmp_path, entries)
    read = through_file(tmp_path / "y.lmdb", lambda path: list(read_lmdb(path)))
    count = int(os.environ.get("FPT_LMDB_COPIES", 40))
    good, bad = survives(read, data, count, FPTError)
    assert min(good, bad) > 0


@pytest.mark.parametrize("number", [10**15, 3, -1, "x"])
def test_a_base_that_promises_other_proteins_than_it_has(number: Any, tmp_path: Path) -> None:
    write_lmdb(tmp_path, {"0": {"primary": "MKV"}, "1": {"primary": "VKM"}, "num_examples": number})
    with pytest.raises(FPTError, match=r"fewer proteins than num_examples says|num_examples is no number"):
        list(read_lmdb(tmp_path / "x.lmdb"))


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    with contextlib.suppress(ValueError):
        read_plain(pickle.dumps({"primary": Evil()}))
    assert not (tmp_path / "ran").exists()


# Checkpoints: 2,600 of them.


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    """A run whose checkpoint and whole model can be damaged."""
    folder = tmp_path_factory.mktemp("hostile")
    write_tdc(folder / "raw", molecules())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPT_HOME", str(folder / "home"))
        groups = short_run(folder / "raw", llama_dir, folder / "run")
        groups[2].save_full = True
        run(*groups)
    return folder / "run"


def with_hashes(folder: Path) -> None:
    """Someone who changes a file can change its hash as well."""
    config = json.loads((folder / "config.json").read_text())
    config["model_sha256"] = sha256_file(folder / "model.safetensors")
    config["tokenizer_sha256"] = sha256_file(folder / "tokenizer.json")
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("which", ["checkpoint", "full"])
@pytest.mark.parametrize(("name", "count"), [("model.safetensors", 500), ("tokenizer.json", 150), ("config.json", 500)])
def test_damaged_checkpoints(which: str, name: str, count: int, good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / which, tmp_path / "copy")
    data = (tmp_path / "copy" / name).read_bytes()
    config = (tmp_path / "copy" / "config.json").read_bytes()

    def read(copy: bytes) -> None:
        (tmp_path / "copy" / "config.json").write_bytes(config)
        (tmp_path / "copy" / name).write_bytes(copy)
        if name != "config.json":
            with_hashes(tmp_path / "copy")
        load_checkpoint(tmp_path / "copy")

    _, bad = survives(read, data, count, FPTError)
    assert bad > 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(string.printable, max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters, max_size=6), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [p for key, inner in items for p in places(inner, (*path, key))]


@pytest.mark.parametrize("which", ["checkpoint", "full"])
def test_configurations_that_say_anything(which: str, good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(good / which, folder)
    original = json.loads((folder / "config.json").read_text())
    # What is only told, not used, may be anything.
    used = [p for p in places(original) if p[0] in ("input", "output", "core", "tuning", "core_config", "full", "task")]

    @settings(max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(used), JSON)
    def check(place: tuple[Any, ...], value: Any) -> None:
        config = json.loads(json.dumps(original))
        inner = config
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        (folder / "config.json").write_text(json.dumps(config))
        try:
            load_checkpoint(folder)
        except FPTError as error:
            assert "\n" not in str(error).strip()

    check()


@pytest.mark.parametrize(
    ("which", "change"),
    [
        ("full", {"core_config.hidden_size": 10**9}),
        ("full", {"core_config.num_hidden_layers": 10**9}),
        ("full", {"core_config.vocab_size": 10**12}),
        ("full", {"core_config.intermediate_size": 10**8}),
        ("checkpoint", {"input.vocab_size": 10**12}),
        ("checkpoint", {"tuning.input_layers": [10**9]}),
        ("checkpoint", {"tuning.readout_layers": [10**6] * 5}),
        ("checkpoint", {"input": {"kind": "patches", "dim": 10**9, "positions": 10**9}}),
    ],
)
def test_a_checkpoint_that_asks_for_gigabytes(which: str, change: dict[str, Any], good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / which, tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    for name, value in change.items():
        *path, last = name.split(".")
        inner = config
        for key in path:
            inner = inner[key]
        inner[last] = value
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FPTError):
        load_checkpoint(tmp_path / "copy")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


def test_a_header_of_gigabytes(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "checkpoint", tmp_path / "copy")
    path = tmp_path / "copy" / "model.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + path.read_bytes()[8:])
    with_hashes(tmp_path / "copy")
    with pytest.raises(FPTError, match="no whole safetensors file"):
        load_checkpoint(tmp_path / "copy")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float, good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "checkpoint", tmp_path / "copy")
    tensors = load_file(tmp_path / "copy" / "model.safetensors")
    tensors["readout.weight"][0, 0] = value
    save_file(tensors, tmp_path / "copy" / "model.safetensors")
    with_hashes(tmp_path / "copy")
    with pytest.raises(FPTError, match=r"readout\.weight has numbers that are not finite"):
        load_checkpoint(tmp_path / "copy")


def test_whole_numbers_for_weights_are_refused(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "checkpoint", tmp_path / "copy")
    tensors = load_file(tmp_path / "copy" / "model.safetensors")
    tensors["readout.weight"] = tensors["readout.weight"].to(torch.int64)
    save_file(tensors, tmp_path / "copy" / "model.safetensors")
    with_hashes(tmp_path / "copy")
    with pytest.raises(FPTError, match="of a wrong type"):
        load_checkpoint(tmp_path / "copy")


def test_code_beside_a_checkpoint_or_a_core_is_not_run(good: Path, llama_dir: Path, tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    shutil.copytree(good / "checkpoint", tmp_path / "copy")
    shutil.copytree(llama_dir, tmp_path / "core")
    for folder, names in (
        (tmp_path / "copy", ["tokenizer_config.json"]),
        (tmp_path / "core", ["config.json", "tokenizer_config.json"]),
    ):
        (folder / "evil.py").write_text(code)
        for name in names:
            config = json.loads((folder / name).read_text())
            config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}
            config |= {"tokenizer_class": "Evil"} if name == "tokenizer_config.json" else {"model_type": "evil"}
            (folder / name).write_text(json.dumps(config))
    for load in (
        lambda: load_checkpoint(tmp_path / "copy"),
        lambda: load_checkpoint(good / "checkpoint", backbone=str(tmp_path / "core")),
    ):
        try:
            load()
        except FPTError as error:
            assert str(error)
    assert not (tmp_path / "ran").exists()


def test_names_that_lead_elsewhere_write_nothing_there(good: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FPT_HOME", str(tmp_path / "home"))
    shutil.copytree(good / "checkpoint", tmp_path / "copy")
    original = json.loads((tmp_path / "copy" / "config.json").read_text())
    before = {p for p in tmp_path.rglob("*")}
    for name in ("../../x", "/etc/passwd", "csv:../../../etc/passwd", "run:../../x", "a\0b", "random:../x", "x" * 5000):
        for place in ("task", "core"):
            config = json.loads(json.dumps(original))
            if place == "task":
                config["task"] = name
            else:
                config["core"]["name"] = name
            (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
            try:
                load_checkpoint(tmp_path / "copy")
                assert place == "task"
            except FPTError as error:
                assert str(error)
    assert {p for p in tmp_path.rglob("*")} == before


def test_a_core_of_a_damaged_run(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "checkpoint", tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text("{}")
    with pytest.raises(FPTError, match="lacks task, input"):
        trained_core(str(tmp_path / "copy"), print)


# What else is read: 1,500 files.


def test_states(tmp_path: Path) -> None:
    state.save(tmp_path / "good", 1, {"x": torch.ones(3)}, {"progress": {}}, 1)
    data = (tmp_path / "good" / "step-00000001" / "state.safetensors").read_bytes()
    info = (tmp_path / "good" / "step-00000001" / "state.json").read_bytes()
    folder = tmp_path / "bad" / "step-00000001"
    folder.mkdir(parents=True)
    rng, said = random.Random(SEED), []
    for number in range(500):
        (folder / "state.safetensors").write_bytes(damaged(data, rng) if number % 2 else data)
        (folder / "state.json").write_bytes(info if number % 2 else damaged(info, rng))
        found = state.latest(tmp_path / "bad", said.append)
        assert found is None or torch.equal(found[0]["x"], torch.ones(3))
    assert said


def test_experiments(tmp_path: Path) -> None:
    values = {"title": "x", "budgets": {"small": {"max_steps": 5}}, "rows": [{"name": "a", "arguments": {"backbone": "gpt2"}}]}
    data = yaml.safe_dump(values).encode()
    good, bad = survives(through_file(tmp_path / "x.yaml", lambda path: read_experiment(path, "small")), data, 500, FPTError)
    assert min(good, bad) > 0


def test_an_experiment_makes_no_objects(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"title: !!python/object/apply:os.system ['touch {tmp_path / 'ran'}']\n")
    with pytest.raises(FPTError, match="can't be read as YAML"):
        read_experiment(tmp_path / "x.yaml", "small")
    assert not (tmp_path / "ran").exists()


def test_results(good: Path, tmp_path: Path) -> None:
    data = (good / "results.json").read_bytes()
    survives(through_file(tmp_path / "results.json", lambda path: read_rows([path.parent])), data, 500, FPTError)


def test_a_deep_configuration(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "checkpoint", tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text("[" * 200_000)
    with pytest.raises(FPTError, match="can't be read"):
        read_config(tmp_path / "copy")

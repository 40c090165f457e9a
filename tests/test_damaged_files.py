"""Files of data, states and experiments that are damaged: a result, or one clear error; nothing of them is run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import molecules, write_tdc
from hostile import SEED, damaged, survives, through_file
from PIL import Image

from fpt.errors import FPTError
from fpt.evaluation.files import read_inputs
from fpt.experiment.spec import read_experiment
from fpt.tasks.audio import read_wave
from fpt.tasks.base import TASKS
from fpt.tasks.cifar10 import read_parquet
from fpt.tasks.images import decode
from fpt.tasks.listops import read_tsv
from fpt.tasks.mnist import read_idx
from fpt.tasks.remote_homology import read_json, read_lmdb, read_plain
from fpt.tasks.tdc_tables import read_table
from fpt.training import state


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

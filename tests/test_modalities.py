"""Every task on small data of its own layout: raw files to features, and a run with its evaluation."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
import random
from pathlib import Path

import lmdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import molecules
from PIL import Image

from fpt.args import DataArguments, ModelArguments, TrainArguments
from fpt.data.cache import prepare
from fpt.data.samples import ArrowSamples
from fpt.errors import FPTError
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.metrics import is_better
from fpt.outputs import Bits, Classes, Value, output_from_dict
from fpt.tasks.base import TASKS
from fpt.tasks.images import decode, patches, unpatch
from fpt.tasks.listops import draw
from fpt.tasks.listops import evaluate as value_of
from fpt.tasks.mnist import read_idx
from fpt.tasks.remote_homology import read_plain
from fpt.training import run


def quiet(line: str) -> None:
    pass


def arguments(dataset: str, data_dir: Path | None = None, **changes) -> DataArguments:
    args = DataArguments(dataset=dataset, data_dir=str(data_dir) if data_dir else None, num_proc=1)
    args.given_options = changes.pop("options", {})
    for name, value in changes.items():
        setattr(args, name, value)
    return args


def prepared_of(args: DataArguments, seed: int = 1):
    return prepare(TASKS[args.dataset], args, seed, quiet)


# Raw data as the upstream loaders keep it.


def write_idx(path: Path, array: np.ndarray) -> None:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def write_mnist(folder: Path) -> Path:
    """60 and 20 digits; every pixel of a digit is ten times its label."""
    for part, count in (("train", 60), ("t10k", 20)):
        labels = np.arange(count) % 10
        raw = folder / "mnist" / "MNIST" / "raw"
        write_idx(raw / f"{part}-images-idx3-ubyte.gz", np.repeat(labels * 10, 28 * 28).reshape(count, 28, 28))
        write_idx(raw / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


def jpeg(color: tuple[int, int, int], size: int = 32) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), color).save(out, "jpeg")
    return out.getvalue()


def write_cifar10(folder: Path, broken: int = 0) -> Path:
    """200 and 20 pictures of one color a class; the first `broken` of train are cut short."""
    (folder / "cifar10" / "plain_text").mkdir(parents=True)
    for part, count in (("train", 200), ("test", 20)):
        files = [jpeg((25 * (i % 10), 128, 255 - 25 * (i % 10))) for i in range(count)]
        if part == "train":
            files = [f[:200] if i < broken else f for i, f in enumerate(files)]
        table = pa.table({"img": [{"bytes": f, "path": None} for f in files], "label": [i % 10 for i in range(count)]})
        pq.write_table(table, folder / "cifar10" / "plain_text" / f"{part}-00000-of-00001.parquet")
    return folder


def tone(hertz: float, seconds: float = 1.0, rate: int = 16_000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write_speech(folder: Path, per_word: int = 12) -> Path:
    """Two words, a low and a high tone; two clips of each are listed as validation, two as testing."""
    root = folder / "speech_commands" / "SpeechCommands" / "speech_commands_v0.02"
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for word, hertz in (("low", 300.0), ("high", 2500.0), ("_background_noise_", 50.0)):
        (root / word).mkdir(parents=True)
        for i in range(per_word):
            soundfile.write(root / word / f"{i:04d}_nohash_0.wav", tone(hertz + i, 0.9), 16_000)
            if i < 4 and not word.startswith("_"):
                list(lists.values())[i % 2].append(f"{word}/{i:04d}_nohash_0.wav")
    for name, lines in lists.items():
        (root / name).write_text("\n".join(lines) + "\n")
    return folder


def write_table(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_proteins(folder: Path, kind: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 30), ("valid", 6), ("test_fold_holdout", 6)):
        entries = [{"primary": "MKV" + "ACDEFGHIK"[i % 9] * (5 + i), "fold_label": i % 3} for i in range(count)]
        name = folder / f"remote_homology_{part}.{kind}"
        if kind == "json":
            name.write_text(json.dumps(entries))
            continue
        with lmdb.open(str(name), map_size=1 << 22) as base, base.begin(write=True) as write:
            write.put(b"num_examples", pickle.dumps(count))
            for i, entry in enumerate(entries):
                write.put(str(i).encode(), pickle.dumps({**entry, "evolutionary": np.ones(3)}))
    return folder


def own_rows(count: int = 120) -> list[dict]:
    words = [f"w{i % 7} {'good' if i % 2 else 'bad'} {i % 5}" for i in range(count)]
    smiles = molecules()
    return [
        {
            "text": words[i],
            "smiles": smiles[i][0],
            "protein": "MKVAC" * (1 + i % 4),
            "a": i,
            "b": i / 7,
            "kind": "yes" if i % 2 else "no",
            "amount": i * 1.5,
        }
        for i in range(count)
    ]


# Generated tasks.


def test_bit_memory_is_the_papers() -> None:
    prepared = prepared_of(arguments("bit-memory"))
    assert prepared.output == Bits(size=50, tokens=20)
    assert (prepared.input.dim, prepared.samples("train").lengths[0]) == (50, 120)
    kept = []
    for sample in prepared.samples("valid").__getitems__(list(range(20))):
        strings = sample["values"].reshape(6, 1000)
        query, wanted = strings[5], 2 * sample["label"].astype(int) - 1
        seen = query != 0
        assert (query[seen] == wanted[seen]).all()
        assert sum((s == wanted).all() for s in strings[:5]) == 1
        kept.append(seen.mean())
    assert np.mean(kept) == pytest.approx(0.5, abs=0.02)


def test_bit_xor_is_the_papers() -> None:
    prepared = prepared_of(arguments("bit-xor"))
    assert prepared.output == Bits(size=1, tokens=5)
    for sample in prepared.samples("test").__getitems__(list(range(20))):
        first, second = (sample["values"].reshape(2, 5) > 0).astype(int)
        assert (first ^ second == sample["label"]).all()
    longer = prepared_of(arguments("bit-xor", options={"num_bits": 8, "num_patterns": 3, "patch_size": 4}))
    assert (longer.output, longer.samples("train").lengths[0]) == (Bits(size=4, tokens=2), 6)
    with pytest.raises(FPTError, match=r"--patch_size \d+ must divide --num_bits"):
        prepared_of(arguments("bit-xor", options={"patch_size": 2}))
    with pytest.raises(FPTError, match="has no argument --size; its own are --num_bits"):
        prepared_of(arguments("bit-xor", options={"size": 2}))


def test_digits_are_added() -> None:
    prepared = prepared_of(arguments("digit-add", options={"num_numbers": 3, "num_digits": 2}))
    labels = []
    for sample in prepared.samples("train").__getitems__(list(range(400))):
        tokens = sample["values"].reshape(-1, 11).argmax(axis=1)
        text = "".join("+" if t == 10 else str(t) for t in tokens)
        assert sum(int(n) for n in text.split("+")) == sample["label"]
        labels.append(sample["label"])
    assert prepared.output.mean == pytest.approx(np.mean(labels), rel=0.05)
    assert prepared.output.std == pytest.approx(np.std(labels), rel=0.1)


def test_training_draws_new_samples_each_epoch_and_evaluation_does_not() -> None:
    first, again, other = (prepared_of(arguments("bit-memory"), seed) for seed in (1, 1, 2))

    def values(prepared, split: str, epoch: int) -> bytes:
        samples = prepared.samples(split)
        samples.start_epoch(epoch)
        return samples[3]["values"].tobytes()

    assert values(first, "train", 0) == values(again, "train", 0) != values(other, "train", 0)
    assert values(first, "train", 0) != values(first, "train", 1)
    assert values(first, "test", 0) == values(first, "test", 1) != values(first, "valid", 0)


# Images.


def test_patches_are_squares_in_reading_order() -> None:
    image = np.arange(4 * 6 * 2, dtype=np.uint8).reshape(4, 6, 2)
    cut = patches(image, 2)
    assert cut.shape == (6, 8)
    assert (cut[1] == image[:2, 2:4].ravel()).all()
    assert (cut[3] == image[2:, :2].ravel()).all()


def test_patches_may_overlap(tmp_path: Path) -> None:
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    wide = patches(image, 4, 2)
    assert wide.shape == (4, 8 * 8 * 3)
    first = wide[0].reshape(8, 8, 3)
    assert (first[2:, 2:] == image[:6, :6]).all()  # its own four and two on each side
    assert (first[:2, 2:] == image[1::-1, :6]).all()  # beyond the edge the picture is mirrored
    assert (unpatch(wide, 8, 8, 3, 4, 2) == image).all()
    assert (unpatch(wide.ravel(), 8, 8, 3, 4, 2) == image).all()
    raw = write_cifar10(tmp_path)
    prepared = prepared_of(arguments("cifar10", raw, options={"patch_size": 8, "patch_overlap": 4}))
    assert (prepared.input.dim, prepared.splits["train"]["length"][0]) == (16 * 16 * 3, 16)
    with pytest.raises(FPTError, match=r"--patch_overlap -1 must be between 0 and the 32 pixels"):
        prepared_of(arguments("cifar10", raw, options={"patch_overlap": -1}))


def test_pictures_are_resized_and_broken_ones_are_no_pictures() -> None:
    assert decode(jpeg((200, 10, 10), 50), 32, 32, 3).shape == (32, 32, 3)
    assert decode(jpeg((200, 10, 10)), 8, 8, 1).shape == (8, 8, 1)
    for data in (b"", b"\xff\xd8\xff", jpeg((0, 0, 0))[:300], b"GIF89a" + b"\0" * 20):
        with pytest.raises(ValueError, match="no readable image"):
            decode(data, 32, 32, 3)


def test_mnist_is_read_and_cut_by_the_seed(tmp_path: Path) -> None:
    args = arguments("mnist", write_mnist(tmp_path))
    prepared = prepared_of(args)
    assert prepared.manifest.rows == {"train": 54, "valid": 6, "test": 20}
    assert (prepared.input.dim, prepared.splits["train"]["length"][0]) == (16, 49)
    for rows in prepared.splits.values():
        assert all(v[0] == 10 * y for v, y in zip(rows["values"], rows["label"], strict=True))
    ids = {name: set(rows["id"]) for name, rows in prepared.splits.items()}
    assert not ids["train"] & ids["valid"]
    assert set(prepared_of(args, seed=2).splits["valid"]["id"]) != ids["valid"]
    samples = prepared.samples("train")
    values = np.concatenate([prepared.input.pad([s["values"]])[0].ravel() for s in samples.__getitems__(list(range(54)))])
    assert (values.mean(), values.std()) == pytest.approx((0, 1), abs=1e-3)
    with pytest.raises(FPTError, match="--patch_size 5 must divide"):
        prepared_of(arguments("mnist", tmp_path, options={"patch_size": 5}))
    with pytest.raises(FPTError, match="mnist is made of numbers"):
        prepared_of(arguments("mnist", tmp_path, tokenizer="char"))


@pytest.mark.parametrize("damage", [lambda d: d[:-100], lambda d: b"no gzip", lambda d: gzip.compress(gzip.decompress(d)[:-5])])
def test_a_damaged_idx_file_is_one_clear_line(tmp_path: Path, damage) -> None:
    path = write_mnist(tmp_path) / "mnist" / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FPTError, match="download it again"):
        read_idx(path, 3)


@pytest.mark.parametrize("as_regression", [False, True])
def test_sums_are_of_the_digits_shown_and_no_digit_is_in_two_splits(tmp_path: Path, as_regression: bool) -> None:
    options = {"as_regression": as_regression, "num_digits": 3}
    prepared = prepared_of(arguments("mnist-add", write_mnist(tmp_path), options=options))
    seen = {}
    for name, rows in prepared.splits.items():
        seen[name] = {digit for pair in rows["id"] for digit in pair.split("+")}
        for values, label in zip(rows["values"], rows["label"], strict=True):
            top = np.array(values).reshape(7, 21, 16)[0, ::7, 0]
            assert sum(top) / 10 == label
    assert not seen["train"] & seen["valid"]
    if as_regression:
        assert prepared.output.mean == pytest.approx(np.mean(prepared.splits["train"]["label"]))
    else:
        assert prepared.output == Classes(tuple(map(str, range(28))), counts=True)
        guess = np.eye(28)[[3, 5]]
        assert prepared.output.metrics(np.array([3, 9]), guess)["mae"] == 2.0


def test_cifar10_color_and_gray(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    color, gray = prepared_of(arguments("cifar10", tmp_path)), prepared_of(arguments("cifar10-gray", tmp_path))
    assert (color.input.dim, color.splits["test"]["length"][0]) == (48, 64)
    assert (gray.input.dim, gray.splits["test"]["length"][0]) == (1, 1024)
    assert color.manifest.rows == {"train": 180, "valid": 20, "test": 20}
    assert color.splits["test"].features["values"].feature.dtype == "uint8"


def test_bad_files_are_listed_up_to_a_share(tmp_path: Path, home: Path) -> None:
    args = arguments("cifar10", write_cifar10(tmp_path, broken=2))
    prepared = prepared_of(args)
    assert set(prepared.rejected.id) == {"train-0", "train-1"}
    assert prepared.rejected.reason.str.contains("no readable image").all()
    assert sum(prepared.manifest.rows.values()) == 218
    write_cifar10(tmp_path / "more", broken=12)
    with pytest.raises(FPTError, match=r"12 of 220 rows .* leave them out with --max_bad_fraction 0.06"):
        prepared_of(arguments("cifar10", tmp_path / "more"))
    assert len(list(home.glob("arrow/cifar10/*"))) == 1
    assert list(home.glob("work/*")) == []
    assert prepared_of(arguments("cifar10", tmp_path / "more", max_bad_fraction=0.06)).manifest.rejected == 12


def test_shards_that_are_done_are_not_done_again(tmp_path: Path, monkeypatch) -> None:
    from fpt.tasks.cifar10 import Cifar10

    monkeypatch.setattr("fpt.data.features.SHARD", 32)
    encode, count = Cifar10.encode, []

    def stop_in_the_third(self, rows, **kwargs):
        if len(count) == 2:
            raise KeyboardInterrupt
        count.append(len(rows["id"]))
        return encode(self, rows, **kwargs)

    args = arguments("cifar10", write_cifar10(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(Cifar10, "encode", stop_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            prepared_of(args)
    count.clear()
    monkeypatch.setattr(Cifar10, "encode", lambda self, rows, **k: count.append(len(rows["id"])) or encode(self, rows, **k))
    prepared = prepared_of(args)
    assert sum(count) == 220 - 64
    whole = prepared_of(arguments("cifar10", tmp_path, cache_dir=str(tmp_path / "other")))
    assert prepared.splits["train"]["values"] == whole.splits["train"]["values"]


def test_several_processes_make_the_same_features(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fpt.data.features.SHARD", 64)
    write_cifar10(tmp_path)
    one = prepared_of(arguments("cifar10", tmp_path, cache_dir=str(tmp_path / "one")))
    two = prepared_of(arguments("cifar10", tmp_path, cache_dir=str(tmp_path / "two"), num_proc=2))
    for split in one.splits:
        assert one.splits[split]["values"] == two.splits[split]["values"]


# Sound.


@pytest.mark.parametrize(("features", "tokens", "dim"), [("mel", 50, 160), ("raw", 100, 80)])
def test_speech_commands_by_their_lists(tmp_path: Path, features: str, tokens: int, dim: int) -> None:
    prepared = prepared_of(arguments("speech-commands", write_speech(tmp_path), options={"features": features}))
    assert prepared.manifest.rows == {"train": 16, "valid": 4, "test": 4}
    assert prepared.output == Classes(("high", "low"))
    assert (prepared.input.dim, prepared.splits["train"]["length"][0]) == (dim, tokens)
    assert set(prepared.splits["valid"]["id"]) == {f"{w}/{i:04d}_nohash_0.wav" for w in ("low", "high") for i in (0, 2)}
    with pytest.raises(FPTError, match="unknown --features 'mfcc'"):
        prepared_of(arguments("speech-commands", tmp_path, options={"features": "mfcc"}))


def test_log_mel_frames_show_where_the_tone_is(tmp_path: Path) -> None:
    prepared = prepared_of(arguments("speech-commands", write_speech(tmp_path), options={"frames_per_token": 1}))
    for sound, label in zip(prepared.splits["train"]["values"], prepared.splits["train"]["label"], strict=True):
        bands = np.array(sound, dtype=np.float32).reshape(100, 80)[:80].mean(axis=0)
        assert (bands.argmax() > 30) == (label == 0)


def test_bad_clips_are_listed(tmp_path: Path) -> None:
    root = write_speech(tmp_path) / "speech_commands" / "SpeechCommands" / "speech_commands_v0.02"
    cut, empty, text = (root / "low" / f"{n:04d}_nohash_0.wav" for n in (5, 6, 7))
    cut.write_bytes(cut.read_bytes()[:5000])
    empty.write_bytes(b"")
    text.write_text("no sound")
    prepared = prepared_of(arguments("speech-commands", tmp_path, max_bad_fraction=0.2))
    reasons = dict(zip(prepared.rejected.id, prepared.rejected.reason, strict=True))
    assert set(reasons) == {f"low/{p.name}" for p in (cut, empty, text)}
    assert reasons[f"low/{cut.name}"].startswith("truncated sound file")


# Text and tables.


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("[MAX 4 3 [MIN 2 3 ] 1 0 ]", 4),
        ("[MIN 4 3 [MAX 2 9 ] ]", 3),
        ("[MED 1 9 5 ]", 5),
        ("[MED 1 2 4 9 ]", 3),
        ("[SM 9 9 [SM 5 6 ] ]", 9),
        ("7", 7),
    ],
)
def test_listops_values(expression: str, value: int) -> None:
    assert value_of(expression.split()) == value


@pytest.mark.parametrize("expression", ["", "[MAX 1 2", "1 2", "[MAX ]", "] 1", "[ADD 1 2 ]", "[MAX 12 3 ]"])
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError):
        value_of(expression.split())


def test_drawn_expressions_keep_their_bounds() -> None:
    rng = random.Random(0)
    for _ in range(30):
        tokens = draw(rng, 30, 120, max_depth=6, max_args=5)
        assert 30 <= len(tokens) <= 120
        assert 0 <= value_of(tokens) <= 9
        depth = np.cumsum([t.startswith("[") - (t == "]") for t in tokens])
        assert depth.max() < 6


def test_listops_are_generated_by_the_seed_or_read_from_lra(tmp_path: Path) -> None:
    options = {"num_train": 40, "num_eval": 10}
    args = arguments("listops", options=options, max_length=100)
    first = prepared_of(args)
    assert first.manifest.rows == {"train": 40, "valid": 10, "test": 10}
    assert max(first.splits["train"]["length"]) <= 100
    assert min(first.splits["train"]["length"]) >= 24
    assert all(value_of(t.split()) == y for t, y in zip(first.splits["test"]["text"], first.splits["test"]["label"], strict=True))
    assert len(first.tokenizer) <= 15 + 4
    assert prepared_of(args, seed=2).splits["train"]["text"] != first.splits["train"]["text"]
    for part in ("train", "val", "test"):
        rows = "( ( ( [MAX 4 ) 3 ) ] )\t4\n" * 3 + "( ( [MIN 1 ) ] )\t1\n"
        (tmp_path / f"basic_{part}.tsv").write_text("Source\tTarget\n" + rows)
    released = prepared_of(arguments("listops", tmp_path))
    assert list(released.splits["train"]["text"]) == ["[MAX 4 3 ]"] * 3 + ["[MIN 1 ]"]
    (tmp_path / "basic_val.tsv").write_text("Source\tTarget\nx\t12\n")
    with pytest.raises(FPTError, match="no file of LRA's ListOps"):
        prepared_of(arguments("listops", tmp_path))


def test_a_tdc_regression_has_tdcs_metric_and_its_unit(tmp_path: Path) -> None:
    rows = [{"Drug_ID": f"d{i}", "Drug": s, "Y": -5 + 0.01 * i} for i, (s, _) in enumerate(molecules())]
    (tmp_path / "tdc").mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / "tdc" / "caco2_wang.tab", sep="\t", index=False)
    prepared = prepared_of(arguments("tdc/Caco2_Wang", tmp_path))
    assert (prepared.task.name, prepared.primary_metric) == ("tdc/caco2_wang", "mae")
    assert isinstance(prepared.output, Value)
    assert prepared.output.mean == pytest.approx(np.mean(prepared.splits["train"]["label"]))
    binary = pd.DataFrame({"Drug_ID": ["a", "b"], "Drug": ["C", "CC"], "Y": ["0", "1.5"]})
    binary.to_csv(tmp_path / "tdc" / "ames.tab", sep="\t", index=False)
    with pytest.raises(FPTError, match=r"labels outside \{0,1\}"):
        prepared_of(arguments("tdc/ames", tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tdc/caco2", "did you mean 'caco2_wang'"),
        ("tdc/tox21", "needs one of the set's 12 labels"),
        ("tdc/tox21:NR-AX", "did you mean"),
        ("tdc/ames:x", "has one label only"),
        ("tdc/qm9", "as a pickle"),
    ],
)
def test_a_wrong_tdc_name_says_what_there_is(name: str, message: str) -> None:
    with pytest.raises(FPTError, match=message):
        TASKS[name]


@pytest.mark.parametrize("kind", ["json", "lmdb"])
def test_proteins_of_tape(tmp_path: Path, kind: str) -> None:
    prepared = prepared_of(arguments("remote-homology", write_proteins(tmp_path / "remote_homology", kind)))
    assert prepared.manifest.rows == {"train": 30, "valid": 6, "test": 6}
    assert prepared.output.size == 1195
    assert prepared.manifest.request.max_length == 1024
    assert prepared.splits["test"]["length"][0] == 3 + 5 + 2


def test_a_pickle_is_read_without_running_it(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "ran").write_text, ("x",))

    assert read_plain(pickle.dumps({"a": [1, "x"]})) == {"a": [1, "x"]}
    read_plain(pickle.dumps({"a": Trap(), "b": np.arange(3)}))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="no readable entry"):
        read_plain(b"\x80\x04nonsense")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"input_column": "text", "label_column": "kind"}, Classes),
        ({"input_column": "smiles", "label_column": "kind", "input_type": "smiles"}, Classes),
        ({"input_column": "smiles", "label_column": "amount", "input_type": "smiles"}, Value),
        ({"input_column": "protein", "label_column": "kind", "input_type": "protein"}, Classes),
        ({"input_column": "a,b", "label_column": "amount", "input_type": "numbers"}, Value),
    ],
)
def test_own_tables(tmp_path: Path, options: dict, kind: type) -> None:
    path = write_table(tmp_path / "mine.csv", own_rows())
    prepared = prepared_of(arguments(f"csv:{path}", options=options, vocab_size=300))
    assert isinstance(prepared.output, kind)
    assert prepared.manifest.rows == {"train": 84, "valid": 12, "test": 24}
    assert str(tmp_path) not in json.dumps(prepared.manifest.to_dict())
    assert prepared.task.name == "csv:mine.csv"
    if kind is Classes and options.get("input_type") != "smiles":
        shares = [np.mean(rows["label"]) for rows in prepared.splits.values()]
        assert shares == pytest.approx([0.5] * 3, abs=0.01)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            own_rows(),
            {"input_column": "txt", "label_column": "kind"},
            "column 'txt' .did you mean 'text'.*give --input_column",
        ),
        (own_rows(), {"input_column": "text"}, "give --label_column, one of smiles"),
        (own_rows(), {"input_column": "text", "label_column": "kind", "input_type": "txt"}, "unknown --input_type 'txt'"),
        ([{"text": "a", "kind": "b"}] * 9, {"input_column": "text", "label_column": "kind"}, r"one class only .'b'."),
        ([{"text": "a", "kind": ""}] * 9, {"input_column": "text", "label_column": "kind"}, "no row with a label"),
        (own_rows(5), {"input_column": "text", "label_column": "kind"}, "can't be split"),
    ],
)
def test_a_table_that_can_not_be_used_says_why(tmp_path: Path, rows: list[dict], options: dict, message: str) -> None:
    path = write_table(tmp_path / "mine.csv", rows)
    with pytest.raises(FPTError, match=message):
        prepared_of(arguments(f"csv:{path}", options=options, vocab_size=40))


def test_rows_without_a_label_or_an_input_are_listed(tmp_path: Path) -> None:
    rows = own_rows()
    rows[3]["kind"], rows[5]["smiles"] = "", "C1CC"
    options = {"input_column": "smiles", "label_column": "kind", "input_type": "smiles"}
    path = write_table(tmp_path / "mine.csv", rows)
    prepared = prepared_of(arguments(f"csv:{path}", options=options, max_bad_fraction=0.05))
    found = dict(zip(prepared.rejected.id, prepared.rejected.reason, strict=True))
    assert found == {"row-4": "no label", "row-6": "invalid SMILES"}


def write_folders(folder: Path) -> Path:
    """Pictures and sounds of two classes in folders of their own."""
    for split, count in (("train", 20), ("test", 4)):
        for name, color in (("red", (250, 0, 0)), ("blue", (0, 0, 250))):
            (folder / "pictures" / split / name).mkdir(parents=True)
            (folder / "sounds" / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                (folder / "pictures" / split / name / f"{i}.jpg").write_bytes(jpeg(color, 40 + i))
                soundfile.write(folder / "sounds" / name / f"{split}{i}.flac", tone(400 if name == "red" else 2000, 0.4), 8_000)
    return folder


def test_own_folders_of_pictures_and_sounds(tmp_path: Path) -> None:
    write_folders(tmp_path)
    pictures = prepared_of(arguments(f"imagefolder:{tmp_path / 'pictures'}", options={"image_size": 16}))
    assert pictures.manifest.rows == {"train": 36, "valid": 4, "test": 8}
    assert (pictures.input.dim, pictures.splits["train"]["length"][0]) == (48, 16)
    assert pictures.output == Classes(("blue", "red"))
    sounds = prepared_of(arguments(f"audiofolder:{tmp_path / 'sounds'}", options={"seconds": 0.5}))
    assert sounds.splits["train"]["length"][0] == 25
    assert sum(sounds.manifest.rows.values()) == 48


def test_a_dataset_folder_of_the_hub_keeps_its_splits(tmp_path: Path) -> None:
    for split, count in (("train", 60), ("test", 12)):
        write_table(tmp_path / "set" / f"{split}.csv", own_rows(count))
    options = {"input_column": "text", "label_column": "kind"}
    prepared = prepared_of(arguments(f"hub:{tmp_path / 'set'}", options=options, vocab_size=300))
    assert prepared.manifest.rows == {"train": 54, "valid": 6, "test": 12}


# Whole runs.


@pytest.fixture
def places(tmp_path: Path) -> dict[str, tuple[Path | None, dict]]:
    table = write_table(tmp_path / "mine.csv", own_rows())
    return {
        "bit-xor": (None, {}),
        "digit-add": (None, {}),
        "mnist": (write_mnist(tmp_path / "mnist"), {}),
        "mnist-add": (tmp_path / "mnist", {"as_regression": True}),
        "cifar10": (write_cifar10(tmp_path / "cifar"), {}),
        "speech-commands": (write_speech(tmp_path / "speech"), {}),
        "listops": (None, {"num_train": 40, "num_eval": 10}),
        "remote-homology": (write_proteins(tmp_path / "tape", "json"), {}),
        f"csv:{table}": (None, {"input_column": "smiles", "label_column": "amount", "input_type": "smiles"}),
    }


NAMES = ["bit-xor", "digit-add", "mnist", "mnist-add", "cifar10", "speech-commands", "listops", "remote-homology", "csv:"]


@pytest.mark.parametrize("start", NAMES)
def test_every_task_trains_and_its_scores_come_back(start: str, places, llama_dir: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fpt.tasks.base.GeneratedTask.sizes", {"train": 64, "valid": 32, "test": 32})
    (dataset,) = (name for name in places if name.startswith(start) and (":" in start or name == start))
    data_dir, options = places[dataset]
    data = arguments(dataset, data_dir, options=options, max_length=64 if dataset == "listops" else None)
    training = TrainArguments(output_dir=str(tmp_path / "run"), max_steps=4, eval_steps=2, warmup_steps=1, save_full=True)
    results = run(data, ModelArguments(backbone=str(llama_dir)), training)
    evaluation.run(
        EvaluateArguments(
            checkpoint=str(tmp_path / "run"),
            data_dir=str(data_dir) if data_dir else None,
            output=str(tmp_path / "test.json"),
        )
    )
    again = json.loads((tmp_path / "test.json").read_text())["metrics"]["test"]
    assert again == pytest.approx(results.metrics["test"], abs=1e-6)
    assert (tmp_path / "run" / "split.csv").exists() == dataset.startswith("csv:")
    config = (tmp_path / "run" / "checkpoint" / "config.json").read_text()
    assert str(tmp_path / "mine.csv") not in config
    output_from_dict(json.loads(config)["output"])


def test_a_users_pictures_and_sounds_are_predicted_by_file_name(places, llama_dir: Path, tmp_path: Path) -> None:
    run(
        arguments("cifar10", places["cifar10"][0]),
        ModelArguments(backbone=str(llama_dir)),
        TrainArguments(output_dir=str(tmp_path / "run"), max_steps=2, eval_steps=2),
    )
    (tmp_path / "a.jpg").write_bytes(jpeg((9, 9, 9), 70))
    files = [tmp_path / "a.jpg", tmp_path / "none.jpg", tmp_path / "mine.csv"]
    write_table(tmp_path / "in.csv", [{"image": str(f)} for f in files])
    out = tmp_path / "out.csv"
    evaluation.run(EvaluateArguments(checkpoint=str(tmp_path / "run"), predict=str(tmp_path / "in.csv"), output=str(out)))
    rows = pd.read_csv(out, keep_default_na=False)
    assert list(rows.prediction != "") == [True, False, False]
    assert "can't be read" in rows.reason[1]
    assert "no readable image" in rows.reason[2]


def test_a_lower_error_is_better() -> None:
    assert is_better("mae", 1.0, 2.0)
    assert not is_better("auroc", 1.0, 2.0)
    assert is_better("spearman", 0.1, None)
    assert not is_better("spearman", None, -0.5)


def test_batches_are_read_at_once(tmp_path: Path) -> None:
    prepared = prepared_of(arguments("mnist", write_mnist(tmp_path)))
    samples = prepared.samples("train")
    assert isinstance(samples, ArrowSamples)
    for index, sample in zip([5, 0, 3], samples.__getitems__([5, 0, 3]), strict=True):
        assert (sample["values"] == samples[index]["values"]).all()
        assert sample["label"] == samples[index]["label"]


@pytest.mark.parametrize(
    ("dataset", "rows", "tokens", "dim"),
    [
        ("mnist", {"train": 7200, "valid": 800, "test": 2000}, 49, 16),
        ("speech-commands", {"train": 2624, "valid": 565, "test": 885}, 50, 160),
    ],
)
def test_real_data_is_whole(real_data: Path, dataset: str, rows: dict, tokens: int, dim: int) -> None:
    prepared = prepared_of(arguments(dataset, real_data))
    assert prepared.manifest.rows == rows
    assert prepared.manifest.rejected == 0
    assert (prepared.splits["test"]["length"][0], prepared.input.dim) == (tokens, dim)

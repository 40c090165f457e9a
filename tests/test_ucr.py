"""Classification of time series: sets of the archives and a user's own, from files to predictions, and their baselines."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import fpt
from fpt.args import DataArguments, ModelArguments, TrainArguments
from fpt.cli import parse_training
from fpt.data.cache import prepare
from fpt.data.prepared import Prepared
from fpt.errors import FPTError, UsageError
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.files.whole import package_folder
from fpt.models.base import MODELS
from fpt.models.minirocket import KERNELS, Convolution, dilations_of, fit_kernels, transform
from fpt.models.nearest import NearestOptions, euclidean, warped
from fpt.models.series_features import SeriesSplit, read_split
from fpt.outputs import Classes, Value
from fpt.tasks.base import TASKS, resolve
from fpt.tasks.series import cut_tokens, instance_normed
from fpt.tasks.ucr import cut_published
from fpt.training import run

PACKAGED = package_folder("aeon")


def waves(number: int, steps: int, channels: int) -> np.ndarray:
    """A series (channels, steps) of class `number`: a wave of its own frequency, with noise."""
    rng = np.random.default_rng([number, steps, channels, 7])
    time = np.arange(steps) + rng.uniform(0, 6)
    return np.stack([np.sin(time * (0.4 + number % 3) + c) for c in range(channels)]) + rng.normal(0, 0.1, (channels, steps))


def line(series: np.ndarray, label: str | None) -> str:
    channels = [",".join(f"{value:.4f}" if np.isfinite(value) else "?" for value in channel) for channel in series]
    return ":".join([*channels, *([label] if label is not None else [])])


def write_ts(path: Path, rows: Sequence[tuple[np.ndarray, str | None]], kind: str = "@classLabel true a b c") -> Path:
    head = ["@problemName X", "@timeStamps false", "@univariate false", "@equalLength false", kind, "@data"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*head, *(line(series, label) for series, label in rows)]) + "\n")
    return path


def rows_of(count: int, channels: int = 2, shortest: int = 12, longest: int = 20, start: int = 0) -> list[tuple[np.ndarray, str]]:
    found = []
    for i in range(start, start + count):
        steps = shortest + i % (longest - shortest + 1)
        found.append((waves(i % 3 + 3 * i, steps, channels), "abc"[i % 3]))
    return found


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A set called Waves: 3 classes, 2 channels, 12 to 20 time steps."""
    folder = tmp_path / "raw" / "Waves"
    write_ts(folder / "Waves_TRAIN.ts", rows_of(60))
    write_ts(folder / "Waves_TEST.ts", rows_of(24, start=60))
    return tmp_path / "raw"


def prepared(dataset: str, data_dir: Path | None = None, seed: int = 1, model: str = "fpt", **options) -> Prepared:
    args = DataArguments(dataset=dataset, data_dir=data_dir and str(data_dir))
    args.max_length = options.pop("max_length", None)
    args.split = options.pop("split", None)
    args.max_bad_fraction = options.pop("max_bad_fraction", 0.01)
    args.given_options = options
    task, args = resolve(TASKS[dataset], args, MODELS[model].view)
    return prepare(task, args, seed, lambda line: None)


def test_tokens_cover_all_steps_and_repeat_the_last_one() -> None:
    series = np.arange(14, dtype=np.float32).reshape(7, 2)
    np.testing.assert_array_equal(
        cut_tokens(series, 3, 3, 99), [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13, 12, 13, 12, 13]]
    )
    np.testing.assert_array_equal(cut_tokens(series, 4, 3, 99), [[0, 1, 2, 3, 4, 5, 6, 7], [6, 7, 8, 9, 10, 11, 12, 13]])
    np.testing.assert_array_equal(cut_tokens(series, 3, 1, 99)[:, 0], [0, 2, 4, 6, 8])
    assert cut_tokens(series, 3, 1, 2).shape == (2, 6) and cut_tokens(series, 9, 9, 99).shape == (1, 18)


def test_a_set_has_its_own_train_and_test_and_a_stratified_valid(raw: Path) -> None:
    made = prepared("ucr/Waves", raw)
    assert {name: len(rows) for name, rows in made.splits.items()} == {"train": 48, "valid": 12, "test": 24}
    assert made.output == Classes(("a", "b", "c")) and made.primary_metric == "accuracy"
    assert np.bincount(made.splits["valid"]["label"]).tolist() == [4, 4, 4]
    assert {name.partition("-")[0] for name in made.splits["test"]["id"]} == {"test"}
    options = made.manifest.request.options
    assert (options["channels"], options["patch_size"], options["patch_stride"], options["label_type"]) == (2, 1, 1, "classes")
    assert "series of 12 to 20 time steps are 12 to 20 tokens of 1 time step of 2 channels" in " ".join(made.manifest.notes)
    assert any(note.startswith("valid has 12 series only: one is 8.3 % of its accuracy") for note in made.manifest.notes)
    other = prepared("ucr/Waves", raw, seed=2)
    assert other.splits["valid"]["id"] != made.splits["valid"]["id"] and other.splits["test"]["id"] == made.splits["test"]["id"]


def test_channels_are_standardised_over_train_and_batches_mask_padding(tmp_path: Path) -> None:
    rows = [(series * [[100], [0.01]] + [[5], [-3]], label) for series, label in rows_of(40)]
    write_ts(tmp_path / "X_TRAIN.ts", rows)
    write_ts(tmp_path / "X_TEST.ts", rows[:9])
    made = prepared("ucr/X", tmp_path, patch_size=4)
    whole = np.concatenate([np.asarray(values).reshape(-1, 2) for values in made.splits["train"]["values"]])
    np.testing.assert_allclose(made.input.mean, np.tile(whole.mean(0), 4), rtol=1e-3)
    np.testing.assert_allclose(made.input.std, np.tile(whole.std(0), 4), rtol=1e-3)
    sequences = [np.asarray(values) for values in made.splits["test"]["values"][:4]]
    inputs, mask = made.input.pad(sequences)
    assert mask.sum(1).tolist() == [len(one) // 8 for one in sequences] and len(set(mask.sum(1).tolist())) > 1
    assert abs(float(inputs[mask.bool()].mean())) < 0.5 and 0.5 < float(inputs[mask.bool()].std()) < 1.5


def test_patch_size_is_guessed_from_the_length_and_max_length_cuts(tmp_path: Path) -> None:
    write_ts(tmp_path / "L" / "L_TRAIN.ts", rows_of(30, 1, 150, 170))
    write_ts(tmp_path / "L" / "L_TEST.ts", rows_of(9, 1, 150, 170))
    made = prepared("ucr/L", tmp_path)
    assert made.manifest.request.options["patch_size"] == 5 and made.input.dim == 5
    assert set(made.splits["train"]["length"]) <= set(range(30, 35))
    overlapping = prepared("ucr/L", tmp_path, patch_size=10, patch_stride=5, max_length=8)
    assert set(overlapping.splits["train"]["length"]) == {8} and overlapping.manifest.cut_to_max_length["test"] == 9
    with pytest.raises(FPTError, match="--patch_stride 9 is more than --patch_size 4: time steps between"):
        prepared("ucr/L", tmp_path, patch_size=4, patch_stride=9)
    with pytest.raises(FPTError, match="--patch_size 2000000 × 1 channels are more than"):
        prepared("ucr/L", tmp_path, patch_size=2_000_000)


def test_missing_values_are_interpolated_and_told_and_empty_series_rejected(tmp_path: Path) -> None:
    rows = rows_of(60)
    rows[0][0][0, 1] = rows[1][0][1, 2:4] = np.nan
    rows[5] = (np.full((2, 9), np.nan), "c")
    write_ts(tmp_path / "M_TRAIN.ts", rows)
    write_ts(tmp_path / "M_TEST.ts", rows_of(9))
    with pytest.raises(FPTError, match="no value in the whole series"):
        prepared("ucr/M", tmp_path)
    made = prepared("ucr/M", tmp_path, max_bad_fraction=0.1)
    assert made.rejected.reason.tolist() == ["no value in the whole series"] and made.rejected.row.tolist() == ["train:12"]
    assert "train: 21 missing values in 3 series, interpolated" in made.manifest.notes
    assert np.isfinite(np.concatenate(made.splits["train"]["values"])).all()


def test_instance_norm_takes_each_channels_own_mean_and_deviation(raw: Path) -> None:
    series = np.stack([np.arange(5.0), np.full(5, 3.0)], 1).astype(np.float32)
    found = instance_normed(series)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(0), [1, 0], atol=1e-6)
    made = prepared("ucr/Waves", raw, instance_norm=True)
    np.testing.assert_allclose(made.input.mean, 0, atol=1e-6)


def test_small_classes_keep_a_row_in_train() -> None:
    labels = [0] * 20 + [1] * 2 + [2]
    train, valid = cut_published(labels, 0.2, 1, classes=True)
    assert sorted([*train, *valid]) == list(range(23)) and len(valid) == 5
    assert {labels[i] for i in train} == {0, 1, 2} and 2 not in {labels[i] for i in valid}
    assert cut_published(labels, 0.2, 2, classes=True)[1].tolist() != valid.tolist()
    assert len(cut_published([0, 0, 1, 1], 0.9, 1, classes=True)[1]) == 2
    with pytest.raises(FPTError, match="no class has more than one training series"):
        cut_published([0, 1, 2], 0.2, 1, classes=True)


def test_numbers_as_targets(tmp_path: Path) -> None:
    for part, count in (("TRAIN", 40), ("TEST", 10)):
        rows = [(series, f"{series.mean():.3f}") for series, _ in rows_of(count)]
        write_ts(tmp_path / f"R_{part}.ts", rows, "@targetLabel true")
    made = prepared("ucr/R", tmp_path)
    assert isinstance(made.output, Value) and made.primary_metric == "mae"
    own = prepared(f"ts:{tmp_path}")
    assert isinstance(own.output, Value) and len(own.splits["test"]) == 10


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: [(s, "a") for s, _ in rows], "ucr/B: the train split has one class only"),
        (lambda rows: [*rows[:5], (rows[5][0][:1], "a")], r"line 12: 1 channels, the first series has 2"),
        (lambda rows: [(s, None) for s, _ in rows], "is not a class of @classLabel"),
        (lambda rows: [(np.full_like(s, np.nan), label) for s, label in rows], "no value in the whole series"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, spoil, message: str) -> None:
    write_ts(tmp_path / "B_TRAIN.ts", spoil(rows_of(40)))
    write_ts(tmp_path / "B_TEST.ts", rows_of(9))
    with pytest.raises(FPTError, match=message) as caught:
        prepared("ucr/B", tmp_path)
    assert "\n" not in str(caught.value)


def test_train_and_test_must_fit_each_other(tmp_path: Path, raw: Path) -> None:
    write_ts(tmp_path / "C_TRAIN.ts", rows_of(40))
    write_ts(tmp_path / "C_TEST.ts", rows_of(9, channels=3))
    with pytest.raises(FPTError, match="ucr/C: the training series have 2 channels, the test series 3"):
        prepared("ucr/C", tmp_path)
    with pytest.raises(FPTError, match="--channels 5: the series of ucr/Waves have 2"):
        prepared("ucr/Waves", raw, channels=5)
    write_ts(tmp_path / "C_TEST.ts", [(s, "d") for s, _ in rows_of(9)], "@classLabel true d")
    assert "the class 'd' has 9 series in test and none in train" in prepared("ucr/C", tmp_path).manifest.notes
    write_ts(tmp_path / "C_TEST.ts", [(s, None) for s, _ in rows_of(9)], "@classLabel false")
    with pytest.raises(FPTError, match="ucr/C: the test file has no labels"):
        prepared("ucr/C", tmp_path)


def test_the_archives_layouts_are_found_and_a_set_that_is_nowhere_is_one_line(raw: Path, tmp_path: Path, monkeypatch) -> None:
    deep = tmp_path / "deep" / "Multivariate_ts" / "Waves"
    deep.parent.mkdir(parents=True)
    (raw / "Waves").rename(deep)
    assert prepared("ucr/Waves", tmp_path / "deep").manifest.origin == "--data_dir, Waves_TRAIN.ts"
    tabs = tmp_path / "tabs" / "G"
    tabs.mkdir(parents=True)
    for part in ("TRAIN", "TEST"):
        rows = [f"{'abc'.index(label) + 1}\t" + "\t".join(f"{v:.3f}" for v in s[0]) for s, label in rows_of(30)]
        (tabs / f"G_{part}.tsv").write_text("\n".join(rows))
    assert prepared("ucr/G", tmp_path / "tabs").output == Classes(("1", "2", "3"))
    monkeypatch.setattr("fpt.tasks.sources.package_folder", lambda name: None)
    broken = SimpleNamespace(import_module=lambda name: (_ for _ in ()).throw(ImportError("no numba")))
    monkeypatch.setattr("fpt.tasks.ucr.importlib", broken)
    with pytest.raises(
        FPTError, match=r"no data for ucr/Nowhere .* put Nowhere_TRAIN.ts and Nowhere_TEST.ts \(from https"
    ) as caught:
        prepared("ucr/Nowhere")
    assert "the package aeon, which downloads, can't be imported here (no numba)" in str(caught.value)
    with pytest.raises(FPTError, match=r"a set has a name such as GunPoint"):
        TASKS["ucr/../x"]


def test_a_download_with_aeon_is_kept(tmp_path: Path, raw: Path, home: Path, monkeypatch) -> None:
    monkeypatch.setattr("fpt.tasks.sources.package_folder", lambda name: None)
    monkeypatch.setattr("fpt.tasks.ucr.metadata.version", lambda name: "1.6.0")
    asked = []

    class Datasets:
        @staticmethod
        def load_classification(name: str, extract_path: str) -> None:
            asked.append(name)
            if name != "Waves":
                raise ValueError("no such set")
            (raw / "Waves").rename(Path(extract_path) / "Waves")

    monkeypatch.setattr("fpt.tasks.ucr.importlib", SimpleNamespace(import_module=lambda name: Datasets))
    made = prepared("ucr/Waves")
    assert asked == ["Waves"] and (home / "raw" / "ucr" / "Waves" / "Waves_TEST.ts").is_file()
    assert made.manifest.origin.startswith("download")
    with pytest.raises(FPTError, match=r"aeon can't download Other \(no such set\)"):
        prepared("ucr/Other")


def test_a_users_own_pair_and_a_single_file(raw: Path, tmp_path: Path) -> None:
    made = prepared(f"ts:{raw / 'Waves'}")
    assert made.task.name == "ts:Waves" and len(made.splits["test"]) == 24
    assert made.split_method == "given; valid cut from train (stratified)"
    assert set(made.splits["test"]["id"]) == {f"test-{n}" for n in range(1, 25)}
    assert prepared(f"ts:{raw / 'Waves' / 'Waves_TRAIN.ts'}").manifest.data_sha256 == made.manifest.data_sha256
    assert prepared("ts:Waves", raw / "Waves").manifest.data_sha256 == made.manifest.data_sha256
    alone = write_ts(tmp_path / "alone" / "mine.ts", rows_of(90))
    assert prepared("ts:mine", tmp_path / "alone", split="random").split_method == "random"
    made = prepared(f"ts:{alone}", split="random")
    assert [len(made.splits[name]) for name in ("train", "valid", "test")] == [63, 9, 18]
    assert prepared(f"ts:{tmp_path / 'alone'}").split_method == "stratified"
    write_ts(tmp_path / "alone" / "other.ts", rows_of(90))
    for where, why in (
        (tmp_path / "alone", "which of mine.ts, other.ts"),
        (tmp_path / "none", "there is no such file or folder"),
        (raw, "holds no file of time series"),
        (write_ts(tmp_path / "half" / "H_TRAIN.ts", rows_of(9)), "there is no H_TEST.ts beside H_TRAIN.ts"),
        (write_ts(tmp_path / "u" / "u.ts", [(s, None) for s, _ in rows_of(9)], "@classLabel false"), "has no labels"),
    ):
        with pytest.raises(FPTError, match=why):
            prepared(f"ts:{where}")


@pytest.mark.parametrize("dataset", ["ucr/Waves", "ts:{raw}/Waves"])
def test_train_evaluate_and_predict(dataset: str, raw: Path, llama_dir: Path, tmp_path: Path, capsys) -> None:
    data = DataArguments(dataset=dataset.format(raw=raw), data_dir=str(raw) if dataset.startswith("ucr") else None)
    data.given_options = {"patch_size": 2}
    out = tmp_path / "run"
    training = TrainArguments(output_dir=str(out), max_steps=120, eval_steps=60, learning_rate=2e-2, mixed_precision="no")
    results = run(data, ModelArguments(backbone=str(llama_dir)), training)
    assert results.metrics["test"]["accuracy"] > 0.5
    evaluation.run(EvaluateArguments([str(out)], data_dir=data.data_dir))
    assert f"{results.metrics['test']['accuracy']:.4f}" in capsys.readouterr().out
    config = json.loads((out / "checkpoint" / "config.json").read_text())
    stored = config["data"]["arguments"]["options"]
    assert (stored["patch_size"], stored["patch_stride"], stored["channels"]) == (2, 2, 2)
    new = rows_of(12, start=60)
    new[3][0][0, :4] = np.nan
    new[4] = (np.full((2, 8), np.nan), "b")
    write_ts(tmp_path / "new.ts", new)
    evaluation.run(EvaluateArguments([str(out)], predict=str(tmp_path / "new.ts"), output=str(tmp_path / "out.csv")))
    said = capsys.readouterr().out
    assert "20 missing values in 2 series, interpolated" in said and "11 rows predicted, 1 could not be read" in said
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert table["reason"].tolist() == [""] * 4 + ["no value in the whole series"] + [""] * 7
    assert table["series"][0] == "18 steps of 2 channels" and "probability_c" in table
    assert (table["prediction"] == table["label"]).mean() > 0.4
    loaded = fpt.load(str(out))
    found = loaded.predict([new[0][0], new[0][0].T, new[1][0][:1], line(new[0][0], None), np.zeros((2, 0))])
    assert found[0]["prediction"] == found[3]["prediction"] == table["prediction"][0]
    assert found[0]["probabilities"]["a"] == pytest.approx(float(table["probability_a"][0]), abs=1e-4)
    assert [one["reason"] for one in found[1:3]] == [
        "18 channels where the model reads 2; arrays are (channels, time)",
        "1 channel where the model reads 2",
    ]
    assert found[4]["prediction"] is None and "(2, 0)" in found[4]["reason"]
    evaluation.run(
        EvaluateArguments([str(out)], predict=str(write_ts(tmp_path / "o.ts", rows_of(9, 3))), output=str(out) + ".csv")
    )
    assert "0 rows predicted, 9 could not be read" in capsys.readouterr().out
    (tmp_path / "page.ts").write_text("<html></html>")
    with pytest.raises(FPTError, match="is a web page"):
        evaluation.run(EvaluateArguments([str(out)], predict=str(tmp_path / "page.ts"), output=str(tmp_path / "o.csv")))
    with pytest.raises(FPTError, match="Not a file"):
        evaluation.run(EvaluateArguments([str(out)], predict=str(tmp_path / "no.ts"), output=str(tmp_path / "o.csv")))


def test_nearest_series() -> None:
    rng = np.random.default_rng(1)
    some = SeriesSplit(tuple(rng.normal(size=(6, 2)).astype(np.float32) for _ in range(3)), np.zeros(3))
    train = SeriesSplit(tuple(rng.normal(size=(6, 2)).astype(np.float32) for _ in range(4)), np.arange(4))
    expected = [[((a - b) ** 2).sum() for b in train.series] for a in some.series]
    np.testing.assert_allclose(euclidean(some, train), expected, rtol=1e-5)
    np.testing.assert_allclose(warped(some, train, 0.0), expected, rtol=1e-5)
    longer = SeriesSplit(tuple(rng.normal(size=(n, 2)).astype(np.float32) for n in (4, 9, 7)), np.arange(3))
    for window in (1.0, 0.3, 0.0):
        expected = [[dtw(a, b, window) for b in longer.series] for a in some.series]
        np.testing.assert_allclose(warped(some, longer, window), expected, rtol=1e-5)
    with pytest.raises(FPTError, match="--distance euclidean needs series of one length; these have 4 to 9 time steps"):
        euclidean(some, longer)
    assert NearestOptions().unread({"dtw_window"}) and not NearestOptions("dtw").unread({"dtw_window"})


def dtw(a: np.ndarray, b: np.ndarray, window: float) -> float:
    """By the definition, one cell after the other."""
    reach = max(np.ceil(window * max(len(a), len(b))), abs(len(a) - len(b)))
    cost = np.full((len(a) + 1, len(b) + 1), np.inf)
    cost[0, 0] = 0
    for i in range(len(a)):
        for j in [j for j in range(len(b)) if abs(i - j) <= reach]:
            cost[i + 1, j + 1] = ((a[i] - b[j]) ** 2).sum() + min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
    return float(cost[-1, -1])


def test_minirocket_counts_positive_values_of_its_convolutions() -> None:
    rng = np.random.default_rng(2)
    series = rng.normal(size=(40, 1)).astype(np.float32)
    split = SeriesSplit((series, series[:23]), np.arange(2))
    one = Convolution(5, 3, np.array([0]), np.array([0.1, -0.2], np.float32), True)
    inside = Convolution(5, 3, np.array([0]), np.array([0.1], np.float32), False)
    found = transform(split, [one, inside], 40)
    for row, own in enumerate(split.series):
        weights = np.array([2.0 if i in KERNELS[5] else -1.0 for i in range(9)])
        wide = np.pad(own[:, 0], 12)
        values = np.array([(weights * wide[t : t + 25 : 3]).sum() for t in range(len(own))])
        expected = [(values > 0.1).mean(), (values > -0.2).mean(), (values[12:-12] > 0.1).mean() if len(own) > 24 else None]
        expected[2] = (values > 0.1).mean() if expected[2] is None else expected[2]
        np.testing.assert_allclose(found[row], expected, atol=1e-6)
    assert sum(dilations_of(150, 9_996).values()) == 119 and max(dilations_of(150, 9_996)) == 18
    assert sum(len(k.thresholds) for k in fit_kernels(split, 1000, 1)) == 924
    short = SeriesSplit((series[:5],), np.zeros(1))
    with pytest.raises(FPTError, match="kernels of 9 time steps; the longest series has 5"):
        fit_kernels(short, 1000, 1)


@pytest.mark.parametrize(
    ("model", "given"), [("minirocket", {"kernel_features": 840}), ("nearest", {"distance": "dtw"}), ("nearest", {})]
)
def test_baselines_write_the_same_results(model: str, given: dict, tmp_path: Path) -> None:
    write_ts(tmp_path / "E_TRAIN.ts", rows_of(45, longest=12))
    write_ts(tmp_path / "E_TEST.ts", rows_of(18, longest=12, start=45))
    asked = ModelArguments(model=model)
    asked.given_options = given
    data = DataArguments(dataset="ucr/E", data_dir=str(tmp_path))
    results = run(data, asked, TrainArguments(output_dir=str(tmp_path / "run")))
    assert results.metrics["test"]["accuracy"] > 0.6 and results.steps == 0 and results.core.name == model
    assert len(pd.read_csv(tmp_path / "run" / "predictions.csv")) == 18
    again = run(data, asked, TrainArguments(output_dir=str(tmp_path / "again")))
    assert again.metrics == results.metrics


def test_baselines_read_every_step_of_every_channel(tmp_path: Path) -> None:
    """Also where tokens are of several steps, overlap or are cut."""
    rows = rows_of(30, 2, 150, 170)
    write_ts(tmp_path / "L" / "L_TRAIN.ts", rows)
    write_ts(tmp_path / "L" / "L_TEST.ts", rows_of(9, 2, 150, 170))
    for dataset in ("ucr/L", f"ts:{tmp_path / 'L'}"):
        made = prepared(dataset, tmp_path, model="nearest", max_length=8)
        assert made.input.dim == 2 and made.manifest.cut_to_max_length["train"] == 0
        found = read_split(made, "train")
        own = {name: series for name, series in zip(made.splits["train"]["id"], found.series, strict=True)}
        for number, (series, _) in enumerate(rows, 1):
            if (values := own.get(f"train-{number}")) is not None:
                np.testing.assert_allclose(values, series.T, atol=1e-4)
        assert len(own) > 20
        assert prepared(dataset, tmp_path, max_length=8).input.dim == 10


def test_baselines_read_series_only(data_dir: Path) -> None:
    asked = ModelArguments(model="minirocket")
    with pytest.raises(FPTError, match="--model minirocket reads time series; cyp3a4 has none"):
        run(DataArguments(data_dir=str(data_dir)), asked, TrainArguments())


def test_flags_that_nothing_reads_are_refused(monkeypatch) -> None:
    def asked(words: str) -> None:
        monkeypatch.setattr("sys.argv", ["train.py", *words.split()])
        parse_training("")

    asked("--dataset ucr/GunPoint --patch_size 4 --patch_stride 2 --max_length 99 --valid_fraction 0.3")
    for words in ("--dataset ucr/GunPoint --tokenizer bpe", "--dataset ucr/GunPoint --model minirocket --patch_size 4"):
        with pytest.raises(UsageError):
            asked(words)
    with pytest.raises(UsageError, match="--patch_stride 8 is more than --patch_size 4"):
        asked("--dataset ucr/GunPoint --patch_size 4 --patch_stride 8")


@pytest.mark.skipif(PACKAGED is None, reason="aeon is not installed")
def test_packaged_sets_are_read_without_a_download() -> None:
    made = prepared("ucr/JapaneseVowels")
    assert {name: len(rows) for name, rows in made.splits.items()} == {"train": 216, "valid": 54, "test": 370}
    assert made.manifest.request.options["channels"] == 12 and made.manifest.origin.startswith("package aeon 1.")
    assert not made.manifest.users_own


@pytest.mark.skipif(PACKAGED is None, reason="aeon is not installed")
def test_published_scores_of_the_nearest_neighbour(tmp_path: Path) -> None:
    """Error rates of the archive's page: GunPoint 0.0867 (Euclidean) and 0.0933 (DTW), with the whole training file."""
    from fpt.data.ts_files import read_series

    assert PACKAGED is not None
    folder = PACKAGED / "datasets" / "data" / "GunPoint"
    files = [read_series(folder / f"GunPoint_{part}.ts") for part in ("TRAIN", "TEST")]
    train, test = (SeriesSplit(tuple(s.T.astype(np.float32) for s in f.series), np.array(f.labels)) for f in files)
    for away, error in ((euclidean(test, train), 0.0867), (warped(test, train, 1.0), 0.0933)):
        assert np.mean(train.labels[away.argmin(1)] != test.labels) == pytest.approx(error, abs=5e-5)


def test_minirocket_is_aeons() -> None:
    """With the dilations, channels and thresholds that aeon fitted, features are aeon's."""
    try:
        theirs = importlib.import_module("aeon.transformations.collection.convolution_based").MiniRocket
    except ImportError as error:
        pytest.skip(f"aeon can't be imported: {error}")
    series = np.stack([waves(i, 60, 3) for i in range(20)]).astype(np.float32)
    fitted = theirs(n_kernels=1000, random_state=0)
    fitted.fit(series)
    sizes, channels, dilations, counts, thresholds = fitted.parameters
    assert dict(zip(dilations.tolist(), counts.tolist(), strict=True)) == dilations_of(60, 1000)
    kernels, first, at = [], 0, 0
    for place, (dilation, count) in enumerate(zip(dilations, counts, strict=True)):
        for kernel in range(len(KERNELS)):
            size = sizes[place * len(KERNELS) + kernel]
            own, at = np.sort(channels[at : at + size]).astype(np.int64), at + size
            bias, first = thresholds[first : first + count].astype(np.float32), first + count
            kernels.append(Convolution(kernel, int(dilation), own, bias, (place + kernel) % 2 == 0))
    mine = transform(SeriesSplit(tuple(s.T for s in series), np.zeros(20)), kernels, 60)
    assert np.abs(mine - np.asarray(fitted.transform(series))).mean() < 1e-3

"""Forecasts: windows and borders as the field has them, its known mistakes not made, from training to the next values."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import fpt
from fpt.args import DataArguments, ModelArguments, TrainArguments, changed
from fpt.data.cache import prepare
from fpt.data.prepared import Prepared
from fpt.data.window_samples import WindowSamples
from fpt.errors import FPTError
from fpt.evaluation.arguments import EvaluateArguments
from fpt.evaluation.run import run as evaluate
from fpt.forecasts import Forecast
from fpt.models.fpt import FPT
from fpt.models.naive import repeated
from fpt.tasks.base import TASKS
from fpt.tasks.forecast import filled, usable
from fpt.text.log import silent
from fpt.training import run
from fpt.windows import Windows

ROWS = 400


def frame(rows: int = ROWS) -> pd.DataFrame:
    """Two series of an hour: a day's wave, and one of another unit that grows."""
    rng, hours = np.random.default_rng(0), np.arange(rows)
    wave = 20 + 5 * np.sin(hours / 24 * 2 * np.pi) + rng.normal(0, 0.1, rows)
    growing = 10_000 + 30 * hours + 400 * np.cos(hours / 12 * 2 * np.pi)
    times = pd.date_range("2021-03-01", periods=rows, freq="h").astype(str)
    return pd.DataFrame({"date": times, "load": wave.round(3), "price": growing.round(1)})


def write(folder: Path, table: pd.DataFrame | None = None) -> Path:
    path = folder / "mine.csv"
    (frame() if table is None else table).to_csv(path, index=False)
    return path


def arguments(path: Path, **options) -> DataArguments:
    args = DataArguments(dataset=f"forecast:{path}", cache_dir=str(path.parent / "cache"), num_proc=1)
    args.given_options = {"horizon": 12, "lookback": 48, "patch_size": 8, **options}
    return args


def prepared(path: Path, **options) -> Prepared:
    args = arguments(path, **options)
    return prepare(TASKS[args.dataset], args, 1, silent)


def trained(path: Path, model: ModelArguments, training: dict | None = None, **options) -> Path:
    settings = {"max_steps": 60, "eval_steps": 30, "per_device_batch_size": 32, "learning_rate": 1e-3, "eval_batch_size": 50}
    output = path.parent / "run"
    run(arguments(path, **options), model, TrainArguments(**{**settings, "output_dir": str(output), **(training or {})}))
    return output


def test_borders_are_in_time_and_nothing_of_test_is_seen_before(tmp_path: Path) -> None:
    found = prepared(write(tmp_path))
    train, valid, test = (found.samples(split) for split in ("train", "valid", "test"))
    assert isinstance(found.output, Forecast) and isinstance(test, WindowSamples)
    # 7 : 1 : 2 of 400 rows. A window for every value ahead: none is lost at the end, and none begins before the border.
    assert [len(samples) for samples in (train, valid, test)] == [2 * (280 - 48 - 12 + 1), 2 * (40 - 12 + 1), 2 * (80 - 12 + 1)]
    load = frame()["load"].to_numpy()
    assert found.output.means[0] == pytest.approx(load[:280].mean()) and found.output.deviations[0] == pytest.approx(
        load[:280].std()
    )
    assert np.allclose(train.label(220)[:12], load[268:280]) and np.allclose(valid.label(0)[:12], load[280:292])
    assert np.allclose(test.label(0)[:12], load[320:332]) and np.allclose(test.label(68)[:12], load[388:400])
    assert test.ids[0] == "load 2021-03-14 08:00:00" and test.ids[69].startswith("price ")
    standard = (load[272:320] - found.output.means[0]) / found.output.deviations[0]
    assert np.allclose(test.window(0), standard, atol=1e-6)
    # Other values after the border change neither the scale nor a training sample.
    later = frame()
    later.loc[280:, "load"] += 1000
    (tmp_path / "other").mkdir()
    other = prepared(write(tmp_path / "other", later))
    assert (other.output.means, other.output.deviations) == (found.output.means, found.output.deviations)
    assert np.array_equal(other.samples("train").labels, train.labels)


@pytest.mark.parametrize(("lookback", "size", "stride"), [(48, 8, 8), (48, 16, 8), (50, 16, 8), (7, 7, 3), (10, 4, 3), (5, 1, 1)])
def test_patches_hold_every_value_of_a_window_to_its_end(lookback: int, size: int, stride: int) -> None:
    inputs = Windows(size, lookback=lookback, stride=stride)
    values = np.random.default_rng(0).normal(size=(3, lookback)).astype(np.float32)
    patches, mask = inputs.pad(list(values))
    assert patches.shape == (3, inputs.tokens, size) and mask.sum() == 3 * inputs.tokens
    assert torch.equal(inputs.values(patches), torch.from_numpy(values))
    assert torch.equal(patches[:, -1], torch.from_numpy(values[:, -size:]))
    mean, std = inputs.moments(patches)
    assert torch.allclose(mean[:, 0], torch.from_numpy(values.mean(1)), atol=1e-5)
    assert torch.allclose(std[:, 0] ** 2, torch.from_numpy(values.var(1)) + 1e-5, atol=1e-5)


def test_a_forecast_follows_the_level_and_the_scale_of_its_window(tmp_path: Path) -> None:
    folder = trained(write(tmp_path), ModelArguments(backbone="none"), {"max_steps": 5, "eval_steps": 5})
    model = fpt.load(str(folder)).model
    assert isinstance(model, FPT)
    windows = torch.randn(4, 48)
    inputs = Windows(8, lookback=48, stride=8)
    with torch.no_grad():
        one, other = (model(*inputs.pad(list(w.numpy()))) for w in (windows, 30 * windows - 7))
    assert torch.allclose(30 * one - 7, other, atol=1e-2)


def test_scores_are_of_all_windows_whatever_the_batches(tmp_path: Path) -> None:
    path = write(tmp_path)
    folder = trained(path, ModelArguments(model="dlinear"))
    found = json.loads((folder / "results.json").read_text())
    assert found["split"]["rows"] == {"train": 442, "valid": 58, "test": 138}
    for size in (1, 137, 1000):
        asked = EvaluateArguments([str(folder)], output=str(tmp_path / "scores.json"), cache_dir=str(tmp_path / "cache"))
        evaluate(changed(asked, eval_batch_size=size))
        again = json.loads((tmp_path / "scores.json").read_text())["metrics"]["test"]
        assert again == pytest.approx(found["metrics"]["test"], rel=1e-5)
    # By hand: the network on each window, and the mean of all squared errors.
    predictor, data = fpt.load(str(folder)), prepared(path)
    test, output = data.samples("test"), data.output
    with torch.no_grad():
        inputs, mask = data.input.pad([test.window(n) for n in range(len(test))])
        errors = predictor.model(inputs, mask).numpy() - output.standardised(test.labels)
    assert found["metrics"]["test"]["mse"] == pytest.approx(float((errors**2).mean()), rel=1e-4)
    assert found["metrics"]["test"]["mae"] == pytest.approx(float(np.abs(errors).mean()), rel=1e-4)
    units = np.abs(errors) * test.labels[:, -1:]
    assert found["metrics"]["test"]["mae_units"] == pytest.approx(float(units.mean()), rel=1e-4)
    # Windows of the file of predictions do not overlap, so each time is there once.
    values = pd.read_csv(folder / "predictions.csv")
    assert not values.duplicated(["series", "time"]).any() and len(values) == 2 * 6 * 12
    first = values[values["series"] == "load"].iloc[0]
    assert (first["time"], first["step"]) == ("2021-03-14 08:00:00", 1)
    assert first["label"] == pytest.approx(frame()["load"][320])


def test_strides_thin_train_and_valid_and_never_test(tmp_path: Path) -> None:
    found = prepared(write(tmp_path), train_stride=5, valid_stride=3)
    assert [len(found.samples(split)) for split in ("train", "valid", "test")] == [2 * 45, 2 * 10, 138]
    assert any("train has every 5th window" in note for note in found.manifest.notes)


def test_missing_values_are_never_scored_and_are_counted(tmp_path: Path) -> None:
    table = frame()
    table.loc[100:104, "load"] = np.nan
    table.loc[0:9, "price"] = np.nan
    table = table.drop(index=[350, 351])
    found = prepared(write(tmp_path, table))
    notes = "\n".join(found.manifest.notes)
    assert "2 of 400 times are not there (most at once: 2, from 2021-03-15 14:00:00)" in notes
    assert (
        "15 cells have no value (most: 10 in 'price')" in notes
        and "52 windows are left out, for values that are missing" in notes
    )
    for split in ("train", "valid", "test"):
        assert np.isfinite(found.samples(split).labels).all()
    starts = found.splits["train"]["starts"]
    # Not those with a missing value ahead, nor those that begin before the series.
    assert not set(starts[0]) & set(range(100 - 48 - 11, 105 - 48)) and min(starts[1]) == 10
    load = filled(table["load"].to_numpy()[:200])
    assert np.array_equal(load[99:106], table["load"].to_numpy()[[99, 99, 99, 99, 99, 99, 105]])


def test_which_windows_can_be_used() -> None:
    values = np.arange(20.0)
    assert usable(values, 4, 2, 1)[0].tolist() == list(range(15)) and usable(values, 4, 2, 4)[0].tolist() == [0, 4, 8, 12]
    values[8] = np.nan
    good, left = usable(values, 4, 2, 1)
    assert good.tolist() == [0, 1, 2, *range(5, 15)] and left == 2
    values[[6, 7]] = np.nan
    assert 5 not in usable(values, 4, 2, 1)[0]  # three of its four values are missing
    assert usable(np.full(20, np.nan), 4, 2, 1)[0].tolist() == []
    late = np.r_[np.nan, np.arange(19.0)]
    assert usable(late, 4, 2, 1)[0][0] == 1 and usable(late, 4, 2, 1, begun=True)[0][0] == 0


def test_the_last_season_is_repeated(tmp_path: Path) -> None:
    path = write(tmp_path)
    test = prepared(path).samples("test")
    load = frame()["load"].to_numpy()
    assert np.allclose(repeated(test, 1)[0][:12], load[319]) and np.allclose(repeated(test, 24)[0][:12], load[296:308])
    assert np.allclose(repeated(test, 5)[3][:12], np.resize(load[318:323], 12))
    folder = trained(path, ModelArguments(model="naive"))
    found = json.loads((folder / "results.json").read_text())
    assert found["chosen"] == {"season": 24} and len(found["history"]) == 2
    assert found["metrics"]["test"]["mse"] < found["history"][0]["valid"]["mse"]


@pytest.mark.parametrize("model", ["dlinear", "patchtst", "language", "none"])
def test_each_model_learns_is_scored_again_and_goes_on(tmp_path: Path, llama_dir: Path, model: str) -> None:
    path = write(tmp_path)
    backbone = str(llama_dir) if model == "language" else "none"
    args = ModelArguments(backbone=backbone) if model in ("language", "none") else ModelArguments(model=model)
    folder = trained(path, args, {"max_steps": 120, "eval_steps": 60, "learning_rate": 3e-3})
    found = json.loads((folder / "results.json").read_text())
    # A window's own mean has an error of about 1 on the wave.
    assert found["metrics"]["test"]["mse"] < 0.5
    evaluate(EvaluateArguments([str(folder)], output=str(tmp_path / "scores.json"), cache_dir=str(tmp_path / "cache")))
    again = json.loads((tmp_path / "scores.json").read_text())["metrics"]["test"]
    assert again == pytest.approx(found["metrics"]["test"], rel=1e-5)
    evaluate(EvaluateArguments([str(folder)], predict=str(path), output=str(tmp_path / "ahead.csv")))
    ahead = pd.read_csv(tmp_path / "ahead.csv")
    assert list(ahead.columns) == ["date", "load", "price"] and len(ahead) == 12
    assert ahead["date"].iloc[0] == "2021-03-17 16:00:00" and ahead["date"].iloc[-1] == "2021-03-18 03:00:00"
    assert (ahead["load"] - 20).abs().max() < 10 and ahead["price"].between(15_000, 30_000).all()
    steps = fpt.load(str(folder)).predict(frame().set_index(pd.DatetimeIndex(frame()["date"])).drop(columns="date"))
    assert [step["date"] for step in steps] == list(ahead["date"])
    assert [step["load"] for step in steps] == pytest.approx(list(ahead["load"]), rel=1e-5)


def test_patchtst_reads_all_patches_side_by_side(tmp_path: Path) -> None:
    """As its paper; transformers' own default is the mean over them, which does not know where a patch was."""
    folder = trained(write(tmp_path), ModelArguments(model="patchtst"), {"max_steps": 2, "eval_steps": 2}, patch_stride=8)
    model = fpt.load(str(folder)).model
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if "head.projection.weight" in name}
    assert list(shapes.values()) == [(12, 6 * 16)]


def test_several_seeds_forecast_together(tmp_path: Path, llama_dir: Path) -> None:
    path = write(tmp_path)
    folder = trained(path, ModelArguments(backbone=str(llama_dir)), {"seeds": "1,2"})
    summary = json.loads((folder / "summary.json").read_text())
    single = [json.loads((folder / f"seed-{seed}" / "results.json").read_text())["metrics"]["test"]["mse"] for seed in (1, 2)]
    assert summary["ensemble"]["test"]["mse"] < np.mean(single)
    assert "spread" in pd.read_csv(folder / "predictions.csv")
    alone = trained(path, ModelArguments(backbone=str(llama_dir)), {"seed": 2, "output_dir": str(tmp_path / "alone")})
    assert alone == folder
    found = json.loads((tmp_path / "alone" / "results.json").read_text())["metrics"]["test"]["mse"]
    assert found == pytest.approx(single[1], rel=2e-2)
    evaluate(
        EvaluateArguments([str(folder / f"seed-{s}") for s in (1, 2)], predict=str(path), output=str(tmp_path / "ahead.csv"))
    )
    ahead = pd.read_csv(tmp_path / "ahead.csv")
    assert list(ahead.columns) == ["date", "load", "load spread", "price", "price spread"] and (ahead["load spread"] > 0).all()


def test_a_page_shows_forecasts_beside_the_truth(tmp_path: Path, llama_dir: Path) -> None:
    from fpt.report.page import build

    path = write(tmp_path)
    runs = [tmp_path / name for name in ("language", "naive")]
    trained(path, ModelArguments(backbone=str(llama_dir)), {"output_dir": str(runs[0]), "max_steps": 5, "eval_steps": 5})
    trained(path, ModelArguments(model="naive"), {"output_dir": str(runs[1])})
    page, text = build(runs, "Forecasts", 2, str(tmp_path), silent)
    assert "that do not overlap" in page and page.count("data:image/svg+xml") >= 6
    assert "| naive |" in text and "mae_units" in text


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda t: t, {"horizon": 60}, "valid has 40 rows, and --horizon needs 60; give a shorter --horizon"),
        (lambda t: t, {"horizon": 12, "lookback": 300}, "train has 280 rows, and --lookback and --horizon need 312"),
        (lambda t: t.assign(load=1.0, price=2.0), {}, "every series is constant in the training rows"),
        (lambda t: t.drop(columns=["load", "price"]).assign(name="x"), {}, "no column of numbers besides the time"),
        (
            lambda t: t.assign(load=t["load"].astype(object).where(t.index != 7, "high")),
            {},
            "'high' is not a number, row 8, column 'load'",
        ),
        (lambda t: t.rename(columns={"date": "when"}), {}, "no column is called date or time"),
        (lambda t: t, {"time_column": "dates"}, "no column 'dates'"),
        (lambda t: t, {"target_columns": "load,prize"}, "no column 'prize'"),
        (lambda t: t, {"target_columns": "load,load"}, "names no column, or one of them twice"),
        (
            lambda t: t.assign(load=np.where(t.index < 300, np.nan, 1.0)),
            {"target_columns": "load"},
            "'load' has no value in the training",
        ),
        (
            lambda t: t.assign(load=np.where(t.index % 3 < 2, np.nan, t.load)),
            {"target_columns": "load"},
            "no window of train has values",
        ),
        (lambda t: t.assign(date=t["date"].where(t.index != 5, "tomorrow")), {}, "'tomorrow' in row 6 is not a date and time"),
        (lambda t: t, {"valid_fraction": 0.5, "test_fraction": 0.5}, "must be above 0, and leave rows for training"),
        (lambda t: t, {"patch_size": 50}, "--patch_size 50 is longer than --lookback 48"),
        (lambda t: t, {"patch_stride": 9}, "--patch_stride 9 would leave out values between patches"),
        (lambda t: t, {"loss": "huber"}, "loss"),
        (lambda t: t[:0], {}, "no rows"),
    ],
)
def test_what_can_not_be_forecast_is_said_in_one_line(tmp_path: Path, change, options: dict, said: str) -> None:
    with pytest.raises(FPTError, match=re.escape(said)) as caught:
        prepared(write(tmp_path, change(frame())), **options)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("arrow/*/*/manifest.json"))


def long(table: pd.DataFrame) -> pd.DataFrame:
    """The two series below one another."""
    parts = [pd.DataFrame({"unique_id": name, "ds": table["date"], "y": table[name]}) for name in ("load", "price")]
    return pd.concat(parts, ignore_index=True)


def test_series_below_one_another_are_those_beside_one_another(tmp_path: Path) -> None:
    beside = prepared(write(tmp_path))
    (tmp_path / "long").mkdir()
    path = write(tmp_path / "long", long(frame()))
    found = prepared(path, series_column="unique_id")
    assert found.output == replace(beside.output, time_column="ds")
    for split in ("train", "valid", "test"):
        assert np.array_equal(found.samples(split).labels, beside.samples(split).labels)
    # Without the flag they would be one series with two rows of each time.
    with pytest.raises(FPTError, match="which column 'unique_id' tells apart; pass --series_column unique_id"):
        prepared(path)
    folder = trained(path, ModelArguments(model="dlinear"), series_column="unique_id")
    history = long(frame())
    more = pd.concat([history, history[history["unique_id"] == "load"].assign(unique_id="other")])
    ahead = fpt.load(str(folder)).predict(more)
    assert list(ahead[0]) == ["ds", "load", "price"] and ahead[0]["ds"] == "2021-03-17 16:00:00"
    with pytest.raises(FPTError, match="the history has no series 'price'; 1 of the model's 2 are not there"):
        fpt.load(str(folder)).predict(history[history["unique_id"] == "load"])


def test_a_constant_series_beside_others_is_told(tmp_path: Path) -> None:
    found = prepared(write(tmp_path, frame().assign(flat=3.0)))
    assert any("1 series are constant in train (first: 'flat')" in note for note in found.manifest.notes)
    assert found.output.deviations[2] == 1.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t[:40], "the history has 40 rows, and the model reads the last 48"),
        (lambda t: t.drop(columns="price"), "no column 'price'"),
        (lambda t: t.assign(price=np.where(t.index > 360, np.nan, t.price)), "'price' has no value in 39 of the last 48 rows"),
        (
            lambda t: t.assign(date=pd.date_range("2021-03-01", periods=len(t), freq="30min").astype(str)),
            "are not on a grid of h",
        ),
    ],
)
def test_a_history_that_does_not_fit_is_said_in_one_line(tmp_path: Path, change, said: str) -> None:
    folder = trained(write(tmp_path), ModelArguments(model="dlinear"), {"max_steps": 2, "eval_steps": 2})
    change(frame()).to_csv(tmp_path / "history.csv", index=False)
    asked = EvaluateArguments([str(folder)], predict=str(tmp_path / "history.csv"), output=str(tmp_path / "ahead.csv"))
    with pytest.raises(FPTError, match=re.escape(said)) as caught:
        evaluate(asked)
    assert "\n" not in str(caught.value) and not (tmp_path / "ahead.csv").exists()
    with pytest.raises(FPTError, match="rename those of the file"):
        evaluate(changed(asked, column="load"))


def test_only_forecasts_join_all_tokens_and_have_such_models(tmp_path: Path, data_dir: Path) -> None:
    training = TrainArguments(max_steps=1, output_dir=str(tmp_path / "run"))
    with pytest.raises(FPTError, match="--readout all joins the tokens of a sample"):
        run(DataArguments(dataset="digit-add"), ModelArguments(backbone="none", readout="all"), training)
    for model in ("naive", "dlinear", "patchtst"):
        with pytest.raises(FPTError, match="forecasts series; bit-xor is no forecast"):
            run(DataArguments(dataset="bit-xor"), ModelArguments(model=model), training)


def test_every_window_of_the_real_set_is_scored(real_data: Path, tmp_path: Path) -> None:
    args = DataArguments(dataset="ett/etth1", data_dir=str(real_data), cache_dir=str(tmp_path / "cache"), num_proc=1)
    args.given_options = {"horizon": 96, "lookback": 336}
    found = prepare(TASKS[args.dataset], args, 1, silent)
    # As in all papers that drop no window: 2,785 of each of 7 series.
    assert [len(found.samples(split)) for split in ("train", "valid", "test")] == [7 * 8209, 7 * 2785, 19_495]
    assert found.samples("test").ids[0] == "HUFL 2017-10-24 00:00:00"
    labels = found.samples("test").labels
    season = found.output.metrics(labels, repeated(found.samples("test"), 24))
    # Repeating the last day is known to give 0.512 / 0.433.
    assert (season["mse"], season["mae"]) == pytest.approx((0.512, 0.433), abs=1e-3)

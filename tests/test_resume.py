"""A run goes on from what it was, or not at all: data, arguments, states and the best checkpoint are checked first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import molecules, short_run, write_tdc
from safetensors.torch import load_file, save_file

from fpt.args import changed
from fpt.errors import FPTError
from fpt.files.whole import sha256_file
from fpt.training import Run, loop, resume, run, state, validation
from fpt.training.content import changes

LAST = "state/step-00000008"


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    """A folder with raw data, a cache, and a run of 12 steps that was killed after step 8; it keeps two states."""
    folder = tmp_path_factory.mktemp("resume")
    groups = short_run(write_tdc(folder / "raw", molecules()), llama_dir, folder / "run")
    groups[2].keep_last = 2
    save = resume.save_state

    def killed(self: Run) -> None:
        save(self)
        if self.progress.step == 8:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPT_HOME", str(folder / "home"))
        run(*groups[:2], changed(groups[2], output_dir=str(folder / "whole")))
        patch.setattr(resume, "save_state", killed)
        with pytest.raises(KeyboardInterrupt):
            run(*groups)
    return folder


@pytest.fixture
def stopped(stopped_run: Path, tmp_path: Path) -> Path:
    """The output folder of that run, a copy for each test."""
    shutil.copytree(stopped_run / "home", tmp_path / "home")
    return shutil.copytree(stopped_run / "run", tmp_path / "run")


@pytest.fixture
def go_on(stopped: Path, settings) -> Callable:
    """Returns a function that resumes the run; keywords change its arguments."""

    def resume(**changes):
        return run(*settings(**{"resume": True, "keep_last": 2, **changes}))

    return resume


def refused(go_on: Callable, match: str, monkeypatch, **changes) -> str:
    """The refusal, which is one line and comes before any step and before anything is written."""
    monkeypatch.setattr(loop, "update", lambda self: pytest.fail("a step was taken"))
    with pytest.raises(FPTError, match=match) as error:
        go_on(**changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def retensor(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the tensors of a state, and make its hash agree."""
    tensors = load_file(folder / state.TENSORS)
    change(tensors)
    save_file(tensors, folder / state.TENSORS)
    edit(folder / state.INFO, lambda info: info.update(sha256=sha256_file(folder / state.TENSORS)))


def test_it_goes_on_bitwise(go_on, stopped: Path, stopped_run: Path) -> None:
    go_on()
    for name in ("checkpoint/model.safetensors", "state/step-00000012/state.safetensors"):
        first, second = load_file(stopped_run / "whole" / name), load_file(stopped / name)
        assert set(first) == set(second) and all(torch.equal(first[n], second[n]) for n in first), name


# Data and arguments.


def lose_key(folder: Path) -> None:
    edit(folder / "run.json", lambda values: values.pop("data_key"))


def edit_key(folder: Path) -> None:
    now = json.loads((folder / "run.json").read_text())["data_key"]
    edit(folder / "run.json", lambda values: values.update(data_key={**now, "sha256": "0" * 64}))


@pytest.mark.parametrize("tamper", [None, lose_key])
def test_changed_data_is_refused_whatever_run_json_says(go_on, stopped, tmp_path, monkeypatch, tamper) -> None:
    write_tdc(tmp_path / "raw", molecules()[:-7])
    if tamper:
        tamper(stopped)
    said = refused(go_on, r"other data: the raw data \(\w{12}…, now", monkeypatch)
    assert "the rows of each split" in said


def test_a_key_that_was_made_to_fit_new_data_does_not_help(go_on, stopped, tmp_path: Path, settings, monkeypatch) -> None:
    write_tdc(tmp_path / "raw", molecules()[:-7])
    run(*settings(output_dir=str(tmp_path / "new"), max_steps=1))
    new = json.loads((tmp_path / "new" / "run.json").read_text())["data_key"]
    edit(stopped / "run.json", lambda values: values.update(data_key=new))
    refused(go_on, "was made with other data", monkeypatch)


def test_a_run_file_without_its_key_is_no_obstacle_where_the_state_has_one(go_on, stopped: Path) -> None:
    lose_key(stopped)
    assert go_on().steps == 12


@pytest.mark.parametrize(
    ("tamper", "words"),
    [(edit_key, "the data of the run in .* has changed"), (lambda f: edit(f / "run.json", lambda v: v.update(data_key="x")), "")],
)
def test_an_edited_run_file_is_refused(go_on, stopped: Path, monkeypatch, tamper, words) -> None:
    tamper(stopped)
    refused(go_on, words, monkeypatch)


def test_another_release_that_prepares_other_samples_is_refused(go_on, monkeypatch) -> None:
    from fpt.tasks.text import TextTask as Text

    encode = Text.encode

    def other(self, rows, args, tokenizer):
        features = encode(self, rows, args, tokenizer)
        return {**features, "input_ids": [[*ids[:-1], ids[-2]] for ids in features["input_ids"]]}

    monkeypatch.setattr(Text, "encode", other)
    monkeypatch.setattr("fpt.data.cache.metadata.version", lambda name: "99.0")
    said = refused(go_on, "other data: the prepared samples", monkeypatch)
    assert "now {'datasets': '99.0'" in said


def test_another_release_that_prepares_the_same_samples_is_no_obstacle(go_on, monkeypatch) -> None:
    monkeypatch.setattr("fpt.data.cache.metadata.version", lambda name: "99.0")
    assert go_on().steps == 12
    assert changes({"content": 1, "libraries": {"a": 1}}, {"content": 1, "libraries": {"a": 2}}) == []


@pytest.mark.parametrize(
    ("name", "value"), [("max_length", 40), ("split_seed", 5), ("tokenizer", "char"), ("seed", 2), ("dropout", 0.2)]
)
def test_other_arguments_are_refused_by_name_also_when_run_json_was_edited(go_on, stopped, monkeypatch, name, value) -> None:
    refused(go_on, f"--{name} ", monkeypatch, **{name: value})
    edit(stopped / "run.json", lambda values: values.update({name: value}))
    words = "made with other data|is of a run with" if name != "seed" else "."
    refused(go_on, words, monkeypatch, **{name: value})


def test_a_state_of_another_run_is_refused(go_on, stopped: Path, settings, tmp_path: Path, monkeypatch) -> None:
    run(*settings(output_dir=str(tmp_path / "other"), max_steps=8, seed=3, split_seed=1))
    shutil.rmtree(stopped / "state")
    shutil.copytree(tmp_path / "other" / "state", stopped / "state")
    assert "--seed 3 (now 1)" in refused(go_on, "is of a run with", monkeypatch)


def test_another_precision_is_refused(go_on, monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    refused(go_on, "computed in precision no, now it is bf16; give --mixed_precision no", monkeypatch)


# States.


def test_a_state_of_an_earlier_version_is_taken(go_on, stopped: Path, stopped_run: Path) -> None:
    added = ("format", "data_key", "arguments", "mixed_precision")
    edit(stopped / LAST / state.INFO, lambda info: [info.pop(name) for name in added])
    go_on()
    first, second = (load_file(f / "checkpoint" / "model.safetensors") for f in (stopped_run / "whole", stopped))
    assert all(torch.equal(first[name], second[name]) for name in first)


INFO = {
    "later format": (lambda i: i.update(format=99), "format 99, of a later version"),
    "format in words": (lambda i: i.update(format="two"), "format is 'two'"),
    "no progress": (lambda i: i.pop("progress"), "progress: Field required"),
    "no tokens": (lambda i: i["progress"].pop("step"), "is of step 0"),
    "step in words": (lambda i: i["progress"].update(step="8"), "progress.step: Input should be a valid integer"),
    "step is true": (lambda i: i["progress"].update(step=True), "progress.step"),
    "another step": (lambda i: i["progress"].update(step=7), "is of step 7"),
    "negative batch": (lambda i: i["progress"].update(batch=-1), "progress.batch"),
    "history in words": (lambda i: i["progress"].update(history="none"), "progress.history"),
    "scores in words": (lambda i: i["progress"]["history"][0].update(valid={"auprc": "good"}), "history.0.valid.auprc"),
    "best of nowhere": (lambda i: i["progress"].update(best_step=5), "no evaluation after its best step, 5"),
    "unknown field": (lambda i: i.update(extra=1), "extra"),
    "no processes": (lambda i: i.update(processes=0), "processes"),
    "no data key": (lambda i: i.pop("data_key"), "has no data_key"),
    "schedule elsewhere": (lambda i: i["schedule"].update(last_epoch=3), "the schedule is at step 3"),
    "no rates": (lambda i: i["schedule"].pop("_last_lr"), "no learning rates"),
    "backbone without a hash": (lambda i: i["core"].pop("sha256"), "backbone has no sha256|sha256"),
    "backbone in words": (lambda i: i.update(core="gpt2"), "core"),
}
TENSORS = {
    "no losses": (lambda t: t.pop("process.0.losses"), "no losses of process 0"),
    "no random numbers": (lambda t: t.pop("process.0.random"), "no random numbers of process 0"),
    "short random numbers": (lambda t: t.update({"process.0.random": torch.zeros(3, dtype=torch.uint8)}), "random numbers"),
    "no moment": (lambda t: t.pop("optimizer.readout.bias.exp_avg"), "no tensor optimizer.readout.bias.exp_avg"),
    "moment of a shape": (lambda t: t.update({"optimizer.readout.bias.exp_avg": torch.zeros(7)}), "another shape"),
    "moment not finite": (lambda t: t["optimizer.readout.bias.exp_avg"].fill_(torch.nan), "not finite"),
    "no parameter": (lambda t: t.pop("model.readout.bias"), "no tensor model.readout.bias"),
    "unknown tensor": (lambda t: t.update(x=torch.zeros(1)), "unknown tensor x"),
}


@pytest.mark.parametrize("case", [*INFO, *TENSORS])
def test_a_state_that_can_not_be_used_is_named_and_the_one_before_is_taken(case, go_on, stopped, monkeypatch, capsys) -> None:
    change, words = {**INFO, **TENSORS}[case]
    if case in INFO:
        edit(stopped / LAST / state.INFO, change)
    else:
        retensor(stopped / LAST, change)
    monkeypatch.setattr(loop, "batches", lambda self: iter(()))
    monkeypatch.setattr("fpt.training.setup.finish_all", lambda loops, log: [])
    go_on()
    assert "resume: step-00000008: " in (out := capsys.readouterr().out)
    assert "step-00000004, is used" in out and "going on from step 4" in out
    # Without that one, nothing is begun again.
    shutil.rmtree(stopped / "state" / "step-00000004")
    monkeypatch.setattr("fpt.backbones.loading.load_backbone", lambda *a: pytest.fail("the backbone was loaded"))
    refused(go_on, f"no state in .*state can be used: step-00000008: .*({words}).* or start again with --overwrite", monkeypatch)
    assert (stopped / LAST).is_dir() and (stopped / "checkpoint").is_dir()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: [t.pop(n) for n in list(t) if "readout.bias" in n], "lacks 1 tensors"),
        (lambda t: [t.pop(n) for n in list(t) if n.startswith("optimizer.readout.bias")], "optimizer has other parameters"),
    ],
)
def test_what_only_the_model_tells_is_refused_before_the_first_step(change, words, go_on, stopped, monkeypatch) -> None:
    retensor(stopped / LAST, change)
    refused(go_on, words, monkeypatch)


def test_damaged_files_are_refused(go_on, stopped: Path, monkeypatch) -> None:
    for folder in (stopped / "state").iterdir():
        (folder / state.TENSORS).write_bytes(b"x")
    refused(go_on, "has other content than it was written with .and 1 more.", monkeypatch)


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("nowhere"), lambda p: p.write_text("x")])
def test_a_state_folder_that_is_none_is_refused(make, go_on, stopped: Path, monkeypatch) -> None:
    shutil.rmtree(stopped / "state")
    make(stopped / "state")
    refused(go_on, "not a folder", monkeypatch)


def test_a_run_without_a_state_starts_again_only_where_none_was_lost(go_on, stopped: Path, monkeypatch, capsys) -> None:
    shutil.rmtree(stopped / "state")
    refused(go_on, "has a checkpoint of step 8 but no state, although one is saved every 4 steps", monkeypatch)
    monkeypatch.undo()
    monkeypatch.setenv("FPT_HOME", str(stopped.parent / "home"))
    shutil.rmtree(stopped / "checkpoint")
    assert go_on().steps == 12
    assert "was stopped before its first state was saved; starting from step 0" in capsys.readouterr().out
    shutil.rmtree(stopped / "state")
    refused(go_on, "is finished and its states are gone", monkeypatch)


# The best checkpoint.


def damage(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shutil.rmtree, "best checkpoint so far, of step .*can't be used"),
        (damage, "can't be used: .*truncated or was changed"),
        (lambda f: edit(f / "config.json", lambda c: c.pop("step")), "step"),
        (lambda f: edit(f / "config.json", lambda c: c.update(step=1)), "is of step 1, the best one was of step"),
        (lambda f: edit(f / "config.json", lambda c: c["core"].update(sha256="0" * 64)), "is on backbone"),
        (lambda f: edit(f / "config.json", lambda c: c["training"].update(seed=9)), "of another run: of seed 9"),
    ],
)
def test_the_best_checkpoint_is_checked_at_the_start(change, words, go_on, stopped: Path, monkeypatch) -> None:
    change(stopped / "checkpoint")
    monkeypatch.setattr("fpt.backbones.loading.load_backbone", lambda *a: pytest.fail("the backbone was loaded"))
    refused(go_on, words, monkeypatch)


def test_results_describe_the_checkpoint_that_is_there(settings, tmp_path: Path, monkeypatch, capsys) -> None:
    """As when the steps between checkpoint and state come out otherwise, on another number of processes."""
    scores = {4: 0.5, 8: 0.9, 12: 0.1}
    score = validation.score
    monkeypatch.setattr(validation, "score", lambda self, split: {**score(self, split), "auprc": scores[self.progress.step]})
    save = resume.save_state

    def killed(self: Run) -> None:
        if self.progress.step == 8:
            raise KeyboardInterrupt
        save(self)

    with monkeypatch.context() as patch:
        patch.setattr(resume, "save_state", killed)
        with pytest.raises(KeyboardInterrupt):
            run(*settings())
    scores[8] = 0.4  # now no better than step 4, whose model is gone
    results = run(*settings(resume=True))
    assert (results.best_step, results.metrics["valid"]["auprc"]) == (8, 0.9)
    assert "the checkpoint is of step 8, not of step 4" in capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "checkpoint" / "config.json").read_text())
    assert config["step"] == results.best_step

"""What a user may type: one line says what is wrong, before anything is read or written."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from fpt import hub, inspect, plan
from fpt.args import DataArguments, ModelArguments, TrainArguments
from fpt.cli import parse, parse_training, read_arguments
from fpt.errors import FPTError, UsageError
from fpt.evaluation.arguments import EvaluateArguments
from fpt.experiment import __main__ as experiment
from fpt.experiment.spec import ExperimentArguments, cells_of, read_experiment
from fpt.models.base import MODELS
from fpt.plan import PlanArguments
from fpt.report import __main__ as report
from fpt.tasks.base import TASKS

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(words: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    monkeypatch.setattr(sys, "argv", ["train.py", *shlex.split(words)])
    return parse_training("")


def refused(words: str, monkeypatch: pytest.MonkeyPatch) -> str:
    with pytest.raises(FPTError) as caught:
        train(words, monkeypatch)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 1_000
    assert not list(Path().iterdir()) or Path("config.yaml").exists()
    return text


@pytest.mark.parametrize("flag", ["--lerning_rate", "--lerning-rate", "-learning_rate", "\u2013learning_rate", "--Learning_Rate"])
@pytest.mark.parametrize("form", ["{} 1e-3", "{}=1e-3", "--seed 1 {} 1e-3 --max_steps 5"])
def test_a_misspelled_flag_names_the_nearest(flag: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = refused(form.format(flag), monkeypatch)
    assert text.startswith(f"unknown argument {flag!r} (did you mean '--learning_rate'")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max_step 5", "unknown argument '--max_step' (did you mean '--max_steps'"),
        ("--no_resume", "unknown argument '--no_resume' (did you mean '--resume'"),
        ("max_steps=5", "unknown argument 'max_steps' (did you mean '--max_steps'"),
        ("mnist", "unexpected 'mnist': every value comes after its flag"),
        ("--dataset bit-xor digit-add", "unexpected 'digit-add'"),
        ("--num_bitz 3 --dataset bit-xor", "unknown argument '--num_bitz' (did you mean '--num_bits'"),
        ("--mat_width 8", "unknown argument '--mat_width'"),
        ("--max_steps", "--max_steps has no value; --max_steps: Optimizer steps."),
        ("--max_steps --seed 3", "--max_steps has no value; --max_steps:"),
        ("--learning_rate -1e-3", "a value that begins with - is written --learning_rate=-1e-3"),
        ("--dataset", "--dataset has no value"),
        ("--max_steps abc", "--max_steps 'abc' is not a whole number; --max_steps: Optimizer steps."),
        ("--max_steps 5.0", "'5.0' is not a whole number"),
        (f"--max_steps {'9' * 5000}", "is not a whole number"),
        ("--learning_rate 1,5", "--learning_rate '1,5' is not a number; --learning_rate: Peak learning rate"),
        ("--resume maybe", "--resume 'maybe' is not true or false; --resume: Go on"),
        ("--overwrite=2", "--overwrite '2' is not true or false"),
        ("--num_bits x --dataset bit-xor", "--num_bits 'x' is not a whole number; --num_bits: Bits in a string."),
        ("--max_steps 5 --max_steps 6", "--max_steps is given twice: 5 and 6"),
        ("--max_steps 5 --max-steps 6", "--max_steps is given twice: 5 and 6"),
        ("--resume --resume false", "--resume is given twice: True and False"),
        ("--dataset bit-xor --dataset mnist", "--dataset is given twice: bit-xor and mnist"),
        ("--data_dir=", "--data_dir is empty"),
        ("--dataset ''", "unknown dataset ''"),
    ],
)
def test_other_slips(words: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert message in refused(words, monkeypatch)


def test_what_is_right_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--max_steps 5 --max_steps 5 --max-steps=5 --resume --overwrite=no --learning_rate 1E-3"
    data, _, training = train(f"{words} --skip_folders '' --dataset imagefolder:x", monkeypatch)
    assert (training.max_steps, training.resume, training.overwrite, training.learning_rate) == (5, True, False, 1e-3)
    assert data.given_options["skip_folders"] == ""
    assert train("--augment 2 --tune lora --lora_rank 4 --tokenizer bpe --vocab_size 300", monkeypatch)[1].lora_rank == 4


KINDS = [DataArguments, ModelArguments, TrainArguments, ExperimentArguments, PlanArguments, EvaluateArguments]
SETS = {"tdc/NAME": "tdc/bbb_martins", "ett/NAME": "ett/ETTh1", "ucr/NAME": "ucr/GunPoint"}
OWN = {TASKS[SETS.get(name, name.replace("FILE", "x.csv").replace("DIR", "x"))].options for name in TASKS}
OWN |= {MODELS.find(name).options for name in MODELS}
NUMBERS = [
    (kind, one.name, float in (hint, *getattr(hint, "__args__", ())))
    for kind in [*KINDS, *sorted(OWN - {None}, key=lambda kind: (kind.__module__, kind.__name__))]
    for one in fields(kind)
    if one.init and {int, float} & {hint := get_type_hints(kind)[one.name], *getattr(hint, "__args__", ())}
]
NEEDED = {EvaluateArguments: {"checkpoint": "run"}, ExperimentArguments: {"file": "x.yaml"}}


@pytest.mark.parametrize(("kind", "name", "is_float"), NUMBERS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_no_number_is_not_finite_or_of_another_type(kind: type, name: str, is_float: bool) -> None:
    from fpt.flags.checks import check_types

    for value in (float("nan"), float("inf"), -float("inf"), "5", True, [1]) if is_float else (5.0, float("nan"), "5", True, [1]):
        with pytest.raises(FPTError, match=f"--{name}"):
            check_types(kind(**{**NEEDED.get(kind, {}), name: value}))


@pytest.mark.parametrize(
    "words",
    [
        *(
            f"--{name} 0"
            for name in ("max_steps", "per_device_batch_size", "eval_steps", "save_steps", "keep_last", "num_layers")
        ),
        *(f"--{name}=-1" for name in ("seed", "warmup_steps", "weight_decay", "max_grad_norm", "split_seed", "learning_rate")),
        *("--learning_rate 0", "--dropout 1", "--dropout=-0.1", "--max_bad_fraction 1.1", "--augment=-1", "--num_proc 0"),
        *(f"--{name} {10**12}" for name in ("max_steps", "vocab_size", "seed", "learning_rate", "lora_rank", "num_proc")),
        *("--seeds 1,1", "--seeds 1,x", "--seeds=-1", "--learning_rates nan", "--learning_rates 1e-3,inf", "--learning_rates 0"),
        *("--lr_scheduler greedy", "--lr_scheduler cosin", "--mixed_precision fp8", "--core_dtype int8", "--report_to x"),
        *("--dataset bit-xor --num_bits 0", "--dataset bit-memory --mask_probability 2", "--dataset listops --max_depth 1"),
        *("--model mat --mat_heads 0", "--model mat --mat_heads 3", "--dataset mnist --model vit --vit_heads 5"),
        *("--model morgan --estimator forest", "--dataset digit-add --num_digits 0", "--dataset mnist-add --pairs_per_digit 0"),
    ],
)
def test_values_that_make_no_sense(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = words.split("--")[-1].split("=")[0].split()[0]
    assert f"--{name} " in refused(words, monkeypatch)


@pytest.mark.parametrize(
    ("words", "unread"),
    [
        ("--vocab_size 100", "vocab_size"),
        ("--vocab_size 100 --tokenizer char", "vocab_size"),
        ("--dataset listops --augment 2", "augment"),
        ("--dataset csv:x.csv --keep_notation", "keep_notation"),
        ("--lora_rank 8", "lora_rank"),
        ("--tune ln,in --lora_alpha 1", "lora_alpha"),
        ("--orthogonal_gain 1", "orthogonal_gain"),
        ("--input_positions auto", "input_positions"),
        ("--dataset mnist --input_init core", "input_init"),
        ("--backbone smollm2 --backbone_seed 1", "backbone_seed"),
        ("--backbone random:gpt2 --backbone_revision main", "backbone_revision"),
        ("--backbone run:x --backbone_revision main", "backbone_revision"),
        ("--model morgan --max_steps 5 --learning_rate 1e-3 --resume", "max_steps learning_rate resume"),
        ("--model morgan --backbone gpt2 --tokenizer char", "backbone tokenizer"),
        ("--model mat --backbone gpt2 --tune fpt", "backbone tune"),
        ("--model full --tune fpt", "tune"),
        ("--model lstm --backbone gpt2", "backbone"),
        ("--hub_private", "hub_private"),
        ("--project x", "project"),
        ("--project x --report_to none", "project"),
        ("--learning_rates 1e-3,1e-4 --learning_rate 1e-3", "learning_rate"),
        ("--seeds 1,2 --seed 1", "seed"),
        ("--lr_scheduler constant --warmup_steps 5", "warmup_steps"),
        ("--tune out --embedding_lr_scale 2", "embedding_lr_scale"),
        ("--dataset bit-xor --data_dir raw --tokenizer char --num_proc 2", "data_dir tokenizer num_proc"),
        ("--dataset mnist --max_length 10", "max_length"),
        ("--dataset csv:x.csv --num_mels 8 --gray --numbers_per_token 2", "num_mels gray numbers_per_token"),
        ("--dataset csv:x.csv --input_type image --features mel", "features"),
        ("--dataset csv:x.parquet --delimiter ;", "delimiter"),
        ("--dataset csv:x.csv --sheet a", "sheet"),
        ("--dataset speech-commands --patch_size 8", "patch_size"),
        ("--dataset speech-commands --features raw --num_mels 8", "num_mels"),
        ("--dataset csv:x.csv --label_type number --positive_label 1", "positive_label"),
    ],
)
def test_a_flag_that_nothing_reads_is_refused_by_name(words: str, unread: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = refused(words, monkeypatch)
    assert "not read: " in text and "Leave " in text
    assert {word.strip(",") for word in text.split() if word.startswith("--")} >= {f"--{name}" for name in unread.split()}
    with pytest.raises(UsageError):
        train(words, monkeypatch)


@pytest.mark.parametrize(("main", "name"), [(inspect.main, "inspect"), (plan.main, "plan")])
@pytest.mark.parametrize("words", ["--output_dir x", "--resume", "--push_to_hub a/b", "--max_steps 500", "--input_init core"])
def test_inspect_and_plan_refuse_what_is_of_a_run(main: Any, name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"/x/fpt/{name}.py", "--dataset", "bit-xor", *words.split()])
    with pytest.raises(FPTError, match=rf"{words.split()[0]} is not read: nothing is trained here"):
        main()
    monkeypatch.setattr(sys, "argv", ["x", "--model", "mat"])
    with pytest.raises(FPTError, match="--model mat has no frozen backbone"):
        main()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--checkpoint is needed; --checkpoint: Folder that train.py wrote"),
        ("--chekpoint run", "unknown argument '--chekpoint' (did you mean '--checkpoint'"),
        ("--checkpoint run --predict a.csv --output b.csv --split test", "--split is not read: --predict reads a file"),
        ("--checkpoint run --column x --decimal ,", "--column, --decimal are not read: it is for --predict"),
        ("--checkpoint run --split tset", "unknown --split 'tset' (did you mean 'test'?); known: train, valid, test"),
        ("--checkpoint run --eval_batch_size 0", "--eval_batch_size 0 must be at least 1"),
    ],
)
def test_evaluate(words: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words.split()])
    with pytest.raises(FPTError) as caught:
        parse("", EvaluateArguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (hub.main, "", "CHECKPOINT is needed; CHECKPOINT: folder that train.py wrote"),
        (hub.main, "run user/x --privat", "unknown argument '--privat' (did you mean '--private'"),
        (hub.main, "run user/x --private=yes", "--private: ignored explicit argument"),
        (hub.main, "run user/x more", "unexpected 'more'"),
        (report.main, "", "RUNS is needed"),
        (report.main, "run --titel x", "unknown argument '--titel' (did you mean '--title'"),
        (report.main, "run --samples x", "--samples 'x' is not a whole number; --samples: test samples"),
        (report.main, "run --samples=-1", "--samples -1 must be at least 0"),
        (report.main, "run --samples 0 --data_dir raw", "--data_dir is not read"),
        (experiment.main, "", "--file is needed; --file: YAML file"),
        (experiment.main, "x.yaml --sedes 3", "unknown argument '--sedes' (did you mean '--seeds'"),
        (experiment.main, "x.yaml --jobs 0", "--jobs 0 must be at least 1"),
        (experiment.main, "x.yaml --seeds many", "--seeds 'many' is not a whole number"),
    ],
)
def test_the_other_commands(main: Any, words: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", *words.split()])
    with pytest.raises(FPTError) as caught:
        main()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_parser_of_argparse_keeps_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--private", action="store_true")
    monkeypatch.setattr(sys, "argv", ["x", "a", "a", "b"])
    found = read_arguments(parser)
    assert (found.runs, found.samples, found.private) == (["a", "a", "b"], 6, False)


def test_help_names_config_and_each_flag_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as caught:
        train("--help", monkeypatch)
    assert not caught.value.code
    shown = capsys.readouterr().out
    assert shown.startswith("usage: train.py [--config FILE] [--flag value ...]\n")
    assert "--max_steps N " in shown and "--max-steps" not in shown and "(default: None)" not in shown
    assert "--config FILE " in shown


FILES = sorted((ROOT / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_cell_of_the_experiments_is_understood(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fpt.registry.missing_of", lambda packages: "")  # as if every model of the files was installed
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    budgets = {name for part in (said, *said["rows"]) for name in part.get("budgets") or {}}
    assert budgets
    for budget in sorted(budgets):
        table = read_experiment(path, budget)
        for cell in cells_of(table, Path("x"), 1, "raw"):
            train(shlex.join(cell.command([])[1:]), monkeypatch)


def test_rows_read_what_they_can_of_the_table_and_all_of_their_own(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"name": "a"}, {"name": "b", "arguments": {"model": "morgan"}}]
    said = {"arguments": {"max_steps": 5}, "budgets": {"small": {}}, "rows": rows}
    (tmp_path / "e.yaml").write_text(json.dumps(said), encoding="utf-8")
    table = read_experiment(tmp_path / "e.yaml", "small")
    assert [row.arguments for row in table.rows] == [{"max_steps": 5}, {"model": "morgan"}]
    for key, value, message in (
        ("warmup_steps", 5, "row 'b': --warmup_steps is not read: --model morgan"),
        ("split_seed", "x", "row 'b': --split_seed 'x' is not a whole number"),
        ("split_seed", [1], "row 'b': split_seed must be one value, not list"),
        ("config", "x", "row 'b': each cell has its own --config"),
    ):
        rows[1]["arguments"] = {"model": "morgan", key: value}
        (tmp_path / "e.yaml").write_text(json.dumps(said), encoding="utf-8")
        with pytest.raises(FPTError) as caught:
            read_experiment(tmp_path / "e.yaml", "small")
        assert message in str(caught.value)

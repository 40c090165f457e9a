"""What the documentation says: commands that the scripts understand, links that lead somewhere."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import molecules, write_tdc
from hub_server import HubServer
from test_modalities import write_cifar10, write_folders, write_mnist, write_speech, write_table
from test_ucr import rows_of, write_ts

from fpt import args as arguments
from fpt.args import DataArguments, ModelArguments, TrainArguments, as_dict
from fpt.backbones.base import FAMILIES
from fpt.cli import parse, parse_training
from fpt.evaluation import run as evaluation
from fpt.evaluation.arguments import EvaluateArguments
from fpt.experiment.spec import ExperimentArguments, read_experiment
from fpt.files.whole import write_json
from fpt.models.base import MODELS, Estimator
from fpt.plan import PlanArguments
from fpt.results import RunResults
from fpt.tasks.base import TASKS
from fpt.tasks.ett import COLUMNS, MONTHS
from fpt.training import run
from fpt.training.summary import Summary

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "experiments/README.md")] + sorted((ROOT / "docs").glob("*.md"))


def commands() -> list[str]:
    """Every command in a block of code, and every one that is written in a line of text."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            found += [] if language else block.replace("\\\n", " ").splitlines()
        found += re.findall(r"`((?:accelerate launch|python|make) [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for script in ("train.py", "evaluate.py"):
        found += ast.get_docstring(ast.parse((ROOT / script).read_text())).splitlines()
    found = [re.sub(r"\s+#.*", "", line).strip() for line in found]
    known = re.compile(r"(accelerate launch |python evaluate\.py |python -m fpt\.|make )")
    return sorted({line for line in found if known.match(line) and "…" not in line})


COMMANDS = commands()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)
    if "--config_file" in words:
        config = words[words.index("--config_file") + 1]
        assert "X" in config or (ROOT / config).is_file()
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    script = next(i for i, word in enumerate(words) if word.endswith(".py") or word.startswith("fpt."))
    # Names that stand for something.
    rest = [word for word in words[script + 1 :] if word not in ("--help", "DIR", "FILE")]
    monkeypatch.setattr(sys, "argv", ["script", *rest])
    name = words[script]
    monkeypatch.chdir(tmp_path)
    with record(rest):
        understand(name, rest, monkeypatch)


@contextlib.contextmanager
def record(words: list[str]) -> Iterator[None]:
    """The record that ``--config`` names, for as long as it is read."""
    if "--config" not in words:
        yield
        return
    path = Path(words[words.index("--config") + 1])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**as_dict(DataArguments()), **as_dict(TrainArguments()), "global_batch_size": 16})
    yield
    path.unlink()


def understand(name: str, rest: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "train.py":
        parse_training("")
    elif name in ("fpt.inspect", "fpt.plan"):
        parse_training("", *([PlanArguments] if name == "fpt.plan" else []))
    elif name == "evaluate.py":
        parse("", EvaluateArguments)
    elif name == "fpt.experiment":
        (said,) = parse_experiment(rest, monkeypatch)
        if said.file != "FILE":
            read_experiment(ROOT / said.file, said.budget, said.rows)
    elif name in ("fpt.launch", "fpt.report", "fpt.hub", "fpt.train", "fpt.evaluate"):
        assert importlib.util.find_spec(name)
    elif name.startswith("benchmarks/"):
        assert (ROOT / name).is_file()
    else:
        raise AssertionError(f"what is {name}?")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small data under the names that the documentation uses."""
    folder = tmp_path_factory.mktemp("desk")
    for write in (write_mnist, write_cifar10, write_speech):
        write(folder / "raw")
    write_tdc(folder / "raw", molecules()[:80])
    write_folders(folder)
    for name in ("raw/JapaneseVowels/JapaneseVowels", "series/X"):
        write_ts(folder / f"{name}_TRAIN.ts", rows_of(45))
        write_ts(folder / f"{name}_TEST.ts", rows_of(9, start=45))
    rows = [
        {"smiles": smiles, "active": label, "x1": i, "x2": i % 3, "x3": i / 7, "y": i * 0.5}
        for i, (smiles, label) in enumerate(molecules()[:80])
    ]
    write_table(folder / "mine.csv", rows)
    hours = pd.date_range("2021-03-01", periods=1200, freq="h").astype(str)
    load = [{"date": hour, "load": i % 24 + i / 100, "price": 50 - i % 7} for i, hour in enumerate(hours)]
    write_table(folder / "load.csv", load)
    write_table(
        folder / "raw" / "ett" / "ETT-small" / "ETTh1.csv",
        [{"date": r["date"], **dict.fromkeys(COLUMNS, r["load"])} for r in load],
    )
    write_table(folder / "user" / "name" / "train.csv", [{"text": f"word {i % 5} {i}", "label": "ab"[i % 2]} for i in range(60)])
    return folder


TRAINING = [command for command in COMMANDS if " train.py " in command and "--help" not in command]


@pytest.mark.parametrize("command", TRAINING)
def test_a_training_command_runs(command: str, desk: Path, llama_dir: Path, tmp_path: Path, monkeypatch) -> None:
    """One step through one block, on small data in the same layout, with small weights where it names some."""
    monkeypatch.setattr("fpt.tasks.base.GeneratedTask.sizes", {"train": 32, "valid": 16, "test": 16})
    monkeypatch.setitem(MONTHS, "ETTh1", 50)
    monkeypatch.chdir(desk)
    words = shlex.split(command.replace("RAW", "raw"))
    monkeypatch.setattr(sys, "argv", words[words.index("train.py") :])
    with record(words):
        data, model, training = parse_training("")
    data.data_dir = None if ":" in data.dataset else "raw"
    if model.model in ("fpt", "full"):
        model.num_layers = 1
        if not model.backbone.startswith("random:"):
            model.backbone = str(llama_dir)
    small = {"mat_width": 32, "mat_layers": 2, "ast_layers": 2}
    model.given_options |= {name: value for name, value in small.items() if name in model.given_options}
    training.max_steps = training.eval_steps = 1
    training.output_dir, training.push_to_hub, training.resume = str(tmp_path / "run"), None, False
    results = run(data, model, training)
    for one in results.runs if isinstance(results, Summary) else [results]:
        assert one.steps == (0 if isinstance(MODELS[model.model], Estimator) else 1)
    if isinstance(results, RunResults) and results.model == "fpt":
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "--checkpoint", str(tmp_path / "run")])
        evaluation.run(*parse("", EvaluateArguments))


def examples() -> list[tuple[str, str]]:
    """Every block of Python in the documentation, with the commands below it; tests/test_hub.py has the one that asks the Hub."""
    block = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
    found = [match.groups(default="") for page in PAGES for match in block.finditer(page.read_text(encoding="utf-8"))]
    return [(code, commands) for code, commands in found if "fpt.load" not in code]


EXAMPLES = examples()


@pytest.mark.parametrize(
    ("code", "commands"), EXAMPLES, ids=[re.findall(r"^class (\w+)", code, re.MULTILINE)[-1] for code, _ in EXAMPLES]
)
def test_an_example_does_what_its_commands_say(
    code: str, commands: str, desk: Path, llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """In a file of its own it is registered; it is then trained for two steps and scored again by name."""
    for registry in (TASKS, FAMILIES, MODELS):
        list(registry)
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    assert len(code.splitlines()) < 35
    exec(compile(code, "example", "exec", dont_inherit=True), {"__name__": "example"})
    name = re.search(r'register\("([\w-]+)"\)', code).group(1)
    assert name in TASKS or name in FAMILIES or name in MODELS
    monkeypatch.setattr("fpt.tasks.base.GeneratedTask.sizes", {"train": 64, "valid": 32, "test": 32})
    monkeypatch.chdir(desk)
    for command in commands.splitlines() or ([f"python train.py --dataset {name}"] if name in TASKS else []):
        words = shlex.split(command)
        monkeypatch.setattr(sys, "argv", words[1 if "train.py" in words else 2 :])
        if "train.py" not in words:
            importlib.import_module(words[2]).main()
            assert name in capsys.readouterr().out
            continue
        data, model, training = parse_training("")
        data.data_dir = "raw" if data.dataset == "cyp3a4" else None
        if model.model == "fpt" and not model.backbone.startswith("random:"):
            model.backbone = str(llama_dir)
        training.max_steps, training.output_dir = 2, str(tmp_path / "run")
        run(data, model, training)
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        assert name in json.dumps(results["arguments"])
        assert results["steps"] == (0 if isinstance(MODELS[model.model], Estimator) else 2)
        if not isinstance(MODELS[model.model], Estimator):
            monkeypatch.setattr(sys, "argv", ["evaluate.py", "--checkpoint", str(tmp_path / "run"), "--data_dir", "raw"])
            asked = parse("", EvaluateArguments)
            evaluation.run(*asked)


def test_every_base_class_of_the_page_has_an_example() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for kind in ("GeneratedTask", "ImageTask", "Family", "NetworkModel", "Estimator"):
        assert re.search(rf"^class \w+\({kind}\):", text, re.MULTILINE), kind
    assert all(commands for code, commands in EXAMPLES if code in text)


PLANNING = [command for command in COMMANDS if re.search(r"fpt\.(inspect|plan) --", command)]


@pytest.mark.parametrize("command", PLANNING)
def test_a_planning_command_runs(command: str, desk: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(desk)
    words = shlex.split(command)
    more = [] if "--data_dir" in words else ["--data_dir", "raw"]
    monkeypatch.setattr(sys, "argv", [*words[2:], *more])
    importlib.import_module(words[2]).main()
    assert "gpt2-xl" in capsys.readouterr().out


def test_a_run_is_trained_pushed_scored_and_shown(desk: Path, llama_dir: Path, here: HubServer, monkeypatch, capsys) -> None:
    """Every other command of the documentation, in the order in which a user comes to them."""
    monkeypatch.chdir(desk)
    data, model, training = DataArguments(data_dir="raw"), ModelArguments(backbone=str(llama_dir)), TrainArguments()
    training.max_steps = training.eval_steps = 2
    run(data, model, training)
    series = DataArguments(dataset="forecast:load.csv")
    series.given_options = {"horizon": 24, "lookback": 168}
    run(series, ModelArguments(model="dlinear"), TrainArguments(max_steps=2, eval_steps=2, output_dir="runs/load"))
    shutil.copy("load.csv", "history.csv")
    shutil.copytree("runs/cyp3a4", "runs/experiments/cyp3a4/small/fpt/seed-1")
    for seed in (1, 2, 3):
        shutil.copytree("runs/cyp3a4", f"runs/five/seed-{seed}")
    shutil.copytree(ROOT / "experiments", "experiments")
    asked = [c for c in COMMANDS if re.search(r"evaluate\.py|fpt\.(hub|report|experiment) ", c)]
    done: dict[str, int] = dict.fromkeys(("hub", "evaluate", "report", "experiment"), 0)
    for command in sorted(asked, key=lambda c: next(i for i, kind in enumerate(done) if kind in c)):
        words = shlex.split(command.replace(" DIR", " runs/cyp3a4").replace(" FILE", " experiments/cyp3a4.yaml"))
        name = next(kind for kind in done if kind in words[words.index("-m") + 1 if "-m" in words else 1])
        more = {
            "evaluate": [] if "--predict" in words else ["--data_dir", "raw"],
            "report": ["--samples", "1"],
            "experiment": ["--dry_run"],
        }.get(name, [])
        monkeypatch.setattr(sys, "argv", [*words[words.index("-m") + 1 if "-m" in words else 1 :], *more])
        module = {"evaluate": "evaluate", "report": "fpt.report.__main__", "experiment": "fpt.experiment.__main__"}.get(
            name, f"fpt.{name}"
        )
        importlib.import_module(module).main()
        done[name] += 1
    assert min(done.values()) > 0
    assert "model.safetensors" in here.repositories["user/fpt-cyp3a4"].commits[-1][1]
    assert len(Path("out.csv").read_text().splitlines()) == 81
    assert len(Path("forecast.csv").read_text().splitlines()) == 25
    assert "<html" in Path("report.html").read_text()
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("accelerate launch ")]
    assert len(shown) > 10
    for line in shown:
        words = shlex.split(line)
        monkeypatch.setattr(sys, "argv", words[words.index("train.py") :])
        parse_training("")


def parse_experiment(rest: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[ExperimentArguments]:
    if rest and not rest[0].startswith("-"):
        rest = ["--file", *rest]
    elif "--file" not in rest:
        rest = ["--file", "FILE", *rest]
    monkeypatch.setattr(sys, "argv", ["script", *rest])
    return parse("", ExperimentArguments)


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 25
    assert arguments is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


def test_files_that_are_named_are_there() -> None:
    for page in PAGES:
        for name in re.findall(
            r"`((?:fpt|tests|benchmarks|examples|experiments|accelerate_configs|ds_configs)/[\w./]+)`", page.read_text()
        ):
            assert (ROOT / name).exists() or "X" in name or "NAME" in name, f"{page.name}: {name}"


def test_the_figure_of_the_results_shows_the_numbers_of_the_table(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("results_figure", ROOT / "docs" / "results.py")
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    figure.draw(str(tmp_path / "results.svg"))
    # What is written in it; paths differ between releases of matplotlib.
    drawn, kept = (
        re.findall(r"<!-- (.*?) -->", path.read_text()) for path in (tmp_path / "results.svg", ROOT / "docs/results.svg")
    )
    assert drawn == kept
    last = figure.read().groupby("model").last()
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for name, row in last.iterrows():
        assert name in kept or f"{name} (no steps)" in kept
        line = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
        assert f"| {row.valid_auprc:.4f} ± " in line

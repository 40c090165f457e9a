"""Small data and small backbones that the tests make themselves; real data only from $FPT_TEST_DATA."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Read when huggingface_hub is imported: no test waits for a network that it must not need.
os.environ["HF_HUB_OFFLINE"] = "1"

import huggingface_hub
import pytest
import torch
from accelerate.state import AcceleratorState
from hub_server import TOKEN, HubServer
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel

import fpt.checkpoint.remote
from fpt.args import DataArguments, ModelArguments, TrainArguments
from fpt.data.tokenizers import build_tokenizer

# Threads cost such small models more than they bring; the scripts that the tests start have their own setting.
torch.set_num_threads(1)

GROUPS = ["C", "N", "O", "Cl", "Br", "F", "C#N", "OC"]
LEFT = ["c1ccccc1", "c1ccncc1", "C1CCNCC1", "c1ccoc1", "C1CCOCC1", "c1ccsc1", "C1CCCC1", "c1nccnc1"]
LINKS = ["", "C", "O", "CC", "NC"]
RIGHT = ["c2ccc({g})cc2", "c2cnc({g})cc2", "C2CCC({g})CC2", "c2cc({g})co2", "c2cc({g})cs2"]

# What `make check` runs: files that take seconds. All others are marked slow.
FAST = """
    config_file encodings escapes folders labels layout one_door optional_packages outputs scores tasks
""".split()
# Files whose tests take minutes are started first, so that the processes of pytest-xdist end together; the option
# --no-loadscope-reorder keeps the order.
FIRST = "parallel docs experiments hostile stop cli kills training baselines cells hub install model tasks together speed".split()
LAUNCH = "cli consoles install kills launched launching parallel resume stop together two_precisions".split()


def pytest_configure() -> None:
    """Ctrl-C is ignored by what a shell starts in the background, and by all that it starts in turn; tests press it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m "not slow ..."``, don't even import the files of slow tests: that takes longer than the fast tests."""
    name = collection_path.stem.removeprefix("test_")
    if config.option.markexpr.startswith("not slow") and collection_path.name.startswith("test_") and name not in FAST:
        return True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their file, and those on real data by their fixture; put the longest first."""
    order = {f"test_{name}": number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
    for item in items:
        name = item.path.stem.removeprefix("test_")
        if name not in FAST:
            item.add_marker("slow")
        if name in LAUNCH:
            item.add_marker("launch")
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker("real")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Iterator[None]:
    """A lone surrogate in what a test printed, logged or raised would end the process of pytest-xdist that sends its report."""
    return utf_8((yield))


def utf_8(value):
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {utf_8(key): utf_8(item) for key, item in value.items()}
    # A skipped test's place is a tuple, as pytest's summary needs it.
    return type(value)(utf_8(item) for item in value) if type(value) in (list, tuple) else value


def molecules() -> list[tuple[str, int]]:
    """400 valid SMILES on 200 scaffolds; label 1 for those with a halogen, so that there is something to learn."""
    out = []
    for n, (left, link, right) in enumerate(itertools.product(LEFT, LINKS, RIGHT)):
        for group in (GROUPS[n % 8], GROUPS[(n * 3 + 1) % 8]):
            out.append((left + link + right.format(g=group), int(group in ("Cl", "Br", "F"))))
    return out


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has its own cache."""
    monkeypatch.setenv("FPT_HOME", str(tmp_path / "home"))
    # Accelerate keeps one state for a process; a script has it to itself.
    AcceleratorState._reset_state(reset_partial_state=True)
    return tmp_path / "home"


@pytest.fixture
def packaged(home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests on the packaged backbone: one cache for all of them, since its conversion takes most of a minute."""
    base = tmp_path_factory.getbasetemp()
    # Below pytest-xdist each process has a folder in that of the session.
    session = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    monkeypatch.setenv("FPT_HOME", str(session / "packaged"))


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no offline data package was installed."""
    monkeypatch.setattr("fpt.tasks.sources.package_folder", lambda name: None)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A --data_dir in pytdc's layout."""
    return write_tdc(tmp_path / "raw", molecules())


def write_tdc(folder: Path, rows: list[tuple[str, int]]) -> Path:
    """Write `rows` as pytdc caches CYP3A4_Veith; returns `folder`."""
    (folder / "tdc").mkdir(parents=True, exist_ok=True)
    lines = ["Drug_ID\tDrug\tY", *(f"{i}.0\t{smiles}\t{label}" for i, (smiles, label) in enumerate(rows))]
    (folder / "tdc" / "cyp3a4_veith.tab").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small pretrained-looking backbone of each family, with norms and biases that are not all ones and zeros."""
    from test_backbones import MODELS

    found = {}
    for name, (kind, config, options) in MODELS.items():
        torch.manual_seed(len(name))
        model = kind(config, **options)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
    return found


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained-looking Llama backbone with a tokenizer: 3 layers of width 32."""
    return make_llama(tmp_path_factory.mktemp("llama"))


def make_llama(folder: Path, layers: int = 3, width: int = 32) -> Path:
    """Write a Llama backbone of random weights with a tokenizer of characters; returns `folder`."""
    tokenizer = build_tokenizer(["".join(map(chr, range(33, 127)))], DataArguments(tokenizer="bpe", vocab_size=98), words=False)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gpt2_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 core without a tokenizer: 2 layers of width 32."""
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    GPT2Model(GPT2Config(vocab_size=50, n_positions=128, n_embd=32, n_layer=2, n_head=4)).save_pretrained(folder)
    return folder


def short_run(data_dir: Path, backbone: Path, output: Path):
    """The three argument groups of a run of 12 steps."""
    return [
        DataArguments(data_dir=str(data_dir)),
        ModelArguments(backbone=str(backbone)),
        TrainArguments(
            output_dir=str(output), max_steps=12, eval_steps=4, warmup_steps=2, learning_rate=1e-2, max_grad_norm=1.0, dropout=0.1
        ),
    ]


@pytest.fixture
def settings(data_dir: Path, llama_dir: Path, tmp_path: Path):
    """Returns a function that makes the three argument groups of a short run; keywords change them."""

    def make(**changes):
        groups = short_run(data_dir, llama_dir, tmp_path / "run")
        for name, value in changes.items():
            owner = [g for g in groups if hasattr(g, name)]
            assert owner, name
            setattr(owner[0], name, value)
        return groups

    return make


@pytest.fixture
def real_data() -> Path:
    """The folder with real raw data; skips when $FPT_TEST_DATA is not set."""
    folder = os.environ.get("FPT_TEST_DATA")
    if not folder:
        pytest.skip("FPT_TEST_DATA is not set: no real data to test on")
    return Path(folder)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def here(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The server as this process's Hub, with a token and an empty cache."""
    values = {"ENDPOINT": hub.url, "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}"}
    values |= {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_HUB_CACHE": str(tmp_path / "hf")}
    for name, value in values.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setattr(fpt.checkpoint.remote, "WAIT", 0.01)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return hub

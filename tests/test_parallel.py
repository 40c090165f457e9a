"""Several processes, several machines, and runs that are stopped: the results are those of one process that was left alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import molecules, short_run, write_tdc
from safetensors.torch import load_file

from fpt.checkpoint import find_checkpoint, load_checkpoint
from fpt.data.batches import LengthGroupedBatchSampler, SortedBatchSampler
from fpt.errors import FPTError
from fpt.training import run, state

ROOT = Path(__file__).parent.parent
STRATEGIES = {"ddp": None, "zero1": "zero1.json", "zero2": "zero2.json", "zero3": "zero3.json"}


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def environment(strategy: str = "ddp") -> dict[str, str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    if STRATEGIES[strategy]:
        env |= {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": f"ds_configs/{STRATEGIES[strategy]}"}
    return env


def launch(processes: int, *arguments: str, strategy: str = "ddp", script: str = "train.py") -> subprocess.CompletedProcess[str]:
    """Start a script in several processes of this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", free_port()]
    return subprocess.run(
        [*command, script, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment(strategy), timeout=300
    )


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    """A folder with raw data and a run of 20 steps by one process, the loss of every step in its history."""
    folder = tmp_path_factory.mktemp("parallel")
    write_tdc(folder / "raw", molecules())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPT_HOME", str(folder / "home"))
        run(*groups(folder, llama_dir, "single", per_device_batch_size=32))
    return folder


def groups(folder: Path, backbone: Path, name: str, **changes):
    found = short_run(folder / "raw", backbone, folder / name)
    for key, value in {"max_steps": 20, "eval_steps": 1, "save_steps": 10, "dropout": 0.0, **changes}.items():
        setattr(found[2], key, value)
    return found


def arguments(folder: Path, backbone: Path, name: str, **changes) -> list[str]:
    """The command line of `groups`."""
    data, model, training = groups(folder, backbone, name, **changes)
    names = ("max_steps", "eval_steps", "save_steps", "warmup_steps", "learning_rate", "max_grad_norm", "dropout")
    names = (*names, "per_device_batch_size", "resume", "keep_last")
    given = [word for n in names for word in (f"--{n}", str(getattr(training, n)))]
    return ["--data_dir", data.data_dir, "--backbone", model.backbone, "--output_dir", training.output_dir, *given]


def losses(folder: Path) -> list[float]:
    return [h["train_loss"] for h in json.loads((folder / "results.json").read_text())["history"]]


def same_weights(one: Path, two: Path, tolerance: float) -> bool:
    first, second = (load_file(find_checkpoint(str(f)) / "model.safetensors") for f in (one, two))
    return set(first) == set(second) and all(torch.allclose(first[n], second[n], atol=tolerance) for n in first)


def trained(strategy: str, place: Path, backbone: Path) -> Path:
    """A run of 20 steps by two processes, with both of its states; launched by the first test that asks for it."""
    folder = place / strategy
    if not (folder / "results.json").exists():
        out = launch(2, *arguments(place, backbone, strategy, keep_last=2), strategy=strategy)
        assert out.returncode == 0, out.stderr[-3000:]
    return folder


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_has_the_losses_and_the_checkpoint_of_one_process(strategy: str, place: Path, llama_dir: Path) -> None:
    trained(strategy, place, llama_dir)
    results = json.loads((place / strategy / "results.json").read_text())
    assert results["device"]["strategy"].startswith("DDP" if strategy == "ddp" else f"DeepSpeed ZeRO-{strategy[-1]}")
    assert len(losses(place / strategy)) == 20
    assert np.abs(np.subtract(losses(place / strategy), losses(place / "single"))).max() < 1e-4
    expected = json.loads((place / "single" / "results.json").read_text())
    for split, metrics in results["metrics"].items():
        assert metrics == pytest.approx(expected["metrics"][split], abs=1e-4)
    assert same_weights(place / strategy, place / "single", 1e-4)
    model, _, config = load_checkpoint(find_checkpoint(str(place / strategy)))
    assert all(p.dtype == torch.float32 for p in model.trainable_parameters().values())
    sizes = [(find_checkpoint(str(place / n)) / "model.safetensors").stat().st_size for n in (strategy, "single")]
    assert sizes[0] == sizes[1]
    assert config.core == load_checkpoint(find_checkpoint(str(place / "single")))[2].core


@pytest.mark.parametrize(
    ("before", "after", "processes"),
    [
        *(("ddp", "ddp", 2), ("zero1", "zero1", 2), ("zero2", "zero2", 2), ("zero3", "zero3", 2)),
        *(("zero3", "ddp", 1), ("ddp", "zero1", 2)),
    ],
)
def test_a_run_goes_on_under_any_strategy(before: str, after: str, processes: int, place: Path, llama_dir: Path) -> None:
    kept = shutil.copytree(trained(before, place, llama_dir), place / f"{before}-{after}")
    uninterrupted = losses(kept)
    # As if it had been stopped after its first state.
    shutil.rmtree(kept / "state" / "step-00000020")
    (kept / "results.json").unlink()
    out = launch(
        processes,
        *arguments(place, llama_dir, kept.name, resume=True, per_device_batch_size=32 // processes),
        strategy=after,
    )
    assert out.returncode == 0, out.stderr[-3000:]
    assert "going on from step 10" in out.stdout
    assert len(losses(kept)) == 20
    # The same strategy goes on as if it had not stopped; two strategies round differently.
    assert np.abs(np.subtract(losses(kept), uninterrupted)).max() < (1e-5 if before == after else 1e-4)
    assert np.abs(np.subtract(losses(kept), losses(place / "single"))).max() < 1e-4
    assert same_weights(kept, place / "single", 1e-4)


@pytest.fixture
def networks():
    """Two hosts of their own on this machine, joined by a cable; skips where that is not allowed."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the command ip")
    hosts = [f"fpt{os.getpid()}{side}" for side in "ab"]
    commands = [f"netns add {host}" for host in hosts]
    commands += [f"link add {hosts[0]} type veth peer name {hosts[1]}"]
    for number, host in enumerate(hosts, 1):
        commands += [f"link set {host} netns {host}", f"-n {host} addr add 10.98.0.{number}/24 dev {host}"]
        commands += [f"-n {host} link set {host} up", f"-n {host} link set lo up"]
    try:
        for command in commands:
            done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"network namespaces are not allowed here: {done.stderr.strip()}")
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)


def two_machines(place: Path, backbone: Path, name: str, address: str, prefixes: list[list[str]], envs: list[dict]) -> list[str]:
    """Start a run as on two machines, and return what each printed."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/multi_node.yaml"]
    command += ["--num_processes", "2", "--main_process_ip", address, "--main_process_port", free_port()]
    machines = [
        subprocess.Popen(
            [
                *prefix,
                *command,
                "--machine_rank",
                str(rank),
                "--mixed_precision",
                "no",
                "train.py",
                *arguments(place, backbone, name),
            ],
            cwd=ROOT,
            env={**environment(), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, (prefix, env) in enumerate(zip(prefixes, envs, strict=True))
    ]
    texts = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], texts[0][-3000:] + texts[1][-3000:]
    assert "DDP, 2 processes" in texts[0]
    assert np.abs(np.subtract(losses(place / name), losses(place / "single"))).max() < 1e-4
    return texts


def test_two_machines_with_one_rendezvous(place: Path, llama_dir: Path) -> None:
    two_machines(place, llama_dir, "nodes", "127.0.0.1", [[], []], [{}, {}])


def test_two_machines_on_a_network(place: Path, llama_dir: Path, networks: list[str]) -> None:
    prefixes = [["ip", "netns", "exec", host] for host in networks]
    two_machines(place, llama_dir, "network", "10.98.0.1", prefixes, [{"GLOO_SOCKET_IFNAME": host} for host in networks])


def test_scores_count_every_sample_once_on_three_processes(place: Path, llama_dir: Path, tmp_path: Path) -> None:
    out = launch(
        3,
        *("--checkpoint", str(place / "single"), "--data_dir", str(place / "raw"), "--eval_batch_size", "7"),
        *("--output", str(tmp_path / "test.json")),
        script="evaluate.py",
    )
    assert out.returncode == 0, out.stderr[-3000:]
    again = json.loads((tmp_path / "test.json").read_text())["metrics"]["test"]
    expected = json.loads((place / "single" / "results.json").read_text())["metrics"]["test"]
    assert again == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 5, 64, 100])
def test_batches_are_shared_out_without_loss_or_repetition(processes: int, count: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 50, count)
    one = LengthGroupedBatchSampler(lengths, 16, seed=3)
    parts = [LengthGroupedBatchSampler(lengths, 16, 3, rank, processes) for rank in range(processes)]
    for number, batch in enumerate(one):
        weights = [p.weight(number) for p in parts]
        shares = [list(p)[number] for p in parts]
        assert sorted(i for s, w in zip(shares, weights, strict=True) if w for i in s) == sorted(batch)
        # The mean over processes of weighted means is the mean of the batch.
        values = np.random.default_rng(number).normal(size=count)
        means = [w * values[s].mean() for s, w in zip(shares, weights, strict=True)]
        assert np.mean(means) == pytest.approx(values[batch].mean())
    samplers = [SortedBatchSampler(lengths, 16, rank, processes) for rank in range(processes)]
    assert sorted(i for s in samplers for b in s.batches[: s.own] for i in b) == list(range(count))
    assert len({len(s) for s in samplers}) == 1


def test_deepspeed_that_would_be_left_out_is_an_error(place: Path, llama_dir: Path, tmp_path: Path) -> None:
    started = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    env = {**environment("zero2"), **started, "ACCELERATE_USE_CPU": "true"}
    out = subprocess.run(
        [sys.executable, "train.py", *arguments(place, llama_dir, "dropped")], capture_output=True, text=True, cwd=ROOT, env=env
    )
    assert out.returncode == 2
    assert "makes accelerate leave DeepSpeed out" in out.stderr
    assert not (place / "dropped").exists()


def test_fsdp_that_would_be_left_out_is_an_error(place: Path, llama_dir: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("FSDP would be used on this machine")
    env = {**environment(), "ACCELERATE_USE_FSDP": "true"}
    out = subprocess.run(
        [sys.executable, "train.py", *arguments(place, llama_dir, "dropped")], capture_output=True, text=True, cwd=ROOT, env=env
    )
    assert out.returncode == 2
    assert "ACCELERATE_USE_FSDP is on, but no launcher has started this process" in out.stderr


def test_a_process_that_fails_ends_the_job_with_its_error_on_top(place: Path, llama_dir: Path, tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from fpt import training\nfrom fpt.cli import parse_training\nfrom fpt.errors import FPTError, cli\n"
        "save = training.resume.save_state\n"
        "def fail(self):\n"
        "    if self.accelerator.process_index == 1:\n"
        "        raise FPTError('the machine of process 1 is on fire')\n"
        "    save(self)\n"
        "training.resume.save_state = fail\n"
        "cli(lambda: training.run(*parse_training('')))\n"
    )
    start = time.monotonic()
    out = launch(2, *arguments(place, llama_dir, "fails"), script=str(script))
    assert out.returncode != 0
    assert time.monotonic() - start < 90
    # After the progress bar, before the launcher's report.
    errors = [line for line in out.stderr.replace("\r", "\n").splitlines() if "rror" in line]
    assert errors[0] == "error: the machine of process 1 is on fire"


def _train(folder: Path, backbone: Path, name: str, changes: dict) -> None:
    torch.set_num_threads(1)
    os.environ["FPT_HOME"] = str(folder / "home")
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    run(*groups(folder, backbone, name, **changes))


def test_kills_at_any_moment_lose_no_more_than_the_last_steps(place: Path, llama_dir: Path) -> None:
    wanted = int(os.environ.get("FPT_KILLS", "12"))
    changes = {"max_steps": 30 * wanted, "eval_steps": 100, "save_steps": 4, "dropout": 0.1, "keep_last": 2}
    run(*groups(place, llama_dir, "whole", **changes))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fpt.training", "fpt.tasks.base", "fpt.tasks.tdc", "fpt.backbones.llama"])
    rng = random.Random(5)
    folder, steps, kills = place / "killed", [0], 0
    while not (folder / "results.json").exists():
        started = (folder / "run.json").exists()
        child = context.Process(target=_train, args=(place, llama_dir, "killed", {**changes, "resume": started}))
        child.start()
        # Long enough to get somewhere; then at any moment.
        deadline = time.monotonic() + 60
        while child.is_alive() and kills < wanted and _last_step(folder) <= steps[-1] and time.monotonic() < deadline:
            time.sleep(0.01)
        child.join(rng.random() * 0.12 if kills < wanted else 300)
        if child.is_alive():
            child.kill()
            child.join()
            kills += 1
        # What was reached is not lost, and what is there can be read.
        assert _last_step(folder) >= steps[-1]
        steps.append(_last_step(folder))
        assert steps[-1] == 0 or state.latest(folder / "state", print) is not None
    assert kills >= wanted
    for name in ("checkpoint/model.safetensors", f"state/step-{30 * wanted:08d}/state.safetensors"):
        first, second = (load_file(place / run_ / name) for run_ in ("whole", "killed"))
        assert set(first) == set(second)
        assert all(torch.equal(first[n], second[n]) for n in first), name
    assert losses(folder) == losses(place / "whole")


def _last_step(folder: Path) -> int:
    return max((int(p.name[5:]) for p in (folder / "state").glob("step-*")), default=0)


def test_a_signal_saves_the_state_and_ends_well(place: Path, llama_dir: Path) -> None:
    changes = {"max_steps": 300, "eval_steps": 50, "save_steps": 1000, "per_device_batch_size": 32}
    run(*groups(place, llama_dir, "left-alone", **changes))
    command = [sys.executable, "train.py", *arguments(place, llama_dir, "signalled", **changes)]
    child = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (place / "signalled" / "checkpoint").exists():
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    out, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert "stopped by a signal after step" in out
    assert not (place / "signalled" / "results.json").exists()
    assert 50 <= _last_step(place / "signalled") < 300
    run(*groups(place, llama_dir, "signalled", **{**changes, "resume": True}))
    assert losses(place / "signalled") == losses(place / "left-alone")
    assert same_weights(place / "signalled", place / "left-alone", 0)


@pytest.mark.parametrize(
    ("config", "processes", "everyone"),
    [("cpu", 1, False), ("multi_cpu", 2, False), ("multi_cpu", 2, True), ("deepspeed_zero2", 2, False)],
)
def test_a_launcher_that_gets_the_signal_ends_well(
    config: str, processes: int, everyone: bool, place: Path, llama_dir: Path
) -> None:
    name = f"launched-{config}-{everyone}"
    changes = {"max_steps": 2000, "eval_steps": 50, "save_steps": 5000, "per_device_batch_size": 32 // processes}
    command = [sys.executable, "-m", "fpt.launch", "--config_file", f"accelerate_configs/{config}.yaml"]
    command += ["--num_processes", str(processes), "--main_process_port", free_port()]
    child = subprocess.Popen(
        [*command, "train.py", *arguments(place, llama_dir, name, **changes)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (place / name / "checkpoint").exists():
        assert child.poll() is None, child.communicate()[1][-3000:]
        time.sleep(0.05)
    # A user stops the launcher; a scheduler tells every process of the job.
    (os.killpg if everyone else os.kill)(child.pid, signal.SIGTERM)
    out, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors[-3000:]
    assert "stopped by a signal after step" in out
    assert "Traceback" not in errors
    assert 50 <= _last_step(place / name) < 2000


def test_the_launcher_ends_with_the_status_of_the_script(place: Path, llama_dir: Path) -> None:
    command = [sys.executable, "-m", "fpt.launch", "--config_file", "accelerate_configs/cpu.yaml", "train.py"]
    out = subprocess.run(
        [*command, *arguments(place, llama_dir, "bad", max_steps=0)], capture_output=True, text=True, cwd=ROOT, env=environment()
    )
    assert out.returncode == 2
    assert out.stderr.strip().splitlines()[-1] == "error: --max_steps 0 must be at least 1 and at most 1,000,000,000"


def test_a_full_disk_loses_nothing(place: Path, llama_dir: Path) -> None:
    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    changes = {"save_steps": 10, "eval_steps": 20}
    run(*groups(place, llama_dir, "full", **{**changes, "keep_last": 2}))
    shutil.rmtree(place / "full" / "state" / "step-00000020")
    (place / "full" / "results.json").unlink()
    command = [sys.executable, "train.py", *arguments(place, llama_dir, "full", **{**changes, "resume": True})]
    # The state that is written at the end needs more than there is room for.
    env = {k: v for k, v in environment().items() if not k.startswith("COVERAGE_")} | {"FPT_HOME": str(place / "home")}
    out = subprocess.run(
        [*command, "--per_device_batch_size", "16"], capture_output=True, text=True, cwd=ROOT, env=env, preexec_fn=small_files
    )
    assert out.returncode == 2, out.stderr
    last = out.stderr.strip().splitlines()[-1]
    assert "can't be written" in last
    assert "make room" in last
    assert [p.name for p in (place / "full" / "state").iterdir()] == ["step-00000010"]
    run(*groups(place, llama_dir, "full", **{**changes, "resume": True}))
    assert (place / "full" / "results.json").exists()


def test_a_damaged_state_is_passed_over(tmp_path: Path) -> None:
    for step in (1, 2):
        state.save(tmp_path, step, {"x": torch.full((3,), float(step))}, {"n": step}, keep_last=5)
    path = tmp_path / "step-00000002" / state.TENSORS
    path.write_bytes(path.read_bytes()[:-2] + b"zz")
    said = []
    tensors, info = state.latest(tmp_path, said.append)
    assert (tensors["x"].tolist(), info["n"]) == ([1.0] * 3, 1)
    assert "step-00000002 is damaged" in said[0]


def test_as_many_states_are_kept_as_asked_for(tmp_path: Path) -> None:
    for step in range(1, 6):
        state.save(tmp_path, step, {"x": torch.zeros(1)}, {}, keep_last=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


def test_another_global_batch_is_refused_on_resume(place: Path, llama_dir: Path) -> None:
    with pytest.raises(FPTError, match="takes batches of 32 samples over all processes, not of 16"):
        run(*groups(place, llama_dir, "single", per_device_batch_size=16, resume=True))

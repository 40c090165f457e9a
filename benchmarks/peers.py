"""How fast is training, beside the peers? Samples a second of one frozen GPT-2 under each loop, in turns on the same machine.

    python benchmarks/peers.py --workloads cyp3a4 cifar10 bit-memory --data_dir raw --universal_computation CLONE

All train the same weights (GPT-2 small's shape, drawn from a seed) with the same trainable parts, batches of as many samples, and
the same precision:

ours            `fpt.training`: batches of like length, the last block at the read token alone, padding out of sight
ours-bpe        the same on tokens of a BPE of the training inputs (--bpe VOCABULARY): the same samples in fewer tokens
trainer         transformers' Trainer: random batches, padded to their longest sample
trainer-group   the same with train_sampling_strategy="group_by_length"
peft            PEFT's LN tuning in a plain PyTorch loop, random batches
paper           model and trainer of the paper's own code, from a clone of github.com/kzl/universal-computation
                (--universal_computation); it has no mask, and reads padding at the end of shorter samples
limit           what the operations that our step needs would take at the peak of plain matrix products of the same shapes

Each round gives every contender its turn; the median over rounds is shown. Batches differ in length, so samples a second are real
tokens a second by the mean length. With --epoch, each trains for one epoch instead, and is scored on the validation split. MFU is
the useful part of the peak: operations that our step needs for the real tokens, by what the machine could have done in that time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from transformers import GPT2Config, GPT2Model, Trainer, TrainerCallback, TrainingArguments

sys.path.insert(0, str(Path(__file__).parent.parent))

from fpt.args import DataArguments, ModelArguments, TrainArguments, as_dict, changed
from fpt.backbones.gpt2 import SHAPES
from fpt.data.batches import collate
from fpt.data.cache import prepare
from fpt.data.prepared import Prepared
from fpt.errors import FPTError, cli
from fpt.evaluation.predict import predict_split, resolution_of
from fpt.flops import matmul_peak, step_flops
from fpt.models.base import MODELS
from fpt.parallel import training_accelerator
from fpt.results import Arguments
from fpt.tasks.base import TASKS, resolve
from fpt.training import Job, Run, learn
from fpt.training.loop import batches as batches_of
from fpt.training.shared_backbone import one_by_one
from fpt.training.start import start as start_run
from fpt.untrusted.pretrained import fetch, open_model, read_config

RATE, CLIP = 1e-3, 1.0
BPE = "ours-bpe"


@dataclass
class Turn:
    """What a contender did in a round."""

    seconds: float = 0.0
    samples: int = 0
    tokens: int = 0
    positions: int = 0

    def see(self, mask: torch.Tensor) -> None:
        """Count a batch."""
        self.samples += len(mask)
        self.tokens += int(mask.sum())
        self.positions += mask.numel()


@dataclass
class Contender:
    """A loop.

    Attributes:
        turn: takes so many steps in the round of that number.
        model: the network that it trains.
        logits: (inputs, mask) -> its logits.
        prepared: what it trains on.
        shell: the network without memory, for its operations to be counted.
    """

    turn: Callable[[int, int], Turn]
    model: nn.Module
    logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    prepared: Prepared
    shell: nn.Module | None = None

    def score(self) -> float | None:
        """The task's metric on the validation split."""
        accelerator = Accelerator()
        predictions, labels = predict_split(Called(self.model, self.logits), self.prepared, "valid", 64, accelerator)
        resolution = resolution_of(self.model, accelerator)
        return self.prepared.output.metrics(labels, predictions, resolution)[self.prepared.primary_metric]


class Called(nn.Module):
    """A network that is asked for its logits in a way of its own."""

    def __init__(self, model: nn.Module, logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.model, self.logits = model, logits

    def forward(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits in fp32."""
        return self.logits(inputs, attention_mask).float()


class Peer(nn.Module):
    """The frozen transformer as one writes it with transformers: whole backbone, then the states at the last real tokens."""

    def __init__(self, backbone: nn.Module, prepared: Prepared, width: int) -> None:
        super().__init__()
        self.input = prepared.input.module(width)
        self.core, self.output = backbone, prepared.output
        self.readout = nn.Linear(width, prepared.output.size)
        self.turn = Turn()

    def forward(self, inputs: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Loss of a batch from `fpt.data.batches.collate`."""
        self.turn.see(attention_mask)
        return {"loss": self.output.loss(self.logits(inputs, attention_mask).float(), labels)}

    def logits(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Read out at the last real tokens."""
        states = self.core(inputs_embeds=self.input(inputs), attention_mask=attention_mask, use_cache=False).last_hidden_state
        end = attention_mask.sum(dim=1, keepdim=True)
        read = end - torch.arange(self.output.tokens, 0, -1, device=end.device)
        chosen = states[torch.arange(len(states), device=end.device)[:, None], read]
        return self.readout(chosen).flatten(1)


def freeze(backbone: nn.Module) -> None:
    """Tune norms and positions alone, as the paper does."""
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_("ln_" in name or "wpe" in name)


def without_table(folder: Path) -> GPT2Model:
    """The backbone, without the input table that nobody uses here."""
    backbone: Any = open_model(fetch(folder), GPT2Model)
    backbone.set_input_embeddings(None)
    return backbone


def loops_of(
    prepared: Prepared, model_args: ModelArguments, seeds: Sequence[int], batch: int, bf16: bool, held: contextlib.ExitStack
) -> list[Run]:
    """Loops of this project that share one backbone, as `train.py` makes them."""
    output = Path(held.enter_context(tempfile.TemporaryDirectory())) / "run"
    args = TrainArguments(
        output_dir=str(output),
        max_steps=10**6,
        per_device_batch_size=batch,
        learning_rate=RATE,
        max_grad_norm=CLIP,
        warmup_steps=0,
    )
    args.mixed_precision = "bf16" if bf16 else "no"
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = training_accelerator(args, output)
    each = [changed(args, seed=seed) for seed in seeds]
    told = cast(Arguments, {**as_dict(prepared.args), **as_dict(model_args), **as_dict(args), "global_batch_size": batch})
    with contextlib.redirect_stdout(io.StringIO()):
        kind = MODELS["fpt"]
        made = kind.make_each(prepared, model_args, each, print)  # type: ignore[attr-defined]
        loops = [
            start_run(
                Job(MODELS["fpt"], prepared, model_args, own, told, accelerator, output, time.perf_counter(), held), network
            )
            for own, network in zip(each, made, strict=True)
        ]
    for loop in loops:
        loop.model.train()
    return loops


def learn_from(loops: list[Run], streams: Sequence[Iterator[dict[str, torch.Tensor]]], steps: int, forward: Any) -> Turn:
    """Take steps with all loops."""
    done, device = Turn(), loops[0].accelerator.device
    start = time.perf_counter()
    for _ in range(steps):
        batches = [next(stream) for stream in streams]
        for batch in batches:
            done.see(batch["attention_mask"])
        learn(loops, [{name: values.to(device) for name, values in batch.items()} for batch in batches], forward)
    synchronize()
    done.seconds = time.perf_counter() - start
    return done


def ours(
    prepared: Prepared, folder: Path, batch: int, bf16: bool, held: contextlib.ExitStack, checkpointing: bool = False
) -> Contender:
    """This project's loop."""
    model_args = ModelArguments(
        backbone=str(folder),
        input_init="normal",
        activation_checkpointing=checkpointing,
        core_dtype="bf16" if bf16 else "fp32",  # where nothing is trained, or every step would convert it
    )
    (loop,) = loops_of(prepared, model_args, [1], batch, bf16, held)
    stream = batches_of(loop)
    return Contender(
        lambda steps, number: learn_from([loop], [stream], steps, one_by_one), loop.network, loop.model, prepared, loop.shell
    )


def trainer(strategy: str) -> Any:
    """transformers' Trainer, with the sampling that `strategy` names."""

    def make(prepared: Prepared, folder: Path, batch: int, bf16: bool, held: contextlib.ExitStack) -> Contender:
        backbone = without_table(folder)
        freeze(backbone)
        model = Peer(backbone, prepared, backbone.config.hidden_size)
        samples = prepared.samples("train")
        output = held.enter_context(tempfile.TemporaryDirectory())

        class Clock(TrainerCallback):
            begun = ended = 0.0

            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                # Not the first: grouped by length, the longest samples come first.
                if state.global_step == 1:
                    model.turn, self.begun = Turn(), time.perf_counter()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                synchronize()
                self.ended = time.perf_counter()

        def turn(steps: int, number: int) -> Turn:
            AcceleratorState._reset_state(reset_partial_state=True)
            model.turn, clock = Turn(), Clock()
            args = TrainingArguments(
                output_dir=output,
                per_device_train_batch_size=batch,
                max_steps=steps + 1,
                learning_rate=RATE,
                max_grad_norm=CLIP,
                lr_scheduler_type="constant",
                weight_decay=0.01,
                bf16=bf16,
                use_cpu=not torch.cuda.is_available(),
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                remove_unused_columns=False,
                seed=number,
                train_sampling_strategy=strategy,
            )
            with contextlib.redirect_stdout(io.StringIO()):
                Trainer(
                    model=model,
                    args=args,
                    train_dataset=samples,
                    data_collator=lambda rows: collate(rows, prepared.input, prepared.output),
                    callbacks=[clock],
                ).train()
            model.turn.seconds = clock.ended - clock.begun
            return model.turn

        return Contender(turn, model, model.logits, prepared)

    return make


def random_stream(prepared: Prepared, batch: int) -> Iterator[dict[str, torch.Tensor]]:
    """Shuffled batches without end, padded to their longest sample."""
    samples = prepared.samples("train")
    loader = torch.utils.data.DataLoader(
        samples, batch, shuffle=True, collate_fn=lambda rows: collate(rows, prepared.input, prepared.output)
    )
    while True:
        yield from loader


def peft(prepared: Prepared, folder: Path, batch: int, bf16: bool, held: contextlib.ExitStack) -> Contender:
    """PEFT's LN tuning, in the loop that its examples have."""
    from peft import LNTuningConfig, get_peft_model

    backbone = without_table(folder)
    width = backbone.config.hidden_size
    trainable = get_peft_model(backbone, LNTuningConfig(target_modules=["ln_1", "ln_2", "ln_f"]))  # type: ignore[arg-type]
    for name, parameter in trainable.named_parameters():
        if "wpe" in name:
            parameter.requires_grad_(True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Peer(trainable, prepared, width).to(device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE)
    stream = random_stream(prepared, batch)

    def turn(steps: int, number: int) -> Turn:
        model.turn = Turn()
        start = time.perf_counter()
        for _ in range(steps):
            rows = {name: values.to(device) for name, values in next(stream).items()}
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                loss = model(**rows)["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
        model.turn.seconds = time.perf_counter() - start
        return model.turn

    return Contender(turn, model, model.logits, prepared)


def paper(clone: Path) -> Any:
    """The paper's own model and trainer."""

    def make(prepared: Prepared, folder: Path, batch: int, bf16: bool, held: contextlib.ExitStack) -> Contender:
        sys.path.insert(0, str(clone))
        from universal_computation.fpt import FPT as Theirs
        from universal_computation.trainer import Trainer as TheirTrainer

        inputs, output = prepared.input, prepared.output
        ids = inputs.column == "input_ids"
        config: Any = read_config(fetch(folder))
        with mock.patch.object(GPT2Model, "from_pretrained", lambda name: open_model(fetch(folder), GPT2Model)):
            model = Theirs(
                inputs.vocab_size if ids else inputs.dim,  # type: ignore[attr-defined]
                output.size,
                model_name=next(name for name, (_, width, _) in SHAPES.items() if width == config.n_embd),
                pretrained=True,
                return_last_only=False,
                use_embeddings_for_in=ids,
                dropout=float(config.resid_pdrop),
            )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model, stream = model.to(device), random_stream(prepared, batch)
        # Their trainer makes numpy arrays of it, which have no bf16.
        model.register_forward_hook(lambda module, given, out: out.float())
        done = Turn()

        class Batches:
            def start_epoch(self) -> None:
                pass

            def get_batch(self, size: int, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
                rows = next(stream)
                done.see(rows["attention_mask"])
                return rows["inputs"].to(device), rows["labels"].to(device)

        def loss(out: torch.Tensor, labels: torch.Tensor, x: Any = None) -> torch.Tensor:
            return output.loss(out[:, -output.tokens :].flatten(1).float(), labels)

        theirs = TheirTrainer(
            model, Batches(), loss, lambda out, y, x=None: 0.0, learning_rate=RATE, batch_size=batch, test_steps_per_epoch=0
        )

        def turn(steps: int, number: int) -> Turn:
            nonlocal done
            done, theirs.steps_per_epoch = Turn(), steps
            quiet = contextlib.redirect_stderr(io.StringIO())
            with quiet, torch.autocast(device, torch.bfloat16, enabled=bf16):
                theirs.train_epoch(test_steps=0)
            done.seconds = theirs.diagnostics["Time Training"]
            return done

        return Contender(turn, model, lambda x, mask: model(x)[:, -output.tokens :].flatten(1), prepared)

    return make


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def contenders(args: argparse.Namespace) -> dict[str, Any]:
    """What makes each, by name."""
    makers = {"ours": ours, "trainer": trainer("random"), "trainer-group": trainer("group_by_length"), "peft": peft}
    if args.universal_computation:
        if not (args.universal_computation / "universal_computation" / "fpt.py").is_file():
            raise FPTError(
                f"--universal_computation {args.universal_computation} holds no universal_computation/fpt.py; clone it there"
            )
        makers["paper"] = paper(args.universal_computation)
    return makers


def write_backbone(folder: Path, name: str, layers: int | None, dropout: float) -> None:
    """A GPT-2 of that name's shape with drawn weights."""
    torch.manual_seed(0)
    blocks, width, heads = SHAPES[name]
    config = GPT2Config(vocab_size=8, n_layer=layers or blocks, n_embd=width, n_head=heads)
    config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = dropout
    GPT2Model(config).save_pretrained(folder)


def measure(prepared: dict[str, Prepared], makers: dict[str, Any], args: argparse.Namespace) -> None:
    """Give every contender its turns on its data and print the table of a workload."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps, rounds = args.steps, args.rounds
    if args.epoch:
        steps, rounds = -(-len(prepared["ours"].samples("train")) // args.batch_size), 1
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        write_backbone(folder, args.backbone, args.layers, args.core_dropout)
        every = {name: make(prepared[name], folder, args.batch_size, args.bf16, held) for name, make in makers.items()}
        turns: dict[str, list[Turn]] = {name: [] for name in every}
        for one in every.values():
            one.turn(1, 0) if not args.epoch else None
        for number in range(1, rounds + 1):
            for name, one in every.items():
                turns[name].append(one.turn(steps, number))
        scores = {name: one.score() if args.epoch else None for name, one in every.items()}
        lengths = {name: round(float(one.prepared.samples("train").lengths.mean())) for name, one in every.items()}
        shell = every["ours"].shell
        each = {name: flops_of_sample(one.shell or shell, one.prepared, args.batch_size) for name, one in every.items()}
        dtype = torch.bfloat16 if args.bf16 else torch.float32
        peak = max(matmul_peak(device, dtype, args.batch_size * lengths["ours"], SHAPES[args.backbone][1]) for _ in range(3))
    task, metric = prepared["ours"].task.name, prepared["ours"].primary_metric
    titles = ["loop", "samples/s", "spread", "padding", "MFU", "ours is faster by"] + [f"{metric} on valid"] * args.epoch
    fewer = f" (ours-bpe: {lengths[BPE]})" if BPE in lengths else ""
    first = f" ({args.layers} layers)" if args.layers else ""
    print(
        f"\n{task}, {lengths['ours']} tokens on average{fewer}, batches of {args.batch_size}, {'bf16' if args.bf16 else 'fp32'},"
        f" {args.backbone}{first}, dropout {args.core_dropout:g} in the peers' backbone, learning rate {RATE:g}, {rounds}"
        f" x {steps} steps; {each['ours'] / lengths['ours'] / 1e6:,.0f} MFLOPs a token, peak {peak / 1e9:,.0f} GFLOP/s\n\n"
        f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}"
    )
    rates = {name: [t.tokens / t.seconds / lengths[name] for t in done] for name, done in turns.items()}
    own = statistics.median(rates["ours"])
    for name, done in turns.items():
        rate, padding = statistics.median(rates[name]), 1 - sum(t.tokens for t in done) / sum(t.positions for t in done)
        spread, mfu = f"{min(rates[name]):.2f} to {max(rates[name]):.2f}", rate * each[name] / peak
        score = f" {scores[name]:.3f} |" if args.epoch else ""
        print(f"| {name} | {rate:.2f} | {spread} | {padding:.0%} | {mfu:.0%} | {own / rate:.2f} |{score}")
    limit = peak / each["ours"]
    print(f"| limit | {limit:.2f} | | | 100% | {own / limit:.2f} |{' |' if args.epoch else ''}", flush=True)


def flops_of_sample(shell: nn.Module | None, prepared: Prepared, batch: int) -> float:
    """Operations that our training needs for a sample of mean length."""
    assert shell is not None
    length = round(float(prepared.samples("train").lengths.mean()))
    return sum(step_flops(shell, prepared.input, batch, length)) / batch


def arguments(parser: argparse.ArgumentParser) -> None:
    """Those that the benchmarks of the peers share."""
    parser.add_argument("--data_dir", help="folder with raw downloads, as for train.py")
    parser.add_argument("--universal_computation", type=Path, help="clone of the paper's code; without it that peer is left out")
    parser.add_argument("--batch_size", type=int, default=16, help="samples in a batch")
    parser.add_argument("--backbone", choices=SHAPES, default="gpt2", help="whose shape the backbone has")
    parser.add_argument("--layers", type=int, help="first blocks of the backbone; all when not given")
    parser.add_argument("--core_dropout", type=float, default=0.1, help="dropout in the peers' backbone; GPT-2's own is 0.1")
    parser.add_argument("--bf16", action="store_true", help="matrix products in bf16, for all")


def load(name: str, args: argparse.Namespace, **other: Any) -> Prepared:
    """The data of a task."""
    return prepare(*resolve(TASKS[name], DataArguments(dataset=name, data_dir=args.data_dir, **other)), 1, lambda line: None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--workloads", nargs="+", default=["cyp3a4"], help="tasks to train on")
    parser.add_argument("--bpe", type=int, help="ours on tokens of a BPE of this vocabulary too, on tasks of text")
    parser.add_argument("--epoch", action="store_true", help="one turn of one epoch each, then the score on the validation split")
    parser.add_argument("--steps", type=int, default=6, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    args = parser.parse_args()
    makers = contenders(args)
    for name in args.workloads:
        plain = load(name, args)
        chosen = {kind: maker for kind, maker in makers.items() if kind != "trainer-group" or plain.tokenizer is not None}
        prepared = dict.fromkeys(chosen, plain)
        if args.bpe and plain.tokenizer is not None:
            chosen[BPE], prepared[BPE] = ours, load(name, args, tokenizer="bpe", vocab_size=args.bpe)
        measure(prepared, chosen, args)


if __name__ == "__main__":
    cli(main)

"""A run from its job and its model: batches, optimizer and schedule, as they are at its start or as its state left them."""

from __future__ import annotations

from accelerate.utils import set_seed
from transformers import get_scheduler

from fpt.data.batches import LengthGroupedBatchSampler, make_loader, padding_waste, random_batches
from fpt.flops import on_meta
from fpt.launching.launched import check_done
from fpt.models.base import Made
from fpt.parallel import prepare as prepare_for
from fpt.parallel import strategy
from fpt.training import resume
from fpt.training.averaging import average_of
from fpt.training.monitor import Losses, Tracker
from fpt.training.optimizer import make_optimizer
from fpt.training.random_state import OwnRandom
from fpt.training.records import Job
from fpt.training.results import model_record
from fpt.training.running import Run


def start(job: Job, made: Made, tracker: Tracker | None = None, count: int = 1) -> Run:
    """Collective: make a run ready for its next step.

    Args:
        count: runs that go side by side in this process.

    Raises:
        FPTError: the state that it goes on from is of another backbone or model.
    """
    accelerator, args, prepared, model = job.accelerator, job.args, job.prepared, made.network
    samples = prepared.samples("train", args.seed)
    processes = accelerator.num_processes
    sampler = LengthGroupedBatchSampler(
        samples.lengths, args.per_device_batch_size * processes, args.seed, accelerator.process_index, processes
    )
    shell = on_meta(model)
    if job.state:
        resume.load_parameters(job, made, job.state, len(sampler))
    optimizer = make_optimizer(model, args, accelerator.device)
    # On the plain optimizer, so that it counts optimizer steps on any number of processes.
    schedule = get_scheduler(args.lr_scheduler, optimizer, args.warmup_steps, args.max_steps)
    prepared_model, prepared_optimizer = prepare_for(accelerator, model, optimizer, args)
    check_done(accelerator, args)
    set_seed(args.seed, device_specific=True)
    run = Run(
        job,
        made,
        job.output.name if count > 1 else "",
        count,
        tracker,
        model_record(job, made),
        shell,
        samples,
        sampler,
        make_loader(samples, sampler, prepared.input, prepared.output),
        padding(job, sampler),
        Losses(accelerator),
        optimizer,
        schedule,
        prepared_model,
        prepared_optimizer,
        OwnRandom() if count > 1 else None,
        average_of(model.trainable_parameters(), args.ema, accelerator),
    )
    run.log(
        f"padding: {run.padding['grouped']:.1%} of positions in batches of {args.per_device_batch_size} grouped by length"
        f" (random batches: {run.padding['random']:.1%}); {strategy(accelerator)}"
    )
    if job.state:
        resume.go_on(run, job.state)
        job.state = None
    return run


def padding(job: Job, sampler: LengthGroupedBatchSampler) -> dict[str, float]:
    """Share of positions that is padding, in the batches of the first epoch and in random ones."""
    lengths, size = sampler.lengths, job.args.per_device_batch_size
    return {
        "grouped": round(padding_waste(lengths, iter(sampler)), 4),
        "random": round(padding_waste(lengths, random_batches(len(lengths), size, job.args.seed)), 4),
    }

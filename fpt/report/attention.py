"""What a trained model looks at: attention of the readout's tokens, and the states that the readout reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fpt.backbones.base import take
from fpt.data.batches import collate, fed
from fpt.data.prepared import Prepared
from fpt.errors import FPTError
from fpt.models.fpt import FPT


@dataclass(frozen=True)
class Looked:
    """One sample, and what the model made of it.

    Attributes:
        index: in its split.
        attention: (layers, heads, read, tokens), rows sum to 1: from the tokens that the readout reads to all.
        prediction: as `Output.predict` gives it, (columns,).
        label: of the sample.
    """

    index: int
    attention: np.ndarray
    prediction: np.ndarray
    label: object


@torch.no_grad()
def look(model: FPT, prepared: Prepared, indices: list[int], split: str = "test") -> list[Looked]:
    """Attention of a model on samples of a split.

    Raises:
        FPTError: its backbone has no attention, or does not show it.
    """
    samples = prepared.samples(split)
    backbone = model.core
    out = []
    before = getattr(backbone.config, "_attn_implementation", None)
    try:
        backbone.set_attn_implementation("eager")  # fused kernels keep no weights
        for index in indices:
            batch = collate(samples.__getitems__([index]), prepared.input, prepared.output)
            mask = batch["attention_mask"]
            read = model.read(mask)
            with model.precision("cpu"):
                inputs, _, *vector = fed(batch)
                states = model.embed(inputs, *vector)
                found = backbone(inputs_embeds=states, attention_mask=mask, output_attentions=True, use_cache=False)
                logits = model.logits(take(found.last_hidden_state, read), mask, inputs)
            layers = torch.stack([layer[0, :, read[0]] for layer in found.attentions])
            label = samples[index]["label"]
            out.append(Looked(index, layers.float().numpy(), prepared.output.predict(logits)[0].numpy(), label))
    except (TypeError, AttributeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise FPTError(f"a backbone of type {type(backbone).__name__} does not show its attention ({error})") from error
    finally:
        if before:
            backbone.set_attn_implementation(before)
    return out


@torch.no_grad()
def features(
    model: FPT, prepared: Prepared, count: int, split: str = "test", batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """States that the readout reads, of the first `count` samples of a split.

    Returns:
        (samples, read * hidden) fp32, and the labels.
    """
    samples = prepared.samples(split)
    count = min(count, len(samples))
    states, labels = [], []
    for start in range(0, count, batch_size):
        rows = samples.__getitems__(list(range(start, min(start + batch_size, count))))
        batch = collate(rows, prepared.input, prepared.output)
        mask = batch["attention_mask"]
        with model.precision("cpu"):
            inputs, _, *vector = fed(batch)
            found = model.family.states(model.core, model.embed(inputs, *vector), mask, model.read(mask))
            found = model.pooling(found, mask)
        states.append(found.flatten(1).float().numpy())
        labels += [row["label"] for row in rows]
    return np.concatenate(states), np.asarray(labels)

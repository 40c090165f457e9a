"""Tokens, batches and padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fpt.args import DataArguments
from fpt.data.batches import LengthGroupedBatchSampler, SortedBatchSampler, collate, padding_waste, random_batches
from fpt.data.cache import prepare
from fpt.data.tokenizers import BOS, EOS, UNK, build_tokenizer, encode_texts
from fpt.inputs import Patches, Tokens
from fpt.outputs import Classes
from fpt.tasks.base import TASKS

ATOM = DataArguments(tokenizer="atom")


def test_atom_tokens_keep_brackets_halogens_and_ring_numbers_whole() -> None:
    smiles = "C[C@@H]1Cl.Br%12[nH]"
    tokenizer = build_tokenizer([smiles], ATOM)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(smiles)["input_ids"])
    assert tokens == [BOS, "C", "[C@@H]", "1", "Cl", ".", "Br", "%12", "[nH]", EOS]


def test_tokens_unseen_in_training_become_unk() -> None:
    tokenizer = build_tokenizer(["CCO"], ATOM)
    assert tokenizer.convert_ids_to_tokens(tokenizer("CN")["input_ids"]) == [BOS, "C", UNK, EOS]


def test_bpe_is_trained_on_the_train_split_only(data_dir: Path) -> None:
    prepared = prepare(TASKS["cyp3a4"], DataArguments(data_dir=str(data_dir), tokenizer="bpe", vocab_size=60), 1, print)
    again = build_tokenizer(prepared.splits["train"]["text"], DataArguments(tokenizer="bpe", vocab_size=60), words=False)
    assert again.get_vocab() == prepared.tokenizer.get_vocab()
    everything = [t for rows in prepared.splits.values() for t in rows["text"]]
    other = build_tokenizer(everything, DataArguments(tokenizer="bpe", vocab_size=60), words=False)
    assert other.get_vocab() != prepared.tokenizer.get_vocab()


def test_a_cut_sequence_keeps_its_last_token() -> None:
    tokenizer = build_tokenizer(["CCCCO"], ATOM)
    (ids,), cut = encode_texts(["CCCCO"], tokenizer, 4)
    assert tokenizer.convert_ids_to_tokens(ids) == [BOS, "C", "C", EOS]
    assert cut == [True]


def test_a_tokenizer_from_a_folder(llama_dir: Path, data_dir: Path) -> None:
    args = DataArguments(data_dir=str(data_dir), tokenizer=str(llama_dir))
    prepared = prepare(TASKS["cyp3a4"], args, 1, print)
    assert prepared.tokenizer.padding_side == "right"
    text = prepared.splits["test"]["text"][0]
    assert prepared.tokenizer(text)["input_ids"] == prepared.splits["test"]["input_ids"][0]


def test_collate_pads_right_and_masks() -> None:
    samples = [{"input_ids": [5, 6, 7], "label": 1}, {"input_ids": [8], "label": 0}]
    batch = collate(samples, Tokens(10, pad_id=9), Classes(("a", "b")))
    assert batch["inputs"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]


def test_patches_are_standardised_padded_and_masked() -> None:
    inputs = Patches(2, mean=(1.0,), std=(2.0, 4.0))
    samples = [{"values": np.array([1, 1, 3, 5], dtype=np.uint8)}, {"values": np.array([5, 9], dtype=np.uint8)}]
    batch = collate(samples, inputs)
    assert batch["inputs"].tolist() == [[[0.0, 0.0], [1.0, 1.0]], [[2.0, 2.0], [0.0, 0.0]]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert "labels" not in batch


@pytest.mark.parametrize("count", [1, 16, 999, 1000])
def test_every_sample_is_in_an_epoch_once(count: int) -> None:
    lengths = np.random.default_rng(0).integers(5, 200, count)
    for sampler in (LengthGroupedBatchSampler(lengths, 16, seed=1), SortedBatchSampler(lengths, 16)):
        batches = list(sampler)
        assert sorted(i for b in batches for i in b) == list(range(count))
        assert len(batches) == len(sampler)


def test_order_is_decided_by_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 500)

    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = LengthGroupedBatchSampler(lengths, 16, seed)
        sampler.start_epoch(epoch)
        return list(sampler)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_waste_is_counted_in_positions() -> None:
    assert padding_waste([1, 3, 4], iter([[0, 1], [2]])) == pytest.approx(1 - 8 / 10)


def test_grouping_saves_most_of_the_padding_of_real_molecules(real_data: Path) -> None:
    prepared = prepare(TASKS["cyp3a4"], DataArguments(data_dir=str(real_data)), 1, print)
    lengths = prepared.splits["train"]["length"]
    grouped = padding_waste(lengths, iter(LengthGroupedBatchSampler(lengths, 16, seed=1)))
    scattered = padding_waste(lengths, random_batches(len(lengths), 16, seed=1))
    assert grouped < 0.06
    assert 0.38 < scattered < 0.45


def test_variants_change_with_the_epoch_and_come_back(data_dir: Path) -> None:
    prepared = prepare(TASKS["cyp3a4"], DataArguments(data_dir=str(data_dir), augment=4), 1, print)
    assert "variants" not in prepared.splits["valid"].column_names
    samples = prepared.samples("train", seed=1)
    seen = []
    for epoch in (0, 1, 2, 3, 4, 5, 0):
        samples.start_epoch(epoch)
        seen.append(tuple(samples[0]["input_ids"]))
    assert len(set(seen)) > 1
    assert seen[0] == seen[-1]
    row = prepared.splits["train"][0]
    assert set(seen) <= {tuple(v) for v in [row["input_ids"], *row["variants"]]}
    assert torch.is_tensor(collate([samples[0], samples[1]], prepared.input)["inputs"])

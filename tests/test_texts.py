"""Texts, molecules and sequences: what is read, what is refused, and the tokens that they become."""

from __future__ import annotations

import random
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import molecules, write_tdc
from rdkit import Chem
from transformers import AutoTokenizer

from fpt.args import DataArguments, changed
from fpt.backbones.base import BackboneSpec
from fpt.backbones.loading import load_backbone
from fpt.data.cache import prepare
from fpt.data.tokenizers import BOS, EOS, SPECIAL, build_tokenizer, encode_texts, unknown_id
from fpt.errors import FPTError
from fpt.models.input_init import _meaning
from fpt.models.morgan import fingerprints
from fpt.tasks.base import TASKS, resolve
from fpt.tasks.tdc import Sequences
from fpt.tasks.text import LONGEST_SMILES, Letters, Smiles, Text, TextTask, read_each

BPE = DataArguments(tokenizer="bpe", vocab_size=512)
GOOD, BAD = ["good", "great", "lovely", "superb"], ["bad", "awful", "poor", "dull"]
SENTENCES = [f"a {(GOOD if n % 2 else BAD)[n // 2 % 4]} film, number {n}" for n in range(200)]
CHINESE = ["".join(random.Random(n).choices("天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏", k=30)) for n in range(100)]


def quiet(line: str) -> None:
    pass


def reason(kind: Text, text: str) -> str:
    """Why `text` is refused."""
    with pytest.raises(ValueError) as error:
        kind.read(text)
    assert kind.check(text) == str(error.value)
    return str(error.value)


class Free(TextTask):
    """Text of any kind, for `encode`."""

    name = "free"
    locate = split = None  # type: ignore[assignment]


Free.__abstractmethods__ = frozenset()


# Molecules


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("C1=CC=CC=C1", "c1ccccc1"),
        ("  OCC\n", "CCO"),
        ("[H]C([H])([H])O", "CO"),
        ("[CH3:1][OH:2]", "CO"),
        ("CN(=O)=O", "C[N+](=O)[O-]"),
        ("C[C@H](N)C(=O)O", "C[C@H](N)C(=O)O"),
        ("F/C=C/F", "F/C=C/F"),
        ("[2H]c1ccccc1", "[2H]c1ccccc1"),
        ("[NH3+]CC([O-])=O.[Na+].[Cl-]", "[Cl-].[NH3+]CC(=O)[O-].[Na+]"),
        ("[NH3]->[Pt]", "[NH3]->[Pt]"),
    ],
)
def test_a_molecule_has_one_notation(written: str, canonical: str) -> None:
    assert Smiles().read(written) == Smiles().clean(written) == canonical
    assert Smiles().read(written, keep_notation=True) == written.strip()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Brc1cncnc1 CPD-0000", "text after the SMILES: 'CPD-0000'; keep only the SMILES in this column"),
        ("CCO\tethanol", "text after the SMILES: 'ethanol'"),
        ("CCO\u00a0ethanol", "text after the SMILES: 'ethanol'"),
        ("CCO " + "x" * 99, "text after the SMILES: '" + "x" * 40 + "...'"),
        ("CPD-0000 CCO", "text before the SMILES: 'CPD-0000'"),
        ("acetic acid", "invalid SMILES"),
        ("CCO |$_R1;;$|", "a CXSMILES extension after the SMILES: '|$_R1;;$|'"),
        ("c 1 c c c c c 1", "white space between the atoms"),
        ("CCO>>CC=O", "a reaction"),
        ("CCO >> CC=O", "a reaction"),
        ("CCO>[Pt]>CC=O", "a reaction"),
        ("InChI=1S/CH4/h1H4", "an InChI,"),
        ("UHOVQNZJYSORNB-UHFFFAOYSA-N", "an InChIKey"),
        ("[C][=C][Branch1][C][O]", "SELFIES"),
        ("c1ccc\u200bccc1", "U+200B ZERO WIDTH SPACE at position 6"),
        ("\ufeffCCO", "U+FEFF ZERO WIDTH NO-BREAK SPACE at position 1"),
        ("C\u2212C", "(U+2212 MINUS SIGN) at position 2"),
        ("*c1ccccc1", "a wildcard atom (*)"),
        ("[#0]C", "a wildcard atom (*)"),
        ("", "empty SMILES"),
        (" \u200b\t", "empty SMILES"),
        ("C\x00C", "a control character, U+0000 at position 2"),
        ("C\ud800", "half a character, U+D800 at position 2"),
        ("C1CC", "invalid SMILES"),
        ("C(C)(C)(C)(C)C", "invalid SMILES: Explicit valence for atom # 0 C, 5"),
        ("c1cccc1", "invalid SMILES: Can't kekulize"),
        ("C" * (LONGEST_SMILES + 1), "longer than 5,000 characters"),
    ],
)
def test_what_is_not_one_molecule_is_refused_with_the_reason(text: str, why: str) -> None:
    assert why in reason(Smiles(), text)
    with pytest.raises(ValueError):
        Smiles().read(text, keep_notation=True)


def test_the_notation_is_no_feature_in_training_or_prediction(tmp_path: Path) -> None:
    rows = [(s if y else Chem.MolToSmiles(Chem.MolFromSmiles(s), doRandom=True), y) for s, y in molecules()]
    args = DataArguments(data_dir=str(write_tdc(tmp_path / "a", rows)), augment=2)
    plain = DataArguments(data_dir=str(write_tdc(tmp_path / "b", molecules())), augment=2)
    ours, theirs = (prepare(TASKS["cyp3a4"], a, 1, quiet) for a in (args, plain))
    assert ours.manifest.data_sha256 != theirs.manifest.data_sha256
    ids = {i: t for rows in theirs.splits.values() for i, t in zip(rows["id"], rows["input_ids"], strict=True)}
    for split in ours.splits.values():
        assert all(ids[i] == tokens for i, tokens in zip(split["id"], split["input_ids"], strict=True))
        assert all(Chem.CanonSmiles(text) == text for text in split["text"])
    row = ours.splits["train"][0]
    assert len(row["variants"]) == 2
    fingerprints(list(ours.splits["test"]["text"]))
    task, args = resolve(TASKS["cyp3a4"], args)
    aromatic, kekulised = (
        task.encode({k: [v] for k, v in task.read(s).items()}, args, ours.tokenizer)["input_ids"]
        for s in ("c1ccccc1", "C1=CC=CC=C1")
    )
    assert aromatic == kekulised


def test_keep_notation_keeps_it_in_training_and_prediction(tmp_path: Path) -> None:
    kekulised = []
    for smiles, label in molecules():
        molecule = Chem.MolFromSmiles(smiles)
        Chem.Kekulize(molecule, clearAromaticFlags=True)
        kekulised.append((Chem.MolToSmiles(molecule, kekuleSmiles=True), label))
    args = DataArguments(data_dir=str(write_tdc(tmp_path, kekulised)))
    kept = prepare(TASKS["cyp3a4"], changed(args, keep_notation=True), 1, quiet)
    assert {t for rows in kept.splits.values() for t in rows["text"]} == {s for s, _ in kekulised}
    canonical = prepare(TASKS["cyp3a4"], args, 1, quiet)
    assert "c" in canonical.tokenizer.get_vocab()
    assert "c" not in kept.tokenizer.get_vocab()
    task, _ = resolve(TASKS["cyp3a4"], changed(args, keep_notation=True))
    assert task.read("C1=CC=CC=C1")["text"] == "C1=CC=CC=C1"
    assert TASKS["cyp3a4"].read("C1=CC=CC=C1")["text"] == "c1ccccc1"


def test_names_behind_molecules_do_not_reach_the_tokens(tmp_path: Path) -> None:
    rows = molecules()
    rows[5] = (f"{rows[5][0]} CPD-{rows[5][1]}", rows[5][1])
    prepared = prepare(TASKS["cyp3a4"], DataArguments(data_dir=str(write_tdc(tmp_path, rows))), 1, quiet)
    assert prepared.rejected.reason.tolist() == [
        f"text after the SMILES: 'CPD-{rows[5][1]}'; keep only the SMILES in this column"
    ]
    assert prepared.rejected.text.tolist() == [rows[5][0]]


# Sequences


@pytest.mark.parametrize(
    ("written", "sequence"),
    [
        ("mkVla", "MKVLA"),
        ("ACGTnnacgt", "ACGTNNACGT"),
        ("M K V L A", "MKVLA"),
        ("MKVLAAGIAG LLLAMKVLAA\nGG*", "MKVLAAGIAGLLLAMKVLAAGG"),
        ("MKVLA\r\nAG\r\n", "MKVLAAG"),
        ("M-KV--XBZUOJ*", "M-KV--XBZUOJ"),
    ],
)
def test_a_sequence_is_read_however_it_is_written(written: str, sequence: str) -> None:
    assert Letters().read(written) == sequence


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (">sp|P1 a protein\nMKV", "a FASTA header ('>sp|P1 a protein')"),
        ("MKV\n>second\nMKV", "a FASTA header ('>second')"),
        ("MKV.LA", "'.' at position 4 is not the code of a residue"),
        ("  MK1V", "'1' at position 5"),
        ("1 mktayiakqr 11 qis", "'1' at position 1"),
        ("MK*V", "'*' at position 3"),
        ("MKÄV", "'Ä' (U+00C4 LATIN CAPITAL LETTER A WITH DIAERESIS) at position 3"),
        ("MK\u200bV", "U+200B ZERO WIDTH SPACE at position 3"),
        ("GFP MKVLAAGG", "words of several lengths ('GFP', 'MKVLAAGG')"),
        ("--*", "empty sequence"),
        (" \n", "empty sequence"),
    ],
)
def test_what_is_no_sequence_is_refused_with_character_and_place(text: str, why: str) -> None:
    assert why in reason(Letters(), text)


def test_lists_of_chains_are_read_as_tdc_writes_them() -> None:
    assert Sequences().read("['EVQl', 'DIQM']") == "['EVQL', 'DIQM']"
    assert Sequences().read("evql") == "EVQL"
    assert "'1' at position 3" in reason(Sequences(), "['EVQ', 'DI1']")
    assert reason(Sequences(), "[]") == "empty sequence"


# Text of any kind


def test_text_is_composed_and_otherwise_as_it_is() -> None:
    assert Text().read("cafe\u0301") == "caf\u00e9"
    for text in ("  A\tb\r\n\x0c ", "👩\u200d👧 مرحبا", "\ue000"):
        assert Text().read(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty input"),
        (" \u200b\ufeff\n", "empty input"),
        ("a\x00b", "a control character, U+0000 at position 2"),
        ("a\x1b[1mb", "U+001B"),
        ("it\x92s", "U+0092 at position 3; is the encoding of the file right?"),
        ("a\ud83d", "half a character, U+D83D at position 2"),
        ("a" + "\u0300\u0316" * 100_000, "combining marks"),
    ],
)
def test_text_that_no_tokenizer_can_read_is_refused(text: str, why: str) -> None:
    assert why in reason(Text(), text)


def test_many_cells_are_read_at_once() -> None:
    assert read_each(["OCC", None, "x y"], Smiles().read)[0] == ["CCO", "", ""]
    assert read_each(["OCC", 1.5], Smiles().read)[1] == [None, "not text"]


@pytest.mark.parametrize(("name", "words"), [("bpe", True), ("bpe", False), ("char", True), ("word", True)])
def test_a_cell_of_a_megabyte_takes_seconds(name: str, words: bool) -> None:
    text = Text().read("".join(random.Random(0).choices("ab", k=1_000_000)))
    start = time.monotonic()
    tokenizer = build_tokenizer([*SENTENCES, text], DataArguments(tokenizer=name, vocab_size=300), words)
    (ids,), _ = encode_texts([text], tokenizer, 512)
    assert 3 <= len(ids) <= 512
    assert time.monotonic() - start < 30


# Tokenizers


@pytest.mark.parametrize("texts", [SENTENCES, CHINESE, SENTENCES[:3] * 50])
def test_bpe_of_text_has_no_sentence_as_a_token_and_knows_everything(texts: list[str]) -> None:
    tokenizer = build_tokenizer(texts, BPE)
    tokens = {tokenizer.convert_tokens_to_string([t]) for t in set(tokenizer.get_vocab()) - {*SPECIAL}}
    assert not tokens & {*texts}
    for text in ("the film, 42!", "没有人 naïve 😀\n[UNK] [PAD]"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids[1:-1]) == text


def test_bpe_of_text_has_few_tokens_a_sentence_and_a_word_is_one() -> None:
    tokenizer = build_tokenizer(SENTENCES, BPE)
    assert np.mean([len(ids) for ids in tokenizer(SENTENCES)["input_ids"]]) < 12
    assert tokenizer.convert_ids_to_tokens(tokenizer("a superb film")["input_ids"]) == [BOS, "a", "Ġsuperb", "Ġfilm", EOS]


def test_bpe_of_molecules_merges_fragments_and_no_whole_molecule() -> None:
    texts = [Smiles().read(s) for s, _ in molecules()]
    tokenizer = build_tokenizer(texts, BPE, words=False)
    assert not {*tokenizer.get_vocab()} & {*texts}
    assert np.mean([len(ids) for ids in tokenizer(texts)["input_ids"]]) < 0.6 * np.mean([len(text) + 2 for text in texts])
    # Copies of a text are one text.
    assert build_tokenizer(texts * 3, BPE, words=False).get_vocab() == tokenizer.get_vocab()
    assert len(build_tokenizer(texts, changed(BPE, vocab_size=30), words=False)) == 30


@pytest.mark.parametrize(("words", "least"), [(True, 260), (False, 7)])
def test_a_vocabulary_that_is_too_small_is_one_line_with_the_least(words: bool, least: int) -> None:
    with pytest.raises(FPTError, match=rf"--vocab_size {least - 1} is too small: .*; give {least} or more"):
        build_tokenizer(["CCO", "CCN"], changed(BPE, vocab_size=least - 1), words)
    assert len(build_tokenizer(["CCO", "CCN"], changed(BPE, vocab_size=least), words)) == least


@pytest.mark.parametrize("name", ["bpe", "char", "word", "atom"])
def test_names_of_special_tokens_are_text(name: str, tmp_path: Path) -> None:
    text = "a [PAD] film [EOS] of [UNK]"
    tokenizer = build_tokenizer([text], DataArguments(tokenizer=name))
    assert [tokenizer.convert_tokens_to_ids(t) for t in SPECIAL] == [0, 1, 2, 3]
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    ids = again(text)["input_ids"]
    assert ids == tokenizer(text)["input_ids"]
    assert not {*ids[1:-1]} & {0, 1, 2, 3}


def test_unknown_tokens_are_counted() -> None:
    texts = ["CCO", "Clc1ccccc1"]
    args = DataArguments(tokenizer="atom", max_length=99)
    columns = Free().encode({"text": ["CCO", "CCBr", "BrCCI"]}, args, build_tokenizer(texts, args))
    assert columns["unknown"] == [0, 1, 2]
    args = changed(args, tokenizer="word")
    columns = Free().encode({"text": ["天地玄", "天地黄"]}, args, build_tokenizer(["天地玄"], args))
    assert columns["unknown"] == [0, 1]
    args = changed(args, tokenizer="char")
    decomposed = unicodedata.normalize("NFD", "é à")
    columns = Free().encode({"text": [Text().read(decomposed)]}, args, build_tokenizer(["é à"], args))
    assert columns["unknown"] == [0] and columns["length"] == [5]


def test_a_token_that_is_also_the_end_of_text_is_not_unknown() -> None:
    tokenizer = build_tokenizer(["CCO"], DataArguments(tokenizer="char"))
    assert unknown_id(tokenizer) == 1
    tokenizer.unk_token = tokenizer.eos_token
    assert unknown_id(tokenizer) is None


def test_a_token_of_bytes_starts_at_the_embedding_of_its_text(llama_dir: Path) -> None:
    tokenizer = build_tokenizer(["so good", "too good", "日"], BPE)
    backbone = load_backbone(BackboneSpec(str(llama_dir)))
    table, index = backbone.token_embedding.float(), backbone.tokenizer.get_vocab()

    def start(token: str) -> torch.Tensor:
        return _meaning(token, tokenizer, backbone.tokenizer, table)

    assert torch.allclose(start("g"), table[index["g"]])
    written = backbone.tokenizer(" good", add_special_tokens=False)["input_ids"]
    assert torch.allclose(start("Ġgood"), table[written].mean(0))
    # A byte of a character has no text.
    assert torch.allclose(start("æ"), table.mean(0))

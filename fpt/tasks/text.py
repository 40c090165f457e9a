"""What tasks on text share: sequences of characters, words, atoms or residues that a tokenizer cuts into tokens."""

from __future__ import annotations

import hashlib
from typing import Any

from rdkit import Chem, rdBase
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments
from fpt.data.tokenizers import encode_texts
from fpt.tasks import Task

# rdkit prints a line for each molecule it can't read; we count and list them ourselves.
rdBase.DisableLog("rdApp.*")


class Text:
    """A kind of text: how it is checked and cut into tokens.

    Attributes:
        tokenizer: the default of ``--tokenizer``.
        columns: names that a user's own file may give its column.
        libraries: packages whose release may change the tokens.
    """

    tokenizer: str = "bpe"
    columns: tuple[str, ...] = ("text",)
    libraries: tuple[str, ...] = ("tokenizers",)

    def check(self, text: str) -> str | None:
        """Return why `text` is no usable input, or None when it is one."""
        return None if text.strip() else "empty input"

    def clean(self, text: str) -> str:
        """A usable `text` as it is tokenized."""
        return text

    def variants(self, text: str, count: int, seed: int) -> list[str]:
        """Return `count` other ways to write the same input, for augmentation; empty when there are none."""
        return []


class Smiles(Text):
    """Molecules as SMILES."""

    tokenizer = "atom"
    columns = ("smiles", "SMILES", "Drug")
    libraries = ("tokenizers", "rdkit")

    def check(self, text: str) -> str | None:
        """Whether rdkit can read the molecule."""
        if not text.strip():
            return "empty SMILES"
        molecule = Chem.MolFromSmiles(text)
        if molecule is None:
            return "invalid SMILES"
        return None if molecule.GetNumAtoms() else "no atoms"

    def variants(self, text: str, count: int, seed: int) -> list[str]:
        """Return `count` SMILES of the same molecule, each walked in a random atom order."""
        molecule = Chem.MolFromSmiles(text)
        return list(Chem.MolToRandomSmilesVect(molecule, count, randomSeed=seed & 0x7FFFFFFF))


class Letters(Text):
    """Proteins, nucleotides: a token a letter."""

    tokenizer = "char"
    columns = ("sequence", "protein", "primary", "text")

    def check(self, text: str) -> str | None:
        """Whether it is a sequence of letters."""
        if not text.strip():
            return "empty sequence"
        return None if text.isascii() and text.replace("*", "").replace("-", "").isalpha() else "no sequence of letters"


class TextTask(Task):
    """A task whose raw rows have a column ``text``, of one kind of text; None only where an option makes it numbers."""

    modality: Text | None = Text()
    slow = False

    @property
    def tokenizer(self) -> str | None:  # type: ignore[override]
        """The default of its kind of text."""
        return self.modality.tokenizer if self.modality else None

    @property
    def text_columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of its kind of text."""
        return self.modality.columns if self.modality else ()

    @property
    def libraries(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of its kind of text."""
        return self.modality.libraries if self.modality else ()

    def read(self, text: str) -> dict[str, Any]:
        """One input of a user's own file.

        Raises:
            ValueError: `text` is no usable input, and why.
        """
        assert self.modality is not None
        if reason := self.modality.check(text):
            raise ValueError(reason)
        return {"text": self.modality.clean(text)}

    def encode(
        self, rows: dict[str, list[Any]], args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
    ) -> dict[str, list[Any]]:
        """Tokenize. Columns as in `Task.encode`, and ``cut``: whether a sequence was longer than --max_length."""
        assert tokenizer is not None and self.modality is not None
        ids, cut = encode_texts(rows["text"], tokenizer, args.longest)
        columns: dict[str, list[Any]] = {
            "input_ids": ids,
            "length": [len(i) for i in ids],
            "cut": cut,
            "reason": ["" if i else "no tokens" for i in ids],
        }
        if args.augment:
            # The seed is the text itself, so a variant does not depend on how rows are spread over processes.
            seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:4], "big") for t in rows["text"]]
            columns["variants"] = [
                encode_texts(self.modality.variants(text, args.augment, seed) or [text], tokenizer, args.longest)[0]
                for text, seed in zip(rows["text"], seeds, strict=True)
            ]
        return columns

"""What tasks on text share: sequences of characters, words, atoms or residues that a tokenizer cuts into tokens.

A cell of a table is read right or refused, and the same content written in two ways gives the same tokens:

* any text: Unicode's composed form (NFC), nothing else is changed; refused are empty cells and control characters,
* SMILES: rdkit's canonical SMILES without atom map numbers (``--keep_notation``: as written); refused is whatever is not
  one molecule and nothing else: names, extensions, reactions, wildcards. Salts, charges, isotopes and stereo stay,
* sequences: upper-case, without white space and one terminal ``*``. Every letter is an IUPAC code and has its own token
  (X, B, Z, J of proteins and N, R, Y, ... of nucleotides are ambiguous, U and O rare), and so has the gap ``-`` of an
  alignment. Refused are FASTA headers, a ``*`` inside (a stop), digits and all else.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments
from fpt.data.characters import EMPTY, named, short, unreadable
from fpt.data.tokenizers import unknown_id
from fpt.tasks.base import Task
from fpt.tasks.molecules import chemistry, vectors
from fpt.tasks.row_vectors import ROW_NUMBERS
from fpt.tasks.sides import encode_tokens

if TYPE_CHECKING:
    from rdkit import Chem

# Beyond this rdkit takes minutes, and from about 30,000 atoms on its recursion ends the process.
LONGEST_SMILES = 5_000
# Words of a cell that are tried as a SMILES, to say what is wrong with it.
MOST_WORDS = 10
# Characters of a rejected input that rejected.csv shows.
SHOWN = 1_000

_REACTION = re.compile(r"(?<!-)>")  # -> is a dative bond
_WILDCARD = re.compile(r"\*|\[\d*#0\b")
_ATOM_MAP = re.compile(r":\d+\]")
_INCHI_KEY = re.compile(r"[A-Z]{14}-[A-Z]{10}-[A-Z]")
_ATOM = re.compile(r"\[[^\]]*\]|Br|Cl|%\d\d|[^\s\[]")


def read_each(texts: Iterable[Any], read: Callable[[str], str]) -> tuple[list[str], list[str | None]]:
    """Read many cells.

    Args:
        read: such as `Text.read`; raises ValueError.

    Returns:
        The text to tokenize of each cell, empty for one that is refused, and why it is refused, or None.
    """
    cleaned: list[str] = []
    reasons: list[str | None] = []
    for text in texts:
        reason = None
        try:
            if not isinstance(text, str):
                raise ValueError("not text")
            clean = read(text)
        except ValueError as error:
            clean, reason = "", str(error)
        cleaned.append(clean)
        reasons.append(reason)
    return cleaned, reasons


class Text:
    """A kind of text: how it is checked and cut into tokens.

    Attributes:
        tokenizer: the default of ``--tokenizer``.
        columns: names that a user's own file may give its column.
        libraries: packages whose release may change the tokens.
        words: whether it is made of words; `fpt.data.tokenizers.build_tokenizer` wants to know.
    """

    tokenizer: str = "bpe"
    columns: tuple[str, ...] = ("text", "sentence", "review", "content", "message", "tweet", "comment")
    libraries: tuple[str, ...] = ("tokenizers",)
    words: bool = True

    def check(self, text: str) -> str | None:
        """Return why `text` is no usable input, or None when it is one."""
        return unreadable(text)

    def clean(self, text: str) -> str:
        """A usable `text` as it is tokenized: in Unicode's composed form, so that é is one character however it was written."""
        return unicodedata.normalize("NFC", text)

    def read(self, text: str, keep_notation: bool = False) -> str:
        """Return `text` as it is tokenized: checked and cleaned in one go.

        Args:
            keep_notation: leave one of several ways to write the same thing as it is.

        Raises:
            ValueError: `text` is no usable input, and why.
        """
        if reason := self.check(text):
            raise ValueError(reason)
        return self.clean(text)

    def variants(self, text: str, count: int, seed: int) -> list[str]:
        """Return `count` other ways to write the same input, for augmentation; empty when there are none."""
        return []


class Parsed(Text):
    """Text that is checked by parsing it, which gives the cleaned text as well: `read` is the one to override."""

    words = False
    empty = EMPTY

    def check(self, text: str) -> str | None:
        """Return why `text` is no usable input, or None when it is one."""
        return read_each([text], self.read)[1][0]

    def clean(self, text: str) -> str:
        """A usable `text` as it is tokenized."""
        return self.read(text)

    def _stripped(self, text: str) -> str:
        """`text` without white space around it.

        Raises:
            ValueError: nothing is left, or it is unreadable.
        """
        if reason := unreadable(text):
            raise ValueError(self.empty if reason == EMPTY else reason)
        return text.strip()


class Smiles(Parsed):
    """Molecules as SMILES."""

    tokenizer = "atom"
    columns = ("smiles", "SMILES", "Drug", "mol", "canonical_smiles")
    libraries = ("tokenizers", "rdkit")
    empty = "empty SMILES"

    def read(self, text: str, keep_notation: bool = False) -> str:
        """Return the canonical SMILES, isomeric and without atom map numbers; with `keep_notation` as written.

        Raises:
            ValueError: it is not one molecule and nothing else, and why.
        """
        smiles = self._stripped(text)
        _refuse_other_notations(smiles)
        molecule = _molecule(smiles)
        if molecule is None:
            raise ValueError(_why_invalid(smiles))
        if not molecule.GetNumAtoms():
            raise ValueError("no atoms")
        if keep_notation:
            return smiles
        if _ATOM_MAP.search(smiles):
            for atom in molecule.GetAtoms():
                atom.SetAtomMapNum(0)
        try:
            return chemistry().MolToSmiles(molecule)
        except (ValueError, RuntimeError) as error:
            raise ValueError("rdkit can't write this molecule as canonical SMILES") from error

    def variants(self, text: str, count: int, seed: int) -> list[str]:
        """Return `count` SMILES of the same molecule, each walked in a random atom order."""
        molecule = _molecule(text)
        seed = (seed & 0x7FFFFFFF) or 1  # rdkit takes 0 for no seed
        return [] if molecule is None else list(chemistry().MolToRandomSmilesVect(molecule, count, randomSeed=seed))


class Letters(Parsed):
    """Proteins, nucleotides: a token a letter."""

    tokenizer = "char"
    columns = ("sequence", "protein", "primary", "text")
    empty = "empty sequence"
    _other = re.compile(r"[^A-Za-z\s-]")

    def read(self, text: str, keep_notation: bool = False) -> str:
        """Return the sequence in upper case, without white space and a terminal ``*``.

        Raises:
            ValueError: it is not one sequence; the message says why.
        """
        stripped = self._stripped(text)
        if header := next((line for line in stripped.splitlines() if line.lstrip().startswith(">")), None):
            raise ValueError(f"a FASTA header ({short(header)}); keep only the sequence in this column")
        bare = stripped.removesuffix("*")
        if found := self._other.search(bare):
            place = len(text) - len(text.lstrip()) + found.start()
            raise ValueError(f"{named(text, place)} is not the code of a residue")
        for line in bare.splitlines():
            _refuse_words(line.split())
        sequence = "".join(bare.split())
        if not sequence.strip("-"):
            raise ValueError(self.empty)
        return sequence.upper()


class TextTask(Task):
    """A task whose raw rows have a column ``text``, of one kind of text; None only where an option makes it numbers."""

    modality: Text | None = Text()
    slow = False
    code_version = 2

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
        """One input of a user's own file, as it is tokenized.

        Raises:
            ValueError: `text` is no usable input, and why.
        """
        assert self.modality is not None
        return {"text": self.modality.read(text, self.keep_notation)}

    def encode(
        self, rows: dict[str, list[Any]], args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
    ) -> dict[str, list[Any]]:
        """Tokenize texts that were read, and gather the numbers of their samples.

        Returns:
            Columns as in `Task.encode`, ``cut`` (whether a sequence was longer than --max_length) and ``unknown`` (how many
            of its tokens the tokenizer does not know).
        """
        assert tokenizer is not None and self.modality is not None
        encoded = encode_tokens(rows["text"], tokenizer, args)
        unknown = unknown_id(tokenizer)
        columns: dict[str, list[Any]] = {
            "input_ids": encoded.inputs,
            "length": [len(i) for i in encoded.ids],
            "cut": encoded.cut,
            "unknown": [0 if unknown is None else i.count(unknown) for i in encoded.ids],
            "reason": encoded.reasons,
        }
        parts = [vectors(rows["text"], args.sample_vector)] if args.sample_vector is not None else []
        parts += [np.asarray(rows[ROW_NUMBERS], dtype=np.float32)] if args.vector_columns is not None else []
        if parts:
            columns["vector"] = list(np.concatenate(parts, axis=1))
            columns["length"] = [length + 1 for length in columns["length"]]
        if args.augment:
            # The seed is the text itself, so a variant does not depend on how rows are spread over processes.
            seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:4], "big") for t in rows["text"]]
            variants = [
                encode_tokens(self.modality.variants(text, args.augment, seed) or [text], tokenizer, args).inputs
                for text, seed in zip(rows["text"], seeds, strict=True)
            ]
            columns["variants"] = [[v for v in own if v] or [i] for own, i in zip(variants, encoded.inputs, strict=True)]
        return columns


def _molecule(smiles: str) -> Chem.Mol | None:
    try:
        return chemistry().MolFromSmiles(smiles)
    except RuntimeError:  # a broken invariant inside rdkit
        return None


def _refuse_other_notations(smiles: str) -> None:
    """Raise ValueError for what rdkit would not read, or read in part: it takes the first word and ignores the others."""
    if smiles.startswith("InChI="):
        raise ValueError("an InChI, not a SMILES")
    if _INCHI_KEY.fullmatch(smiles):
        raise ValueError("an InChIKey, not a SMILES")
    words = smiles.split()
    if any(_REACTION.search(word) for word in words[:1]) or any(word.startswith(">") for word in words):
        raise ValueError("a reaction (with >), not a molecule")
    if len(words) > 1:
        raise ValueError(_more_than_smiles(words, smiles))
    if not smiles.isascii():
        place = next(i for i, c in enumerate(smiles) if not c.isascii())
        raise ValueError(f"{named(smiles, place)} is not part of a SMILES")
    if "[Branch" in smiles or "[Ring" in smiles:
        raise ValueError("SELFIES, not a SMILES")
    if len(smiles) > LONGEST_SMILES:
        raise ValueError(f"longer than {LONGEST_SMILES:,} characters")
    if _WILDCARD.search(smiles):
        raise ValueError("a wildcard atom (*): a fragment or polymer, not one molecule")


def _more_than_smiles(words: list[str], text: str) -> str:
    """What there is besides a SMILES."""
    keep = "keep only the SMILES in this column"
    rest = text[len(words[0]) :].strip()
    if rest.startswith("|"):
        return f"a CXSMILES extension after the SMILES: {short(rest)}; {keep}"
    if all(_ATOM.fullmatch(word) for word in words) and len(words) > 2:
        return "white space between the atoms; write the SMILES without it"
    molecules = [len(word) <= LONGEST_SMILES and _molecule(word) is not None for word in words[:MOST_WORDS]]
    if molecules[0]:
        return f"text after the SMILES: {short(rest)}; {keep}"
    if any(molecules):
        before = " ".join(words[: molecules.index(True)])
        return f"text before the SMILES: {short(before)}; {keep}"
    return "invalid SMILES"


def _why_invalid(smiles: str) -> str:
    """rdkit's reason where a SMILES is well written and its chemistry is not."""
    molecule = chemistry().MolFromSmiles(smiles, sanitize=False)
    problems = chemistry().DetectChemistryProblems(molecule) if molecule is not None else []
    return f"invalid SMILES: {' '.join(problems[0].Message().split())}" if problems else "invalid SMILES"


def _refuse_words(words: list[str]) -> None:
    """Raise ValueError for a line of words that are no blocks: those are of one length, and the last one may be shorter."""
    if any(len(word) != len(words[0]) for word in words[:-1]) or len(words[-1:] and words[-1]) > len(words[:1] and words[0]):
        shown = ", ".join(short(word) for word in words[:3])
        raise ValueError(f"words of several lengths ({shown}), not blocks of a sequence; keep only the sequence in this column")

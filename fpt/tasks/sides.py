"""Sides of tokens: further ids that a token of a text carries besides its own, see `fpt.side_tokens`.

Morgan environments of an atom (Rogers and Hahn, J. Chem. Inf. Model. 2010, 50, 742), one side a radius; k-mers around a residue.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments
from fpt.data.tokenizers import PIECES, encode_texts
from fpt.errors import FPTError
from fpt.inputs import Input
from fpt.side_tokens import SideTokens
from fpt.tasks.molecules import chemistry

if TYPE_CHECKING:
    from rdkit import Chem

# The tokenizer that cuts a text as its sides need it, by the flag that asks for them.
CUT_BY = {"environments": "atom", "kmers": "char"}
# Atoms of a SMILES that stand without brackets.
ORGANIC = frozenset(("B", "C", "N", "O", "P", "S", "F", "Cl", "Br", "I", "b", "c", "n", "o", "s", "p"))
NO_TOKENS = "the tokenizer has no tokens for it"
# Of a text's pieces, the ids of each.
Sides = list[list[int]]


def count_sides(args: DataArguments) -> int:
    """How many further ids a token has; 0 where none were asked for."""
    if args.environments is not None:
        return args.environments + 1
    return 1 if args.kmers is not None else 0


def check_sides(args: DataArguments, task: str) -> None:
    """Refuse sides that the tokens can't carry.

    Raises:
        FPTError: --tokenizer cuts texts in another way.
    """
    for flag, tokenizer in CUT_BY.items():
        if getattr(args, flag) is not None and args.tokenizer != tokenizer:
            raise FPTError(f"--{flag} needs --tokenizer {tokenizer}; {task} is cut by --tokenizer {args.tokenizer}")


def check_agree(inputs: Input, args: DataArguments, task: str) -> None:
    """Refuse inputs that embed other sides than the arguments make.

    Raises:
        FPTError: they contradict each other.
    """
    asked = (count_sides(args), args.side_buckets) if count_sides(args) else None
    found = (inputs.sides, inputs.buckets) if isinstance(inputs, SideTokens) else None
    if found != asked:
        raise FPTError("input and data.arguments contradict each other about what a token carries besides its id")
    if (inputs.vector is not None) != args.carries_vector:
        raise FPTError("input and data.arguments contradict each other about the vector of a sample")
    check_sides(args, task)


def is_atom(piece: str) -> bool:
    """Whether a piece of a SMILES, as the atom tokenizer cuts it, is an atom."""
    return piece.startswith("[") or piece in ORGANIC


def sides_of(text: str, pieces: Sequence[str], args: DataArguments) -> Sides:
    """The sides of each piece of a text.

    Raises:
        ValueError: the text has none, and why.
    """
    if args.environments is not None:
        return environments(text, pieces, args.environments, args.side_buckets)
    assert args.kmers is not None
    return kmers(pieces, args.kmers, args.side_buckets)


def kmers(pieces: Sequence[str], length: int, buckets: int) -> Sides:
    """The hashed k-mer around each residue: `length` letters, fewer at the ends of the sequence."""
    before = (length - 1) // 2
    after = length - before
    words = ("".join(pieces[max(0, i - before) : i + after]) for i in range(len(pieces)))
    return [[1 + zlib.crc32(word.encode()) % buckets] for word in words]


def environments(smiles: str, pieces: Sequence[str], radius: int, buckets: int) -> Sides:
    """The hashed Morgan environments of each atom, radius 0 to `radius`; other pieces, and radii without bonds, have none.

    An explicit hydrogen that rdkit takes for a part of its neighbour has none either; the neighbour has those of its molecule
    without it.

    Raises:
        ValueError: pieces and atoms are not the same.
    """
    molecule = _parsed(smiles)
    atoms = [place for place, piece in enumerate(pieces) if is_atom(piece)]
    if molecule is None or molecule.GetNumAtoms() != len(atoms):
        raise ValueError("its atoms are not the tokens of its SMILES, so that no token has environments")
    out: Sides = [[0] * (radius + 1) for _ in pieces]
    for (atom, size), bit in _environments(molecule, radius).items():
        out[atoms[atom]][size] = 1 + bit % buckets
    return out


def _environments(molecule: Chem.Mol, radius: int) -> dict[tuple[int, int], int]:
    """The hash of the environment of each atom and radius, by the atom's place in `molecule`."""
    from rdkit.Chem import rdFingerprintGenerator

    for atom in molecule.GetAtoms():
        atom.SetIntProp("place", atom.GetIdx())
    plain = _without_hydrogens(molecule)
    found = rdFingerprintGenerator.AdditionalOutput()
    found.AllocateBitInfoMap()
    _generator(radius).GetSparseCountFingerprint(plain, additionalOutput=found)
    places = [atom.GetIntProp("place") for atom in plain.GetAtoms()]
    return {(places[atom], size): bit for bit, there in found.GetBitInfoMap().items() for atom, size in there}


@functools.cache
def _generator(radius: int) -> Any:
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=radius, includeRedundantEnvironments=True)


def _parsed(smiles: str) -> Chem.Mol | None:
    """The molecule with all atoms of the SMILES, in its order."""
    chem = chemistry()
    options = chem.SmilesParserParams()
    options.removeHs = False
    try:
        return chem.MolFromSmiles(smiles, options)
    except RuntimeError:
        return None


def _without_hydrogens(molecule: Chem.Mol) -> Chem.Mol:
    from rdkit import Chem

    try:
        return Chem.RemoveHs(molecule)
    except (ValueError, RuntimeError):  # rdkit can't tell what would be left
        return molecule


@dataclass(frozen=True)
class Encoded:
    """Texts as tokens.

    Attributes:
        ids: token ids of each text.
        inputs: the same, each token followed by its sides: (tokens * (1 + sides),).
        cut: whether it was longer than --max_length.
        reasons: why it can't be used; empty for a usable text.
    """

    ids: list[list[int]]
    inputs: list[list[int]]
    cut: list[bool]
    reasons: list[str]


def encode_tokens(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, args: DataArguments) -> Encoded:
    """Tokenize texts; a sequence that is too long loses tokens before its last one, which the readout reads."""
    if not count_sides(args):
        plain, cut = encode_texts(texts, tokenizer, args.longest)
        return Encoded(plain, plain, cut, ["" if i else NO_TOKENS for i in plain])
    whole, _ = encode_texts(texts, tokenizer, max(map(len, texts), default=0) + 2)
    out = Encoded([], [], [], [])
    for text, ids in zip(texts, whole, strict=True):
        try:
            tokens = _tokens(text, ids, args) if ids else []
            reason = "" if tokens else NO_TOKENS
        except ValueError as error:
            tokens, reason = [], str(error)
        too_long = len(tokens) > args.longest
        tokens = tokens[: args.longest - 1] + tokens[-1:] if too_long else tokens
        out.ids.append([token[0] for token in tokens])
        out.inputs.append([number for token in tokens for number in token])
        out.cut.append(too_long)
        out.reasons.append(reason)
    return out


def pieces_of(text: str, args: DataArguments) -> list[str]:
    """The tokens of a text as this project cuts it, from the first to the last; empty for those at its start and end."""
    pieces = [piece for piece, _ in PIECES[args.tokenizer or ""].pre_tokenize_str(text)]
    return ["", *(piece for piece in pieces if args.tokens == "all" or is_atom(piece)), ""]


def _tokens(text: str, ids: list[int], args: DataArguments) -> list[list[int]]:
    """Each token of a text: its id and its sides."""
    # As this project cuts; a checkpoint's tokenizer may cut in another way, and then has another number of tokens.
    pieces = [piece for piece, _ in PIECES[args.tokenizer or ""].pre_tokenize_str(text)]
    if len(ids) != len(pieces) + 2:
        raise ValueError("its tokens are not its pieces, so that they carry no sides")
    none = [0] * count_sides(args)
    sides = [none, *sides_of(text, pieces, args), none]
    kept = [True, *(args.tokens == "all" or is_atom(piece) for piece in pieces), True]
    return [[id_, *own] for id_, own, keep in zip(ids, sides, kept, strict=True) if keep]

"""Molecule Attention Transformer (arXiv 2002.08264): atoms attend by content, by distance in space and by bonds.

Any task on SMILES. Features are those of the paper's code: 27 numbers an atom (element, neighbours, hydrogens, charge, ring,
aromaticity), a dummy atom that no bond or distance reaches, bonds, and distances in a conformer that rdkit embeds and relaxes
with UFF (drawn flat where it can't). The shape is its published default; attention is section 3.2 of the paper. Two differences
to the code: the conformer is drawn from a fixed seed, and a molecule that can't be embedded loses its added hydrogens again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from fpt.args import DataArguments, arg
from fpt.errors import FPTError
from fpt.flags.checks import SHARE, WIDTH, Range, check_heads, check_ranges
from fpt.inputs import INPUTS, Input
from fpt.models.base import MODELS, Network, NetworkModel
from fpt.outputs import Output
from fpt.tasks.base import Examples, GeneratedTask, Source, Task
from fpt.tasks.images import encode_each
from fpt.tasks.molecules import chemistry
from fpt.tasks.text import Smiles, TextTask

if TYPE_CHECKING:
    from rdkit import Chem

ELEMENTS = (5, 6, 7, 8, 9, 15, 16, 17, 35, 53)  # and any other
ATOM_FEATURES = 28  # with the one that marks the dummy
FAR = 1e6
CONFORMER_SEED = 7
# Embedding seldom needs more; the paper's code allows 5,000, which takes minutes for a macrocycle.
ATTEMPTS = 50


def atom_features(atom: Chem.Atom) -> list[float]:
    """27 numbers: one of 11 elements, 0 to 5 neighbours, 0 to 4 hydrogens, charge -1, 0 or 1 (what is none of these counts as the
    last), in a ring, aromatic."""

    def one_of(value: int, known: Sequence[int]) -> list[float]:
        index = known.index(value) if value in known else len(known) - 1
        return [float(i == index) for i in range(len(known))]

    return [
        *one_of(atom.GetAtomicNum(), (*ELEMENTS, 999)),
        *one_of(atom.GetDegree(), range(6)),
        *one_of(atom.GetTotalNumHs(), range(5)),
        *one_of(atom.GetFormalCharge(), (-1, 0, 1)),
        float(atom.IsInRing()),
        float(atom.GetIsAromatic()),
    ]


def conformer(molecule: Chem.Mol) -> Chem.Mol:
    """The molecule with positions of its heavy atoms, in Å: embedded and relaxed, or flat where that fails."""
    chem = chemistry()
    from rdkit.Chem import rdDepictor, rdDistGeom, rdForceFieldHelpers

    whole = chem.AddHs(molecule)
    try:
        if rdDistGeom.EmbedMolecule(whole, maxAttempts=ATTEMPTS, randomSeed=CONFORMER_SEED) == 0:
            rdForceFieldHelpers.UFFOptimizeMolecule(whole)
            return chem.RemoveHs(whole)
    except (ValueError, RuntimeError):  # no force field for an element, or hydrogens that can't be removed
        pass
    rdDepictor.Compute2DCoords(molecule)
    return molecule


def graph_features(smiles: str) -> np.ndarray:
    """What MAT reads of a molecule.

    Returns:
        (atoms, 28 + 2 * atoms) fp32: features of each atom, then its row of the adjacency matrix (1 on the diagonal), then its
        distances in Å. The first atom is the dummy, 1e6 Å from all.

    Raises:
        ValueError: rdkit can't read it.
    """
    chem = chemistry()
    molecule = chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        raise ValueError("invalid SMILES")
    molecule = conformer(molecule)
    count = molecule.GetNumAtoms()
    graph = np.zeros((count + 1, ATOM_FEATURES + 2 * (count + 1)), dtype=np.float32)
    atoms, bonds, distances = np.split(graph, [ATOM_FEATURES, ATOM_FEATURES + count + 1], axis=1)
    atoms[0, 0] = 1
    atoms[1:, 1:] = [atom_features(atom) for atom in molecule.GetAtoms()]
    bonds[1:, 1:] = chem.GetAdjacencyMatrix(molecule) + np.eye(count)
    distances[:] = FAR
    distances[1:, 1:] = chem.Get3DDistanceMatrix(molecule)
    return graph


@dataclass(frozen=True)
class Graphs(Input):
    """Molecules as `graph_features` gives them, flat."""

    dim: int = ATOM_FEATURES
    kind: ClassVar[str] = "graphs"
    column: ClassVar[str] = "values"

    def module(self, hidden_size: int, widths: tuple[int, ...] = ()) -> nn.Module:
        raise FPTError("molecules as graphs go into --model mat only")

    def pad(self, sequences: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        counts = [self.atoms(len(s)) for s in sequences]
        most = max(counts)
        batch = np.zeros((len(sequences), most, self.dim + 2 * most), dtype=np.float32)
        for row, sequence, count in zip(batch, sequences, counts, strict=True):
            parts = np.split(np.asarray(sequence).reshape(count, -1), [self.dim, self.dim + count], axis=1)
            for part, start in zip(parts, (0, self.dim, self.dim + most), strict=True):
                row[:count, start : start + part.shape[1]] = part
        mask = torch.arange(most) < torch.tensor(counts)[:, None]
        return torch.from_numpy(batch), mask.long()

    def atoms(self, numbers: int) -> int:
        """Atoms of a molecule of so many numbers: n * (dim + 2 n)."""
        return round((math.sqrt(self.dim**2 + 8 * numbers) - self.dim) / 4)


class GraphTask(Task):
    """A task on SMILES whose molecules are graphs."""

    tokenizer = None
    features = "mat-1"

    def __init__(self, task: TextTask) -> None:
        self.task = task
        for name in ("name", "source", "licence", "primary_metric", "splits", "options", "saves_split", "code_version"):
            setattr(self, name, getattr(task, name))
        self.text_columns = task.text_columns
        self.libraries = tuple({*task.libraries, "rdkit"})

    def locate(self, args: DataArguments, log: Any) -> Source:
        """As the task."""
        return self.task.locate(args, log)

    def split(self, source: Source, args: DataArguments, seed: int) -> Examples:
        """As the task."""
        return self.task.split(source, args, seed)

    def read(self, text: str) -> dict[str, Any]:
        """As the task."""
        return self.task.read(text)

    def encode(
        self, rows: dict[str, list[Any]], args: DataArguments, tokenizer: PreTrainedTokenizerBase | None
    ) -> dict[str, list[Any]]:
        """Make graphs; the length is the number of atoms with the dummy."""
        columns = encode_each(rows["text"], lambda smiles: graph_features(smiles).ravel(), 1, np.float32)
        columns["length"] = [Graphs().atoms(length) for length in columns["length"]]
        return columns

    def input(self, args: DataArguments) -> Graphs:
        """Graphs."""
        return Graphs()


class Norm(nn.Module):
    """Layer norm as the paper's code has it: by the unbiased deviation, to which epsilon is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        centred = states - states.mean(-1, keepdim=True)
        return self.weight * centred / (states.std(-1, keepdim=True) + 1e-6) + self.bias


class Block(nn.Module):
    """Attention and one feed-forward layer, each behind a norm and beside a residual path."""

    def __init__(self, width: int, heads: int, lambdas: tuple[float, float, float], slope: float, dropout: float) -> None:
        super().__init__()
        self.heads, self.lambdas, self.slope = heads, lambdas, slope
        self.query, self.key, self.value, self.out, self.feed = (nn.Linear(width, width) for _ in range(5))
        self.attention_norm, self.feed_norm = Norm(width), Norm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor, near: torch.Tensor, bonds: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """States (batch, atoms, width); `near` and `bonds` (batch, 1, atoms, atoms) weigh values; `real` (batch, 1, 1, atoms)."""
        normed = self.attention_norm(states)
        query, key, value = (
            layer(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        by_content = scores.masked_fill(~real, -1e12).softmax(-1)
        weights = self.lambdas[0] * by_content + self.lambdas[1] * near + self.lambdas[2] * bonds
        mixed = (self.dropout(weights) @ value).transpose(1, 2).flatten(2)
        states = states + self.dropout(self.out(mixed))
        fed = self.dropout(F.leaky_relu(self.feed(self.feed_norm(states)), self.slope))
        return states + self.dropout(fed)


class MatNetwork(Network):
    """The transformer on atoms, the mean over atoms, and a linear layer."""

    def __init__(self, options: MatOptions, size: int, dropout: float) -> None:
        super().__init__()
        width, lambdas = options.mat_width, (options.mat_lambda_attention, options.mat_lambda_distance)
        every = (*lambdas, 1 - sum(lambdas))
        self.embedding, self.dropout = nn.Linear(ATOM_FEATURES, width), nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            [Block(width, options.mat_heads, every, options.mat_slope, dropout) for _ in range(options.mat_layers)]
        )
        self.norm, self.readout = Norm(width), nn.Linear(width, size)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (batch, size) of graphs from `Graphs.pad`."""
        count = inputs.shape[1]
        atoms, bonds, distances = inputs.split([ATOM_FEATURES, count, count], dim=-1)
        real = attention_mask.bool()
        near = torch.exp(-distances.masked_fill(~real[:, None, :], math.inf))[:, None]
        bonds = (bonds / (bonds.sum(-1, keepdim=True) + 1e-6))[:, None]
        states = self.dropout(self.embedding(atoms))
        for block in self.blocks:
            states = block(states, near, bonds, real[:, None, None])
        states = self.norm(states) * attention_mask[..., None]
        return self.readout(states.sum(1) / attention_mask.sum(1, keepdim=True)).float()


@dataclass
class MatOptions:
    """Shape of the network; the defaults are the paper's."""

    _argument_group_name = "mat"
    mat_width: int = arg(1024, "Width of the states.")
    mat_layers: int = arg(8, "Blocks.")
    mat_heads: int = arg(16, "Attention heads.")
    mat_lambda_attention: float = arg(0.33, "Weight of the attention by content.")
    mat_lambda_distance: float = arg(0.33, "Weight of the distances; the bonds have the rest.")
    mat_slope: float = arg(0.1, "Slope of the leaky ReLU below zero.")

    def __post_init__(self) -> None:
        check_ranges(self, mat_width=WIDTH, mat_layers=Range(1, 1_000), mat_heads=Range(1, 1_000))
        check_ranges(self, mat_lambda_attention=SHARE, mat_lambda_distance=SHARE, mat_slope=SHARE)
        check_heads(self.mat_width, self.mat_heads, "mat_width", "mat_heads")


class Mat(NetworkModel):
    """MAT from scratch."""

    name = "mat"
    source = "arXiv 2002.08264"
    options = MatOptions
    packages = ("rdkit",)

    def view(self, task: Task | GeneratedTask) -> GraphTask:
        """Molecules as graphs."""
        if isinstance(task, GraphTask):
            return task
        if not isinstance(task, TextTask) or not isinstance(task.modality, Smiles):
            raise FPTError(f"--model mat reads molecules; {task.name} has no SMILES (for a CSV file say --input_type smiles)")
        return GraphTask(task)

    def network(self, inputs: Input, output: Output, options: MatOptions, shape: Mapping[str, Any], dropout: float) -> MatNetwork:
        """The network for a task."""
        return MatNetwork(options, output.size, dropout)


INPUTS[Graphs.kind] = Graphs
MODELS.register("mat")(Mat())

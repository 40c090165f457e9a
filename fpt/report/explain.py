"""What one model looks at: attention on samples of its test split, and a t-SNE of what its readout reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpt.data.prepared import Prepared
from fpt.errors import FPTError
from fpt.forecasts import Forecast
from fpt.models.fpt import FPT
from fpt.outputs import Bits, Classes, Output
from fpt.report.attention import Looked, features, look
from fpt.report.figures import Block, Paragraph, Picture, Pictures, figure, image
from fpt.tasks.images import ImageTask, unpatch
from fpt.tasks.molecules import chemistry
from fpt.tasks.sides import is_atom, pieces_of
from fpt.tasks.text import Smiles
from fpt.text.escape import molecule_text, picture_text
from fpt.text.log import silent

# More samples make no better picture.
TSNE_SAMPLES = 1000
SEED = 0


def insight(folder: Path, samples: int, data_dir: str | None) -> list[Block]:
    """Attention on samples of the test split, and a t-SNE of the readout's states; nothing for other models than FPT.

    Raises:
        FPTError: the run can't be loaded.
    """
    from fpt.args import changed
    from fpt.checkpoint import find_checkpoint, load_checkpoint
    from fpt.data.cache import prepare
    from fpt.tasks.base import TASKS

    model, tokenizer, config = load_checkpoint(find_checkpoint(str(folder)))
    if not isinstance(model, FPT):
        return []
    args = changed(config.data.arguments, data_dir=data_dir)
    wanted = config.data.data_sha256
    prepared = prepare(TASKS[config.task], args, config.data.split_seed, silent, wanted, tokenizer, fetch=False)
    if prepared.manifest.data_sha256 != wanted:
        raise FPTError(f"the data of {folder} is not here; give it with --data_dir")
    count = len(prepared.samples("test"))
    chosen = np.random.default_rng(SEED).choice(count, min(samples, count), replace=False).tolist()
    pictures: list[Picture | Paragraph] = []
    try:
        for looked in look(model, prepared, sorted(chosen)):
            pictures.append(sample_picture(prepared, looked))
    except FPTError as error:
        pictures.append(Paragraph(str(error)))
    states, labels = features(model, prepared, TSNE_SAMPLES)
    mean = Paragraph("Attention from the tokens that the readout reads, mean over layers and heads.")
    return [mean, Pictures(pictures), *tsne(states, labels, prepared.output)]


def sample_picture(prepared: Prepared, looked: Looked) -> Picture:
    """One sample with the attention it got, as its modality is seen best."""
    weights = looked.attention.mean((0, 1))
    if isinstance(prepared.output, Forecast):
        title = prepared.ids("test")[looked.index]
    else:
        title = f"{prepared.output.shown(looked.label)}, predicted {prepared.output.cells(looked.prediction)[0]}"
    if isinstance(prepared.output, Bits):
        return figure(lambda axis: _bits(axis, weights), 5, 3)
    task, weights = prepared.task, weights.mean(0)
    if isinstance(getattr(task, "modality", None), Smiles) and prepared.args.tokenizer == "atom":
        text = prepared.splits["test"][looked.index]["text"]
        if prepared.input.vector is not None:  # the first token is no atom
            weights = weights[1:]
        return molecule_picture(text, pieces_of(text, prepared.args), weights, title)
    if isinstance(task, ImageTask):
        return figure(lambda axes: _picture(axes, prepared, looked, weights, title), 5, 2.6, 2)
    return figure(lambda axis: _bars(axis, weights, title), 5, 2.2)


def molecule_picture(smiles: str, tokens: Sequence[str], weights: np.ndarray, title: str) -> Picture:
    """A molecule whose atoms are as red as the attention that their tokens got."""
    chem = chemistry()
    from rdkit.Chem.Draw import rdMolDraw2D

    options = chem.SmilesParserParams()
    options.removeHs = False  # type: ignore[assignment]  # every atom token is an atom of the picture
    molecule = chem.MolFromSmiles(smiles, options)
    atoms = [float(weight) for token, weight in zip(tokens, weights, strict=False) if is_atom(token)]
    if len(atoms) < molecule.GetNumAtoms():  # a long molecule was cut
        atoms += [0.0] * (molecule.GetNumAtoms() - len(atoms))
    top = max(max(atoms), 1e-9)
    colors = {i: (1.0, 1 - 0.8 * a / top, 1 - 0.8 * a / top) for i, a in enumerate(atoms[: molecule.GetNumAtoms()])}
    drawer = rdMolDraw2D.MolDraw2DSVG(300, 230)
    lit: dict[str, Any] = {"highlightAtoms": list(colors), "highlightAtomColors": colors, "highlightBonds": []}
    drawer.DrawMolecule(molecule, legend=molecule_text(title), **lit)
    drawer.FinishDrawing()
    return image(drawer.GetDrawingText(), smiles)


def _picture(axes: Any, prepared: Prepared, looked: Looked, weights: np.ndarray, title: str) -> None:
    task = prepared.task
    assert isinstance(task, ImageTask)
    height, width, channels = task.shape(prepared.args)
    side = task.patch_size(prepared.args)
    values = np.asarray(prepared.samples("test")[looked.index][prepared.input.column])
    picture = unpatch(values, height, width, channels, side, task.overlap(prepared.args)).squeeze()
    axes[0].imshow(picture, cmap="gray")
    axes[0].set_title(picture_text(title))
    axes[1].imshow(weights.reshape(height // side, width // side), cmap="magma")
    axes[1].set_title("attention")
    for axis in axes:
        axis.set_axis_off()


def _bits(axis: Any, weights: np.ndarray) -> None:
    axis.imshow(weights, cmap="magma", aspect="auto", interpolation="nearest")
    axis.set(title="attention", xlabel="token", ylabel="token that is read")


def _bars(axis: Any, weights: np.ndarray, title: str) -> None:
    axis.bar(range(len(weights)), weights, width=1.0)
    axis.set(title=picture_text(title), xlabel="token", ylabel="attention")


def tsne(states: np.ndarray, labels: np.ndarray, output: Output) -> list[Picture]:
    """Two dimensions of what the readout reads, coloured by label; nothing for a few samples."""
    from sklearn.manifold import TSNE

    if len(states) < 10:
        return []
    places = TSNE(perplexity=min(30, (len(states) - 1) / 3), random_state=SEED, init="pca").fit_transform(states)

    def draw(axis: Any) -> None:
        if isinstance(output, Classes):
            for number in np.unique(labels):
                own = labels == number
                name = picture_text(output.label_names[int(number)], 30)
                axis.scatter(*places[own].T, s=5, color=f"C{number % 10}", label=name)
            if output.size <= 12:
                axis.legend(fontsize=7, frameon=False, markerscale=2)
        else:
            values = output.standardised(labels) if isinstance(output, Forecast) else labels
            shown = values.reshape(len(labels), -1).mean(1)
            axis.scatter(*places.T, s=5, c=shown, cmap="viridis")
        axis.set(title=f"t-SNE of what the readout reads ({len(states):,} test samples)")
        axis.set_axis_off()

    return [figure(draw, 5.5, 5)]

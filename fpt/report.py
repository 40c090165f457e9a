"""One page about runs: `python -m fpt.report runs/experiments/cyp3a4/small --output report.html`.

Tables (mean and standard deviation over seeds, beside published values where an experiment has them), learning curves, ROC, PR
and calibration curves or a confusion matrix, attention on chosen samples, and a t-SNE of what the readout reads. The page needs
nothing but itself; the same tables as Markdown are written beside it.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fpt.args import command_of
from fpt.errors import FPTError, cli
from fpt.experiment import ABOUT
from fpt.files import write_text
from fpt.results import LOWER_IS_BETTER, RESULTS_FILE, shown_metric, shown_spread
from fpt.run_dir import FREE_ON_RESUME, PREDICTIONS

# Arguments that may differ between the runs of one row.
FREE = FREE_ON_RESUME | {"seed", "backbone_seed", "global_batch_size", "cache_dir"}
# More samples make no better picture.
TSNE_SAMPLES = 1000
# Of the bootstrap over test samples.
DRAWS = 200
SEED = 0


@dataclass
class Row:
    """Runs that differ in their seed alone.

    Attributes:
        key: what they have in common.
        name: of the experiment's row, or made of model and core.
        runs: folder and results of each, by seed.
        published, source: values that others give, and where.
        command: runs it again.
    """

    key: str
    name: str
    runs: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    published: dict[str, float] = field(default_factory=dict)
    source: str = ""
    command: str = ""

    @property
    def results(self) -> list[dict[str, Any]]:
        """Results of each run."""
        return [results for _, results in self.runs]

    @property
    def first(self) -> dict[str, Any]:
        """Results of the first run."""
        return self.runs[0][1]

    def score(self, split: str, metric: str) -> tuple[float, float] | None:
        """Mean and sample standard deviation over runs."""
        values = [r["metrics"][split].get(metric) for r in self.results]
        if any(value is None for value in values):
            return None
        return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def find_runs(paths: Iterable[str]) -> list[Path]:
    """Folders of finished runs at or below `paths`; the trials of a sweep are left out.

    Raises:
        FPTError: there is none.
    """
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text).expanduser()
        if not path.is_dir():
            raise FPTError(f"{text} is no folder; give runs of train.py or the folder of an experiment")
        below = [path] if (path / RESULTS_FILE).is_file() else [p.parent for p in sorted(path.rglob(RESULTS_FILE))]
        found |= dict.fromkeys(p for p in below if not any(part.startswith("sweep-") for part in p.relative_to(path).parts))
    if not found:
        raise FPTError(f"no finished run (a folder with {RESULTS_FILE}) in {', '.join(paths)}")
    return list(found)


def read_rows(folders: Sequence[Path]) -> dict[str, list[Row]]:
    """Rows of each task, in the order of the experiment where there is one.

    Raises:
        FPTError: a results file can't be read.
    """
    rows: dict[str, dict[str, Row]] = defaultdict(dict)
    experiments = [_experiment_of(folder) for folder in folders]
    for folder, named in zip(folders, experiments, strict=True):
        try:
            results = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
            key, name = row_key(results), (named or {}).get("name") or row_name(results)
            task = results["task"]
            results["metrics"]["test"], results["history"], results["seed"]
            command = command_of(results["arguments"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FPTError(f"{folder / RESULTS_FILE} can't be read ({error!r}); run it again") from None
        row = rows[task].setdefault(key, Row(key, name))
        if named:
            row.published, row.source = named["published"], named["source"]
        if results["seed"] in {r["seed"] for r in row.results}:
            raise FPTError(f"{folder} and {row.runs[0][0]} are the same run twice (seed {results['seed']}); give one of them")
        row.runs.append((folder, results))
        row.command = row.command or command
    order = {named["name"]: named["order"] for named in experiments if named}
    return {task: sorted(own.values(), key=lambda r: order.get(r.name, 99)) for task, own in rows.items()}


def row_key(results: dict[str, Any]) -> str:
    """What runs of one row have in common: task, model, core (with its weights, where they are not drawn) and arguments."""
    core = results["core"]
    drawn = core.get("seed") is not None
    same = {k: v for k, v in results["arguments"].items() if k not in FREE}
    return json.dumps([results["task"], core["name"], None if drawn else core.get("sha256"), same], sort_keys=True, default=str)


def row_name(results: dict[str, Any]) -> str:
    """Model and core in words."""
    core, model = results["core"], results.get("model", "fpt")
    layers = f", {core['num_layers']} layers" if core.get("num_layers") else ""
    if model in ("fpt", "full", "lstm"):
        return f"{'FPT' if model == 'fpt' else model}, {core['name']}{layers}"
    chosen = results.get("chosen", {}).get("estimator")
    return f"{model} ({chosen})" if chosen else model


def _experiment_of(folder: Path) -> dict[str, Any] | None:
    """The row of the experiment that a run belongs to."""
    for above in folder.parents:
        about = above / ABOUT
        if about.is_file():
            rows = json.loads(about.read_text(encoding="utf-8"))["rows"]
            for order, row in enumerate(rows):
                if str(folder.absolute()) in row["runs"]:
                    return {**row, "order": order}
            return None
    return None


# Tables.


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """Metrics of a task, the one that picks the model first."""
    primary = rows[0].first["primary_metric"]
    others = [m for m in rows[0].first["metrics"]["test"] if m not in (primary, "loss")]
    return [primary, *others]


def table_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the table of a task."""
    metrics = metrics_of(rows)
    published = [m for m in metrics if any(m in row.published for row in rows)]
    head = ["model", "core", "seeds", "steps", f"valid {metrics[0]}", *(f"test {m}" for m in metrics)]
    head += [*(f"published {m}" for m in published), "tuned", "s"]
    cells = []
    for row in rows:
        tuned = row.first.get("trainable_parameters")
        seconds = np.mean([r["wall_seconds"] for r in row.results])
        core = row.first["core"]
        weights = f" {core['sha256'][:8]}" if core.get("sha256") and core.get("seed") is None else ""
        cells.append(
            [
                row.name,
                f"{core['name']}{weights}",
                ", ".join(str(r["seed"]) for r in row.results),
                ", ".join(f"{s:,}" for s in sorted({r["steps"] for r in row.results})),
                _shown(row.score("valid", metrics[0]), len(row.runs)),
                *(_shown(row.score("test", m), len(row.runs)) for m in metrics),
                *(shown_metric(row.published[m]) if m in row.published else "" for m in published),
                f"{tuned:,}" if tuned else "",
                f"{seconds:,.0f}",
            ]
        )
    return head, cells


def _shown(score: tuple[float, float] | None, runs: int) -> str:
    if score is None:
        return "-"
    return shown_spread(*score) if runs > 1 else shown_metric(score[0])


def tdc_rows(task: str, rows: Sequence[Row]) -> list[str]:
    """Rows of a set of TDC in the form of its leaderboard: model, parameters, mean ± standard deviation with three digits."""
    if not (task.startswith("tdc/") or task == "cyp3a4"):
        return []
    metric = rows[0].first["primary_metric"]
    lines = ["| Model | #Params | " + metric.upper() + " |", "|---|---|---|"]
    for row in rows:
        tuned, score = row.first.get("trainable_parameters"), row.score("test", metric)
        if score is not None:
            lines.append(f"| {row.name} | {f'{tuned:,}' if tuned else 'N/A'} | {score[0]:.3f} ± {score[1]:.3f} |")
    return lines


def findings(rows: Sequence[Row]) -> list[str]:
    """What the table says, in sentences that say as well when nothing can be said.

    The uncertainty of a difference is that of the seeds (standard deviation of both rows) and of the test samples (bootstrap,
    the same samples for both).
    """
    metric = metrics_of(rows)[0]
    scored = [(row, score) for row in rows if (score := row.score("test", metric)) is not None]
    if len(scored) < 2:
        return []
    sign = -1 if metric in LOWER_IS_BETTER else 1
    scored.sort(key=lambda pair: -sign * pair[1][0])
    best, *others = scored
    out = [f"Best on test {metric}: {best[0].name}, {_shown(best[1], len(best[0].runs))}."]
    resampled = {row.name: resample(row, metric) for row, _ in scored}
    for row, score in others:
        gap = abs(best[1][0] - score[0])
        one, two = resampled[best[0].name], resampled[row.name]
        samples = float(np.std(one - two)) if one is not None and two is not None and len(one) == len(two) else 0.0
        noise = float(np.sqrt(best[1][1] ** 2 + score[1] ** 2 + samples**2))
        if min(len(best[0].runs), len(row.runs)) < 2:
            said = "one seed, so little is said of the difference"
        else:
            more = "more than" if gap > 2 * noise else "within"
            said = f"{more} twice the uncertainty of seeds and test samples ({shown_metric(noise)})"
        out.append(f"{row.name} is {shown_metric(gap)} behind it: {said}.")
    return out


def kind_of(row: Row) -> str:
    """What is asked for: classes, value, bits or multilabel."""
    return str(row.first["data"].get("output", {}).get("kind", ""))


def tables_of(row: Row) -> list[pd.DataFrame]:
    """Predictions on the test split of each run that has them; names of classes stay text, also where they look like numbers."""
    kind = kind_of(row)
    texts = {"id": str, "label": str, "prediction": str} if kind in ("classes", "multilabel", "bits") else None
    files = [folder / PREDICTIONS for folder, _ in row.runs if (folder / PREDICTIONS).is_file()]
    return [pd.read_csv(file, dtype=texts, keep_default_na=False) for file in files]


def resample(row: Row, metric: str) -> np.ndarray | None:
    """The metric, mean over seeds, on test samples drawn with replacement, (draws,); None where it is not known how."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores: dict[str, Callable[..., float]] = {"auprc": average_precision_score, "auroc": roc_auc_score}
    rng, out = np.random.default_rng(SEED), []
    tables = tables_of(row)
    if len(tables) < len(row.runs) or metric not in (*scores, "accuracy", "mae") or kind_of(row) == "multilabel":
        return None
    columns = [c for c in tables[0] if c.startswith("probability_")]
    draws = [rng.integers(len(tables[0]), size=len(tables[0])) for _ in range(DRAWS)]
    for table in tables:
        label = table.label.astype(str).to_numpy()
        if metric == "accuracy":
            right = (label == table.prediction.astype(str).to_numpy()).astype(float)
            out.append([right[draw].mean() for draw in draws])
        elif metric == "mae":
            off = np.abs(table.label - table.prediction).to_numpy()
            out.append([off[draw].mean() for draw in draws])
        else:
            true, shown = label == columns[1].removeprefix("probability_"), table[columns[1]].to_numpy()
            out.append([scores[metric](true[draw], shown[draw]) for draw in draws])
    return np.mean(out, axis=0)


# Pictures.


def figure(draw: Callable[[Any], None], width: float = 6.0, height: float = 4.0, columns: int = 1) -> str:
    """A picture (SVG in an ``img``) that `draw` makes on matplotlib axes, or on a list of them."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = io.StringIO()
    with rc_context({"svg.hashsalt": "fpt", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        made = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(made)
        axes = made.subplots(1, columns) if columns > 1 else made.subplots()
        draw(axes)
        made.savefig(out, format="svg", metadata={"Date": None})
    return image(out.getvalue())


def image(svg: str, text: str = "") -> str:
    """An ``img`` that holds an SVG."""
    data = base64.b64encode(svg[svg.index("<svg") :].encode()).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/svg+xml;base64,{data}">'


def learning_curves(rows: Sequence[Row]) -> str:
    """Validation score and training loss against steps, mean and range over seeds."""
    metric = metrics_of(rows)[0]

    def draw(axes: Any) -> None:
        for number, row in enumerate(rows):
            if not row.first["steps"]:
                score = row.score("valid", metric)
                if score:
                    axes[0].axhline(score[0], color=f"C{number}", linestyle=":", label=f"{row.name} (no steps)")
                continue
            steps = [h["step"] for h in row.first["history"]]
            for axis, values in (
                (axes[0], [[h["valid"][metric] for h in r["history"]] for r in row.results]),
                (axes[1], [[h["train_loss"] for h in r["history"]] for r in row.results]),
            ):
                shortest = min(len(v) for v in values)
                known = np.array([v[:shortest] for v in values], dtype=float)
                axis.plot(steps[:shortest], known.mean(0), color=f"C{number}", label=row.name, marker=".")
                axis.fill_between(steps[:shortest], known.min(0), known.max(0), color=f"C{number}", alpha=0.2)
        axes[0].set(xlabel="step", ylabel=f"valid {metric}")
        axes[1].set(xlabel="step", ylabel="training loss")
        axes[0].legend(fontsize=7, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return figure(draw, 10, 4.4, 2)


def predictions_of(row: Row) -> pd.DataFrame | None:
    """Predictions on the test split, of all seeds."""
    tables = tables_of(row)
    return pd.concat(tables) if tables and kind_of(row) != "multilabel" else None


def curves(rows: Sequence[Row], found: dict[str, pd.DataFrame]) -> str:
    """ROC, precision and recall, and calibration of a task with two classes, over the predictions of all seeds."""
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import precision_recall_curve, roc_curve

    def draw(axes: Any) -> None:
        for number, row in enumerate(rows):
            if row.name not in found:
                continue
            table = found[row.name]
            positive = [c for c in table if c.startswith("probability_")][1]
            true = (table.label.astype(str) == positive.removeprefix("probability_")).astype(int)
            score = table[positive]
            color = f"C{number}"
            false_rate, true_rate, _ = roc_curve(true, score)
            precision, recall, _ = precision_recall_curve(true, score)
            observed, expected = calibration_curve(true, score, n_bins=10, strategy="quantile")
            axes[0].plot(false_rate, true_rate, color=color, label=row.name)
            axes[1].plot(recall[:-1], precision[:-1], color=color)  # the last point is made up
            axes[2].plot(expected, observed, color=color, marker=".")
        axes[0].plot([0, 1], [0, 1], "k:", linewidth=0.7)
        axes[2].plot([0, 1], [0, 1], "k:", linewidth=0.7)
        axes[0].set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
        axes[1].set(xlabel="recall", ylabel="precision", title="Precision and recall")
        axes[2].set(xlabel="predicted probability", ylabel="observed share", title="Calibration (tenths)")
        axes[0].legend(fontsize=7, frameon=False)

    return figure(draw, 12, 4, 3)


def confusion(row: Row, table: pd.DataFrame) -> str:
    """Confusion matrix of one row, over the predictions of all seeds; rows are the labels."""
    names = [c.removeprefix("probability_") for c in table if c.startswith("probability_")]
    counts = pd.crosstab(table.label.astype(str), table.prediction.astype(str)).reindex(index=names, columns=names, fill_value=0)
    shares = counts.to_numpy() / np.maximum(counts.to_numpy().sum(1, keepdims=True), 1)

    def draw(axis: Any) -> None:
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axis.set(title=row.name, xlabel="prediction", ylabel="label")
        axis.set_xticks(range(len(names)), names, rotation=90)
        axis.set_yticks(range(len(names)), names)
        if len(names) <= 12:
            for i, j in np.ndindex(shares.shape):
                axis.text(
                    j, i, f"{shares[i, j]:.2f}", ha="center", va="center", fontsize=6, color="w" if shares[i, j] > 0.5 else "k"
                )

    return figure(draw, 5, 5)


def scatter(row: Row, table: pd.DataFrame) -> str:
    """Predicted against true numbers."""

    def draw(axis: Any) -> None:
        axis.scatter(table.label, table.prediction, s=4, alpha=0.4)
        ends = [table.label.min(), table.label.max()]
        axis.plot(ends, ends, "k:", linewidth=0.7)
        axis.set(title=row.name, xlabel="label", ylabel="prediction")

    return figure(draw, 5, 5)


# What one model looks at.


def insight(folder: Path, samples: int, data_dir: str | None) -> list[str]:
    """Attention on samples of the test split, and a t-SNE of the readout's states; blocks of HTML.

    Raises:
        FPTError: the run can't be loaded.
    """
    from fpt.args import changed
    from fpt.attention import features, look
    from fpt.checkpoint import find_checkpoint, load_checkpoint
    from fpt.data.cache import prepare
    from fpt.model import FPT
    from fpt.tasks import TASKS

    model, _, config = load_checkpoint(find_checkpoint(str(folder)))
    if not isinstance(model, FPT):
        return []
    args = changed(config.data.arguments, data_dir=data_dir)
    wanted = config.data.data_sha256
    prepared = prepare(TASKS[config.task], args, config.data.request.split_seed, lambda line: None, wanted)
    if prepared.manifest["data_sha256"] != wanted:
        raise FPTError(f"the data of {folder} is not here; give it with --data_dir")
    chosen = np.random.default_rng(SEED).choice(len(prepared.samples("test")), samples, replace=False).tolist()
    pictures = []
    try:
        for looked in look(model, prepared, sorted(chosen)):
            pictures.append(sample_picture(prepared, looked))
    except FPTError as error:
        pictures.append(f"<p>{html.escape(str(error))}</p>")
    states, labels = features(model, prepared, TSNE_SAMPLES)
    mean = "Attention from the tokens that the readout reads, mean over layers and heads."
    return [f"<p>{mean}</p>", f'<div class="row">{"".join(pictures)}</div>', tsne(states, labels, prepared.output)]


def sample_picture(prepared: Any, looked: Any) -> str:
    """One sample with the attention it got, as its modality is seen best."""
    from fpt.outputs import Bits
    from fpt.tasks.images import ImageTask
    from fpt.tasks.text import Smiles

    weights = looked.attention.mean((0, 1))
    said, label = prepared.output.cells(looked.prediction)[0], prepared.output.shown(looked.label)
    title = f"{label}, predicted {said}"
    if isinstance(prepared.output, Bits):
        return figure(lambda axis: _bits(axis, weights), 5, 3)
    task, weights = prepared.task, weights.mean(0)
    if isinstance(getattr(task, "modality", None), Smiles) and prepared.args.tokenizer == "atom":
        text = prepared.splits["test"][looked.index]["text"]
        ids = prepared.splits["test"][looked.index]["input_ids"]
        return molecule_picture(text, prepared.tokenizer.convert_ids_to_tokens(ids), weights, title)
    if isinstance(task, ImageTask):
        return figure(lambda axes: _picture(axes, prepared, looked, weights, title), 5, 2.6, 2)
    return figure(lambda axis: _bars(axis, weights, title), 5, 2.2)


def molecule_picture(smiles: str, tokens: Sequence[str], weights: np.ndarray, title: str) -> str:
    """A molecule whose atoms are as red as the attention that their tokens got."""
    from rdkit import Chem
    from rdkit.Chem.Draw import rdMolDraw2D

    molecule = Chem.MolFromSmiles(smiles)
    atoms = [float(weight) for token, weight in zip(tokens, weights, strict=False) if _is_atom(token)]
    if len(atoms) < molecule.GetNumAtoms():  # a long molecule was cut
        atoms += [0.0] * (molecule.GetNumAtoms() - len(atoms))
    top = max(max(atoms), 1e-9)
    colors = {i: (1.0, 1 - 0.8 * a / top, 1 - 0.8 * a / top) for i, a in enumerate(atoms[: molecule.GetNumAtoms()])}
    drawer = rdMolDraw2D.MolDraw2DSVG(300, 230)
    drawer.DrawMolecule(molecule, highlightAtoms=list(colors), highlightAtomColors=colors, highlightBonds=[], legend=title)
    drawer.FinishDrawing()
    return image(drawer.GetDrawingText(), smiles)


def _is_atom(token: str) -> bool:
    """Whether a token of a SMILES is an atom: in brackets with an element, or letters alone."""
    return (token.startswith("[") and not token.startswith(("[BOS", "[EOS", "[PAD", "[UNK"))) or token.isalpha()


def _picture(axes: Any, prepared: Any, looked: Any, weights: np.ndarray, title: str) -> None:
    from fpt.tasks.images import unpatch

    height, width, channels = prepared.task.shape(prepared.args)
    side = prepared.task.patch_size(prepared.args)
    values = np.asarray(prepared.samples("test")[looked.index][prepared.input.column])
    picture = unpatch(values, height, width, channels, side, prepared.task.overlap(prepared.args)).squeeze()
    axes[0].imshow(picture, cmap="gray")
    axes[0].set_title(title)
    axes[1].imshow(weights.reshape(height // side, width // side), cmap="magma")
    axes[1].set_title("attention")
    for axis in axes:
        axis.set_axis_off()


def _bits(axis: Any, weights: np.ndarray) -> None:
    axis.imshow(weights, cmap="magma", aspect="auto", interpolation="nearest")
    axis.set(title="attention", xlabel="token", ylabel="token that is read")


def _bars(axis: Any, weights: np.ndarray, title: str) -> None:
    axis.bar(range(len(weights)), weights, width=1.0)
    axis.set(title=title, xlabel="token", ylabel="attention")


def tsne(states: np.ndarray, labels: np.ndarray, output: Any) -> str:
    """Two dimensions of what the readout reads, coloured by label."""
    from sklearn.manifold import TSNE

    from fpt.outputs import Classes

    if len(states) < 10:
        return ""
    places = TSNE(perplexity=min(30, (len(states) - 1) / 3), random_state=SEED, init="pca").fit_transform(states)

    def draw(axis: Any) -> None:
        if isinstance(output, Classes):
            for number in np.unique(labels):
                own = labels == number
                axis.scatter(*places[own].T, s=5, color=f"C{number % 10}", label=output.label_names[int(number)])
            if output.size <= 12:
                axis.legend(fontsize=7, frameon=False, markerscale=2)
        else:
            shown = labels.reshape(len(labels), -1).mean(1)
            axis.scatter(*places.T, s=5, c=shown, cmap="viridis")
        axis.set(title=f"t-SNE of what the readout reads ({len(states):,} test samples)")
        axis.set_axis_off()

    return figure(draw, 5.5, 5)


# The page.

AGAIN = "Each row again, with any of its seeds ({}: the folder with raw data):"
SAID = "Mean ± standard deviation over seeds; the model is picked on valid, test is scored once."
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1150px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; }
th, td { border-bottom: 1px solid #ddd; padding: .3em .7em; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #888; } .wide { overflow-x: auto; }
img { max-width: 100%; } .row { display: flex; flex-wrap: wrap; gap: 8px; } .row img { max-width: 360px; }
pre { background: #f6f6f6; padding: .8em; white-space: pre-wrap; font-size: 12px; } h2 { margin-top: 2em; }
"""


def build(folders: Sequence[Path], title: str, samples: int, data_dir: str | None, log: Callable[[str], None]) -> tuple[str, str]:
    """The page, and its tables as Markdown."""
    blocks, text = [f"<h1>{html.escape(title)}</h1>"], [f"# {title}", ""]
    for task, rows in read_rows(folders).items():
        log(f"{task}: {len(rows)} rows, {sum(len(r.runs) for r in rows)} runs")
        head, cells = table_cells(rows)
        splits = sorted({f"{r['split']['method']} (seed {r['split']['seed']})" for row in rows for r in row.results})
        said = f"Split: {', '.join(splits)}. {SAID}"
        blocks += [f"<h2>{html.escape(task)}</h2>", f"<p>{html.escape(said)}</p>", _html_table(head, cells)]
        text += [f"## {task}", "", said, "", *_markdown_table(head, cells), ""]
        if sources := sorted({row.source for row in rows if row.source}):
            blocks.append(f"<p>Published values: {html.escape('; '.join(sources))}.</p>")
            text += [f"Published values: {'; '.join(sources)}.", ""]
        if found := findings(rows):
            blocks.append(f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in found)}</ul>")
            text += [*(f"- {line}" for line in found), ""]
        if leaderboard := tdc_rows(task, rows):
            about = f"As rows of TDC's leaderboard ({len(rows[0].runs)} seeds):"
            blocks += [f"<p>{about}</p>", f"<pre>{html.escape(chr(10).join(leaderboard))}</pre>"]
            text += [about, "", *leaderboard, ""]
        blocks += [learning_curves(rows), *_score_pictures(rows)]
        blocks += _insights(rows, samples, data_dir, log) if samples else []
        commands = "\n".join(row.command for row in rows)
        blocks += [f"<p>{AGAIN.format('RAW')}</p>", f"<pre>{html.escape(commands)}</pre>"]
        text += [AGAIN.format("`RAW`"), "", "```", commands, "```", ""]
    head_line = f"<head><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style></head>"
    return f"<!doctype html>\n<html lang=en>{head_line}<body>\n" + "\n".join(blocks) + "\n</body></html>\n", "\n".join(text)


def _score_pictures(rows: Sequence[Row]) -> list[str]:
    found = {row.name: table for row in rows if (table := predictions_of(row)) is not None}
    if not found:
        return []
    columns = [c for c in next(iter(found.values())) if c.startswith("probability_")]
    shown = [row for row in rows if row.name in found]
    if len(columns) == 2:
        return [curves(shown, found)]
    if columns:
        return [f'<div class="row">{"".join(confusion(row, found[row.name]) for row in shown)}</div>']
    if pd.api.types.is_float_dtype(next(iter(found.values())).prediction):
        return [f'<div class="row">{"".join(scatter(row, found[row.name]) for row in shown)}</div>']
    return []


def _insights(rows: Sequence[Row], samples: int, data_dir: str | None, log: Callable[[str], None]) -> list[str]:
    """Of the first run of each frozen transformer."""
    blocks = []
    for row in rows:
        if row.first.get("model", "fpt") != "fpt":
            continue
        folder, results = row.runs[0]
        log(f"looking into {folder}")
        try:
            blocks += [f"<h3>{html.escape(row.name)}, seed {results['seed']}</h3>", *insight(folder, samples, data_dir)]
        except FPTError as error:
            blocks.append(f"<p>{html.escape(str(error))}</p>")
    return blocks


def _html_table(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{html.escape(c)}</th>" for c in head)]
    lines += ["".join(f"<td>{html.escape(c)}</td>" for c in row) for row in cells]
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _markdown_table(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in cells)]


def main() -> None:
    """Read the command line and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="runs of train.py, or folders that hold some (an experiment)")
    parser.add_argument("--output", default="report.html", help="the page; the Markdown goes beside it")
    parser.add_argument("--title", default="Frozen pretrained transformers", help="of the page")
    parser.add_argument("--samples", type=int, default=6, help="test samples to show the attention of (0: none)")
    parser.add_argument("--data_dir", help="folder with raw downloads, as for train.py, to look into the models")
    args = parser.parse_args()
    page, text = build(find_runs(args.runs), args.title, args.samples, args.data_dir, print)
    output = Path(args.output)
    write_text(output, page)
    write_text(output.with_suffix(".md"), text)
    print(f"{output} ({len(page) / 2**20:.1f} MiB), {output.with_suffix('.md')}")


if __name__ == "__main__":
    cli(main)

"""The model card of a checkpoint."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fpt.calibration import shown
from fpt.checkpoint.config import CheckpointConfig
from fpt.metrics import Scores, shown_metric
from fpt.outputs import Classes, MultiLabel, Output
from fpt.results import Calibration
from fpt.text.escape import markdown, markdown_block, markdown_code, yaml_text
from fpt.text.table import markdown_table

# Every value is escaped before it comes here.
TEMPLATE = """\
---
{{ card_data }}
---

# {{ kind }} for {{ task }}

Backbone {{ backbone }} ({{ layers }} layers, revision {{ revision }}, seed {{ seed }}, sha256 of its weights {{ sha256 }}). \
Trainable: {{ parts }} ({{ counts }} parameters).

Data: {{ source }}, {{ licence }}{{ labels }}.

Training: {{ settings }}. Model of step {{ step }}, picked on the validation split:

{{ scores }}
{{ calibration }}
Score or use it:

```
python evaluate.py --checkpoint DIR_OR_REPO
python evaluate.py --checkpoint DIR_OR_REPO --predict inputs.csv --output predictions.csv
```

```python
import fpt

model = fpt.load("DIR_OR_REPO")
model.predict([...])
```

Trained with:

{{ command }}

Licence: {{ license_said }}.
"""

# Licences that the Hub has a name for, from its documentation (huggingface.co/docs/hub/repositories-licenses).
LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
    cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
    creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0
    gpl-3.0 h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
    lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense
    wtfpl zlib
    """.split()
)
# The Hub's names of what a model does: by what its inputs are, for classes and for numbers.
PIPELINES = {
    "text": ("text-classification", None),
    "smiles": ("text-classification", None),
    "protein": ("text-classification", None),
    "numbers": ("tabular-classification", "tabular-regression"),
    "image": ("image-classification", None),
    "audio": ("audio-classification", None),
    "graphs": ("graph-ml", "graph-ml"),
}
# What the Hub calls a task of an evaluation that it has no name for.
OTHER = "other"


def model_card(config: CheckpointConfig) -> str:
    """Return the model card (README.md) of a checkpoint, with the metadata that the Hub reads."""
    backbone, training = config.core, config.training
    scores = {"valid": config.valid_metrics, "test": config.test_metrics or {}}
    settings = ", ".join(f"{name} {value}" for name, value in training.to_dict().items())
    card = ModelCard.from_template(
        _metadata(config, scores["test"]),
        template_str=TEMPLATE,
        kind=markdown("Frozen Pretrained Transformer" if config.network is None else f"Baseline {config.model}"),
        task=markdown(config.task),
        backbone=markdown_code(backbone.name),
        layers=markdown(backbone.num_layers),
        revision=markdown(backbone.revision),
        seed=markdown(backbone.seed),
        sha256=markdown_code(backbone.sha256),
        parts=markdown(", ".join(config.tuning.parts if config.network is None else ["all"])),
        counts=f"{config.trainable_parameters:,} of {config.total_parameters:,}",
        source=markdown(config.data.source),
        licence=markdown(config.data.licence),
        labels=_labels(config.output),
        settings=markdown(settings),
        step=markdown(config.step),
        scores=_scores(scores),
        calibration=_calibration(config.calibration),
        command=markdown_block(config.command),
        license_said=markdown(training.license or "not said; heed those of the data and of the backbone"),
    )
    return f"{card}\n"


def _labels(output: Output) -> str:
    if not isinstance(output, Classes | MultiLabel):
        return ""
    names = output.label_names
    positive = f" (positive: {markdown(names[1])})" if isinstance(output, Classes) and len(names) == 2 else ""
    return f"; labels: {', '.join(map(markdown, names))}{positive}"


def _scores(scores: dict[str, Scores]) -> str:
    """The table of the metrics of each split."""
    metrics = [m for m in scores["valid"] if any(s.get(m) is not None for s in scores.values())]
    cells = [[m, *(shown_metric(score) if (score := s.get(m)) is not None else "" for s in scores.values())] for m in metrics]
    return "\n".join(markdown_table(["metric", "valid", "test"], cells))


def _calibration(found: Calibration | None) -> str:
    """How the probabilities are calibrated, as a paragraph; empty where they are not."""
    if found is None:
        return ""
    splits = [f"On {name}: {shown(change)}." for name in ("valid", "test") if (change := getattr(found, name)) is not None]
    return (
        f"\nProbabilities are calibrated: logits are divided by the temperature {found.temperature:.4g}, fitted on the validation"
        f" split (arXiv 1706.04599). {' '.join(splits)}\n"
    )


def _metadata(config: CheckpointConfig, test: Scores) -> ModelCardData:
    """The YAML head of a model card. Its texts are on one line each, so that none ends the head or begins a key."""
    licence: dict[str, Any] = dict(_license(config.training.license))
    hub_id, hub_task = config.core.hub_id, _pipeline(config)
    task, shown = yaml_text(config.task), {yaml_text(name): value for name, value in test.items() if value is not None}
    results = [
        EvalResult(
            task_type=hub_task or OTHER,
            dataset_type=task,
            dataset_name=task,
            dataset_split="test",
            metric_type=name,
            metric_value=round(value, 6),
        )
        for name, value in shown.items()
    ]
    return ModelCardData(
        library_name="fpt",
        tags=["frozen-pretrained-transformer"],
        base_model=yaml_text(hub_id) if hub_id else None,
        datasets=[task.removeprefix("hub:")] if task.startswith("hub:") else None,
        metrics=sorted(shown) or None,
        pipeline_tag=hub_task,
        **licence,
        model_name=f"fpt-{task}" if results else None,
        eval_results=results or None,
    )


def _license(said: str | None) -> dict[str, str]:
    """Metadata of a licence: an identifier of the Hub, else "other" with a name in the form that the Hub reads."""
    name = re.sub("[^a-z0-9.+]+", "-", (said or "").casefold()).strip("-")
    if name in LICENSES:
        return {"license": name}
    return {"license": OTHER, "license_name": name.replace("+", "-")} if name else {"license": "unknown"}


def _pipeline(config: CheckpointConfig) -> str | None:
    """The Hub's name of what the model does; None where it has none."""
    options, kind = config.data.arguments.stored_options(), config.input.kind
    found = "graphs" if kind == "graphs" else options.get("input_type")
    if found is None:
        by_option = {"num_mels": "audio", "patch_size": "image"}
        found = next((name for option, name in by_option.items() if option in options), "text" if kind == "tokens" else "")
    classes, number = PIPELINES.get(found, (None, None))
    return {"classes": classes, "multilabel": classes, "value": number}.get(config.output.kind)

"""The model card of a checkpoint."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fpt.escape import markdown, markdown_block, markdown_code, markdown_table, yaml_text
from fpt.results import shown_metric

# Every value is escaped before it comes here.
TEMPLATE = """\
---
{{ card_data }}
---

# {{ kind }} for {{ task }}

Core {{ core }} ({{ layers }} layers, revision {{ revision }}, seed {{ seed }}, sha256 of its weights {{ sha256 }}). \
Tuned: {{ parts }} ({{ counts }} parameters).

Data: {{ source }}, {{ licence }}{{ labels }}.

Training: {{ settings }}. Model of step {{ step }}, picked on the validation split:

{{ scores }}

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


def model_card(config: dict[str, Any]) -> str:
    """Return the model card (README.md) of a checkpoint, with the metadata that the Hub reads.

    Args:
        config: what ``config.json`` says, as JSON values.
    """
    core, training, data = config["core"], config.get("training", {}), config.get("data", {})
    scores = {split: config.get(f"{split}_metrics") or {} for split in ("valid", "test")}
    settings = ", ".join(f"{name} {value}" for name, value in training.items())
    card = ModelCard.from_template(
        _metadata(config, scores["test"]),
        template_str=TEMPLATE,
        kind=markdown("Frozen Pretrained Transformer" if "network" not in config else f"Baseline {config['model']}"),
        task=markdown(config["task"]),
        core=markdown_code(core["name"]),
        layers=markdown(core.get("num_layers")),
        revision=markdown(core.get("revision")),
        seed=markdown(core.get("seed")),
        sha256=markdown_code(core.get("sha256")),
        parts=markdown(", ".join(config.get("tuning", {}).get("parts", ["all"]))),
        counts=f"{config.get('trainable_parameters', 0):,} of {config.get('total_parameters', 0):,}",
        source=markdown(data.get("source")),
        licence=markdown(data.get("licence")),
        labels=_labels(config["output"]),
        settings=markdown(settings),
        step=markdown(config.get("step")),
        scores=_scores(scores),
        command=markdown_block(config.get("command", "")),
        license_said=markdown(training.get("license") or "not said; heed those of the data and of the core"),
    )
    return f"{card}\n"


def _labels(output: dict[str, Any]) -> str:
    names = output.get("label_names")
    if not names:
        return ""
    positive = f" (positive: {markdown(names[1])})" if output["kind"] == "classes" and len(names) == 2 else ""
    return f"; labels: {', '.join(map(markdown, names))}{positive}"


def _scores(scores: dict[str, dict[str, Any]]) -> str:
    """The table of the metrics of each split."""
    metrics = [m for m in scores["valid"] if any(s.get(m) is not None for s in scores.values())]
    cells = [[m, *(shown_metric(s[m]) if s.get(m) is not None else "" for s in scores.values())] for m in metrics]
    return "\n".join(markdown_table(["metric", "valid", "test"], cells))


def _metadata(config: dict[str, Any], test: dict[str, Any]) -> ModelCardData:
    """The YAML head of a model card. Its texts are on one line each, so that none ends the head or begins a key."""
    hub_id, licence = config["core"].get("hub_id"), config.get("training", {}).get("license")
    task, shown = yaml_text(config["task"]), {yaml_text(name): value for name, value in test.items() if value is not None}
    results = [
        EvalResult(
            task_type=yaml_text(config["output"]["kind"]),
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
        license=yaml_text(licence) if licence else None,
        model_name=f"fpt-{task}" if results else None,
        eval_results=results or None,
    )

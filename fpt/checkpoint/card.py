"""The model card of a checkpoint."""

from __future__ import annotations

from typing import Any

from fpt.results import shown_metric


def model_card(config: dict[str, Any]) -> str:
    """The model card (README.md) of a checkpoint, with the metadata that the Hub reads."""
    core, training = config["core"], config.get("training", {})
    scores = {split: config.get(f"{split}_metrics") or {} for split in ("valid", "test")}
    names = config["output"].get("label_names")
    positive = f" (positive: {names[1]})" if config["output"]["kind"] == "classes" and len(names or ()) == 2 else ""
    labels = f"; labels: {', '.join(names)}{positive}" if names else ""
    metrics = [m for m in scores["valid"] if any(s.get(m) is not None for s in scores.values())]
    cells = {m: [shown_metric(s[m]) if s.get(m) is not None else "" for s in scores.values()] for m in metrics}
    rows = "\n".join(f"| {m} | {' | '.join(values)} |" for m, values in cells.items())
    settings = ", ".join(f"{k} {v}" for k, v in training.items())
    kind = "Frozen Pretrained Transformer" if "network" not in config else f"Baseline {config['model']}"
    data = config.get("data", {})
    licence = training.get("license") or "not said; heed those of the data and of the core"
    return (
        f"---\n{_metadata(config, scores['test'])}\n---\n\n"
        f"# {kind} for {config['task']}\n\n"
        f"Core `{core['name']}` ({core.get('num_layers')} layers, revision {core.get('revision')}, seed {core.get('seed')},"
        f" sha256 of its weights `{core.get('sha256')}`). Tuned: {', '.join(config.get('tuning', {}).get('parts', ['all']))}"
        f" ({config.get('trainable_parameters', 0):,} of {config.get('total_parameters', 0):,} parameters).\n\n"
        f"Data: {data.get('source')}, {data.get('licence')}{labels}.\n\n"
        f"Training: {settings}. Model of step {config.get('step')}, picked on the validation split:\n\n"
        f"| metric | valid | test |\n|---|---|---|\n{rows}\n\n"
        "Score or use it:\n\n```\npython evaluate.py --checkpoint DIR_OR_REPO\n"
        "python evaluate.py --checkpoint DIR_OR_REPO --predict inputs.csv --output predictions.csv\n```\n\n"
        '```python\nimport fpt\n\nmodel = fpt.load("DIR_OR_REPO")\nmodel.predict([...])\n```\n\n'
        f"Trained with:\n\n```\n{config.get('command', '')}\n```\n\n"
        f"Licence: {licence}.\n"
    )


def _metadata(config: dict[str, Any], test: dict[str, Any]) -> str:
    """The YAML head of a model card."""
    from huggingface_hub import EvalResult, ModelCardData

    core, task = config["core"], config["task"]
    shown = {name: value for name, value in test.items() if value is not None}
    results = [
        EvalResult(
            task_type=config["output"]["kind"],
            dataset_type=task,
            dataset_name=task,
            dataset_split="test",
            metric_type=name,
            metric_value=round(value, 6),
        )
        for name, value in shown.items()
    ]
    data = ModelCardData(
        library_name="fpt",
        tags=["frozen-pretrained-transformer"],
        base_model=core.get("hub_id"),
        datasets=[task.removeprefix("hub:")] if task.startswith("hub:") else None,
        metrics=sorted(shown) or None,
        license=config.get("training", {}).get("license"),
        model_name=f"fpt-{task}" if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()

"""The metadata of a model card: what the Hub knows of licences, tasks and pipelines."""

from __future__ import annotations

import re
from typing import Any

import pytest
from huggingface_hub import ModelCard
from strange_text import config_of, data_of

from fpt.checkpoint.card import LICENSES, PIPELINES, TEMPLATE, model_card
from fpt.checkpoint.config import TrainingRecord
from fpt.inputs import Patches, Tokens
from fpt.models.mat import Graphs
from fpt.outputs import Bits, Classes, MultiLabel, Value

# Of huggingface.co/tasks, those that a model of ours may do.
PIPELINE_TAGS = {
    *("text-classification", "image-classification", "audio-classification", "graph-ml"),
    *("tabular-classification", "tabular-regression"),
}


KINDS: dict[str, Any] = {
    "tokens": Tokens(20, 0),
    "patches": Patches(5),
    "graphs": Graphs(5),
    "classes": Classes(("no", "yes")),
    "multilabel": MultiLabel(("no", "yes")),
    "value": Value(0.0, 1.0),
    "bits": Bits(5),
}


def metadata(**changes: Any) -> dict[str, Any]:
    return ModelCard(model_card(config_of(**changes))).data.to_dict()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("mit", {"license": "mit"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("CC BY 4.0", {"license": "cc-by-4.0"}),
        ("openrail++", {"license": "openrail++"}),
        ("My Company, internal use", {"license": "other", "license_name": "my-company-internal-use"}),
        (None, {"license": "unknown"}),
        ("\u2014", {"license": "unknown"}),
    ],
)
def test_licences_are_those_that_the_hub_knows(said: str | None, expected: dict[str, str]) -> None:
    found = metadata(training=TrainingRecord(seed=1, license=said))
    assert {key: value for key, value in found.items() if key.startswith("license")} == expected
    assert found["license"] in LICENSES


@pytest.mark.parametrize(
    ("options", "kind", "output", "expected"),
    [
        ({}, "tokens", "classes", "text-classification"),
        ({"input_type": "smiles"}, "tokens", "multilabel", "text-classification"),
        ({"input_type": "numbers"}, "patches", "classes", "tabular-classification"),
        ({"input_type": "numbers"}, "patches", "value", "tabular-regression"),
        ({"input_type": "image", "patch_size": 4}, "patches", "classes", "image-classification"),
        ({"patch_size": 4}, "patches", "classes", "image-classification"),
        ({"num_mels": 80}, "patches", "classes", "audio-classification"),
        ({}, "graphs", "value", "graph-ml"),
        ({}, "tokens", "value", None),
        ({}, "patches", "bits", None),
        ({"input_type": "audio"}, "patches", "value", None),
    ],
)
def test_tasks_are_those_that_the_hub_knows(options: dict, kind: str, output: str, expected: str | None) -> None:
    found = metadata(data=data_of(options=options), input=KINDS[kind], output=KINDS[output])
    assert found.get("pipeline_tag") == expected
    assert found["model-index"][0]["results"][0]["task"]["type"] == (expected or "other")
    assert {name for names in PIPELINES.values() for name in names if name} == PIPELINE_TAGS


def test_every_place_of_the_card_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the template is not given would be left empty, without an error."""
    given: set[str] = set()
    make = ModelCard.from_template

    def watched(*arguments: Any, **values: Any) -> ModelCard:
        given.update(values)
        return make(*arguments, **values)

    monkeypatch.setattr(ModelCard, "from_template", watched)
    config = config_of()
    assert f"Backbone `{config.core.name}` ({config.core.num_layers} layers" in model_card(config)
    assert set(re.findall(r"{{ (\w+) }}", TEMPLATE)) - {"card_data"} == given - {"template_str"}

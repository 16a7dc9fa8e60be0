"""`kedro params`: every parameter with its value, source, range and meaning."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project

from valentina_pipeline.cli.params import params
from valentina_pipeline.config.effective import STAGES
from valentina_pipeline.config.listing import list_parameters, markdown_page
from valentina_pipeline.config_loader import load_layers


def test_each_layer_is_named_as_the_source(root: Path) -> None:
    chosen, bases, concept = load_layers(root)
    chosen["train_lora"]["rank"] = 8
    concept["overrides"]["train_lora"] = {"rank": 4, "ema_decay": 0.99}
    found = {f"{each.stage}.{each.key}": each for each in list_parameters(chosen, bases, concept)}
    assert len(found) == sum(len(model.model_fields) for model in STAGES.values())
    sources = {key: (found[key].value, found[key].source) for key in found}
    assert sources["train_lora.rank"] == (8, "params.yaml")
    assert sources["train_lora.ema_decay"] == (0.99, "concept")
    assert sources["train_lora.max_steps"] == (500, "base")
    assert sources["train_lora.weight_decay"] == (0.01, "default")
    assert found["train_lora.rank"].allowed == "whole number, 1 to 512"
    assert found["train_lora.max_grad_norm"].allowed == "number, above 0"
    assert found["align.min_detection_confidence"].allowed == "number, above 0 to below 1"


def test_values_of_the_base_that_the_concept_names(root: Path) -> None:
    chosen, bases, concept = load_layers(root)
    found = {each.key: each for each in list_parameters(chosen, bases, concept | {"base": "sdxl"})}
    assert (found["max_steps"].value, found["max_steps"].source) == (1500, "base")


def test_every_key_has_a_meaning() -> None:
    lacking = [
        f"{stage}.{key}"
        for stage, model in STAGES.items()
        for key in model.model_fields
        if not model.model_fields[key].description
    ]
    assert lacking == []


def test_the_page_of_the_docs_is_up_to_date(root: Path) -> None:
    assert (root / "docs/parameters.md").read_text("utf-8") == markdown_page()


@pytest.mark.parametrize(
    ("arguments", "shown", "hidden"),
    [
        ([], "train_lora.max_steps", "train_lora.ema_decay"),
        ([], "valentina_moreau on the base model tiny", "train_lora.ema_decay"),
        (["train_lora", "--all"], "train_lora.ema_decay", "align.crop"),
    ],
)
def test_a_stage_and_its_defaults_are_asked_for(
    root: Path, arguments: list[str], shown: str, hidden: str
) -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(params, arguments, obj=bootstrap_project(root))
    assert result.exit_code == 0
    assert shown in result.output and hidden not in result.output


def test_the_schema_has_every_key_and_auto(root: Path) -> None:
    schema = json.loads(CliRunner().invoke(params, ["--schema"], obj=bootstrap_project(root)).output)
    rank = schema["properties"]["train_lora"]["properties"]["rank"]["anyOf"]
    assert rank[0] == {"const": "auto"} and (rank[1]["minimum"], rank[1]["maximum"]) == (1, 512)
    assert set(schema["properties"]) == {"concepts", "base", "seed", "num_threads", *STAGES}

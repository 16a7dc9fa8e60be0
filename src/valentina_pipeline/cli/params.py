"""Command `kedro params`: list every parameter with its value, source, range and meaning."""

import json
from pathlib import Path

import click
from kedro.framework.startup import ProjectMetadata

from valentina_pipeline.config.effective import STAGES, resolve_params
from valentina_pipeline.config.listing import Parameter, json_schema, list_parameters, markdown_page
from valentina_pipeline.config_loader import load_layers


@click.command()
@click.argument("stage", required=False, type=click.Choice(list(STAGES)))
@click.option("--all", "everything", is_flag=True, help="Also list keys that have their default value.")
@click.option("--concept", help="A file of conf/base/concepts/; default: the first concept of params.yaml.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of params.yaml instead, for editors.")
@click.option(
    "--markdown", is_flag=True, help="Print all keys and defaults in the format of docs/parameters.md."
)
@click.pass_obj
def params(
    metadata: ProjectMetadata,
    stage: str | None,
    everything: bool,
    concept: str | None,
    schema: bool,
    markdown: bool,
) -> None:
    r"""List the parameters of a STAGE, or of all stages.

    \b
      kedro params                     values set by params.yaml, the concept or the base model
      kedro params train_lora --all    every key of the stage
      kedro params --concept ada       values for another concept, on its base model
      kedro params --schema > params.schema.json

    \b
    A value comes from params.yaml, the concept's `overrides`, the base model's entry or the default, in
    this order. Set it in params.yaml, or for one experiment:
      dvc exp run -S train_lora.rank=8        a key that params.yaml lists
      dvc exp run -S +train_lora.ema_decay=0.99     any other key
    """
    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    if markdown:
        click.echo(markdown_page(), nl=False)
        return
    layers = load_layers(Path(metadata.project_path), concept)
    selected = [
        parameter
        for parameter in list_parameters(*layers)
        if stage in (None, parameter.stage) and (everything or parameter.source != "default")
    ]
    values = resolve_params(*layers)
    _print_table(selected, f"{values['concept']['trigger']} on the base model {values['base_name']}")


def _print_table(parameters: list[Parameter], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("parameter", "value", "from", "allowed", "meaning", box=None, pad_edge=False, title=title)
    for item in parameters:
        table.add_row(f"{item.stage}.{item.key}", _text(item.value), item.source, item.allowed, item.meaning)
    Console().print(table)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)

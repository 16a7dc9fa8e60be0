"""The command `kedro params`: every parameter with its value, source, range and meaning."""

import json
from pathlib import Path

import click
from kedro.framework.startup import ProjectMetadata

from valentina_pipeline.config.effective import STAGES
from valentina_pipeline.config.listing import Parameter, json_schema, list_parameters, markdown_page
from valentina_pipeline.config_loader import load_layers


@click.command()
@click.argument("stage", required=False, type=click.Choice(list(STAGES)))
@click.option("--all", "everything", is_flag=True, help="Also list keys that have their default value.")
@click.option("--concept", help="A file of conf/base/concepts/; without: the first of params.yaml.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of params.yaml instead, for editors.")
@click.option("--markdown", is_flag=True, help="Print all keys and defaults as docs/parameters.md has them.")
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
      kedro params                     values that params.yaml, the concept or the base set
      kedro params train_lora --all    every key of the stage
      kedro params --concept ada       as they are for another concept
      kedro params --schema > params.schema.json

    \b
    A value comes from params.yaml, else from the concept's `overrides`, else from the base, else it is
    the default. Set one by a line in params.yaml, or for one experiment:
      dvc exp run -S train_lora.rank=8        a key that params.yaml lists
      dvc exp run -S +train_lora.ema=0.99     any other
    """
    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    if markdown:
        click.echo(markdown_page(), nl=False)
        return
    found = [
        each
        for each in list_parameters(*load_layers(Path(metadata.project_path), concept))
        if stage in (None, each.stage) and (everything or each.source != "default")
    ]
    _print_table(found)


def _print_table(parameters: list[Parameter]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("parameter", "value", "from", "allowed", "meaning", box=None, pad_edge=False)
    for each in parameters:
        shown.add_row(f"{each.stage}.{each.key}", _text(each.value), each.source, each.allowed, each.meaning)
    Console().print(shown)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)

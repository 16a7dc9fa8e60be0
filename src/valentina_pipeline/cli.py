"""The project's own commands, which Kedro finds here by the name `cli` and shows beside its own."""

import sys

import click
from kedro.framework.cli.utils import LazyGroup
from kedro.framework.startup import ProjectMetadata

LAZY = {
    "consistency": "valentina_pipeline.serving.consistency.consistency",
    "generate": "valentina_pipeline.serving.generate.generate",
    "lineage": "valentina_pipeline.rights.lineage",
    "lora": "valentina_pipeline.loras.lora",
    "review": "valentina_pipeline.review.command.review",
    "revoke": "valentina_pipeline.rights.revoke",
    "serve": "valentina_pipeline.serving.command.serve",
    "verify": "valentina_pipeline.serving.verify.verify",
}
"""Commands that live elsewhere: name -> module.attribute, imported only when used."""


@click.group(name="Valentina Pipeline", cls=LazyGroup, lazy_subcommands=LAZY)
def cli() -> None:
    """Commands of this project."""


@cli.command()
@click.option("--check", is_flag=True, help="Write nothing: show what would change and fail if anything.")
@click.pass_obj
def dvc(metadata: ProjectMetadata, check: bool) -> None:
    r"""Write dvc.yaml from the pipelines and the catalog.

    \b
    The DAG is stated once, in src/valentina_pipeline/pipelines/ and conf/base/catalog.yml.
    Run this after you change
      - a node's inputs or outputs, or the catalog,
      - the imports of any code that a stage runs.
    Then `dvc repro` runs what your change touches and nothing else.
    """
    from valentina_pipeline import dag

    target = metadata.project_path / "dvc.yaml"
    try:
        text = dag.render(metadata.project_path)
    except dag.BadDag as err:
        raise click.ClickException(str(err)) from err
    if not check:
        click.echo("dvc.yaml is written" if dag.write(target, text) else "dvc.yaml is up to date")
    elif changes := dag.difference(target, text):
        click.echo(changes, nl=False)
        click.echo("dvc.yaml is stale: `uv run kedro dvc` writes it", err=True)
        sys.exit(1)


@cli.command()
@click.option("--keep", is_flag=True, help="Keep the temporary clone, to look into a difference.")
@click.pass_obj
def reproduce(metadata: ProjectMetadata, keep: bool) -> None:
    r"""Run the committed pipeline again and compare it with dvc.lock.

    \b
    In a clean temporary clone of HEAD, every stage runs anew, without cache; then each output's hash
    is compared with the one committed. The table says for each stage: identical, or which output
    differs, and for metrics by how much. Exit status 1 means that something differs.

    \b
    Your working tree, cache and MLflow store stay as they are. What you have not committed takes no
    part. Another kind of machine or another number of `threads` may round differently.
    """
    from valentina_pipeline import reproduce as again

    try:
        same = again.reproduce(metadata.project_path, keep=keep)
    except again.CannotReproduce as err:
        raise click.ClickException(str(err)) from err
    sys.exit(0 if same else 1)

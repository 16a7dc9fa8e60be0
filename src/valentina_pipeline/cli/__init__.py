"""Command line: the project's commands, which Kedro finds as `cli` and lists beside its own commands."""

import sys
from typing import Any

import click
from kedro.framework.cli.utils import LazyGroup
from kedro.framework.startup import ProjectMetadata

from valentina_pipeline.integrations.shutdown import end_in_order

end_in_order()  # Kedro imports this module for each of its commands

LAZY = {
    "base": "valentina_pipeline.cli.base.base",
    "consistency": "valentina_pipeline.serving.cli.consistency.consistency",
    "generate": "valentina_pipeline.serving.cli.generate.generate",
    "lineage": "valentina_pipeline.cli.rights.lineage",
    "lora": "valentina_pipeline.cli.lora.lora",
    "package": "valentina_pipeline.cli.package.package",
    "params": "valentina_pipeline.cli.params.params",
    "review": "valentina_pipeline.review.cli.review",
    "revoke": "valentina_pipeline.cli.rights.revoke",
    "run": "kedro.framework.cli.project.run",
    "serve": "valentina_pipeline.serving.cli.serve.serve",
    "verify": "valentina_pipeline.serving.cli.verify.verify",
}
"""Commands of other modules: name -> module.attribute, imported only when used."""


class ShortErrorGroup(LazyGroup):
    """A group whose commands print one paragraph on failure; `--verbose` shows the traceback."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name, with the option --verbose added."""
        command = super().get_command(ctx, cmd_name)
        for member in (command, *getattr(command, "commands", {}).values()):
            if member is not None and member.help:  # raw docstrings: "\\b" keeps click from joining lines
                member.help = member.help.replace("\\b\n", "\b\n")
        return command and _with_short_errors(command)


def _with_short_errors(command: click.Command) -> click.Command:
    if any("--verbose" in option.opts for option in command.params):
        return command  # a group returns the same object each time
    invoke = command.invoke

    def invoke_and_explain(ctx: click.Context) -> Any:
        verbose = ctx.params.pop("verbose")
        try:
            return invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as err:
            if verbose:
                raise
            raise click.ClickException(f"{_explain(err)}\n(--verbose shows the traceback)") from err

    option = click.Option(["--verbose"], is_flag=True, help="Show the traceback of an error.")
    command.params.append(option)
    command.invoke = invoke_and_explain  # type: ignore[method-assign]
    return command


def _explain(err: Exception) -> str:
    """Return an error's message in one paragraph; errors of other libraries are prefixed by their type."""
    message = " ".join(str(err).split())
    known = isinstance(err, OSError) or type(err).__module__.startswith(("valentina_pipeline", "kedro"))
    return message if known and message else f"{type(err).__name__}: {message}"


@click.group(name="Valentina Pipeline", cls=ShortErrorGroup, lazy_subcommands=LAZY)
def cli() -> None:
    """Commands of this project."""


@cli.command()
@click.option("--check", is_flag=True, help="Write nothing; show the changes and fail if there are any.")
@click.pass_obj
def dvc(metadata: ProjectMetadata, check: bool) -> None:
    r"""Write dvc.yaml from the pipelines and the catalog.

    \b
    The DAG is defined once, in src/valentina_pipeline/pipelines/ and conf/base/catalog.yml.
    Run this command after you change
      - a node's inputs or outputs,
      - the catalog.
    Then `dvc repro` runs only the stages that your change affects.
    """
    from valentina_pipeline import dvc_yaml

    target = metadata.project_path / "dvc.yaml"
    try:
        text = dvc_yaml.render_dvc_yaml(metadata.project_path)
    except dvc_yaml.InvalidDagError as err:
        raise click.ClickException(str(err)) from err
    if not check:
        click.echo("dvc.yaml written" if dvc_yaml.write(target, text) else "dvc.yaml is up to date")
    elif changes := dvc_yaml.diff(target, text):
        click.echo(changes, nl=False)
        click.echo("dvc.yaml is stale: `uv run kedro dvc` writes it", err=True)
        sys.exit(1)


@cli.command()
@click.pass_obj
def fingerprint(metadata: ProjectMetadata) -> None:
    r"""Write code_fingerprints.json: a hash of each stage's code.

    \b
    `dvc repro` runs this first. A hash covers every module that the stage imports, without comments,
    docstrings and layout, so editing these reruns no stage.
    """
    from valentina_pipeline import dvc_yaml

    dvc_yaml.write(
        metadata.project_path / dvc_yaml.FINGERPRINTS, dvc_yaml.fingerprints(metadata.project_path)
    )


@cli.command()
@click.argument("concepts", metavar="[CONCEPT]...", nargs=-1)
@click.pass_obj
def check(metadata: ProjectMetadata, concepts: tuple[str, ...]) -> None:
    r"""Check everything that `dvc repro` needs, before any stage runs.

    \b
      kedro check          every concept of params.yaml
      kedro check ada      conf/base/concepts/ada.yml

    \b
    Checks parameters, rights records, local sources and models. Lists all missing models with their
    licenses and the commands that download them. Creates a concept's missing folders below data/. Exit
    status 1 means that a run would fail.
    """
    from valentina_pipeline.cli.check import check_project

    failed = False
    for concept, finding in check_project(metadata.project_path, concepts):
        mark = click.style("missing", fg="red") if finding.problem else click.style("ok", fg="green")
        click.echo(f"{concept}\t{mark}\t{finding.topic}: {finding.text}")
        failed = failed or finding.problem
    sys.exit(1 if failed else 0)


@cli.command()
@click.argument("stages", metavar="[STAGE]...", nargs=-1)
@click.option("--keep", is_flag=True, help="Keep the temporary clone, to inspect a difference.")
@click.pass_obj
def reproduce(metadata: ProjectMetadata, stages: tuple[str, ...], keep: bool) -> None:
    r"""Run the committed pipeline again and compare it with dvc.lock.

    \b
    In a clean temporary clone of HEAD, every stage runs again without cache; given STAGEs, only these
    and the stages that they need. Then each output's hash is compared with the committed one. For each
    stage, the table shows "identical" or the outputs that differ, and by how much metrics differ. Exit
    status 1 means that an output differs.

    \b
    Your working tree, cache and MLflow store do not change. Uncommitted changes are not used. Another
    kind of machine or another number of `threads` may round differently.
    """
    from valentina_pipeline.cli.reproduce import ReproductionError, reproduce_committed

    try:
        same = reproduce_committed(metadata.project_path, stages, keep=keep)
    except ReproductionError as err:
        raise click.ClickException(str(err)) from err
    sys.exit(0 if same else 1)

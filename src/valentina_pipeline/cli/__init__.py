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
    "check": "valentina_pipeline.cli.check.check",
    "compare": "valentina_pipeline.cli.compare.compare",
    "consistency": "valentina_pipeline.serving.cli.consistency.consistency",
    "deliver": "valentina_pipeline.cli.deliver.deliver",
    "generate": "valentina_pipeline.serving.cli.generate.generate",
    "lineage": "valentina_pipeline.cli.rights.lineage",
    "lora": "valentina_pipeline.cli.lora.lora",
    "new-concept": "valentina_pipeline.cli.new_concept.new_concept",
    "package": "valentina_pipeline.cli.package.package",
    "params": "valentina_pipeline.cli.params.params",
    "reproduce": "valentina_pipeline.cli.reproduce.reproduce",
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
@click.pass_obj
def base_settings(metadata: ProjectMetadata) -> None:
    r"""Write base_settings.json: the settings of each concept's base model.

    \b
    `dvc repro` runs this first. An edit of conf/base/bases.yml reruns only the stages of the concepts whose
    base model it concerns.
    """
    from valentina_pipeline import dvc_yaml

    dvc_yaml.write(
        metadata.project_path / dvc_yaml.BASE_SETTINGS, dvc_yaml.render_base_settings(metadata.project_path)
    )

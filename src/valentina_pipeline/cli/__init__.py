"""The project's own commands, which Kedro finds here by the name `cli` and shows beside its own."""

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
"""Commands that live elsewhere: name -> module.attribute, imported only when used."""


class ShortErrorGroup(LazyGroup):
    """A group whose commands end in one paragraph when they fail; `--verbose` shows the traceback."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name, with the option --verbose."""
        command = super().get_command(ctx, cmd_name)
        for each in (command, *getattr(command, "commands", {}).values()):
            if each is not None and each.help:  # raw docstrings: their "\\b" keeps click from joining lines
                each.help = each.help.replace("\\b\n", "\b\n")
        return command and _with_short_errors(command)


def _with_short_errors(command: click.Command) -> click.Command:
    if any("--verbose" in option.opts for option in command.params):
        return command  # a group hands out the same object each time
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
    """Return an error's message in one paragraph; errors that the project does not raise have their type."""
    message = " ".join(str(err).split())
    known = isinstance(err, OSError) or type(err).__module__.startswith(("valentina_pipeline", "kedro"))
    return message if known and message else f"{type(err).__name__}: {message}"


@click.group(name="Valentina Pipeline", cls=ShortErrorGroup, lazy_subcommands=LAZY)
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
      - a node's inputs or outputs,
      - the catalog.
    Then `dvc repro` runs what your change touches and nothing else.
    """
    from valentina_pipeline import dvc_yaml

    target = metadata.project_path / "dvc.yaml"
    try:
        text = dvc_yaml.render_dvc_yaml(metadata.project_path)
    except dvc_yaml.InvalidDagError as err:
        raise click.ClickException(str(err)) from err
    if not check:
        click.echo("dvc.yaml is written" if dvc_yaml.write(target, text) else "dvc.yaml is up to date")
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
    docstrings and layout: an edit of words reruns no stage.
    """
    from valentina_pipeline import dvc_yaml

    dvc_yaml.write(
        metadata.project_path / dvc_yaml.FINGERPRINTS, dvc_yaml.fingerprints(metadata.project_path)
    )


@cli.command()
@click.argument("concepts", metavar="[CONCEPT]...", nargs=-1)
@click.pass_obj
def check(metadata: ProjectMetadata, concepts: tuple[str, ...]) -> None:
    r"""Look at everything that `dvc repro` needs, before any work begins.

    \b
      kedro check          every concept of params.yaml
      kedro check ada      conf/base/concepts/ada.yml

    \b
    Parameters, rights records, local sources and models are checked. Every missing model is named at
    once, with its license and the command that fetches it. A concept's empty folders below data/ are
    created. Exit status 1 means that a run would fail.
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
@click.option("--keep", is_flag=True, help="Keep the temporary clone, to look into a difference.")
@click.pass_obj
def reproduce(metadata: ProjectMetadata, stages: tuple[str, ...], keep: bool) -> None:
    r"""Run the committed pipeline again and compare it with dvc.lock.

    \b
    In a clean temporary clone of HEAD, every stage runs anew, without cache; given STAGEs, they and
    what they need. Then each output's hash is compared with the one committed. The table says for each
    stage: identical, or which output differs, and for metrics by how much. Exit status 1 means that
    something differs.

    \b
    Your working tree, cache and MLflow store stay as they are. What you have not committed takes no
    part. Another kind of machine or another number of `threads` may round differently.
    """
    from valentina_pipeline.cli import reproduce as again

    try:
        same = again.reproduce(metadata.project_path, stages, keep=keep)
    except again.ReproductionError as err:
        raise click.ClickException(str(err)) from err
    sys.exit(0 if same else 1)

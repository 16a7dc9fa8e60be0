"""The commands `kedro lineage` and `kedro revoke`: where a picture went, and how rights are taken back."""

from datetime import date
from typing import TYPE_CHECKING

import click
from kedro.framework.startup import ProjectMetadata

if TYPE_CHECKING:
    from valentina_pipeline.integrations.lineage import Trace


@click.command()
@click.argument("query", metavar="IMAGE|RECORD")
@click.pass_obj
def lineage(metadata: ProjectMetadata, query: str) -> None:
    r"""List every dataset, run, model version and package that used a picture or stands on a rights record.

    \b
      kedro lineage valentina-moreau-2024        a record's id
      kedro lineage portraits/0003.jpg           a picture's name at its source
      kedro lineage 5f2c9a10                     its sha256, or eight digits and more of it
    """
    from valentina_pipeline.integrations.lineage import trace

    _show(trace(metadata.project_path, query), query)


@click.command()
@click.argument("record", metavar="RECORD")
@click.option("--reason", required=True, help="Why; kept in the ledger and shown wherever it is refused.")
@click.pass_obj
def revoke(metadata: ProjectMetadata, record: str, reason: str) -> None:
    r"""Take a rights record back: nothing is drawn, published or trained with its pictures any more.

    \b
    Marks the record in its ledger, lists what stands on it, takes the champion's name from versions that
    do, and marks their packages, which `generate` and serving then refuse. The next `dvc repro` trains
    without its pictures. The ledger is in git: commit it.
    """
    from valentina_pipeline.domain.rights import BadLedger
    from valentina_pipeline.integrations import ledgers
    from valentina_pipeline.integrations.lineage import trace
    from valentina_pipeline.integrations.registry import Registry

    root = metadata.project_path
    if not reason.strip():
        raise click.ClickException("--reason: say why, in words")
    try:
        folder = ledgers.holding(root / ledgers.PLACE, record)
        found = trace(root, record)
        file = ledgers.revoke(folder, record, reason.strip(), date.today())
    except BadLedger as err:
        raise click.ClickException(str(err)) from err
    said = f"{record}: {reason.strip()}"
    _show(found, record)
    for run in found.runs:
        if run.version and Registry(root, run.concept).revoke(run.version, said):
            click.echo(f"{run.concept} version {run.version} is champion no more")
    for package in found.packages:
        if (root / package / "rights.json").is_file():
            ledgers.mark(root / package, said)
            click.echo(f"{package} is marked: nothing is drawn from it any more")
    click.echo(f"{file.relative_to(root)} is changed: commit it, then `uv run dvc repro` trains without it")


def _show(found: "Trace", query: str) -> None:
    """Print a line for each find: what, which, and where, between tabs."""
    lines: list[tuple[str, str, str]] = []
    for dataset in found.datasets:
        what = "dataset" if dataset.stage == "ingest" else "trained on"
        used = f"{dataset.concept}: {len(dataset.images)} images"
        lines.append((what, used, ", ".join(dataset.commits)))
    for run in found.runs:
        lines.append(("run", run.name, f"{run.run_id}, commit {run.commit or 'unknown'}"))
        if run.version:
            state = " champion" if run.champion else " revoked" if run.revoked else ""
            lines.append(("version", f"{run.concept} {run.version}{state}", run.content_hash[:12]))
    lines += [("package", package, "") for package in found.packages]
    click.echo(f"what used {query}:" if lines else f"nothing here used {query}")
    for line in lines:
        click.echo("\t".join(line).rstrip())
    for table in found.missing:
        click.echo(f"not looked into, for it is not in DVC's cache here: {table}; `dvc fetch --all-commits`")

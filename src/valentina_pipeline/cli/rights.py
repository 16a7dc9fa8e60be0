"""Commands `kedro lineage` and `kedro revoke`: trace the uses of an image, and revoke rights."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from kedro.framework.startup import ProjectMetadata

if TYPE_CHECKING:
    from valentina_pipeline.integrations.lineage import LineageReport


@click.command()
@click.argument("query", metavar="IMAGE|RECORD")
@click.pass_obj
def lineage(metadata: ProjectMetadata, query: str) -> None:
    r"""List all datasets, runs, model versions and packages that used an image or a rights record.

    \b
      kedro lineage valentina-moreau-2024        a record's id
      kedro lineage portraits/0003.jpg           an image's name at its source
      kedro lineage 5f2c9a10                     its sha256, or at least its first eight digits
    """
    from valentina_pipeline.integrations.lineage import trace

    _show(trace(metadata.project_path, query), query)


EARLIER_IMAGES = """\
Images generated before remain: in `generated/`, on a server for a day, and wherever they were downloaded.
Each file names the LoRA that generated it (`kedro verify FILE`). The contract decides on its further use.
Packages that were copied elsewhere need this package's REVOKED.json."""


@click.command()
@click.argument("record", metavar="RECORD")
@click.option("--reason", required=True, help="The reason; stored in the ledger and shown with each refusal.")
@click.pass_obj
def revoke(metadata: ProjectMetadata, record: str, reason: str) -> None:
    r"""Revoke a rights record: its images can no longer be used for training, generation or publication.

    \b
    Marks the record in the ledger of every concept that has it. Marks the packages that depend on it, here
    and in the registry, and removes their aliases there. These marks are checked before each image, also
    by running servers. The next `dvc repro` trains without the images. The ledger is in git: commit it.
    Run the command again if it was interrupted: it completes the rest.
    """
    from valentina_pipeline.domain import clock
    from valentina_pipeline.domain.rights import InvalidLedgerError
    from valentina_pipeline.integrations import ledgers

    root = metadata.project_path
    if not reason.strip():
        raise click.ClickException("--reason must not be empty")
    try:  # local ledgers first: they count even if the registry is unreachable
        revocation = ledgers.revoke(root / ledgers.PLACE, record, reason.strip(), clock.today())
    except InvalidLedgerError as err:
        raise click.ClickException(str(err)) from err
    reason = f"{record}: {revocation.reason}"
    if revocation.before:
        click.echo(f"{record} was revoked before ({revocation.reason}): missing marks are added now")
    for file in revocation.files:
        click.echo(
            f"{file.relative_to(root)} changed: commit it; `uv run dvc repro` trains without the images"
        )
    try:
        lineage_report = _mark_packages(root, record, reason)
    except Exception as err:  # any error leaves packages unmarked, so the command must be run again
        raise click.ClickException(
            f"the ledger is marked, but not everything else: {err}; run it again"
        ) from err
    _show(lineage_report, record)
    click.echo(EARLIER_IMAGES)
    if lineage_report.unread:
        versions = ", ".join(lineage_report.unread)
        raise click.ClickException(
            f"not complete: the packages of {versions} cannot be read; run the command again later"
        )


def _mark_packages(root: Path, record: str, reason: str) -> "LineageReport":
    """Mark the packages that depend on a record, local ones first; return everything that used it."""
    from valentina_pipeline.integrations import ledgers
    from valentina_pipeline.integrations.lineage import packages, trace
    from valentina_pipeline.integrations.registry import Registry

    for folder in packages(root, record):
        ledgers.mark(folder, reason)
        click.echo(f"{folder.relative_to(root)} is marked: it can no longer generate")
    report = trace(root, record)
    for version in report.versions:
        aliases = Registry(root, version.name).revoke(version.number, reason)
        lost = f" and no longer {' and '.join(aliases)}" if aliases else ""
        click.echo(f"{version.name} version {version.number} is marked{lost}")
    return report


def _show(report: "LineageReport", query: str) -> None:
    """Print a line for each use: kind, name and place, separated by tabs."""
    lines: list[tuple[str, str, str]] = []
    for dataset in report.datasets:
        kind = "dataset" if dataset.stage == "ingest" else "trained on"
        used = f"{dataset.concept}: {len(dataset.images)} images"
        lines.append((kind, used, ", ".join(dataset.commits)))
    for run in report.runs:
        lines.append(("run", run.name, f"{run.run_id}, commit {run.commit or 'unknown'}"))
    for version in report.versions:
        state = " revoked" if "revoked" in version.tags else ""
        named = f"{version.name} {version.number}{''.join(f' {alias}' for alias in version.aliases)}{state}"
        lines.append(("version", named, version.tags.get("content_hash", "")[:12]))
    lines += [("package", "/".join(folder.parts[-4:]), "") for folder in report.packages]
    lines += [("package", f"{p.concept} package {p.md5}", ", ".join(p.commits)) for p in report.former]
    unread = [*report.missing, *(f"the package of {version}" for version in report.unread)]
    none = f"no use of {query} was found" if unread else f"{query} was not used here"
    click.echo(f"uses of {query}:" if lines else none)
    for line in lines:
        click.echo("\t".join(line).rstrip())
    for item in unread:
        click.echo(f"not searched because it is missing (`dvc fetch --all-commits` gets tables): {item}")

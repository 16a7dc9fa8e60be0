"""The commands `kedro lineage` and `kedro revoke`: where a picture went, and how rights are taken back."""

from pathlib import Path
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


DRAWN_BEFORE = """\
Images drawn before stay where they are: in `generated/`, on a server for a day, and with whoever got them.
Each says in its file which LoRA drew it (`kedro verify FILE`). Whether it may be used, the contract says.
Packages that were copied elsewhere need this package's REVOKED.json."""


@click.command()
@click.argument("record", metavar="RECORD")
@click.option("--reason", required=True, help="Why; kept in the ledger and shown wherever it is refused.")
@click.pass_obj
def revoke(metadata: ProjectMetadata, record: str, reason: str) -> None:
    r"""Take a rights record back: nothing is drawn, published or trained with its pictures any more.

    \b
    Marks the record in the ledger of every concept that has it, and the packages that stand on it, here
    and in the registry, whose aliases are taken from them. Whatever draws asks for these marks before each
    image, running servers too. The next `dvc repro` trains without the pictures. The ledger is in git:
    commit it. Called again, it completes what was cut short.
    """
    from valentina_pipeline.domain import clock
    from valentina_pipeline.domain.rights import InvalidLedgerError
    from valentina_pipeline.integrations import ledgers

    root = metadata.project_path
    if not reason.strip():
        raise click.ClickException("--reason: say why, in words")
    try:  # first what is here: it counts even if the registry is away
        made = ledgers.revoke(root / ledgers.PLACE, record, reason.strip(), clock.today())
    except InvalidLedgerError as err:
        raise click.ClickException(str(err)) from err
    said = f"{record}: {made.reason}"
    if made.before:
        click.echo(f"{record} was revoked before ({made.reason}): what is not marked yet is marked now")
    for file in made.files:
        click.echo(f"{file.relative_to(root)} is changed: commit it; `uv run dvc repro` trains without it")
    try:
        found = _marked(root, record, said)
    except Exception as err:  # whatever it is, what is not marked yet has to be
        raise click.ClickException(f"the ledger is marked, not yet all else: {err}; call it again") from err
    _show(found, record)
    click.echo(DRAWN_BEFORE)
    if found.unread:
        raise click.ClickException(
            f"not complete: the packages of {', '.join(found.unread)} cannot be read; call it again later"
        )


def _marked(root: Path, record: str, said: str) -> "Trace":
    """Mark the packages that stand on a record, those here first, and return all that used it."""
    from valentina_pipeline.integrations import ledgers
    from valentina_pipeline.integrations.lineage import packages, trace
    from valentina_pipeline.integrations.registry import Registry

    for folder in packages(root, record):
        ledgers.mark(folder, said)
        click.echo(f"{folder.relative_to(root)} is marked: nothing is drawn from it any more")
    found = trace(root, record)
    for version in found.versions:
        former = Registry(root, version.name).revoke(version.number, said)
        lost = f" and is {' and '.join(former)} no more" if former else ""
        click.echo(f"{version.name} version {version.number} is marked{lost}")
    return found


def _show(found: "Trace", query: str) -> None:
    """Print a line for each find: what, which, and where, between tabs."""
    lines: list[tuple[str, str, str]] = []
    for dataset in found.datasets:
        what = "dataset" if dataset.stage == "ingest" else "trained on"
        used = f"{dataset.concept}: {len(dataset.images)} images"
        lines.append((what, used, ", ".join(dataset.commits)))
    for run in found.runs:
        lines.append(("run", run.name, f"{run.run_id}, commit {run.commit or 'unknown'}"))
    for version in found.versions:
        state = " revoked" if "revoked" in version.tags else ""
        named = f"{version.name} {version.number}{''.join(f' {alias}' for alias in version.aliases)}{state}"
        lines.append(("version", named, version.tags.get("content_hash", "")[:12]))
    lines += [("package", "/".join(folder.parts[-4:]), "") for folder in found.packages]
    lines += [("package", f"{p.concept} package {p.md5}", ", ".join(p.commits)) for p in found.former]
    unseen = [*found.missing, *(f"the package of {version}" for version in found.unread)]
    none = f"nothing is found that used {query}" if unseen else f"nothing here used {query}"
    click.echo(f"what used {query}:" if lines else none)
    for line in lines:
        click.echo("\t".join(line).rstrip())
    for each in unseen:
        click.echo(f"not searched, for it is not here (`dvc fetch --all-commits` brings tables): {each}")

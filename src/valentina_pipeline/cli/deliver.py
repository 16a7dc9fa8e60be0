"""Command `kedro deliver`: copy a package to a folder, to S3 or to the Hugging Face hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from kedro.framework.startup import ProjectMetadata

if TYPE_CHECKING:
    from valentina_pipeline.serving.inference.package import PackageInfo

S3, HUB = "s3://", "hf://"


@click.command()
@click.argument("destination")
@click.option("--concept", help="The concept of the project's package; default: the first one.")
@click.option("--package", help="A package's folder, or models:/NAME@ALIAS, instead of the project's.")
@click.option(
    "--dry-run",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write what DESTINATION would receive to this new folder instead.",
)
@click.pass_obj
def deliver(
    metadata: ProjectMetadata,
    destination: str,
    concept: str | None,
    package: str | None,
    dry_run: Path | None,
) -> None:
    r"""Deliver a package to DESTINATION, after checking its files and its rights.

    \b
      kedro deliver /srv/packages/ada
      kedro deliver s3://bucket/packages/ada
      kedro deliver hf://owner/ada-lora --dry-run ada-lora

    A folder and an s3:// prefix receive the package. hf://OWNER/NAME receives a LoRA repository in the layout
    of the Hugging Face hub: the LoRA's files and the model card, without base model and code. It needs a
    token in HF_TOKEN; a new repository is private. S3 and the hub need records that allow publication.
    """
    from valentina_pipeline.release import delivery
    from valentina_pipeline.serving.inference.package import InvalidPackageError
    from valentina_pipeline.serving.packages import open_package

    try:
        about = open_package(metadata.project_path, package, concept)
        if destination.startswith((S3, HUB)):
            _require_publication(about)
        files = _layout(about.folder, destination)
        if dry_run or not destination.startswith((S3, HUB)):
            delivery.to_folder(files, dry_run or Path(destination))
        elif destination.startswith(S3):
            delivery.to_s3(files, destination)
        else:
            delivery.to_hub(files, destination.removeprefix(HUB))
    except (InvalidPackageError, delivery.DeliveryError) as err:
        raise click.ClickException(str(err)) from err
    click.echo(f"{about.name}: {len(files)} files written to {dry_run or destination}")


def _layout(folder: Path, destination: str) -> Mapping[str, bytes | Path]:
    """Return the files for a destination: all that SHA256SUMS lists, or the hub's layout of them."""
    from valentina_pipeline.release.checksums import SUMS_FILE, listed_names
    from valentina_pipeline.release.hub_layout import hub_files

    names = {SUMS_FILE} | listed_names((folder / SUMS_FILE).read_text("utf-8"))
    package = {name: folder / name for name in names}
    return hub_files(package, destination.removeprefix(HUB)) if destination.startswith(HUB) else package


def _require_publication(about: "PackageInfo") -> None:
    """Raise ClickException if a rights record of the package does not allow publication today."""
    from valentina_pipeline.domain import clock

    for terms in about.terms:
        if obstacle := terms.obstacle("publication", clock.today()):
            raise click.ClickException(f"{about.name}'s package cannot be published: {obstacle}")

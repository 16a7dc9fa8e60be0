"""The command `kedro verify`: list the marks of generated images that files have."""

from pathlib import Path

import click

from valentina_pipeline.serving.marks.detect import MAX_FILE_BYTES, InvalidImageError, detect_marks


@click.command()
@click.argument(
    "image", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
def verify(image: tuple[Path, ...]) -> None:
    r"""List the marks of generated images that are found in IMAGE: PNG text, XMP, C2PA manifest, watermark.

    \b
    Marks show that a file was generated. A file without marks proves nothing: most programs and sites drop
    metadata, the watermark does not survive every edit, and anybody can remove marks.
    """
    for file in image:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise click.ClickException(
                f"{file} is larger than {MAX_FILE_BYTES >> 20} MiB, the limit for images"
            )
        try:
            lines = detect_marks(file.read_bytes()).marks
        except InvalidImageError as err:
            raise click.ClickException(f"{file} {err}") from err
        click.echo(f"{file}:")
        for line in lines or ["no mark found, which proves nothing: marks can get lost or be removed"]:
            click.echo(f"  {line}")

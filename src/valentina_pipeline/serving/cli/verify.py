"""The command `kedro verify`: which marks of a generated image a file still has."""

from pathlib import Path

import click

from valentina_pipeline.serving.marks.detect import LARGEST, InvalidImageError, detect_marks


@click.command()
@click.argument(
    "image", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
def verify(image: tuple[Path, ...]) -> None:
    r"""Say which marks of a generated IMAGE are found: PNG text, XMP, C2PA manifest, watermark.

    \b
    Marks show that a file was generated. That none is found shows nothing: most programs and sites drop
    those beside the pixels, the watermark does not survive everything, and anybody can remove them.
    """
    for file in image:
        if file.stat().st_size > LARGEST:
            raise click.ClickException(
                f"{file} is larger than {LARGEST >> 20} MiB: no image of this project is"
            )
        try:
            lines = detect_marks(file.read_bytes()).marks
        except InvalidImageError as err:
            raise click.ClickException(f"{file} {err}") from err
        click.echo(f"{file}:")
        for line in lines or ["no mark is found, which proves nothing: they can be lost and removed"]:
            click.echo(f"  {line}")

"""The command `kedro verify`: which marks of a generated image a file still has."""

import io
from pathlib import Path

import click

KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
LARGEST = 100 << 20
"""Bytes of a file that is looked into."""


@click.command()
@click.argument(
    "image", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
def verify(image: tuple[Path, ...]) -> None:
    r"""Say which marks of a generated IMAGE are found: PNG text, XMP, and a C2PA manifest.

    \b
    Marks show that a file was generated. That none is found shows nothing: most programs and sites drop
    them, and anybody can.
    """
    for file in image:
        lines = found(file)
        click.echo(f"{file}:")
        for line in lines or ["no mark is found, which proves nothing: saving a file anew drops them"]:
            click.echo(f"  {line}")


def found(file: Path) -> list[str]:
    """Return a line for each mark of a file.

    Raises:
        ClickException: it is too large, or no PNG, JPEG or WebP.
    """
    from PIL import Image, UnidentifiedImageError

    from valentina_pipeline.image.generate import MADE
    from valentina_pipeline.serving.credentials import read

    if file.stat().st_size > LARGEST:
        raise click.ClickException(f"{file} is larger than {LARGEST >> 20} MiB: no image of this project is")
    content = file.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=list(KINDS)) as opened:
            kind = KINDS[opened.format or ""]
            texts = dict(getattr(opened, "text", {}))  # those before the pixels, where ours are
            xmp = opened.info.get("xmp", b"") or texts.get("XML:com.adobe.xmp", "")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        raise click.ClickException(f"{file} is no PNG, JPEG or WebP that can be read: {err}") from err
    lines = []
    if texts.get("synthetic") == "true":
        said = ", ".join(
            f"{name} {texts[name]}" for name in ("seed", "lora_sha256", "base_sha256") if name in texts
        )
        lines.append(f"PNG text: generated, {said}")
    said = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)
    lines += [f"XMP: {made}" for term, made in MADE.items() if term in said]
    if manifest := read(content, kind):
        by = f"signed by {manifest.signer!r}, " + (
            "vouched for" if manifest.trusted else "whom nobody here vouches for"
        )
        state = "unchanged since" if manifest.intact else "but the file was changed since"
        made = MADE.get(manifest.source_type, "does not say how it was made")
        lines.append(f"C2PA: {made}, {by}, {state}")
    return lines

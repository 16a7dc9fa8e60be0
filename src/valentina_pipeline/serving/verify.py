"""The command `kedro verify`: which marks of a generated image a file still has."""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import click

from valentina_pipeline.image.generate import MADE
from valentina_pipeline.image.png import XMP_KEY
from valentina_pipeline.serving import credentials

KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
LARGEST = 100 << 20
"""Bytes of a file that is looked into."""

MOST_PIXELS = 50_000_000
"""Of a picture that is decoded."""


class BadImage(ValueError):
    """A file is not looked into; the message says why."""


@dataclass(frozen=True)
class Found:
    """What a file still says.

    Attributes:
        marks: a line each.
        texts: of a PNG, by keyword.
    """

    marks: list[str]
    texts: dict[str, str]


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
            lines = found(file.read_bytes()).marks
        except BadImage as err:
            raise click.ClickException(f"{file} {err}") from err
        click.echo(f"{file}:")
        for line in lines or ["no mark is found, which proves nothing: they can be lost and removed"]:
            click.echo(f"  {line}")


def found(content: bytes) -> Found:
    """Return what a file still says.

    Raises:
        BadImage: it is no PNG, JPEG or WebP, is broken, or has too many pixels.
    """
    from PIL import Image

    from valentina_pipeline.image.watermark import look

    try:
        with Image.open(io.BytesIO(content), formats=list(KINDS)) as opened:
            kind, said = KINDS[opened.format or ""], opened.info
            pixels = opened.width * opened.height
            grey = opened.convert("L") if pixels <= MOST_PIXELS else None
    except Exception as err:  # decoders fail in many ways on broken files
        raise BadImage("is no PNG, JPEG or WebP that can be read") from err
    if grey is None:
        raise BadImage(f"has more than {MOST_PIXELS:,} pixels: no image of this project has")
    texts = {str(name): text for name, text in said.items() if isinstance(text, str)}
    xmp = said.get("xmp", b"") or texts.get(XMP_KEY, "")
    lines = []
    if texts.get("synthetic") == "true":
        hashes = ", ".join(
            f"{name} {texts[name]}"
            for name in ("seed", "lora_sha256", "base_sha256")
            if texts.get(name, "").isalnum()
        )
        lines.append(f"PNG text: generated, {hashes}")
    told = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)
    lines += [f"XMP: {made}" for term, made in MADE.items() if term in told]
    if manifest := credentials.read(content, kind):
        lines.append(f"C2PA: {_worded(manifest)}")
    trace = look(grey)
    if trace.found:
        power = math.ceil(math.log10(max(trace.chance, 1e-99)))
        lines.append(f"watermark: found (score {trace.score:.1f}, chance below 1e{power})")
    return Found(lines, texts)


def _worded(manifest: credentials.Found) -> str:
    by = "vouched for" if manifest.trusted else "whom nobody here vouches for"
    state = "unchanged since" if manifest.intact else "but the file was changed since"
    made = MADE.get(manifest.source_type, "does not say how it was made")
    return f"{made}, signed by {manifest.signer!r}, {by}, {state}"

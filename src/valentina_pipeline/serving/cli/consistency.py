"""The command `kedro consistency`: compare the faces in a folder of images with a character."""

import csv
import io
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from valentina_pipeline.integrations import tables
from valentina_pipeline.serving.marks.detect import MAX_FILE_BYTES
from valentina_pipeline.serving.packages import open_package

if TYPE_CHECKING:
    from PIL import Image

    from valentina_pipeline.serving.inference.identity import IdentityScorer

COLUMNS = ("file", "verdict", "identity", "detail")
MATCH, NO_MATCH, NO_FACE, UNREADABLE = "match", "no match", "no face", "unreadable"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
THUMBNAIL_PIXELS = 192
"""Side of an image on the contact sheet."""


@dataclass(frozen=True)
class Row:
    """Result of one file.

    Attributes:
        file: path relative to the folder.
        verdict: `MATCH`, `NO_MATCH`, `NO_FACE` or `UNREADABLE`.
        identity: the score of the least similar face, "" without a face.
        detail: the reason of an unreadable file, else "".
    """

    file: str
    verdict: str
    identity: float | str
    detail: str


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--concept", help="Concept of the character; default: the first concept of params.yaml.")
@click.option("--package", help="A package folder, or models:/NAME@champion of the registry.")
@click.option("--threshold", type=float, help="Minimum identity; default: the gate of the package's LoRA.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("consistency"),
    show_default=True,
    help="Folder of the report.",
)
@click.pass_obj
def consistency(
    metadata: object,
    folder: Path,
    concept: str | None,
    package: str | None,
    threshold: float | None,
    output: Path,
) -> None:
    r"""Compare the faces in FOLDER's images with a character's held-out portraits.

    \b
    Writes consistency.csv (least similar first) and consistency.png, a contact sheet in the same order. Exits
    with status 1 if an image shows somebody else, shows no face, or cannot be read.
      kedro consistency generated
    """
    from valentina_pipeline.common import atomic_files
    from valentina_pipeline.common.progress import track_progress
    from valentina_pipeline.image.io import png
    from valentina_pipeline.image.io.contact_sheet import contact_sheet
    from valentina_pipeline.serving.inference.identity import load_identity_scorer

    root = Path(getattr(metadata, "project_path", Path.cwd()))
    try:
        about = open_package(root, package, concept)
    except (ValueError, OSError) as err:  # errors in files are ValueErrors
        raise click.ClickException(str(err)) from err
    if about.identity is None:
        raise click.ClickException(
            f"{about.name}'s package has no identity measurement: there are no portraits to compare with"
        )
    scorer = load_identity_scorer(about, root)
    if scorer is None:
        raise click.ClickException(
            f"{about.base.face_embedder.path} not found: it is required to compare faces"
        )
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and output.resolve() not in file.resolve().parents
    ]
    if not files:
        raise click.ClickException(f"{folder} has no images ({', '.join(SUFFIXES)})")
    limit = about.identity.gate if threshold is None else threshold
    results = list(track_progress(_compare(files, folder, scorer, limit), "compare", len(files)))
    results.sort(key=lambda result: (result[0].verdict == MATCH, result[0].identity or -1.0, result[0].file))
    rows = [row for row, _ in results]
    labels = [f"{row.file}\n{row.verdict} {row.identity}" for row in rows]
    atomic_files.replace(output / "consistency.csv", _table(rows))
    page = contact_sheet((thumbnail for _, thumbnail in results), labels, columns=6, cell=THUMBNAIL_PIXELS)
    atomic_files.replace(output / "consistency.png", png.encode(page))
    num_matches = sum(row.verdict == MATCH for row in rows)
    click.echo(f"{num_matches} of {len(rows)} show {about.name} (identity at least {limit:.2f}): {output}")
    if num_matches < len(rows):
        raise SystemExit(1)


def _compare(
    files: list[Path], folder: Path, scorer: "IdentityScorer", limit: float
) -> "Iterator[tuple[Row, Image.Image]]":
    """Yield the result and a thumbnail of each file."""
    from PIL import Image

    from valentina_pipeline.image.io.decode import RejectedImageError, decode
    from valentina_pipeline.serving.inference.input_images import FORMATS, Limits

    for file in files:
        name = file.relative_to(folder).as_posix()
        try:
            if file.stat().st_size > MAX_FILE_BYTES:
                raise RejectedImageError("too large", f"more than {MAX_FILE_BYTES >> 20} MiB")
            picture = decode(file.read_bytes(), Limits(), FORMATS).image
        except (RejectedImageError, OSError) as err:
            yield Row(name, UNREADABLE, "", str(err)), Image.new("RGB", (8, 8), "white")
            continue
        scores = scorer.all_of(picture)
        lowest = round(min(scores), 4) if scores else ""
        verdict = NO_FACE if not scores else MATCH if min(scores) >= limit else NO_MATCH
        picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        yield Row(name, verdict, lowest, ""), picture


def _table(rows: list[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *(map(tables.escape_formula, astuple(row)) for row in rows)])
    return text.getvalue().encode()

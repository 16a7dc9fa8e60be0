"""The command `kedro consistency`: whether the pictures of a folder show one and the same character."""

import csv
import io
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from valentina_pipeline.integrations import tables
from valentina_pipeline.serving.marks.detect import LARGEST
from valentina_pipeline.serving.packages import open_package

if TYPE_CHECKING:
    from PIL import Image

    from valentina_pipeline.serving.inference.identity import IdentityScorer

COLUMNS = ("file", "verdict", "identity", "detail")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CELL = 192
"""Pixels of a picture on the contact sheet."""


@dataclass(frozen=True)
class Row:
    """What is found in a file.

    Attributes:
        file: below the folder.
        verdict: "hers", "not hers", "no face" or "unreadable".
        identity: of the face that is least like her, "" without one.
        detail: why it could not be read, else "".
    """

    file: str
    verdict: str
    identity: float | str
    detail: str


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--concept", help="Whose references; without, the first of params.yaml's concepts.")
@click.option("--package", help="A package elsewhere, or models:/NAME@champion of the registry.")
@click.option("--threshold", type=float, help="Least identity; without, the gate of the package's LoRA.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("consistency"),
    show_default=True,
    help="A folder for the report.",
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
    r"""Compare the faces in FOLDER's pictures with a character's held-out portraits.

    \b
    Writes consistency.csv (the least like first) and consistency.png, a contact sheet in the same order. Exit
    status 1 says that a picture shows somebody else, no face, or could not be read.
      kedro consistency generated
    """
    from valentina_pipeline.common import atomic_files
    from valentina_pipeline.common.progress import track_progress
    from valentina_pipeline.image.io import png
    from valentina_pipeline.image.io.contact_sheet import contact_sheet
    from valentina_pipeline.serving.inference import identity as likeness

    root = Path(getattr(metadata, "project_path", Path.cwd()))
    try:
        about = open_package(root, package, concept)
    except (ValueError, OSError) as err:  # what is wrong with a file is a ValueError
        raise click.ClickException(str(err)) from err
    if about.identity is None:
        raise click.ClickException(f"{about.name} was not measured: there are no portraits to compare with")
    her = likeness.load_identity_scorer(about, root)
    if her is None:
        raise click.ClickException(f"{about.base.face_embedder.path}: faces cannot be compared without it")
    found = [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and output.resolve() not in file.resolve().parents
    ]
    if not found:
        raise click.ClickException(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    limit = about.identity.gate if threshold is None else threshold
    seen = list(track_progress(_looked_at(found, folder, her, limit), "compare", len(found)))
    seen.sort(key=lambda each: (each[0].verdict == "hers", each[0].identity or -1.0, each[0].file))
    rows = [row for row, _ in seen]
    labels = [f"{row.file}\n{row.verdict} {row.identity}" for row in rows]
    atomic_files.replace(output / "consistency.csv", _table(rows))
    page = contact_sheet((shown for _, shown in seen), labels, columns=6, cell=CELL)
    atomic_files.replace(output / "consistency.png", png.encode(page))
    good = sum(row.verdict == "hers" for row in rows)
    click.echo(f"{good} of {len(rows)} show {about.name} (identity {limit:.2f} and more): {output}")
    if good < len(rows):
        raise SystemExit(1)


def _looked_at(
    found: list[Path], folder: Path, her: "IdentityScorer", limit: float
) -> "Iterator[tuple[Row, Image.Image]]":
    """Yield what is found in each file, and the picture in small."""
    from PIL import Image

    from valentina_pipeline.image.io.decode import RejectedImageError, decode
    from valentina_pipeline.serving.inference.input_images import FORMATS, Limits

    for file in found:
        name = file.relative_to(folder).as_posix()
        try:
            if file.stat().st_size > LARGEST:
                raise RejectedImageError("too large", f"more than {LARGEST >> 20} MiB")
            picture = decode(file.read_bytes(), Limits(), FORMATS).image
        except (RejectedImageError, OSError) as err:
            yield Row(name, "unreadable", "", str(err)), Image.new("RGB", (8, 8), "white")
            continue
        faces = her.all_of(picture)
        least = round(min(faces), 4) if faces else ""
        verdict = "no face" if not faces else "hers" if min(faces) >= limit else "not hers"
        picture.thumbnail((CELL, CELL))
        yield Row(name, verdict, least, ""), picture


def _table(rows: list[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *(map(tables.escape_formula, astuple(row)) for row in rows)])
    return text.getvalue().encode()

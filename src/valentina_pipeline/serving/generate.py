"""The command `kedro generate`: draw from a published package."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from valentina_pipeline.serving.model import Drawn

PACKAGE = "data/06_models/{concept}/package"
LEDGERS = "conf/base/rights"


@click.command()
@click.argument("prompt")
@click.option("--concept", help="Whose package; without, the first of params.yaml's concepts.")
@click.option("--package", type=click.Path(path_type=Path), help="A package folder elsewhere.")
@click.option("--preset", default="", help="draft, standard, high or ultra; without, the package's own.")
@click.option("--seed", default=1, show_default=True, help="Of the first image; the next ones count up.")
@click.option("--count", default=1, show_default=True, help="How many images.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("generated"),
    show_default=True,
    help="A folder.",
)
@click.pass_obj
def generate(
    metadata: object,
    prompt: str,
    concept: str | None,
    package: Path | None,
    preset: str,
    seed: int,
    count: int,
    output: Path,
) -> None:
    r"""Draw PROMPT from a published package and print where the images are.

    \b
    The trigger word is put in where the prompt lacks it:
      kedro generate "smiling, wearing a red dress, beach background" --count 4
    The same prompt, preset and seed give the same image.
    """
    from valentina_pipeline.config import first_concept
    from valentina_pipeline.image.missing import MissingModel
    from valentina_pipeline.image.safety import UnsafePrompt
    from valentina_pipeline.integrations.ledgers import revoked
    from valentina_pipeline.serving.model import BadPackage, Character, Wish, check, read

    root = Path(getattr(metadata, "project_path", Path.cwd()))
    try:
        about = read(package or root / PACKAGE.format(concept=concept or first_concept(root)))
        for record, why in revoked(root / LEDGERS).items():
            if record in about.records:
                raise BadPackage(f"{about.folder} stands on {record}, which was taken back: {why}")
        wishes = [Wish(prompt, seed + number, preset) for number in range(count)]
        check(about, wishes)  # before the networks are loaded
        drawn = Character(about, root=root).draw(wishes)
    except (BadPackage, MissingModel, UnsafePrompt, ValueError) as err:  # a BadLedger is a ValueError
        raise click.ClickException(str(err)) from err
    for each in drawn:
        if each.refused:
            click.echo(f"seed {each.seed}: not shown, {each.refused}", err=True)
        else:
            click.echo(save(each, output, about.trigger))
    if all(each.refused for each in drawn):
        raise click.ClickException("the content filter refused every image: try another prompt or seed")


def save(drawn: "Drawn", folder: Path, trigger: str) -> Path:
    """Write an image with its marks and return its path; its name tells prompt, preset and seed apart."""
    from valentina_pipeline.image import png
    from valentina_pipeline.integrations import files

    if drawn.image is None:
        raise ValueError(f"there is no image: {drawn.refused}")
    asked = hashlib.sha256(f"{drawn.preset}\n{drawn.prompt}".encode()).hexdigest()[:8]
    file = folder / f"{trigger}-{asked}-{drawn.seed}.png"
    files.replace(file, png.encode(drawn.image))
    return file

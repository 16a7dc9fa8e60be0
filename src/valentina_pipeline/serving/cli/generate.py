"""The command `kedro generate`: draw from a published package."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from valentina_pipeline.serving.inference.request import Engine, Scheduler

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from valentina_pipeline.image.generate.sampling import OnStep
    from valentina_pipeline.serving.inference.engine import GenerationResult
    from valentina_pipeline.serving.inference.package import PackageInfo
    from valentina_pipeline.serving.inference.request import ResolvedRequest
    from valentina_pipeline.serving.marks.c2pa import Signer
from valentina_pipeline.serving.packages import open_package, signing_folder


@click.command()
@click.argument("prompts", metavar="[PROMPT]...", nargs=-1)
@click.option("--concept", help="Whose package; without, the first of params.yaml's concepts.")
@click.option("--package", help="A package folder elsewhere, or models:/NAME@champion of the registry.")
@click.option(
    "--scene",
    "scenes",
    multiple=True,
    help="One of the package's library, or a kind of them; may be repeated.",
)
@click.option("--preset", help="draft, standard, high or ultra; without, the package's own.")
@click.option("--seed", type=int, help="Of the first image, 1 without; the next ones count up.")
@click.option("--count", default=1, show_default=True, help="How many images of each prompt.")
@click.option("--negative", "negative_prompt", help="What the image does not show.")
@click.option("--steps", type=int, help="Of the sampler, over the preset's.")
@click.option("--guidance", type=float, help="How strictly the prompt is followed, over the preset's.")
@click.option("--width", type=int, help="Pixels.")
@click.option("--height", type=int, help="Pixels.")
@click.option("--scheduler", type=click.Choice(get_args(Scheduler)), help="The sampler, over the preset's.")
@click.option(
    "--engine",
    type=click.Choice(get_args(Engine)),
    default="torch",
    show_default=True,
    help="procedural: a preview by the renderer.",
)
@click.option("--adapters", type=click.Path(path_type=Path), help="A folder of further LoRAs: adapters.yml.")
@click.option(
    "--adapter", "uses", multiple=True, metavar="NAME[:WEIGHT]", help="One of them; may be repeated."
)
@click.option("--image", type=click.Path(path_type=Path), help="Begin from this picture.")
@click.option("--strength", type=float, help="How much of it is drawn anew, 0 to 1; without, 0.6.")
@click.option("--mask", type=click.Path(path_type=Path), help="As large: white is drawn anew, black stays.")
@click.option(
    "--control",
    "controls",
    multiple=True,
    metavar="KIND:FILE[:SCALE]",
    help="Keep to a picture, such as canny:FILE; may be repeated.",
)
@click.option(
    "--like", type=click.Path(path_type=Path), help="Draw as this image was drawn, but for what you say."
)
@click.option("--sheet", is_flag=True, help="All of them on one page too, a row a prompt.")
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
    /,
    prompts: tuple[str, ...],
    concept: str | None,
    package: str | None,
    engine: Engine,
    scenes: tuple[str, ...],
    adapters: Path | None,
    uses: tuple[str, ...],
    image: Path | None,
    mask: Path | None,
    controls: tuple[str, ...],
    like: Path | None,
    sheet: bool,
    output: Path,
    **given: Any,
) -> None:
    r"""Draw PROMPTs from a published package and print where the images are.

    \b
    The trigger word is put in where the prompt lacks it:
      kedro generate "smiling, wearing a red dress, beach background" --count 4
      kedro generate "at sea" "in a garden" "at night" --count 3 --sheet
      kedro generate --scene travel --scene cover --count 3 --sheet
    The same prompt, settings and seed give the same image. An image tells how it was drawn:
      kedro generate --like generated/valentina_moreau-1f2e3d4c-1.png --preset high
    Pictures can be begun from, in part too, and kept to:
      kedro generate "in a garden" --image one.png --mask where.png --control canny:pose.png:0.8
    """
    from valentina_pipeline.common.missing_model import MissingModelError
    from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
    from valentina_pipeline.serving.inference.adapters import read_adapters
    from valentina_pipeline.serving.inference.control_models import read_controls
    from valentina_pipeline.serving.inference.engine import InferenceEngine
    from valentina_pipeline.serving.inference.request import parse_request, resolve_request
    from valentina_pipeline.serving.marks.c2pa import Signer

    root = Path(getattr(metadata, "project_path", Path.cwd()))
    try:
        about = open_package(root, package, concept)
        shelf = read_adapters(adapters, about) if adapters else {}
        networks = read_controls(about, root, adapters)
        shown = _shown(image, mask, controls)
        said = {k: v for k, v in given.items() if v is not None}
        common = {**_before(like, frozenset(shown)), **said, **_used(uses), **shown}
        rows = product(_words(prompts, "prompt"), _words(_named(scenes, about), "scene"))
        requests = [parse_request({**common, **prompt, **scene}) for prompt, scene in rows]
        # before the networks are loaded
        orders = [resolve_request(request, about, shelf, engine, networks) for request in requests]
        signer = Signer(signing_folder(root))
        with _bar(orders) as on_step:
            studio = InferenceEngine(about, root=root, shelf=shelf, engine=engine, controls=networks)
            drawn = studio.draw(orders, on_step)
    except (
        MissingModelError,
        UnsafePromptError,
        ValueError,
        OSError,
    ) as err:  # what is wrong with a file is a ValueError
        raise click.ClickException(str(err)) from err
    for each in (image for row in drawn for image in row):
        if each.image is None:
            click.echo(f"seed {each.seed}: not shown, {each.refused}", err=True)
        else:
            click.echo(save(each.image, output, f"{about.trigger}-{_short(each.order)}-{each.seed}", signer))
    likeness = [each.identity for row in drawn for each in row if each.identity is not None]
    if likeness and about.identity:
        listed = " ".join(f"{each:.2f}" for each in likeness)
        click.echo(f"identity: {listed}; {about.identity.gate:.2f} and more counts as her", err=True)
    if all(each.refused for row in drawn for each in row):
        raise click.ClickException("every image was refused: try another prompt, seed or picture")
    if sheet:
        click.echo(save(_on_one_page(drawn), output, f"{about.trigger}-sheet-{_short(*orders)}", signer))


@contextmanager
def _bar(orders: "Sequence[ResolvedRequest]") -> "Iterator[OnStep]":
    """Show how much is drawn, where that goes to a terminal, of orders with equal settings."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("loading", total=sum(len(order.seeds) for order in orders))

        def on_step(done: int, latents: "Tensor") -> None:
            progress.update(bar, advance=len(latents) / orders[0].settings.steps_done, description="drawing")

        yield on_step


def save(image: "Image", folder: Path, name: str, signer: "Signer") -> Path:
    """Write an image with its marks and return its path."""
    from valentina_pipeline.common import atomic_files

    file = folder / f"{name}.png"
    atomic_files.replace(file, signer.encode(image))
    return file


def _short(*orders: "ResolvedRequest") -> str:
    """Return eight digits that tell orders apart, whatever their seeds."""
    return hashlib.sha256(
        "\n".join(f"{o.settings} {o.negative_prompt} {o.prompt}" for o in orders).encode()
    ).hexdigest()[:8]


def _on_one_page(drawn: "list[list[GenerationResult]]") -> "Image":
    """Return a contact sheet, a row an order, marked as its images are; a refused one is blank."""
    from PIL import Image

    from valentina_pipeline.image.io.contact_sheet import contact_sheet
    from valentina_pipeline.image.provenance.metadata import add_provenance
    from valentina_pipeline.image.provenance.watermark import add_watermark
    from valentina_pipeline.serving.marks.c2pa import MADE_WITH

    all_of_them = [each for row in drawn for each in row]
    shown = [each.image or Image.new("RGB", (8, 8), "white") for each in all_of_them]
    scenes = [each.order.prompt.partition(", ")[2] or each.order.prompt for each in all_of_them]
    labels = [
        f"seed {each.seed}{', not shown' if each.refused else ''}\n{scene}"
        for each, scene in zip(all_of_them, scenes, strict=True)
    ]
    page = contact_sheet(shown, labels, columns=len(drawn[0]), cell=256)
    texts = next(image.info["text"] for each in all_of_them if (image := each.image))
    return add_provenance(add_watermark(page), {name: texts[name] for name in MADE_WITH if name in texts})


def _words(texts: "Sequence[str]", field: str) -> "list[dict[str, str]]":
    """Return the fields that each text makes; none at all is one row that says nothing."""
    return [{field: text} for text in texts] or [{}]


def _named(scenes: tuple[str, ...], about: "PackageInfo") -> list[str]:
    """Return names of scenes, a kind of them taken apart."""
    kinds = {scene.category for scene in about.scenes.values()}
    return [
        name
        for wanted in scenes
        for name in (
            [n for n, s in about.scenes.items() if s.category == wanted] if wanted in kinds else [wanted]
        )
    ]


def _before(like: Path | None, given: frozenset[str]) -> dict[str, Any]:
    """Return the fields of the request that an image came from; without one, a first seed.

    Args:
        like: the image.
        given: the fields with pictures that are said beside it.
    """
    from valentina_pipeline.image.io import png
    from valentina_pipeline.serving.inference.request import from_png_text

    if like is None:
        return {"seed": 1}
    return from_png_text(png.decode(like.read_bytes()).info.get("text", {}), given).model_dump()


def _shown(image: Path | None, mask: Path | None, controls: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields that hold pictures, none of those that are not given."""
    fields: dict[str, Any] = {
        name: _base64(file) for name, file in (("image", image), ("mask", mask)) if file
    }
    if controls:
        fields["control"] = [_control(text) for text in controls]
    return fields


def _control(text: str) -> dict[str, Any]:
    """Return the control of KIND:FILE or KIND:FILE:SCALE."""
    kind, _, rest = text.partition(":")
    file, colon, scale = rest.rpartition(":")
    if not colon or not _is_number(scale):
        file, scale = rest, ""
    return {"kind": kind, "image": _base64(Path(file)), "scale": float(scale) if scale else None}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def _used(uses: tuple[str, ...]) -> dict[str, Any]:
    """Return the field `adapters` of NAME or NAME:WEIGHT texts, none where none is given."""
    split = [use.partition(":") for use in uses]
    adapters = [{"name": name, "weight": weight or None} for name, _, weight in split]
    return {"adapters": adapters} if adapters else {}

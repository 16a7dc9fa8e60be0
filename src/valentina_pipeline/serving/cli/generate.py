"""The command `kedro generate`: generate images with a published package."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from valentina_pipeline.domain.samplers import SamplerName
from valentina_pipeline.serving.inference.request import Engine
from valentina_pipeline.serving.packages import open_package, signing_folder

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from valentina_pipeline.image.generate.generate import OnStep
    from valentina_pipeline.serving.inference.engine import GenerationResult
    from valentina_pipeline.serving.inference.package import PackageInfo
    from valentina_pipeline.serving.inference.request import Fitter, ResolvedRequest
    from valentina_pipeline.serving.marks.c2pa import Signer


@click.command()
@click.argument("prompts", metavar="[PROMPT]...", nargs=-1)
@click.option("--concept", help="Concept of the package; default: the first concept of params.yaml.")
@click.option("--package", help="A package folder, or models:/NAME@champion of the registry.")
@click.option(
    "--scene",
    "scenes",
    multiple=True,
    help="A scene or a category of scenes of the package; may be repeated.",
)
@click.option("--preset", help="draft, standard, high or ultra; default: the package's default preset.")
@click.option("--seed", type=int, help="Seed of the first image, by default 1; each next image adds 1.")
@click.option("--num-images", default=1, show_default=True, help="Number of images per prompt.")
@click.option("--negative-prompt", help="What the image must not show.")
@click.option("--steps", type=int, help="Sampler steps; overrides the preset.")
@click.option("--guidance-scale", type=float, help="Guidance scale; overrides the preset.")
@click.option("--width", type=int, help="Pixels.")
@click.option("--height", type=int, help="Pixels.")
@click.option("--scheduler", type=click.Choice(get_args(SamplerName)), help="Sampler; overrides the preset.")
@click.option(
    "--engine",
    type=click.Choice(get_args(Engine)),
    default="torch",
    show_default=True,
    help="Backend; renderer: a preview without networks.",
)
@click.option("--lora-dir", type=click.Path(path_type=Path), help="Folder of further LoRAs with loras.yml.")
@click.option(
    "--lora", "uses", multiple=True, metavar="NAME[:WEIGHT]", help="A LoRA to use; may be repeated."
)
@click.option("--image", type=click.Path(path_type=Path), help="Initial image.")
@click.option(
    "--strength", type=float, help="How strongly the initial image is changed, 0 to 1; default: 0.6."
)
@click.option(
    "--mask",
    type=click.Path(path_type=Path),
    help="Mask as large as the image: white is regenerated, black is kept.",
)
@click.option(
    "--control",
    "controls",
    multiple=True,
    metavar="KIND:FILE[:SCALE]",
    help="Control image, such as canny:FILE; may be repeated.",
)
@click.option(
    "--params-from",
    type=click.Path(path_type=Path),
    help="Take all parameters from this image; other options override them.",
)
@click.option(
    "--contact-sheet", "with_sheet", is_flag=True, help="Also write a contact sheet, one row per prompt."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("generated"),
    show_default=True,
    help="Folder of the images.",
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
    lora_dir: Path | None,
    uses: tuple[str, ...],
    image: Path | None,
    mask: Path | None,
    controls: tuple[str, ...],
    params_from: Path | None,
    with_sheet: bool,
    output: Path,
    **given: Any,
) -> None:
    r"""Generate images of PROMPTs with a published package and print their paths.

    \b
    The trigger word is added where the prompt lacks it:
      kedro generate "smiling, wearing a red dress, beach background" --num-images 4
      kedro generate "at sea" "in a garden" "at night" --num-images 3 --contact-sheet
      kedro generate --scene travel --scene cover --num-images 3 --contact-sheet
    The same prompt, settings and seed give the same image. Each image contains its parameters:
      kedro generate --params-from generated/valentina_moreau-1f2e3d4c-1.png --preset high
    Initial image, mask and control images:
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
        shelf = read_adapters(lora_dir, about) if lora_dir else {}
        networks = read_controls(about, root, lora_dir)
        inputs = _input_images(image, mask, controls)
        options = {k: v for k, v in given.items() if v is not None}
        common = {**_parameters_from(params_from, frozenset(inputs)), **options, **_loras(uses), **inputs}
        rows = product(_as_fields(prompts, "prompt"), _as_fields(_expand_categories(scenes, about), "scene"))
        requests = [parse_request({**common, **prompt, **scene}) for prompt, scene in rows]
        # check all requests before the networks are loaded
        orders = [resolve_request(each, about, shelf, engine, networks, _fitter(root)) for each in requests]
        signer = Signer(signing_folder(root))
        with _progress_bar(orders) as on_step:
            inference = InferenceEngine(about, root=root, shelf=shelf, engine=engine, controls=networks)
            results = inference.draw(orders, on_step)
    except (MissingModelError, UnsafePromptError, ValueError, OSError) as err:  # errors in files: ValueError
        raise click.ClickException(str(err)) from err
    for result in (result for row in results for result in row):
        if result.image is None:
            click.echo(f"seed {result.seed}: not shown, {result.blocked_reason}", err=True)
        else:
            name = f"{about.trigger}-{_digest(result.order)}-{result.seed}"
            click.echo(save(result.image, output, name, signer))
    _echo_scores(about, [result for row in results for result in row])
    if all(result.blocked_reason for row in results for result in row):
        raise click.ClickException("every image was refused: try another prompt, seed or input image")
    if with_sheet:
        click.echo(save(_contact_sheet(results), output, f"{about.trigger}-sheet-{_digest(*orders)}", signer))


def _echo_scores(about: "PackageInfo", results: "Sequence[GenerationResult]") -> None:
    """Print the identity of all images, and the requested attributes that each does not show."""
    scores = [result.identity for result in results if result.identity is not None]
    if scores and about.identity:
        listed = " ".join(f"{score:.2f}" for score in scores)
        click.echo(f"identity: {listed}; at least {about.identity.gate:.2f} counts as a match", err=True)
    for result in results:
        missed = [
            f"{a.name} ({a.seen}, not {a.requested})" for a in result.attributes if a.seen != a.requested
        ]
        if missed:
            click.echo(f"seed {result.seed}: not seen as requested: {', '.join(missed)}", err=True)


@contextmanager
def _progress_bar(orders: "Sequence[ResolvedRequest]") -> "Iterator[OnStep]":
    """Show the progress of orders with equal settings, if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("loading", total=sum(len(order.seeds) for order in orders))

        def on_step(done: int, latents: "Tensor") -> None:
            progress.update(
                bar, advance=len(latents) / orders[0].settings.steps_done, description="generating"
            )

        yield on_step


def save(image: "Image", folder: Path, name: str, signer: "Signer") -> Path:
    """Write a signed image and return its path."""
    from valentina_pipeline.common import atomic_files

    file = folder / f"{name}.png"
    atomic_files.replace(file, signer.encode(image))
    return file


def _fitter(root: Path) -> "Fitter":
    """Return the function that fits input images and recognizes those that this project signed."""
    from valentina_pipeline.serving.inference.input_images import fit
    from valentina_pipeline.serving.marks.c2pa import is_own, read_chain

    return partial(fit, is_own=partial(is_own, chain=read_chain(signing_folder(root))))


def _digest(*orders: "ResolvedRequest") -> str:
    """Return eight hexadecimal digits that identify orders without their seeds."""
    return hashlib.sha256(
        "\n".join(f"{o.settings} {o.negative_prompt} {o.prompt}" for o in orders).encode()
    ).hexdigest()[:8]


def _contact_sheet(results: "list[list[GenerationResult]]") -> "Image":
    """Return a marked contact sheet with one row per order; refused images are blank."""
    from PIL import Image

    from valentina_pipeline.image.io.contact_sheet import contact_sheet
    from valentina_pipeline.image.provenance.metadata import add_provenance
    from valentina_pipeline.image.provenance.watermark import add_watermark
    from valentina_pipeline.serving.marks.c2pa import MADE_WITH

    flat = [result for row in results for result in row]
    images = [result.image or Image.new("RGB", (8, 8), "white") for result in flat]
    scenes = [result.order.prompt.partition(", ")[2] or result.order.prompt for result in flat]
    labels = [
        f"seed {result.seed}{', not shown' if result.blocked_reason else ''}\n{scene}"
        for result, scene in zip(flat, scenes, strict=True)
    ]
    page = contact_sheet(images, labels, columns=len(results[0]), cell=256)
    texts = next(image.info["text"] for result in flat if (image := result.image))
    return add_provenance(add_watermark(page), {name: texts[name] for name in MADE_WITH if name in texts})


def _as_fields(texts: "Sequence[str]", field: str) -> "list[dict[str, str]]":
    """Return {field: text} for each text, or one empty mapping if there are no texts."""
    return [{field: text} for text in texts] or [{}]


def _expand_categories(scenes: tuple[str, ...], about: "PackageInfo") -> list[str]:
    """Return names of scenes; a category is replaced by the names of its scenes."""
    categories = {scene.category for scene in about.scenes.values()}
    return [
        name
        for given in scenes
        for name in (
            [n for n, s in about.scenes.items() if s.category == given] if given in categories else [given]
        )
    ]


def _parameters_from(image: Path | None, given: frozenset[str]) -> dict[str, Any]:
    """Return the request fields that made an image; without an image, the default seed.

    Args:
        image: the PNG file.
        given: the image fields that the options set.
    """
    from valentina_pipeline.image.io import png
    from valentina_pipeline.serving.inference.request import from_png_text

    if image is None:
        return {"seed": 1}
    return from_png_text(png.decode(image.read_bytes()).info.get("text", {}), given).model_dump()


def _input_images(image: Path | None, mask: Path | None, controls: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of the given input images."""
    fields: dict[str, Any] = {
        name: _base64(file) for name, file in (("image", image), ("mask", mask)) if file
    }
    if controls:
        fields["controls"] = [_control(text) for text in controls]
    return fields


def _control(text: str) -> dict[str, Any]:
    """Return the control field for KIND:FILE or KIND:FILE:SCALE."""
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


def _loras(uses: tuple[str, ...]) -> dict[str, Any]:
    """Return the field `loras` for NAME or NAME:WEIGHT texts, or no field without texts."""
    split = [use.partition(":") for use in uses]
    loras = [{"name": name, "weight": weight or None} for name, _, weight in split]
    return {"loras": loras} if loras else {}

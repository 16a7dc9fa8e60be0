"""Commands `kedro lora ...`: merge, resize and fuse LoRA files of any tool."""

from pathlib import Path

import click
from kedro.framework.startup import ProjectMetadata

from valentina_pipeline.common import atomic_files


class Weighted(click.ParamType):
    """Parameter type FILE or FILE:WEIGHT."""

    name = "file[:weight]"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Path, float]:
        """Return the file and its weight, by default 1."""
        path, _, weight = value.rpartition(":")
        try:
            file, number = (Path(path), float(weight)) if path else (Path(value), 1.0)
        except ValueError:
            file, number = Path(value), 1.0
        if not file.is_file():
            self.fail(f"{file} is not a file", param, ctx)
        return file, number


PARTS = click.argument("parts", nargs=-1, required=True, type=Weighted(), metavar="FILE[:WEIGHT]...")


@click.group()
def lora() -> None:
    """Merge, shrink and fuse LoRA files of this and other tools."""


@lora.command()
@click.argument("output", type=click.Path(path_type=Path))
@PARTS
@click.option(
    "--rank", type=click.IntRange(min=1), help="Rank of the result: the best approximation, by SVD."
)
def merge(output: Path, parts: list[tuple[Path, float]], rank: int | None) -> None:
    r"""Write the weighted sum of LoRAs to OUTPUT, in the format of ComfyUI, WebUIs and diffusers.

    \b
    The sum is exact, at the sum of the ranks, or approximated at --rank:
      kedro lora merge both.safetensors ada.safetensors:0.8 style.safetensors:0.5 --rank 16
    """
    _write_sum(output, parts, rank)


@lora.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.argument("part", type=Weighted(), metavar="FILE[:WEIGHT]")
@click.option("--rank", type=click.IntRange(min=1), required=True, help="Rank of the result.")
def resize(output: Path, part: tuple[Path, float], rank: int) -> None:
    r"""Write the best approximation of a LoRA at another rank, by SVD, to OUTPUT.

    \b
      kedro lora resize small.safetensors ada.safetensors --rank 4
    """
    _write_sum(output, [part], rank)


def _write_sum(output: Path, parts: list[tuple[Path, float]], rank: int | None) -> None:
    from valentina_pipeline.image.lora.algebra import resize as resize_layers
    from valentina_pipeline.image.lora.algebra import retained_energy
    from valentina_pipeline.image.lora.merge import kohya_file, weighted_files

    try:
        exact, family, layout = weighted_files(parts)
    except ValueError as err:
        raise click.ClickException(str(err)) from err
    layers = exact if rank is None else resize_layers(exact, rank)
    atomic_files.replace(output, kohya_file(layers, family, layout, {"merged_from": _listed(parts)}))
    click.echo(f"{output}: {len(layers)} layers, {retained_energy(exact, layers):.1%} of the update's energy")


def _listed(parts: list[tuple[Path, float]]) -> str:
    return ", ".join(f"{file.name}:{weight:g}" for file, weight in parts)


@lora.command()
@click.argument("output", type=click.Path(path_type=Path))
@PARTS
@click.option(
    "--base",
    "name",
    default="tiny",
    show_default=True,
    help="An entry of conf/base/bases.yml, or a folder in diffusers' layout.",
)
@click.pass_obj
def fuse(metadata: ProjectMetadata, output: Path, parts: list[tuple[Path, float]], name: str) -> None:
    r"""Write a base model with fused LoRAs to the new folder OUTPUT, in diffusers' layout.

    \b
      kedro lora fuse fused ada.safetensors:0.8 --base sdxl
    """
    from valentina_pipeline.cli.base import find_base_entry
    from valentina_pipeline.common.missing_model import MissingModelError
    from valentina_pipeline.config.base_model import BaseConfig
    from valentina_pipeline.config.validation import parse_config
    from valentina_pipeline.image.lora.merge import fuse as fuse_into
    from valentina_pipeline.image.models.base_model import load_base

    root = metadata.project_path
    entry = find_base_entry(root, name)
    if output.exists():
        raise click.ClickException(f"{output} exists already: choose another folder")
    try:
        base = load_base(parse_config(BaseConfig, entry["model"], f"bases.{name}.model"), root)
        pipe = fuse_into(base, parts)
    except (MissingModelError, ValueError) as err:
        raise click.ClickException(str(err)) from err
    with atomic_files.replacing(output) as partial:
        pipe.save_pretrained(partial)
    click.echo(f"{output}: {name} with {_listed(parts)} fused")

"""The commands `kedro base ...`, and how commands find the base that somebody names."""

import json
from pathlib import Path
from typing import Any

import click
from kedro.framework.startup import ProjectMetadata

BASES = "conf/base/bases.yml"


def chosen_base(root: Path, name: str) -> dict[str, Any]:
    """Return an entry of bases.yml; of a folder in diffusers' layout, its family's entry with that path.

    Raises:
        ClickException: it is neither.
    """
    import yaml

    from valentina_pipeline.image.models.families import PIPELINES

    entries: dict[str, Any] = yaml.safe_load((root / BASES).read_text("utf-8"))
    if name in entries:
        return dict(entries[name])
    index = Path(name) / "model_index.json"
    kind = json.loads(index.read_text("utf-8")).get("_class_name") if index.is_file() else None
    for family, pipeline in PIPELINES.items():
        if kind == pipeline and family in entries:
            model = {**entries[family]["model"], "path": str(Path(name).resolve())}
            return {**entries[family], "model": model}
    raise click.ClickException(
        f"{name}: neither an entry of {BASES} ({', '.join(entries)}) nor a folder in diffusers' layout that "
        f"holds a {' or '.join(PIPELINES.values())}"
    )


@click.group()
def base() -> None:
    """Write base models as other programs read them."""


@base.command()
@click.argument("name", metavar="BASE")
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--full", is_flag=True, help="Store float32, twice the size; else float16, as bases are passed on."
)
@click.pass_obj
def single_file(metadata: ProjectMetadata, name: str, output: Path, full: bool) -> None:
    r"""Write BASE as the one file OUTPUT, as ComfyUI, the WebUIs and stable-diffusion.cpp read it.

    BASE is an entry of conf/base/bases.yml, or a folder in diffusers' layout as `kedro lora merge` writes it.

    \b
      kedro base single-file sdxl ComfyUI/models/checkpoints/my-base.safetensors
      kedro base single-file merged ComfyUI/models/checkpoints/with-her.safetensors
    """
    import torch

    from valentina_pipeline.common import atomic_files
    from valentina_pipeline.common.missing_model import MissingModelError
    from valentina_pipeline.config.base_model import BaseConfig
    from valentina_pipeline.config.validation import parse_config
    from valentina_pipeline.image.export.single_file import write
    from valentina_pipeline.image.models.base_model import load_base
    from valentina_pipeline.release.external_tools import checkpoint

    root = metadata.project_path
    if output.suffix != ".safetensors" or output.exists():
        raise click.ClickException(f"{output}: choose the name of a new .safetensors file")
    config = parse_config(BaseConfig, chosen_base(root, name)["model"], f"{name}.model")
    try:
        model = load_base(config, root, "fp32")
        if model.folder.is_file():
            raise ValueError(f"{model.folder} is one file already: copy it")
        output.parent.mkdir(parents=True, exist_ok=True)
        pipe = model.pipe.to("cpu", torch.float32 if full else torch.float16)
        with atomic_files.replacing(output) as partial:
            write(pipe, partial)
    except (MissingModelError, ValueError, OSError) as err:
        raise click.ClickException(str(err)) from err
    click.echo(f"{output}: {output.stat().st_size / 1e6:,.0f} MB; ComfyUI looks for it in models/checkpoints")
    if not checkpoint(config, model.folder).known:
        click.echo("ComfyUI knows the widths of SD 1.5 and SDXL alone: it cannot load this base", err=True)

"""Commands `kedro base ...`, and the lookup of a base model by name or folder."""

import json
from pathlib import Path
from typing import Any

import click
from kedro.framework.startup import ProjectMetadata

from valentina_pipeline.config_loader import BASES


def find_base_entry(root: Path, name: str) -> dict[str, Any]:
    """Return an entry of bases.yml; for a model's folder, the family's entry with `path` set to the folder.

    Raises:
        ClickException: `name` is neither.
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
        f"{name}: must be an entry of {BASES} ({', '.join(entries)}) or a folder in diffusers' layout with "
        f"a {' or '.join(PIPELINES.values())}"
    )


@click.group()
def base() -> None:
    """Write base models in formats of other programs."""


@base.command()
@click.argument("name", metavar="BASE")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--full", is_flag=True, help="Store float32, at twice the size, instead of float16.")
@click.pass_obj
def single_file(metadata: ProjectMetadata, name: str, output: Path, full: bool) -> None:
    r"""Write BASE as a single file OUTPUT for ComfyUI, the WebUIs and stable-diffusion.cpp.

    BASE is an entry of conf/base/bases.yml, or a folder in diffusers' layout, as `kedro lora fuse` writes.

    \b
      kedro base single-file sdxl ComfyUI/models/checkpoints/my-base.safetensors
      kedro base single-file fused ComfyUI/models/checkpoints/with-ada.safetensors
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
    config = parse_config(BaseConfig, find_base_entry(root, name)["model"], f"{name}.model")
    try:
        model = load_base(config, root, "fp32")
        if model.path.is_file():
            raise ValueError(f"{model.path} is already a single file: copy it")
        output.parent.mkdir(parents=True, exist_ok=True)
        pipe = model.pipe.to("cpu", torch.float32 if full else torch.float16)
        with atomic_files.replacing(output) as partial:
            write(pipe, partial)
    except (MissingModelError, ValueError, OSError) as err:
        raise click.ClickException(str(err)) from err
    click.echo(f"{output}: {output.stat().st_size / 1e6:,.0f} MB; ComfyUI looks for it in models/checkpoints")
    if not checkpoint(config, model.path).known:
        click.echo("ComfyUI supports only the widths of SD 1.5 and SDXL: it cannot load this base", err=True)

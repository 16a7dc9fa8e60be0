"""Command `kedro package`: build a package from an existing base model and LoRA, without images."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.startup import ProjectMetadata

if TYPE_CHECKING:
    from valentina_pipeline.config.base_model import BaseConfig
    from valentina_pipeline.domain.concept import Concept
    from valentina_pipeline.domain.rights import RightsRecord

REASONS = ["Not measured: the LoRA came without reference images."]


@click.command()
@click.argument("base")
@click.argument("lora", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--rights",
    "ledger",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="A ledger or a folder of ledgers; a record must cover LORA by file name and allow generation.",
)
@click.option("--trigger", required=True, help="The word for the character in prompts.")
@click.option(
    "--class-word", default="person", show_default=True, help="The kind of character, such as woman."
)
@click.option("--name", help="The character's name; default: the trigger.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A new folder.")
@click.pass_obj
def package(
    metadata: ProjectMetadata,
    base: str,
    lora: Path,
    ledger: Path,
    trigger: str,
    class_word: str,
    name: str | None,
    output: Path,
) -> None:
    r"""Build the package OUTPUT from an existing BASE and LORA file, under a rights record.

    BASE is an entry of conf/base/bases.yml, or a folder in diffusers' layout. LORA may come from kohya's
    scripts, LyCORIS, diffusers, ComfyUI or peft. Each of its layers must fit the base.

    \b
      kedro package sdxl ada.safetensors --rights rights.yml --trigger ada --class-word woman --output ada
      kedro serve ada

    Nothing is trained or measured: the model card says "not measured", and generated images are not
    compared with anything. To build a wheel, as Kedro's command of this name does, use `uv build`.
    """
    from valentina_pipeline.cli.base import find_base_entry
    from valentina_pipeline.common.missing_model import MissingModelError
    from valentina_pipeline.config.base_model import BaseConfig
    from valentina_pipeline.config.validation import parse_config
    from valentina_pipeline.datasets.folders import OutputFolder
    from valentina_pipeline.domain import clock
    from valentina_pipeline.domain.rights import require_permission
    from valentina_pipeline.integrations import ledgers
    from valentina_pipeline.serving.inference.package import read

    root = metadata.project_path
    if output.exists():
        raise click.ClickException(f"{output} exists already: choose another folder")
    entry = find_base_entry(root, base)
    try:
        concept = _concept(trigger, class_word, name or trigger)
        records = ledgers.read(ledger) if ledger.is_dir() else ledgers.read_file(ledger)
        record = require_permission(records, lora.name, "generation", clock.today())
        _check_fit(parse_config(BaseConfig, entry["model"], f"{base}.model"), root, lora)
        with TemporaryDirectory() as place:
            files = _files(root, entry, concept, record, _lora_folder(lora, trigger, Path(place)))
            OutputFolder(filepath=str(output)).save(files)
        about = read(output)
    except (MissingModelError, ValueError, OSError) as err:
        raise click.ClickException(str(err)) from err
    click.echo(f"{output}: {about.name}, trigger {about.trigger!r}, under record {record.id}; not measured")


def _concept(trigger: str, class_word: str, name: str) -> "Concept":
    from valentina_pipeline.config.validation import parse_config
    from valentina_pipeline.domain.concept import SECTIONS, Concept

    values: dict[str, Any] = {
        "kind": "character",
        "name": name,
        "trigger": trigger,
        "class_word": class_word,
        "adult": True,
        "source": "a LoRA file",
        "caption_excluded_words": (),
        "asymmetric": False,
        "description": class_word,
        "renderer_parameters": {},
        "overrides": {stage: {} for stage in SECTIONS},
    }
    return parse_config(Concept, values, "the character")


def _check_fit(base: "BaseConfig", root: Path, lora: Path) -> None:
    """Raise ValueError if a layer of the LoRA does not fit the base model."""
    from valentina_pipeline.image.lora.loading import load_adapter
    from valentina_pipeline.image.models.base_model import load_base

    load_adapter(load_base(base, root), lora)


def _lora_folder(lora: Path, trigger: str, place: Path) -> Path:
    """Write a LoRA in a package's layout: unchanged, and if it is a plain LoRA also in kohya's format."""
    from valentina_pipeline.domain.artifacts import LORA_FILE
    from valentina_pipeline.image.lora.merge import kohya_file, weighted_files
    from valentina_pipeline.image.lora.reader import read_lora

    shutil.copyfile(lora, place / LORA_FILE)
    if all(layer.form == "lora" for layer in read_lora(lora).layers.values()):
        content = kohya_file(*weighted_files([(lora, 1.0)]), {"trigger": trigger, "made_of": lora.name})
        (place / f"{trigger}.kohya.safetensors").write_bytes(content)
    return place


def _files(
    root: Path, entry: dict[str, Any], concept: "Concept", record: "RightsRecord", lora: Path
) -> dict[str, bytes | Path]:
    """Return the package's files, built by the code of the stage `register`."""
    import yaml

    from valentina_pipeline.domain.artifacts import UNMEASURED
    from valentina_pipeline.pipelines.register.package_contents import gather_contents
    from valentina_pipeline.release.package import build

    scenes = yaml.safe_load((root / "conf/base/prompts/scenes.yml").read_text("utf-8"))
    contents = gather_contents(
        root,
        lora=lora,
        metrics=None,
        train_metrics=None,
        faces=None,
        training_images=None,
        rights=(record,),
        comparison_grid=None,
        scenes=scenes,
        tiny_judges={},
        concept=concept.model_dump(),
        base=entry["model"],
        train_lora=None,
        evaluate=entry["evaluate"],
        publish=entry["publish"],
    )
    decision = {**UNMEASURED, "reasons": REASONS, "content_hash": contents.content_hash, "gates": {}}
    return build(contents, decision)

"""Further LoRAs: read and check a folder of adapters with its list loras.yml."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from valentina_pipeline.image.lora.formats import ARCHITECTURES, read_metadata
from valentina_pipeline.image.models.families import Family
from valentina_pipeline.serving.inference.package import PackageInfo, Strict

LORAS = "loras.yml"
CONTROLS = "controls.yml"
"""List of ControlNets and T2I-Adapters; a folder may have either list or both."""

FAMILY_PATTERNS: Mapping[Family, re.Pattern[str]] = {
    "sdxl": re.compile("xl", re.IGNORECASE),
    "sd15": re.compile(r"diffusion[-_ ]v?1|sd[-_ ]?v?1", re.IGNORECASE),
}
"""Names of a family in the metadata of common tools; loading checks every layer anyway."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class InvalidAdapterError(ValueError):
    """An adapter or its list cannot be used; the message names it and the reason."""


class Adapter(Strict):
    """A LoRA as loras.yml describes it.

    The list is a mapping: name -> these fields.
    """

    file: Path = Field(description="a .safetensors file of the folder")
    kind: Literal["background", "pose", "expression", "style"] = Field(
        description="a character needs its own package, because of its rights"
    )
    license: str = Field(min_length=1, description="license of the file")
    trigger: str = Field(default="", max_length=100, description="the word that activates it")
    weight: float = Field(default=1.0, ge=-2, le=2, description="the recommended weight")
    scenes: tuple[str, ...] = Field(default=(), description="scenes or categories of scenes that use it")


def read_adapters(folder: Path, about: PackageInfo) -> dict[str, Adapter]:
    """Return the adapters of a folder by name, with resolved paths and checked files.

    Args:
        folder: holds loras.yml and the files that it names.
        about: the package to use them with.

    Raises:
        InvalidAdapterError: the list is invalid or names an unknown scene, or a file is missing, outside the
            folder, not a safetensors file, or made for another base model.
    """
    listing = folder / LORAS
    if not listing.is_file() and (folder / CONTROLS).is_file():
        return {}
    return {str(name): _read(listing, str(name), fields, about) for name, fields in entries(listing).items()}


def entries(listing: Path) -> Mapping[object, object]:
    """Return a list's entries: name -> fields.

    Raises:
        InvalidAdapterError: the list is missing or is not a YAML mapping.
    """
    import yaml

    if not listing.is_file():
        raise InvalidAdapterError(
            f"{listing} is missing: it must list each network with file, kind and license"
        )
    try:
        loaded = yaml.safe_load(listing.read_text("utf-8")) or {}
    except yaml.YAMLError as err:
        raise InvalidAdapterError(f"{listing} is not valid YAML: {err}") from err
    if not isinstance(loaded, Mapping):
        raise InvalidAdapterError(f"{listing} must map names to networks")
    return loaded


def _read(listing: Path, name: str, fields: object, about: PackageInfo) -> Adapter:
    if not NAME.fullmatch(name) or name == about.trigger:
        raise InvalidAdapterError(
            f"{listing}: {name!r} is not a valid name: use letters, digits, '_' and '-', not the trigger"
        )
    try:
        adapter = Adapter.model_validate(fields)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join([name, *map(str, first["loc"])])
        raise InvalidAdapterError(f"{listing}: {where}: {first['msg']}") from err
    known = {*about.scenes, *(scene.category for scene in about.scenes.values())}
    if unknown := [scene for scene in adapter.scenes if scene not in known]:
        raise InvalidAdapterError(
            f"{listing}: {name}: unknown scene {unknown[0]!r}; available: {', '.join(sorted(known))}"
        )
    file = (listing.parent / adapter.file).resolve()
    if not file.is_relative_to(listing.parent.resolve()) or file.suffix != ".safetensors":
        raise InvalidAdapterError(
            f"{listing}: {name}: {adapter.file} must be a .safetensors file in this folder"
        )
    if not file.is_file():
        raise InvalidAdapterError(f"{listing}: {name}: {file} is missing")
    try:
        _refuse_other_base(read_metadata(file), about)
    except ValueError as err:
        raise InvalidAdapterError(f"{listing}: {name}: {err}") from err
    return adapter.model_copy(update={"file": file})


def _refuse_other_base(metadata: Mapping[str, str], about: PackageInfo) -> None:
    """Raise ValueError where the metadata names another base model; many files name none."""
    trained_on = metadata.get("base_sha256", about.base_hash)
    if trained_on != about.base_hash:
        raise ValueError(
            f"it was trained on the base model {trained_on[:12]}, but {about.name} on {about.base_hash[:12]}"
        )
    for key in ("modelspec.architecture", "ss_base_model_version"):
        architecture = metadata.get(key, "")
        if architecture and not FAMILY_PATTERNS[about.base.family].search(architecture):
            raise ValueError(
                f"it is for {architecture}, but this base model is {ARCHITECTURES[about.base.family][0]}"
            )

"""LoRAs beside the character's: a folder of them with a list that says what each one is for."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from valentina_pipeline.image.lora.formats import ARCHITECTURES, read_metadata
from valentina_pipeline.image.models.families import Family
from valentina_pipeline.serving.inference.package import PackageInfo, Strict

LIST = "adapters.yml"
CONTROLS = "controls.yml"
"""Of ControlNets and T2I-Adapters; a folder may have either list or both."""

OF_FAMILY: Mapping[Family, re.Pattern[str]] = {
    "sdxl": re.compile("xl", re.IGNORECASE),
    "sd15": re.compile(r"diffusion[-_ ]v?1|sd[-_ ]?v?1", re.IGNORECASE),
}
"""What tools call a family, each in its own way; loading looks at every layer."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class InvalidAdapterError(ValueError):
    """An adapter, or the list of them, cannot be used; the message says which and why."""


class Adapter(Strict):
    """A LoRA as adapters.yml describes it.

    The list is a mapping: name -> these fields.
    """

    file: Path = Field(description="a .safetensors file of the folder")
    kind: Literal["background", "pose", "expression", "style"] = Field(
        description="a character is a package of its own, for its rights"
    )
    licence: str = Field(min_length=1, description="under which terms it is used")
    trigger: str = Field(default="", max_length=100, description="a word that calls it")
    weight: float = Field(default=1.0, ge=-2, le=2, description="as recommended")
    scenes: tuple[str, ...] = Field(default=(), description="scenes, or kinds of them, that it takes part in")


def read_adapters(folder: Path, about: PackageInfo) -> dict[str, Adapter]:
    """Return the adapters of a folder by name, their files resolved and looked into.

    Args:
        folder: holds adapters.yml and the files that it names.
        about: the package that they are to be composed with.

    Raises:
        InvalidAdapterError: the list is wrong or names an unknown scene, or a file is missing, outside the
            folder, not a safetensors file, or made for another base.
    """
    listing = folder / LIST
    if not listing.is_file() and (folder / CONTROLS).is_file():
        return {}
    return {str(name): _read(listing, str(name), fields, about) for name, fields in entries(listing).items()}


def entries(listing: Path) -> Mapping[object, object]:
    """Return what a list says of each name.

    Raises:
        InvalidAdapterError: there is no such list, or it is none.
    """
    import yaml

    if not listing.is_file():
        raise InvalidAdapterError(f"{listing} is missing: it names each network with file, kind and licence")
    try:
        loaded = yaml.safe_load(listing.read_text("utf-8")) or {}
    except yaml.YAMLError as err:
        raise InvalidAdapterError(f"{listing} is no YAML: {err}") from err
    if not isinstance(loaded, Mapping):
        raise InvalidAdapterError(f"{listing} has to map names to networks")
    return loaded


def _read(listing: Path, name: str, fields: object, about: PackageInfo) -> Adapter:
    if not NAME.fullmatch(name) or name == about.trigger:
        raise InvalidAdapterError(
            f"{listing}: {name!r} is no name: letters, digits, '_' and '-', not the trigger"
        )
    try:
        adapter = Adapter.model_validate(fields)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        where = ".".join([name, *map(str, first["loc"])])
        raise InvalidAdapterError(f"{listing}: {where}: {first['msg']}") from err
    known = {*about.scenes, *(scene.category for scene in about.scenes.values())}
    if strange := [scene for scene in adapter.scenes if scene not in known]:
        raise InvalidAdapterError(
            f"{listing}: {name}: {strange[0]!r} is no scene: {', '.join(sorted(known))}"
        )
    file = (listing.parent / adapter.file).resolve()
    if not file.is_relative_to(listing.parent.resolve()) or file.suffix != ".safetensors":
        raise InvalidAdapterError(
            f"{listing}: {name}: {adapter.file} has to be a .safetensors file of this folder"
        )
    if not file.is_file():
        raise InvalidAdapterError(f"{listing}: {name}: {file} is missing")
    try:
        _refuse_other_base(read_metadata(file), about)
    except ValueError as err:
        raise InvalidAdapterError(f"{listing}: {name}: {err}") from err
    return adapter.model_copy(update={"file": file})


def _refuse_other_base(metadata: Mapping[str, str], about: PackageInfo) -> None:
    """Raise ValueError where the file says that it was made for another base; many say nothing."""
    trained_on = metadata.get("base_sha256", about.base_hash)
    if trained_on != about.base_hash:
        raise ValueError(
            f"it was trained on the base {trained_on[:12]}, and {about.name} on {about.base_hash[:12]}"
        )
    for key in ("modelspec.architecture", "ss_base_model_version"):
        given = metadata.get(key, "")
        if given and not OF_FAMILY[about.base.family].search(given):
            raise ValueError(f"it is for {given}, and this base is {ARCHITECTURES[about.base.family][0]}")

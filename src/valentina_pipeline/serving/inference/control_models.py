"""ControlNets and T2I-Adapters: the base's own, and those of a folder with a list of them."""

from pathlib import Path
from typing import get_args

from pydantic import Field, ValidationError

from valentina_pipeline.image.generate.controlnet import Architecture, Kind
from valentina_pipeline.serving.inference.adapters import CONTROLS, InvalidAdapterError, entries
from valentina_pipeline.serving.inference.package import PackageInfo, Strict


class Network(Strict):
    """What has a drawing keep to a picture, as controls.yml describes it.

    The list is a mapping: kind of picture -> these fields.
    """

    folder: Path = Field(description="in diffusers' layout, inside the list's folder; safetensors only")
    network: Architecture = "controlnet"
    licence: str = Field(min_length=1, description="under which terms it is used")
    scale: float = Field(default=1.0, ge=0, le=2, description="as recommended")


def read_controls(about: PackageInfo, root: Path, folder: Path | None = None) -> dict[str, Network]:
    """Return networks by the kind of their pictures, their folders resolved.

    Args:
        about: the package, whose base may name some.
        root: what a relative path of the base counts from.
        folder: of adapters; holds controls.yml where there are further networks, which beat the base's.

    Raises:
        InvalidAdapterError: the list is wrong, or a folder is missing or outside of the list's.
    """
    own = {
        kind: Network(
            folder=about.folder / "controls" / kind if about.base.embed else root / path,
            licence=about.base.licence,
        )
        for kind, path in about.base.controls.items()
    }
    listing = folder / CONTROLS if folder else None
    if listing is None or not listing.is_file():
        return own
    return own | {str(kind): _read(listing, str(kind), fields) for kind, fields in entries(listing).items()}


def _read(listing: Path, kind: str, fields: object) -> Network:
    if kind not in get_args(Kind):
        raise InvalidAdapterError(f"{listing}: {kind!r} is no kind: {', '.join(get_args(Kind))}")
    try:
        network = Network.model_validate(fields)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        raise InvalidAdapterError(
            f"{listing}: {'.'.join([kind, *map(str, first['loc'])])}: {first['msg']}"
        ) from err
    folder = (listing.parent / network.folder).resolve()
    if not folder.is_relative_to(listing.parent.resolve()):
        raise InvalidAdapterError(f"{listing}: {kind}: {network.folder} has to be inside of this folder")
    if not any(folder.glob("*.safetensors")):
        raise InvalidAdapterError(f"{listing}: {kind}: {folder} holds no safetensors")
    return network.model_copy(update={"folder": folder})

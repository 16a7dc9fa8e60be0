"""ControlNets and T2I-Adapters: read those of the base model and of the list controls.yml."""

from pathlib import Path
from typing import get_args

from pydantic import Field, ValidationError

from valentina_pipeline.image.generate.controlnet import Architecture, Kind
from valentina_pipeline.serving.inference.adapters import CONTROLS, InvalidAdapterError, entries
from valentina_pipeline.serving.inference.package import PackageInfo, Strict


class Network(Strict):
    """A control network as controls.yml describes it.

    The list is a mapping: kind of control image -> these fields.
    """

    folder: Path = Field(description="in diffusers' layout, inside the folder of the list; safetensors only")
    network: Architecture = "controlnet"
    license: str = Field(min_length=1, description="license of the weights")
    scale: float = Field(default=1.0, ge=0, le=2, description="the recommended scale")


def read_controls(about: PackageInfo, root: Path, folder: Path | None = None) -> dict[str, Network]:
    """Return networks by kind of control image, with resolved folders.

    Args:
        about: the package; its base model may name networks.
        root: the parent of the base model's relative paths.
        folder: the adapters' folder; the networks of its controls.yml override those of the base model.

    Raises:
        InvalidAdapterError: the list is invalid, or a folder is missing or outside the list's folder.
    """
    bundled = {
        kind: Network(
            folder=about.folder / "controlnets" / kind if about.base.bundle_in_package else root / path,
            license=about.base.license,
        )
        for kind, path in about.base.controlnets.items()
    }
    listing = folder / CONTROLS if folder else None
    if listing is None or not listing.is_file():
        return bundled
    return bundled | {
        str(kind): _read(listing, str(kind), fields) for kind, fields in entries(listing).items()
    }


def _read(listing: Path, kind: str, fields: object) -> Network:
    if kind not in get_args(Kind):
        raise InvalidAdapterError(
            f"{listing}: invalid kind {kind!r}: must be one of {', '.join(get_args(Kind))}"
        )
    try:
        network = Network.model_validate(fields)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        raise InvalidAdapterError(
            f"{listing}: {'.'.join([kind, *map(str, first['loc'])])}: {first['msg']}"
        ) from err
    folder = (listing.parent / network.folder).resolve()
    if not folder.is_relative_to(listing.parent.resolve()):
        raise InvalidAdapterError(f"{listing}: {kind}: {network.folder} must be inside this folder")
    if not any(folder.glob("*.safetensors")):
        raise InvalidAdapterError(f"{listing}: {kind}: {folder} has no .safetensors file")
    return network.model_copy(update={"folder": folder})

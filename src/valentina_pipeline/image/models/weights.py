"""Weights of base models: their location, their hash, and their download from the hub."""

import json
import os
import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.domain.base_files import base_files
from valentina_pipeline.image.models.families import PIPELINES, SAVED_AS, TEXT_ENCODERS

DOWNLOAD = "VALENTINA_DOWNLOAD"
"""Environment variable: 1 allows to download a hub id that is not in the local cache."""

SETTINGS = ("model_index.json", "*/*.json", "*/*.txt")

WEIGHTS = "*/*.safetensors"

UNUSED = ("*.fp16.*", "*.non_ema.*", "safety_checker/*", "vae_1_0/*")
"""File patterns in a hub repository: settings, weights, and weights that are never loaded."""

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def find_base_weights(base: BaseConfig, root: Path) -> Path:
    """Return the folder of a base model's weights, or its file if it is a single one.

    Raises:
        MissingModelError: the base model or a part of it is missing.
        ValueError: the folder contains a pipeline of another family, or the file's format is not supported.
    """
    file = root / base.path
    if file.is_file():
        if file.suffix != ".safetensors":
            raise ValueError(f"{file}: must be a .safetensors file; a pickle may run code when it is opened")
        return file
    folder = _pipeline_folder(base, root, (*SETTINGS, WEIGHTS))
    files = base_files(folder)
    for part in ("unet", "vae", *TEXT_ENCODERS[base.family]):
        if not any(file.parent.name == part for file in files):
            raise MissingModelError(
                f"{base.path} (no safetensors in {folder / part})", base.license, base.download_instructions
            )
    if missing := next(filter(None, map(_missing_file, files)), None):
        raise MissingModelError(f"{base.path} (no {missing})", base.license, base.download_instructions)
    if not (folder / "unet/config.json").is_file():
        raise MissingModelError(
            f"{base.path} (no {folder / 'unet/config.json'})", base.license, base.download_instructions
        )
    unet = _read_config(folder / "unet/config.json")
    if unet.get("in_channels") != unet.get("out_channels"):
        raise ValueError(
            f"{folder}: its U-Net has {unet.get('in_channels')} input and {unet.get('out_channels')} output "
            "channels, as for inpainting; use a text-to-image base model"
        )
    return folder


def _missing_file(file: Path) -> Path | None:
    """Return the file itself if it is a link to nothing, or a shard that is missing beside it."""
    files = [file]
    if shard := re.fullmatch(r"(.+)-(\d+)-of-(\d+)", file.stem):
        name, number, last = shard.groups()
        for other in (int(number) - 1, int(number) + 1):
            if 1 <= other <= int(last):
                files.append(file.with_stem(f"{name}-{other:0{len(number)}d}-of-{last}"))
    return next((path for path in files if not path.exists()), None)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text("utf-8"))
    except ValueError as err:
        raise ValueError(f"{file} is not valid JSON: download it again ({err})") from err
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold a JSON object: download it again")
    return values


def _pipeline_folder(base: BaseConfig, root: Path, needed: tuple[str, ...]) -> Path:
    folder = root / base.path
    if not (folder / "model_index.json").is_file():
        folder = _cached(base, needed)
    name = _read_config(folder / "model_index.json").get("_class_name")
    if not SAVED_AS[base.family].fullmatch(str(name)):
        raise ValueError(f"{folder} contains a {name}; family {base.family} needs {PIPELINES[base.family]}")
    return folder


def base_hash(path: Path) -> str:
    """Return the sha256 over the names and sha256 sums of a base model's weights.

    Only files that a pipeline loads count, see `base_files`. The hash of a single-file base model is the
    file's sha256. The result is cached per process.
    """
    return _weights_hash(path.resolve())


@lru_cache(maxsize=8)
def _weights_hash(path: Path) -> str:
    if path.is_file():
        return sha256(path)
    files = base_files(path)
    if not files:
        raise FileNotFoundError(f"{path} contains no weights of a base model, such as unet/*.safetensors")
    lines = (f"{sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
    return sha256("".join(lines).encode())


def _cached(base: BaseConfig, needed: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    missing = MissingModelError(base.path, base.license, base.download_instructions)
    if not HUB_ID.fullmatch(base.path):
        raise missing
    offline = os.environ.get(DOWNLOAD) != "1"
    fetch = partial(snapshot_download, base.path, allow_patterns=list(needed), local_files_only=offline)
    try:
        folder = Path(fetch(ignore_patterns=list(UNUSED)))
        if WEIGHTS in needed and not base_files(folder):  # some repositories have half precision only
            folder = Path(fetch())
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as err:
        raise missing from err
    if not (folder / "model_index.json").is_file():
        raise missing
    return folder

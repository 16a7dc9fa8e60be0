"""Weights of base models: their location, their hash, and their download from the hub."""

import os
import re
from functools import lru_cache, partial
from pathlib import Path

from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.domain.base_files import base_files
from valentina_pipeline.image.models.base_parts import (
    INDEX,
    find_missing_parts,
    list_missing_parts,
    read_config,
)
from valentina_pipeline.image.models.families import CONFIG_REPOS, ORIGINAL_TEXT, PIPELINES, SAVED_AS

DOWNLOAD = "VALENTINA_DOWNLOAD"
"""Environment variable: 1 allows to download a hub id that is not in the local cache."""

SETTINGS = (INDEX, "*/*.json", "*/*.txt")

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
        _require_family(base, file)
        find_settings(base, root)
        return file
    folder = _pipeline_folder(base, root, (*SETTINGS, WEIGHTS))
    _require_parts(base, folder)
    unet = read_config(folder / "unet/config.json")
    if unet.get("in_channels") != unet.get("out_channels"):
        raise ValueError(
            f"{folder}: its U-Net has {unet.get('in_channels')} input and {unet.get('out_channels')} output "
            "channels, as for inpainting; use a text-to-image base model"
        )
    return folder


def _require_family(base: BaseConfig, file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            names = list(opened.keys())
    except SafetensorError as err:
        raise ValueError(f"{file} is not a valid safetensors file: {err}") from err
    if not any(name.startswith(ORIGINAL_TEXT[base.family]) for name in names):
        raise ValueError(
            f"{file} is not a model of family {base.family}: it has no tensors {ORIGINAL_TEXT[base.family]}*"
        )


def find_settings(base: BaseConfig, root: Path) -> Path:
    """Return the folder of a single-file base model's configuration, tokenizers and scheduler.

    Raises:
        MissingModelError: the folder or a part of it is missing.
    """
    settings = base.model_copy(update={"path": base.config or CONFIG_REPOS[base.family]})
    folder = _pipeline_folder(settings, root, SETTINGS)
    _require_parts(settings, folder, weights=False)
    return folder


def _require_parts(base: BaseConfig, folder: Path, weights: bool = True) -> None:
    if missing := find_missing_parts(folder, base.family, weights):
        raise MissingModelError(
            f"{base.path} ({list_missing_parts(folder, missing)})", base.license, base.download_instructions
        )


def _pipeline_folder(base: BaseConfig, root: Path, needed: tuple[str, ...]) -> Path:
    folder = root / base.path
    if not (folder / INDEX).is_file():
        folder = _cached(base, needed)
    name = read_config(folder / INDEX).get("_class_name")
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
    if not (folder / INDEX).is_file():
        raise missing
    return folder

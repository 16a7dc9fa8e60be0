"""Published package: read its description and check its files and its rights."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from valentina_pipeline.common.atomic_files import stays_inside
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.domain.artifacts import LORA_FILE, REVOKED_FILE, UNMEASURED, sha256
from valentina_pipeline.domain.concept import is_coined, photo_of, with_article
from valentina_pipeline.domain.rights import Terms
from valentina_pipeline.domain.scene import Scene
from valentina_pipeline.integrations.permission import PermissionUnknownError, obstacle
from valentina_pipeline.integrations.registry import CAME_AS

SUMS_FILE = "SHA256SUMS"

SUMS_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<name>.+)")

BYTECODE_FILE = re.compile(r"(code/(?:.+/)?)__pycache__/([^/.]+)\.[^/]+\.pyc")


class Strict(BaseModel):
    """Base class of user input: immutable; unknown fields, NaN and infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class InvalidPackageError(ValueError):
    """A folder is not a package, its files differ from the published ones, or it may not generate."""


class RightsUnknownError(InvalidPackageError):
    """The rights of a package cannot be checked now, so it does not generate."""


@dataclass(frozen=True)
class Preset:
    """Generation preset; `size` is width and height in pixels."""

    steps: int
    guidance_scale: float
    size: int
    scheduler: str


@dataclass(frozen=True)
class Identity:
    """Reference for comparing faces with the character, written by publish.

    Attributes:
        mean: the mean identity vector of the held-out portraits.
        ceiling: the mean similarity of the character's portraits to it.
        gate: the lowest similarity that counts as the character.
        face_detection_rate: the share of images that must show a face.
    """

    mean: tuple[float, ...]
    ceiling: float
    gate: float
    face_detection_rate: float


@dataclass(frozen=True)
class PackageInfo:
    """Description of a package.

    Attributes:
        folder: the package's folder.
        name: the character's name.
        trigger: the word that activates the LoRA.
        class_word: the class of the character, such as "woman".
        base: the base model, with `path` as published.
        base_hash: hash of the base model's weights.
        lora_hash: sha256 of the LoRA's file.
        terms: the terms of the rights records that cover it, as published.
        presets: by name.
        default_preset: one of their names.
        renderer_parameters: the renderer's parameters of the character; {} for a character of another source.
        scenes: the scene library, by name.
        identity: the reference for faces; None where nothing was measured.
    """

    folder: Path
    name: str
    trigger: str
    class_word: str
    base: BaseConfig
    base_hash: str
    lora_hash: str
    terms: tuple[Terms, ...]
    presets: Mapping[str, Preset]
    default_preset: str
    renderer_parameters: Mapping[str, str | float]
    scenes: Mapping[str, Scene]
    identity: Identity | None

    @property
    def records(self) -> tuple[str, ...]:
        """The ids of the rights records that cover it."""
        return tuple(term.id for term in self.terms)

    @property
    def has_lora(self) -> bool:
        """True where the package has a LoRA, whose weight can be changed."""
        return (self.folder / "lora" / LORA_FILE).is_file()

    def subject(self, prompt: str) -> str:
        """Return the prompt with the trigger before the class word, or in front where both are absent.

        A trigger that is also a common word, such as "rose", counts as present only before the class word.
        """
        present = self.trigger if is_coined(self.trigger) else f"{self.trigger} {self.class_word}"
        if re.search(rf"\b{re.escape(present)}\b", prompt):
            return prompt
        word = re.compile(rf"\b(an?\s+)?{re.escape(self.class_word)}\b", re.IGNORECASE)
        named = f"{self.trigger} {self.class_word}"
        if found := word.search(prompt):
            return word.sub(with_article(named) if found[1] else named, prompt, count=1)
        return f"{photo_of(named)}, {prompt}"


def read(folder: Path, root: Path | None = None) -> PackageInfo:
    """Return the description of the package in `folder`, after checking its files and its rights.

    Args:
        folder: the package.
        root: see `check_rights`.

    Raises:
        InvalidPackageError: the folder is not a package; a file is missing, changed or not listed; or the
            rights forbid it, see `check_rights`.
    """
    _check_files(folder)
    try:
        concept, base, presets, rights, scenes, identity = (
            _json(folder / f"{name}.json")
            for name in ("concept", "base", "presets", "rights", "scenes", "identity")
        )
        about = PackageInfo(
            folder=folder,
            name=concept["name"],
            trigger=concept["trigger"],
            class_word=concept["class_word"],
            base=BaseConfig.model_validate({name: base[name] for name in base if name != "sha256"}),
            base_hash=base["sha256"],
            lora_hash=concept["lora_sha256"],
            terms=tuple(Terms.model_validate(record) for record in rights["records"]),
            presets={name: Preset(**preset) for name, preset in presets["presets"].items()},
            default_preset=presets["default"],
            renderer_parameters=concept.get("renderer_parameters", {}),
            scenes={scene["name"]: Scene(scene["category"], scene["words"]) for scene in scenes},
            identity=None
            if identity == UNMEASURED
            else Identity(
                tuple(identity["mean"]),
                identity["ceiling"],
                identity["gate"],
                identity["face_detection_rate"],
            ),
        )
    except (FileNotFoundError, KeyError, TypeError, ValueError) as err:
        raise InvalidPackageError(
            f"{folder} was published by another version of this project: {err}"
        ) from err
    check_rights(about, root)
    return about


def check_rights(about: PackageInfo, root: Path | None) -> None:
    """Raise InvalidPackageError where the rights of the package do not allow generation at this moment.

    Rights can end or be revoked while the package is served.

    Args:
        about: the package.
        root: the project with the ledgers and the registry; None is the working directory.

    Raises:
        InvalidPackageError: generation is not allowed; see integrations/permission.py.
        RightsUnknownError: the rights cannot be checked now.
    """
    try:
        reason = obstacle(about.folder, about.terms, root)
    except PermissionUnknownError as err:
        raise RightsUnknownError(f"{about.name}'s package {err}") from err
    if reason:
        raise InvalidPackageError(f"{about.name}'s package {reason}")


def _json(file: Path) -> Any:
    return json.loads(file.read_text("utf-8"))


def _check_files(folder: Path) -> None:
    """Raise InvalidPackageError where the files differ from SHA256SUMS, or the list is missing."""
    listed = _read_sums(folder)
    for name, expected in listed.items():
        file = folder / name
        if not file.is_file():
            raise InvalidPackageError(
                f"{folder} is damaged, {name} is missing: run `dvc checkout` to restore it"
            )
        if sha256(file) != expected:
            raise InvalidPackageError(
                f"{folder} is damaged, {name} was changed: run `dvc checkout` to restore it"
            )
    if unlisted := sorted(
        name for name in _list_files(folder) - set(listed) if not _is_allowed(name, listed)
    ):
        raise InvalidPackageError(
            f"{folder} differs from the published package, SHA256SUMS does not list {', '.join(unlisted[:3])}"
            f"{f' and {len(unlisted) - 3} more' if len(unlisted) > 3 else ''}: remove the added files"
        )


def _read_sums(folder: Path) -> dict[str, str]:
    """Return name -> sha256 from SHA256SUMS."""
    listing = folder / SUMS_FILE
    if not listing.is_file():
        raise InvalidPackageError(
            f"{folder} is not a package, it has no SHA256SUMS: `uv run dvc repro` publishes one"
        )
    listed: dict[str, str] = {}
    for line in listing.read_bytes().decode("utf-8", "replace").split("\n"):
        found = SUMS_LINE.fullmatch(line)
        if found and stays_inside(found["name"]) and found["name"] not in listed:
            listed[found["name"]] = found["sha256"]
        elif line:
            raise InvalidPackageError(f"{folder} is damaged, SHA256SUMS has an invalid line: {line[:200]!r}")
    if not listed:
        raise InvalidPackageError(
            f"{folder} is not a package, SHA256SUMS is empty: `uv run dvc repro` publishes one"
        )
    return listed


def _list_files(folder: Path) -> set[str]:
    """Return the files of a folder, including links to folders, which are not followed."""
    found = set()
    for parent, folders, files in os.walk(folder):
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        found |= {Path(parent, name).relative_to(folder).as_posix() for name in (*files, *linked)}
    return found


def _is_allowed(name: str, listed: Mapping[str, str]) -> bool:
    """Return whether an unpublished file may exist: a marker file, or bytecode of the package's code."""
    code = BYTECODE_FILE.fullmatch(name)
    return name in (SUMS_FILE, REVOKED_FILE, CAME_AS) or (
        code is not None and f"{code[1]}{code[2]}.py" in listed
    )

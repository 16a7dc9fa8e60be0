"""A published package: what it says about itself, and whether it is whole and may draw."""

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
from valentina_pipeline.domain.concept import is_coined, photo_of
from valentina_pipeline.domain.rights import Terms
from valentina_pipeline.domain.scene import Scene
from valentina_pipeline.integrations.permission import PermissionUnknownError, obstacle
from valentina_pipeline.integrations.registry import CAME_AS

SUMS = "SHA256SUMS"

LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<name>.+)")

CACHED = re.compile(r"(code/(?:.+/)?)__pycache__/([^/.]+)\.[^/]+\.pyc")


class Strict(BaseModel):
    """What people write: immutable, and strict about names and numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class InvalidPackageError(ValueError):
    """A folder is no package, its files are not those that were published, or it may not draw."""


class RightsUnknownError(InvalidPackageError):
    """It cannot be found out now whether a package may draw, so it does not."""


@dataclass(frozen=True)
class Preset:
    """How an image is drawn; `size` is width and height in pixels."""

    steps: int
    guidance: float
    size: int
    scheduler: str


@dataclass(frozen=True)
class Identity:
    """What an image's face is compared with, as publish wrote it.

    Attributes:
        mean: of the held-out portraits' identity vectors.
        ceiling: how like them her portraits are, in the mean.
        gate: from when on an image counts as hers.
        face_found: the share of images that has to show a face.
    """

    mean: tuple[float, ...]
    ceiling: float
    gate: float
    face_found: float


@dataclass(frozen=True)
class PackageInfo:
    """What a package says about itself.

    Attributes:
        folder: where it is.
        name: the character's.
        trigger: the word that calls the LoRA.
        class_word: what the character is, such as "woman".
        base: with `path` as it was published.
        base_hash: of the base's weights.
        lora_hash: sha256 of the LoRA's file.
        terms: of the rights records that it stands on, as they were.
        presets: by name.
        default_preset: one of them.
        renderer: the renderer's parameters of the character, {} where it is none of the renderer's.
        scenes: the scene library, by name.
        identity: what faces are compared with; None where nothing was measured.
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
    renderer: Mapping[str, str | float]
    scenes: Mapping[str, Scene]
    identity: Identity | None

    @property
    def records(self) -> tuple[str, ...]:
        """The ids of the rights records that it stands on."""
        return tuple(each.id for each in self.terms)

    @property
    def has_lora(self) -> bool:
        """Whether what was learned is a LoRA, whose weight can be changed."""
        return (self.folder / "lora" / LORA_FILE).is_file()

    def subject(self, prompt: str) -> str:
        """Return the prompt with the trigger, put before the class word or in front if it is absent.

        A trigger that may be a word of a sentence, such as "rose", is present only before the class word.
        """
        present = self.trigger if is_coined(self.trigger) else f"{self.trigger} {self.class_word}"
        if re.search(rf"\b{re.escape(present)}\b", prompt):
            return prompt
        word = re.compile(rf"\b(an?\s+)?{re.escape(self.class_word)}\b", re.IGNORECASE)
        named = f"{self.trigger} {self.class_word}"
        if found := word.search(prompt):
            with_article = photo_of(named).removeprefix("photo of ")
            return word.sub(with_article if found[1] else named, prompt, count=1)
        return f"{photo_of(named)}, {prompt}"


def read(folder: Path, root: Path | None = None) -> PackageInfo:
    """Return what the package in `folder` says about itself, after checking its files and its rights.

    Args:
        folder: the package.
        root: see `check_rights`.

    Raises:
        InvalidPackageError: it is not a package, or a file is missing, changed or not listed; or see
            `check_rights`.
    """
    _check_whole(folder)
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
            renderer=concept.get("renderer", {}),
            scenes={each["name"]: Scene(each["category"], each["words"]) for each in scenes},
            identity=None
            if identity == UNMEASURED
            else Identity(
                tuple(identity["mean"]), identity["ceiling"], identity["gate"], identity["face_found"]
            ),
        )
    except (FileNotFoundError, KeyError, TypeError, ValueError) as err:
        raise InvalidPackageError(
            f"{folder} was published by another version of this project: {err}"
        ) from err
    check_rights(about, root)
    return about


def check_rights(about: PackageInfo, root: Path | None) -> None:
    """See that the package may draw at this moment: rights end and are taken back while it is served.

    Args:
        about: the package.
        root: the project, whose ledgers and registry are asked; None is the working directory.

    Raises:
        InvalidPackageError: it may not; see integrations/permission.py.
        RightsUnknownError: it cannot be found out now.
    """
    try:
        why = obstacle(about.folder, about.terms, root)
    except PermissionUnknownError as err:
        raise RightsUnknownError(f"{about.name}'s package {err}") from err
    if why:
        raise InvalidPackageError(f"{about.name}'s package {why}")


def _json(file: Path) -> Any:
    return json.loads(file.read_text("utf-8"))


def _check_whole(folder: Path) -> None:
    """See that a package's files are those of SHA256SUMS, each as it was published and no other.

    Raises:
        InvalidPackageError: they are not, or there is no such list.
    """
    listed = _listed(folder)
    for name, expected in listed.items():
        file = folder / name
        if not file.is_file():
            raise InvalidPackageError(
                f"{folder} is damaged, {name} is missing: `dvc checkout` brings it back"
            )
        if sha256(file) != expected:
            raise InvalidPackageError(
                f"{folder} is damaged, {name} was changed: `dvc checkout` brings it back"
            )
    if astray := sorted(name for name in _present(folder) - set(listed) if not _is_beside(name, listed)):
        raise InvalidPackageError(
            f"{folder} is not as it was published, SHA256SUMS does not list {', '.join(astray[:3])}"
            f"{f' and {len(astray) - 3} more' if len(astray) > 3 else ''}: remove what was put there"
        )


def _listed(folder: Path) -> dict[str, str]:
    """Return name -> sha256 of SHA256SUMS."""
    listing = folder / SUMS
    if not listing.is_file():
        raise InvalidPackageError(
            f"{folder} is no package, it has no SHA256SUMS: `uv run dvc repro` publishes one"
        )
    listed: dict[str, str] = {}
    for line in listing.read_bytes().decode("utf-8", "replace").split("\n"):
        found = LINE.fullmatch(line)
        if found and stays_inside(found["name"]) and found["name"] not in listed:
            listed[found["name"]] = found["sha256"]
        elif line:
            raise InvalidPackageError(
                f"{folder} is damaged, SHA256SUMS has a line that is none: {line[:200]!r}"
            )
    if not listed:
        raise InvalidPackageError(
            f"{folder} is no package, SHA256SUMS is empty: `uv run dvc repro` publishes one"
        )
    return listed


def _present(folder: Path) -> set[str]:
    """Return the files of a folder, links to folders among them, for these are not gone into."""
    found = set()
    for parent, folders, files in os.walk(folder):
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        found |= {Path(parent, name).relative_to(folder).as_posix() for name in (*files, *linked)}
    return found


def _is_beside(name: str, listed: Mapping[str, str]) -> bool:
    """Return whether a file may be there that was not published: the marks, and what Python makes of code."""
    code = CACHED.fullmatch(name)
    return name in (SUMS, REVOKED_FILE, CAME_AS) or (code is not None and f"{code[1]}{code[2]}.py" in listed)

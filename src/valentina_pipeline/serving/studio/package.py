"""A published package: what it says about itself, and whether it is whole and may draw."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from valentina_pipeline.config import BaseConfig
from valentina_pipeline.domain.concept import is_coined, photo_of
from valentina_pipeline.domain.content import LORA, REVOKED, UNMEASURED, sha256
from valentina_pipeline.domain.scene import Scene


class Strict(BaseModel):
    """What people write: immutable, and strict about names and numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class BadPackage(ValueError):
    """A folder is no package, or its files are not those that were published."""


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
class About:
    """What a package says about itself.

    Attributes:
        folder: where it is.
        name: the character's.
        trigger: the word that calls the LoRA.
        class_word: what the character is, such as "woman".
        base: with `path` as it was published.
        base_hash: of the base's weights.
        lora_hash: sha256 of the LoRA's file.
        records: ids of the rights records that it stands on.
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
    records: tuple[str, ...]
    presets: Mapping[str, Preset]
    default_preset: str
    renderer: Mapping[str, str | float]
    scenes: Mapping[str, Scene]
    identity: Identity | None

    @property
    def has_lora(self) -> bool:
        """Whether what was learned is a LoRA, whose weight can be changed."""
        return (self.folder / "lora" / LORA).is_file()

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


def read(folder: Path) -> About:
    """Return what the package in `folder` says about itself, after checking its files.

    Raises:
        BadPackage: it is none, or a file is missing or not the one that was published.
    """
    refuse_revoked(folder)
    _check_sums(folder)
    try:
        concept, base, presets, rights, scenes, identity = (
            _json(folder / f"{name}.json")
            for name in ("concept", "base", "presets", "rights", "scenes", "identity")
        )
        _check_rights(folder, rights["records"], date.today())
        return About(
            folder=folder,
            name=concept["name"],
            trigger=concept["trigger"],
            class_word=concept["class_word"],
            base=BaseConfig.model_validate({name: base[name] for name in base if name != "sha256"}),
            base_hash=base["sha256"],
            lora_hash=concept["lora_sha256"],
            records=tuple(record["id"] for record in rights["records"]),
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
    except BadPackage:
        raise
    except (FileNotFoundError, KeyError, TypeError, ValueError) as err:
        raise BadPackage(f"{folder} was published by another version of this project: {err}") from err


def refuse_revoked(folder: Path) -> None:
    """Raise BadPackage where rights that the package stands on were taken back, be it a moment ago."""
    if (folder / REVOKED).is_file():
        why = _json(folder / REVOKED).get("revoked", "")
        raise BadPackage(f"{folder} draws nothing any more: rights that it stands on were taken back ({why})")


def _check_rights(folder: Path, records: Sequence[Mapping[str, Any]], today: date) -> None:
    for record in records:
        if "generation" not in record["uses"]:
            raise BadPackage(f"{folder} draws nothing: record {record['id']} does not allow generation")
        if record["expires"] and date.fromisoformat(record["expires"]) < today:
            raise BadPackage(
                f"{folder} draws nothing any more: record {record['id']} ended {record['expires']}"
            )


def _json(file: Path) -> Any:
    return json.loads(file.read_text("utf-8"))


def _check_sums(folder: Path) -> None:
    listing = folder / "SHA256SUMS"
    if not listing.is_file():
        raise BadPackage(f"{folder} is no package, it has no SHA256SUMS: `uv run dvc repro` publishes one")
    for line in listing.read_text("utf-8").splitlines():
        expected, _, name = line.partition("  ")
        file = folder / name
        if not file.is_file():
            raise BadPackage(f"{folder} is damaged, {name} is missing: `dvc checkout` brings it back")
        if sha256(file) != expected:
            raise BadPackage(f"{folder} is damaged, {name} was changed: `dvc checkout` brings it back")

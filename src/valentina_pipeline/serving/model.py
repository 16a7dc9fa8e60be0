"""A published package, opened: draws its character from a prompt.

This module is also the package's MLflow model: `_load_pyfunc` and `Character.predict` are what MLflow
calls. It reads nothing but the package (and, where the package embeds no base, the base model itself).
"""

import base64
import json
import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config import BaseConfig
from valentina_pipeline.domain.content import REVOKED, sha256
from valentina_pipeline.image.safety import ContentFilter, refuse_prompt

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from valentina_pipeline.image.base import BaseModel

MOST_IMAGES = 64
"""In one call: a server's worker is held for as long as they take."""

LONGEST_PROMPT = 2000
"""Characters; the text encoders read some 75 tokens of them."""

SCHEDULERS = {"base": "", "dpm++": "DPMSolverMultistepScheduler"}
"""A preset's sampler -> diffusers' class; "base" is the one that the base ships with."""


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

    def subject(self, prompt: str) -> str:
        """Return the prompt with the trigger, put before the class word or in front if it is absent."""
        if re.search(rf"\b{re.escape(self.trigger)}\b", prompt):
            return prompt
        word = re.compile(rf"\b{re.escape(self.class_word)}\b", re.IGNORECASE)
        named = f"{self.trigger} {self.class_word}"
        if word.search(prompt):
            return word.sub(named, prompt, count=1)
        return f"photo of a {named}, {prompt}"


@dataclass(frozen=True)
class Wish:
    """One image that somebody asks for; `preset` "" is the package's default."""

    prompt: str
    seed: int
    preset: str = ""


@dataclass(frozen=True)
class Drawn:
    """What a wish came to.

    Attributes:
        image: marked as generated; None where the content filter refused it.
        prompt: as drawn, with the trigger.
        seed: of the image.
        preset: as drawn.
        refused: why there is no image, else "".
    """

    image: "Image.Image | None"
    prompt: str
    seed: int
    preset: str
    refused: str


def read(folder: Path) -> About:
    """Return what the package in `folder` says about itself, after checking its files.

    Raises:
        BadPackage: it is none, or a file is missing or not the one that was published.
    """
    if (folder / REVOKED).is_file():
        why = _json(folder / REVOKED).get("revoked", "")
        raise BadPackage(f"{folder} draws nothing any more: rights that it stands on were taken back ({why})")
    _check_sums(folder)
    concept, base, presets, rights = (
        _json(folder / f"{name}.json") for name in ("concept", "base", "presets", "rights")
    )
    try:
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
        )
    except (KeyError, TypeError, ValueError) as err:
        raise BadPackage(f"{folder} was published by another version of this project: {err}") from err


def _check_rights(folder: Path, records: Sequence[Mapping[str, Any]], today: date) -> None:
    for record in records:
        if "generation" not in record["uses"]:
            raise BadPackage(f"{folder} draws nothing: record {record['id']} does not allow generation")
        if record["expires"] and date.fromisoformat(record["expires"]) < today:
            raise BadPackage(
                f"{folder} draws nothing any more: record {record['id']} ended {record['expires']}"
            )


class Character:
    """A package with its networks loaded. Safe to share between threads, which wait for each other.

    Args:
        about: the package.
        base: a folder or hub id of the same base model elsewhere; None takes the one that the package
            embeds or names.
        root: what a relative path of a base that is not embedded counts from; None is the working
            directory.

    Raises:
        MissingModel: the base is not on this machine.
        BadPackage: the base found is not the one that the LoRA was trained on.
    """

    def __init__(self, about: About, base: str | None = None, root: Path | None = None) -> None:
        from valentina_pipeline.image.adapted import pipeline

        self.about = about
        self._pipe = pipeline(_loaded(about, base, root), about.folder / "lora")
        self._own_scheduler = self._pipe.scheduler
        self._filter = ContentFilter()
        self._turn = threading.Lock()

    def draw(self, wishes: Sequence[Wish]) -> list[Drawn]:
        """Draw the wishes, in order; each image depends on its own wish alone, but for rounding.

        Raises:
            UnsafePrompt: a prompt is refused by the policy.
            ValueError: see `check`.
        """
        check(self.about, wishes)
        drawn: dict[int, Drawn] = {}
        for name in dict.fromkeys(wish.preset or self.about.default_preset for wish in wishes):
            rows = [n for n, wish in enumerate(wishes) if (wish.preset or self.about.default_preset) == name]
            with self._turn:  # the scheduler carries the state of the drawing
                images = self._images([wishes[row] for row in rows], self.about.presets[name])
            for row, (prompt, image) in zip(rows, images, strict=True):
                reason = self._filter.unsafe(image)
                shown = None if reason else image
                drawn[row] = Drawn(shown, prompt, wishes[row].seed, name, reason or "")
        return [drawn[row] for row in range(len(wishes))]

    def _images(self, wishes: Sequence[Wish], preset: Preset) -> "list[tuple[str, Image.Image]]":
        """Return the prompts as drawn and their images."""
        from valentina_pipeline.image.generate import Request, draw

        self._pipe.scheduler = _scheduler(preset.scheduler, self._own_scheduler)
        prompts = [self.about.subject(wish.prompt) for wish in wishes]
        requests = [Request(prompt, wish.seed) for prompt, wish in zip(prompts, wishes, strict=True)]
        marks = {"base_sha256": self.about.base_hash, "lora_sha256": self.about.lora_hash}
        images = draw(
            self._pipe, requests, preset.steps, preset.guidance, preset.size, _batch(preset.size), marks
        )
        return list(zip(prompts, images, strict=True))

    def predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Answer MLflow: draw one image a row.

        Args:
            model_input: prompt; by option seed (a random one without) and preset.
            params: none are known.

        Returns:
            A row each: image (PNG as base64, "" if refused), prompt, seed, preset, refused (why, else "").
        """
        import pandas as pd

        from valentina_pipeline.image import png

        rows = pd.DataFrame(model_input).to_dict("records")
        answers = [
            {
                "image": base64.b64encode(png.encode(d.image)).decode() if d.image else "",
                "prompt": d.prompt,
                "seed": d.seed,
                "preset": d.preset,
                "refused": d.refused,
            }
            for d in self.draw([_wish(row) for row in rows])
        ]
        return pd.DataFrame(answers)


def check(about: About, wishes: Sequence[Wish]) -> None:
    """Raise where one of the wishes is not drawn; needs no network.

    Raises:
        UnsafePrompt: by the policy for prompts.
        ValueError: too many or too long, no words, an unknown preset, or a seed out of range.
    """
    if not 1 <= len(wishes) <= MOST_IMAGES:
        raise ValueError(f"{len(wishes)} images at once: 1 to {MOST_IMAGES} are drawn")
    for wish in wishes:
        if not wish.prompt.strip() or len(wish.prompt) > LONGEST_PROMPT:
            raise ValueError(f"a prompt has 1 to {LONGEST_PROMPT} characters, not {len(wish.prompt)}")
        refuse_prompt(wish.prompt)
        if wish.preset and wish.preset not in about.presets:
            raise ValueError(f"there is no preset {wish.preset!r}: {', '.join(about.presets)}")
        if not 0 <= wish.seed < 2**63:
            raise ValueError(f"a seed is a whole number from 0 to 2**63 - 1, not {wish.seed}")


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> Character:
    """Return the package in `path` for MLflow; `model_config={"base": ...}` names the base elsewhere."""
    return Character(read(Path(path)), (model_config or {}).get("base"))


def _loaded(about: About, elsewhere: str | None, root: Path | None) -> "BaseModel":
    from valentina_pipeline.image.base import base_hash, load_base

    path = elsewhere or ("base" if about.base.embed else about.base.path)
    below = about.folder if about.base.embed and not elsewhere else root or Path.cwd()
    model = load_base(about.base.model_copy(update={"path": path}), below)
    if (found := base_hash(model.folder)) != about.base_hash:
        raise BadPackage(
            f"{model.folder} holds other weights (sha256 {found[:12]}) than the base that this LoRA was "
            f"trained on ({about.base_hash[:12]}): to get that one, {about.base.obtain}"
        )
    return model


def _scheduler(name: str, own: Any) -> Any:
    """Return the sampler by its name in `SCHEDULERS`, with the base's noise schedule."""
    import diffusers

    return getattr(diffusers, SCHEDULERS[name]).from_config(own.config) if SCHEDULERS[name] else own


def _batch(size: int) -> int:
    """Return how many images of `size` pixels are drawn at once: 8 of 128 or 512, 2 of 1024."""
    return max(1, min(8, 2**21 // size**2))


def _wish(row: Mapping[Any, Any]) -> Wish:
    """Return one row of MLflow's table; a missing value comes as None or NaN."""
    given = {name: value for name, value in row.items() if value is not None and value == value}
    seed = given.get("seed")
    return Wish(
        str(given.get("prompt", "")),
        secrets.randbelow(2**32) if seed is None else int(seed),
        str(given.get("preset", "")),
    )


def _json(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return loaded


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

"""Files of a new concept: its settings and its rights ledger, validated before either is written."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import TypeAdapter, ValidationError

from valentina_pipeline.cli.check import create_folders
from valentina_pipeline.common import atomic_files
from valentina_pipeline.config.effective import resolve_params
from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.config.validation import parse_config
from valentina_pipeline.config_loader import BASES, CONCEPTS, PARAMS, parse_mapping, read_mapping
from valentina_pipeline.domain import clock
from valentina_pipeline.domain.concept import SECTIONS, Concept
from valentina_pipeline.domain.rights import USES, RightsRecord, Use, parse_records
from valentina_pipeline.integrations import ledgers
from valentina_pipeline.integrations.sources import VIDEOS, source

RENDERER = "renderer"
RAW = "data/01_raw"

NEEDED_USES: tuple[Use, ...] = ("training", "generation")
"""Uses without which `dvc repro` fails: train_lora trains, evaluate generates."""

FIXED_TRAIT_WORDS = (
    *("face", "faced", "jaw", "chin", "cheek", "cheeks", "cheekbones", "forehead"),
    *("eye", "eyes", "eyed", "brow", "brows", "eyebrow", "eyebrows", "nose", "lip", "lips"),
    *("hair", "haired", "haircut", "hairstyle", "bob", "brunette", "blonde", "blond", "redhead", "bald"),
    *("parted", "parting", "bangs", "fringe", "beard", "bearded", "mustache", "moustache", "stubble"),
    *("skin", "skinned", "tan", "complexion", "freckles"),
)
"""Words of a face: captions omit phrases with one of them, so that the trigger absorbs the fixed traits."""

CONCEPT_HEADER = """\
# A character that a LoRA is trained on. Captions omit phrases with a word of caption_excluded_words, so that
# the trigger absorbs the fixed traits. `asymmetric: false` permits train_lora.flip_aug, which mirrors images.
# `base` is an entry of bases.yml; without it, the concept uses the `base` of params.yaml.
# `overrides` are settings of each stage for this concept: `uv run kedro params --all` lists them.
"""
LEDGER_HEADER = """\
# Permitted uses of this concept's images: without a record nothing is trained. `covers` is an image's name,
# in which * matches anything. `expires` is the last valid day in UTC. `uv run kedro revoke` revokes a record.
"""


class NewConceptError(ValueError):
    """A concept cannot be created; the message says what to change."""


@dataclass(frozen=True)
class Location:
    """Source of a new concept.

    Attributes:
        text: value of `source` in the concept's file.
        copy_from: folder or file outside the concept's folder, to be copied to `text` by the user.
    """

    text: str
    copy_from: Path | None = None


def locate_source(root: Path, trigger: str, place: str) -> Location:
    """Return the location for the concept's file; local images must be in data/01_raw/<trigger>.

    Raises:
        NewConceptError: `place` is outside that folder and does not exist, is a file of another kind, or
            contains that folder.
    """
    if place == RENDERER or "://" in place:
        return Location(place)
    own = root / RAW / trigger
    path = Path(os.path.normpath(root / Path(place).expanduser()))
    inside = path.is_relative_to(own)
    if path.is_file() and path.suffix.lower() not in {".zip", *VIDEOS}:
        raise NewConceptError(f"{place!r} must be a folder, a .zip or a video")
    if own.is_relative_to(path) and path != own:
        raise NewConceptError(f"{place!r} must not contain {RAW}/{trigger}: name a folder in it")
    if not inside and not path.exists():
        raise NewConceptError(
            f"{place!r} does not exist. Allowed are {RENDERER}, {RAW}/{trigger} (which is created), any "
            "existing folder, .zip or video, s3://bucket/prefix, and the https:// address of a list"
        )
    if inside:
        return Location(path.relative_to(root).as_posix())
    name = "" if path.is_dir() else f"/{path.name}"
    return Location(f"{RAW}/{trigger}{name}", path)


def check_answer(key: str, value: Any) -> Any:
    """Return the value as validated and converted by the field `key` of Concept or RightsRecord.

    Raises:
        NewConceptError: the field does not allow the value.
    """
    model = Concept if key in Concept.model_fields else RightsRecord
    field = model.model_fields[key]
    kind: Any = Annotated[field.annotation, field]
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as err:
        raise NewConceptError(f"{key}: {err.errors()[0]['msg']}") from err


def invent_identity(trigger: str) -> tuple[dict[str, str | float], str]:
    """Return the renderer's parameters of a fictional woman, fixed by the trigger, and traits in words."""
    import numpy as np

    from valentina_pipeline.image.renderer.prompt_parser import parse_identity
    from valentina_pipeline.image.renderer.traits import attributes, random_identity, random_scene
    from valentina_pipeline.image.renderer.wording import FIXED_TRAITS, caption_from_traits

    rng = np.random.default_rng(list(trigger.encode()))
    drawn = vars(random_identity(rng))
    parameters = {key: value if isinstance(value, str) else round(value, 2) for key, value in drawn.items()}
    traits = attributes(parse_identity(parameters), random_scene(rng))
    return parameters, caption_from_traits(traits, "woman", FIXED_TRAITS).partition(", ")[2]


def implied_by_renderer(trigger: str) -> dict[str, Any]:
    """Return the answers that are not asked for if the renderer is the source."""
    parameters, description = invent_identity(trigger)
    return {
        "class_word": "woman",
        "adult": True,
        "description": description,
        "renderer_parameters": parameters,
        "license": "Apache-2.0",
        "uses": USES,
        "synthetic": True,
        "evidence": f"rendered by this project from the parameters in {CONCEPTS}/{trigger}.yml",
    }


def concept_text(answers: Mapping[str, Any]) -> str:
    """Return the concept's file; `answers` has a value for each field without a default below."""
    overrides: dict[str, dict[str, Any]] = {stage: {} for stage in SECTIONS}
    place = answers["source"].text
    if place.startswith("https://"):  # the user named this host; all others stay forbidden
        overrides["ingest"] = {"allowed_hosts": [urlsplit(place).hostname]}
    values = {
        "kind": "character",
        **{key: answers[key] for key in ("name", "trigger", "class_word", "adult")},
        "source": place,
        "asymmetric": True,
        "caption_excluded_words": list(FIXED_TRAIT_WORDS),
        "description": answers["description"],
        "renderer_parameters": answers.get("renderer_parameters", {}),
        **({"base": answers["base"]} if "base" in answers else {}),
        "overrides": overrides,
    }
    return CONCEPT_HEADER + _dump(values)


def ledger_text(answers: Mapping[str, Any]) -> str:
    """Return the rights ledger: one record, which covers all images of the concept."""
    record = {
        "id": answers["trigger"].replace("_", "-"),
        "holder": answers["holder"],
        "covers": "*",
        "uses": list(answers["uses"]),
        **{key: answers[key] for key in ("license", "synthetic", "expires", "evidence")},
        "evidence_sha256": answers.get("evidence_sha256"),
    }
    return LEDGER_HEADER + _dump([record])


def _dump(values: Any) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=108)


def files_of(root: Path, trigger: str, rendered: bool) -> tuple[Path, Path]:
    """Return the paths of the concept's file and of its ledger."""
    ledger = "renderer.yml" if rendered else "contract.yml"
    return root / CONCEPTS / f"{trigger}.yml", root / ledgers.PLACE / trigger / ledger


def refuse_existing(root: Path, trigger: str) -> None:
    """Raise NewConceptError if the concept has a file or a rights ledger."""
    concept, ledger = files_of(root, trigger, rendered=True)
    existing = ledgers.ledgers(ledger.parent) if ledger.parent.is_dir() else []
    for file in [*([concept] if os.path.lexists(concept) else []), *existing]:
        raise NewConceptError(
            f"{file.relative_to(root)} exists and is never overwritten: edit it, or choose another name"
        )


def validate_files(root: Path, concept: str, ledger: str) -> None:
    """Raise an error that names the field if a stage would reject one of these texts.

    Raises:
        InvalidParameterError: a field of the concept is wrong, or does not fit params.yaml.
        UnsafePromptError: class word or description are not allowed.
        InvalidIdentityError: the renderer's parameters are wrong.
        InvalidSourceError: the source's address is unsupported, or its host is not allowed.
        InvalidLedgerError: a field of the record is wrong.
        NewConceptError: the record does not allow a use of NEEDED_USES, or its id exists.
    """
    from valentina_pipeline.image.safety.prompt_filter import refuse_concept

    values = parse_mapping(concept, "the concept")
    params = resolve_params(read_mapping(root / PARAMS), read_mapping(root / BASES), values)
    character = parse_config(Concept, params["concept"], "concept")
    refuse_concept(character)
    if character.source == RENDERER:
        from valentina_pipeline.image.renderer.prompt_parser import parse_identity

        parse_identity(character.renderer_parameters)
    elif isinstance(character.source, str):
        source(character.source, root, parse_config(IngestConfig, params["ingest"], "ingest").allowed_hosts)
    for record in parse_records(yaml.safe_load(ledger), "the ledger"):
        _validate_record(root, record, clock.today())


def _validate_record(root: Path, record: RightsRecord, today: date) -> None:
    for use in NEEDED_USES:
        if obstacle := record.obstacle(use, today):
            raise NewConceptError(
                f"{obstacle.detail}, but the stages need {' and '.join(NEEDED_USES)}: correct --uses or "
                "--expires, or ask the holder"
            )
    if record.id in ledgers.load_terms(root / ledgers.PLACE):
        raise NewConceptError(
            f"{ledgers.PLACE} contains a record {record.id!r} of another concept: choose another name"
        )


def add_to_params(text: str, trigger: str) -> str:
    """Return params.yaml with the concept added to `concepts`; all comments and other lines are kept."""
    from ruamel.yaml import YAML

    editor = YAML()
    editor.width = 10_000  # wraps no line
    editor.preserve_quotes = True
    params = editor.load(text)
    if trigger not in params["concepts"]:
        params["concepts"].append(trigger)
    buffer = StringIO()
    editor.dump(params, buffer)
    return buffer.getvalue()


def create_concept(root: Path, answers: Mapping[str, Any], add: bool) -> list[str]:
    """Validate and write a concept's files and create its folders; return a line for each.

    Args:
        root: the project's folder.
        answers: `trigger`, `source` (a Location) and a value for each other field.
        add: also add the concept to params.yaml.

    Raises:
        ValueError: an answer is not allowed (see `validate_files`), or the concept exists.
    """
    trigger, rendered = answers["trigger"], answers["source"].text == RENDERER
    texts = concept_text(answers), ledger_text(answers)
    validate_files(root, *texts)
    files = dict(zip(files_of(root, trigger, rendered), texts, strict=True))
    params = add_to_params((root / PARAMS).read_text("utf-8"), trigger) if add else None
    write_files(root, trigger, files, params)
    written = [*(file.relative_to(root) for file in files), *([Path(PARAMS)] if add else [])]
    created = [f"{folder} created" for folder in create_folders(root, trigger)]
    return [*(f"{file} written" for file in written), *created]


def write_files(root: Path, trigger: str, files: Mapping[Path, str], params: str | None = None) -> None:
    """Write the new files and, if given, the text of params.yaml: all of them or none.

    Raises:
        NewConceptError: the concept exists.
    """
    with atomic_files.lock_folder(root / CONCEPTS):
        refuse_existing(root, trigger)
        try:
            for file, text in files.items():
                atomic_files.replace(file, text.encode())
            if params is not None:
                atomic_files.replace(root / PARAMS, params.encode())
        except BaseException:
            for file in files:
                file.unlink(missing_ok=True)
            with suppress(OSError):  # missing, or holds something else
                (root / ledgers.PLACE / trigger).rmdir()
            raise

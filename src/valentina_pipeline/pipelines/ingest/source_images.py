"""Images of a source with the files beside them: attributes, captions and masks."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.domain import naming

if TYPE_CHECKING:
    from valentina_pipeline.image.ingest.source_image import SourceImage
    from valentina_pipeline.integrations.sources.files import Entry, Source

logger = logging.getLogger(__name__)

SIDECAR = "attributes.json"
"""Optional file beside the images: {"file name": {"expression": "smiling", ...}, ...}."""

MAX_SIDECAR_BYTES = 20_000_000

CAPTION_THREADS = 16

MAX_NAMES_SHOWN = 20
"""Names of missing images that a message lists."""


class InvalidAttributesError(ValueError):
    """An attributes file or a caption beside the images is invalid; the message names it."""


def read_source(
    place: "Source", label: str, limits: IngestConfig, need_captions: bool = False
) -> "list[SourceImage]":
    """Return the images of a source with their attributes, captions and masks.

    Args:
        place: the source.
        label: prefix of the images' names; "" for none.
        limits: maximum bytes of a file.
        need_captions: screening rejects images without a caption; the stage caption does not caption these.

    Raises:
        InvalidSourceError: the source cannot be listed or is empty.
        InvalidAttributesError: attributes.json or a caption file is invalid.
    """
    from functools import partial

    from valentina_pipeline.image.ingest.source_image import SourceImage
    from valentina_pipeline.integrations.sources.beside import sorted_out

    entries = place.entries()
    known = _attributes(place, entries)
    prefix = f"{label}/" if label else ""
    files = sorted_out(entry for entry in entries if entry.name != SIDECAR)
    captions = _read_captions(place, files.captions)
    for name in [name for name, text in captions.items() if not text and not need_captions]:
        logger.warning("%s is empty: the stage caption will caption %s", files.captions[name].name, name)
    masks = {
        name: SourceImage(
            prefix + _printable(mask.name),
            partial(place.read, mask, limits.max_bytes),
            {},
            remote=place.remote,
        )
        for name, mask in files.masks.items()
    }
    taken = [
        SourceImage(
            name=prefix + _printable(entry.name),
            content=partial(place.read, entry, limits.max_bytes),
            attributes=known.get(naming.canonical(entry.name), {}),
            version=entry.version and f"{place.where} {entry.name} {entry.version}",
            remote=place.remote,
            caption=captions.get(entry.name, ""),
            mask=masks.get(entry.name),
        )
        for entry in files.pictures
    ]
    if need_captions:
        taken = [_require_caption(image) for image in taken]
    return taken + [
        SourceImage(prefix + _printable(entry.name), partial(_reject, "not an image", reason), {})
        for entry, reason in files.unused.items()
    ]


def check_attributes(originals: "Sequence[SourceImage]", own: str) -> None:
    """Check the attributes of the images by the prompt filter, since captions are made of them.

    Raises:
        InvalidAttributesError: an attribute is refused.
    """
    from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
    from valentina_pipeline.image.safety.prompt_filter import refuse_words

    first: dict[str, str] = {}
    for original in originals:
        for words in original.attributes.values():
            first.setdefault(words, original.name)
    for words, name in first.items():
        try:
            refuse_words(words, own)
        except UnsafePromptError as err:
            raise InvalidAttributesError(
                f"{name}: its attribute {words!r} is refused: {err.reason}. Reword it, or remove the image"
            ) from err


def _read_captions(place: "Source", files: "Mapping[str, Entry]") -> dict[str, str]:
    """Read the captions by image name; captions of remote sources are read in parallel.

    Raises:
        InvalidAttributesError: a caption cannot be read; the message names the first such file.
    """
    from concurrent.futures import ThreadPoolExecutor
    from functools import partial

    from valentina_pipeline.integrations.sources.beside import BadCaptionError, read_caption

    try:
        with ThreadPoolExecutor(CAPTION_THREADS if place.remote else 1) as threads:
            read = threads.map(partial(read_caption, place), files.values())
            texts = dict(zip(files, read, strict=True))
    except (BadCaptionError, OSError) as err:
        raise InvalidAttributesError(str(err)) from err
    return texts


def _attributes(place: "Source", entries: "Sequence[Entry]") -> dict[str, dict[str, str]]:
    """Return the attributes of each image by its canonical name; warn of names without an image."""
    sidecar = next((entry for entry in entries if entry.name == SIDECAR), None)
    if sidecar is None:
        return {}
    where = f"{place.where}/{SIDECAR}"
    try:
        known = json.loads(place.read(sidecar, MAX_SIDECAR_BYTES))
    except (ValueError, RecursionError) as err:
        raise InvalidAttributesError(f"{where} is not valid JSON: {err}") from err
    if not isinstance(known, dict) or not all(_is_words(words) for words in known.values()):
        raise InvalidAttributesError(f'{where} must have the form {{"file name": {{"trait": "word"}}}}')
    try:
        by_name = naming.by_name(known)
    except ValueError as err:
        raise InvalidAttributesError(f"{where}: {err}: keep one of them") from err
    names = {naming.canonical(entry.name) for entry in entries}
    if unused := [name for name in by_name if name not in names]:
        listed = ", ".join(map(_printable, unused[:MAX_NAMES_SHOWN]))
        more = f" and {len(unused) - MAX_NAMES_SHOWN} more" if len(unused) > MAX_NAMES_SHOWN else ""
        logger.warning("%s: no image is named %s%s; their attributes are not used", where, listed, more)
    return by_name


def _is_words(words: object) -> bool:
    return isinstance(words, dict) and all(isinstance(word, str) for word in words.values())


def _printable(name: str) -> str:
    """Escape control characters and bytes outside UTF-8, which tables and terminals cannot hold."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _require_caption(image: "SourceImage") -> "SourceImage":
    """Return the image; without a caption, one that screening rejects."""
    from dataclasses import replace
    from functools import partial

    from valentina_pipeline.integrations.sources.folder import SUFFIXES

    path = Path(image.name)
    if image.caption or path.suffix.lower() not in SUFFIXES:
        return image
    detail = f"extra data needs its caption in {path.with_suffix('.txt').name} (or .caption) beside it"
    return replace(image, content=partial(_reject, "no caption", detail), version="")


def _reject(reason: str, detail: str) -> bytes:
    """Raise RejectedImageError in place of reading a file."""
    from valentina_pipeline.image.io.decode import RejectedImageError

    raise RejectedImageError(reason, detail)

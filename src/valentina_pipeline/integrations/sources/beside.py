"""Sidecar files of images, as people and other trainers create them: captions and masks.

A caption is `name.txt` (kohya, OneTrainer) or `name.caption` (kohya's own default) beside `name.png`, or
`name.png.txt` as downloaders write it. A mask is `name-masklabel.png` (OneTrainer), `name_mask.png` or
`name-mask.png` beside it, or `masks/name.png` in a folder below.
"""

import codecs
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from valentina_pipeline.integrations.sources.files import Entry, Source
from valentina_pipeline.integrations.sources.folder import SUFFIXES

CAPTION_SUFFIXES = (".txt", ".caption")
"""Of two captions of one image, the first suffix wins."""

MAX_CAPTION_BYTES = 16_000

MASK = re.compile(r"^(?P<name>.+)(?P<label>-masklabel|[-_]mask)$", re.IGNORECASE)
MASK_FOLDERS = ("mask", "masks")

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class BadCaptionError(ValueError):
    """A sidecar caption is unreadable; the message says which and what to do."""


@dataclass
class Beside:
    """The images of a source and their sidecar files.

    Attributes:
        pictures: every other file, in the source's order.
        captions: image name -> caption file.
        masks: image name -> mask file.
        unused: unused caption or mask -> reason.
    """

    pictures: list[Entry] = field(default_factory=list)
    captions: dict[str, Entry] = field(default_factory=dict)
    masks: dict[str, Entry] = field(default_factory=dict)
    unused: dict[Entry, str] = field(default_factory=dict)


def sorted_out(entries: Iterable[Entry]) -> Beside:
    """Separate images from sidecar files; a caption without an image is unused."""
    listed, found = list(entries), Beside()
    named = [entry for entry in listed if PurePosixPath(entry.name).suffix.lower() in SUFFIXES]
    stems: dict[str, list[Entry]] = {}
    for entry in named:
        stems.setdefault(_stem(entry.name), []).append(entry)
    masks = {entry: _images_of_mask(entry.name, stems) for entry in named}
    pictures = {_normalize(entry.name): entry for entry in named if masks[entry] is None}
    for entry in listed:
        suffix = PurePosixPath(entry.name).suffix.lower()
        if (masked := masks.get(entry)) is not None:
            images = [image for image in masked if masks[image] is None]
            _attach(found, found.masks, entry, images, "mask")
        elif suffix in CAPTION_SUFFIXES:
            same_stem = [image for image in stems.get(_stem(entry.name), []) if masks[image] is None]
            whole = pictures.get(_normalize(entry.name[: -len(suffix)]))
            _attach(found, found.captions, entry, [whole] if whole else same_stem, "caption")
        else:
            found.pictures.append(entry)
    return found


def read_caption(place: Source, entry: Entry) -> str:
    """Return a caption as one line; the file is UTF-8, or UTF-16 with a byte order mark.

    Raises:
        BadCaptionError: the caption is too long or in another encoding.
        OSError: the file cannot be read.
    """
    content = place.read(entry, MAX_CAPTION_BYTES)
    if len(content) > MAX_CAPTION_BYTES:
        raise BadCaptionError(
            f"{place.where}/{entry.name} is longer than {MAX_CAPTION_BYTES:,} bytes: shorten it"
        )
    try:
        text = content.decode("utf-16" if content.startswith(UTF16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError as err:
        raise BadCaptionError(f"{place.where}/{entry.name} is not UTF-8: save it as UTF-8") from err
    words = " ".join(text.split())
    return "".join(c for c in words if c.isprintable() or unicodedata.category(c) == "Cf")


def _attach(found: Beside, kind: dict[str, Entry], entry: Entry, images: list[Entry], what: str) -> None:
    taken = [kind[image.name].name for image in images if image.name in kind]
    if not images:
        found.unused[entry] = f"a {what} without an image of the same name"
    elif taken and PurePosixPath(entry.name).suffix.lower() != CAPTION_SUFFIXES[0]:
        found.unused[entry] = f"{taken[0]} is the {what}"
    else:
        for image in images:
            if image.name in kind:
                found.unused[kind[image.name]] = f"{entry.name} is the {what}"
            kind[image.name] = entry


def _images_of_mask(name: str, stems: dict[str, list[Entry]]) -> list[Entry] | None:
    """Return the images that a file is a mask of by its name, None where it is an image itself."""
    path = PurePosixPath(_normalize(name))
    if path.parent.name.lower() in MASK_FOLDERS:
        images = stems.get((path.parent.parent / path.stem).as_posix())
        if images:
            return images
    if match := MASK.match(path.stem):
        images = stems.get((path.parent / match["name"]).as_posix())
        # a portrait may be named "venetian_mask"; OneTrainer's suffix never names an image
        return images if images or "label" not in match["label"].lower() else []
    return None


def _normalize(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _stem(name: str) -> str:
    return PurePosixPath(_normalize(name)).with_suffix("").as_posix()

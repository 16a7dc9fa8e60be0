"""Files beside pictures, as people and other trainers leave them: captions and masks.

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
"""Of two beside one picture the first counts."""

CAPTION_BYTES = 16_000

MASK = re.compile(r"^(?P<name>.+)(?P<label>-masklabel|[-_]mask)$", re.IGNORECASE)
MASK_FOLDERS = ("mask", "masks")

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class BadCaptionError(ValueError):
    """A caption beside a picture cannot be read; the message says which and what to do."""


@dataclass
class Beside:
    """The pictures among a source's files, and what lies beside them.

    Attributes:
        pictures: every other file, in the source's order.
        captions: a picture's name -> its caption's file.
        masks: a picture's name -> its mask's file.
        unused: captions and masks that nothing asks for -> why.
    """

    pictures: list[Entry] = field(default_factory=list)
    captions: dict[str, Entry] = field(default_factory=dict)
    masks: dict[str, Entry] = field(default_factory=dict)
    unused: dict[Entry, str] = field(default_factory=dict)


def sorted_out(entries: Iterable[Entry]) -> Beside:
    """Return which files are pictures and which lie beside them; a caption without a picture is unused."""
    listed, found = list(entries), Beside()
    named = [entry for entry in listed if PurePosixPath(entry.name).suffix.lower() in SUFFIXES]
    stems: dict[str, list[Entry]] = {}
    for entry in named:
        stems.setdefault(_stem(entry.name), []).append(entry)
    masks = {entry: _masked(entry.name, stems) for entry in named}
    pictures = {_plain(entry.name): entry for entry in named if masks[entry] is None}
    for entry in listed:
        suffix = PurePosixPath(entry.name).suffix.lower()
        if (of := masks.get(entry)) is not None:
            _join(found, found.masks, entry, [each for each in of if masks[each] is None], "mask")
        elif suffix in CAPTION_SUFFIXES:
            beside = [e for e in stems.get(_stem(entry.name), []) if masks[e] is None]
            whole = pictures.get(_plain(entry.name[: -len(suffix)]))
            _join(found, found.captions, entry, [whole] if whole else beside, "caption")
        else:
            found.pictures.append(entry)
    return found


def read_caption(place: Source, entry: Entry) -> str:
    """Return a caption in one line; UTF-8, or UTF-16 with its mark.

    Raises:
        BadCaptionError: it is too long or in another encoding.
        OSError: it cannot be read.
    """
    content = place.read(entry, CAPTION_BYTES)
    if len(content) > CAPTION_BYTES:
        raise BadCaptionError(f"{place.where}/{entry.name} has more than {CAPTION_BYTES:,} bytes: shorten it")
    try:
        text = content.decode("utf-16" if content.startswith(UTF16) else "utf-8-sig")
    except UnicodeDecodeError as err:
        raise BadCaptionError(f"{place.where}/{entry.name} is not UTF-8: save it as UTF-8") from err
    words = " ".join(text.split())
    return "".join(c for c in words if c.isprintable() or unicodedata.category(c) == "Cf")


def _join(found: Beside, kind: dict[str, Entry], entry: Entry, of: list[Entry], what: str) -> None:
    taken = [kind[each.name].name for each in of if each.name in kind]
    if not of:
        found.unused[entry] = f"a {what}, and no picture of its name lies beside it"
    elif taken and PurePosixPath(entry.name).suffix.lower() != CAPTION_SUFFIXES[0]:
        found.unused[entry] = f"{taken[0]} is the {what}"
    else:
        for each in of:
            if each.name in kind:
                found.unused[kind[each.name]] = f"{entry.name} is the {what}"
            kind[each.name] = entry


def _masked(name: str, stems: dict[str, list[Entry]]) -> list[Entry] | None:
    """Return the pictures whose mask a picture's name says it is, None where it is a picture itself."""
    path = PurePosixPath(_plain(name))
    if path.parent.name.lower() in MASK_FOLDERS:
        of = stems.get((path.parent.parent / path.stem).as_posix())
        if of:
            return of
    if match := MASK.match(path.stem):
        of = stems.get((path.parent / match["name"]).as_posix())
        # a portrait may be called "venetian_mask"; OneTrainer's word is nobody's picture
        return of if of or "label" not in match["label"].lower() else []
    return None


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _stem(name: str) -> str:
    return PurePosixPath(_plain(name)).with_suffix("").as_posix()

"""Names of pictures, compared as they are meant: one name has many spellings, by system and by address.

Every comparison is made in two readings. The first is the standards': Unicode's NFC, and of RFC 3986 the
normalization of escapes and of dot segments. The second is the most lenient server's: all escapes decoded,
backslashes and doubled slashes one slash. What permits has to hold in both readings. What prohibits holds in
either, whatever the case, and whether its text is meant as a name or as a pattern.
"""

import re
import unicodedata
from collections.abc import Mapping
from fnmatch import translate
from functools import lru_cache
from typing import TypeVar
from urllib.parse import quote, unquote, unquote_to_bytes

PATTERN = "pattern:"
"""Before a shell pattern with `*`, `?` and `[...]`; another text is a name, in which `*` is anything."""

ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
INVISIBLE = "Cf"
"""Unicode's category of marks that say how text is set and are not seen."""

DEEPEST = 5
"""Escapes of escapes that are decoded: no server goes further."""

Value = TypeVar("Value")


def canonical(name: str) -> str:
    """Return a name in the standards' reading, without https://."""
    text = _schemeless(name)
    if "%" in text:
        text = ESCAPES.sub(_unreserved, text)
    return unicodedata.normalize("NFC", _without_dots(text))


def permits(covers: str, name: str) -> bool:
    """Return whether a text covers a name beyond doubt: in both readings."""
    rules = _permitting(covers)
    return all(rule.match(form) for rule, form in zip(rules, _readings(name), strict=True))


def prohibits(covers: str, name: str) -> bool:
    """Return whether a text may be meant to cover a name: in any reading, case or syntax."""
    return any(rule.match(form) for rule in _prohibiting(covers) for form in _folded_readings(name))


def names_folder(covers: str, folder: str) -> bool:
    """Return whether a text names a folder, as "garden/*" does, and does not only happen to cover it."""
    return canonical(_split(covers)[1]).startswith(f"{canonical(folder)}/")


def same(one: str, other: str) -> bool:
    """Return whether two names may be meant to be one."""
    return bool(_folded_readings(one) & _folded_readings(other))


def by_name(values: Mapping[str, Value]) -> dict[str, Value]:
    """Return values by canonical name.

    Raises:
        ValueError: two spellings of one name have different values.
    """
    found: dict[str, Value] = {}
    for name, value in values.items():
        if found.setdefault(canonical(name), value) != value:
            raise ValueError(f"{name!r} is there twice, spelled differently, with different values")
    return found


@lru_cache(maxsize=1024)  # a name is compared with each record
def _readings(name: str) -> tuple[str, str]:
    lenient = _schemeless(name)
    for _ in range(DEEPEST):
        if "%" not in lenient or (decoded := unquote(lenient)) == lenient:
            break
        lenient = decoded
    slashes = re.sub(r"/{2,}", "/", lenient.replace("\\", "/"))
    return canonical(name), unicodedata.normalize("NFC", _without_dots(slashes))


def _schemeless(name: str) -> str:
    return name[8:] if name[:8].lower() == "https://" else name


def _unreserved(escapes: "re.Match[str]") -> str:
    """Return escapes with those decoded that RFC 3986 calls needless, and letters beyond ASCII as letters."""
    content = unquote_to_bytes(escapes[0])
    try:
        letters = content.decode()
    except UnicodeDecodeError:
        return quote(content, safe="~")
    return "".join(each if ord(each) > 127 else quote(each, safe="~") for each in letters)


def _without_dots(path: str) -> str:
    """Return a path without `.` and `..` segments, from which nothing leads out: RFC 3986, 5.2.4."""
    if not {".", ".."} & set(parts := path.split("/")):
        return path
    kept: list[str] = []
    for part in parts:
        if part == "..":
            if kept and kept != [""]:
                kept.pop()
        elif part != ".":
            kept.append(part)
    return "/".join([*kept, ""] if parts[-1] in (".", "..") and kept[-1:] != [""] else kept)


def _folded(text: str) -> str:
    """Return a text without regard to case, width, invisible marks and the number of spaces."""
    seen = "".join(each for each in text if unicodedata.category(each) != INVISIBLE)
    wide = unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", seen).casefold())
    return " ".join(wide.split())


@lru_cache(maxsize=1024)
def _folded_readings(name: str) -> frozenset[str]:
    return frozenset(_folded(form) for form in _readings(name))


def _starred(name: str) -> str:
    """Return the shell pattern of a name in which only `*` is special."""
    return re.sub(r"[\[?]", r"[\g<0>]", name)


def _split(covers: str) -> tuple[bool, str]:
    """Return whether a text asks to be a pattern, and the name or pattern in it."""
    text = covers.strip()
    return (True, text.removeprefix(PATTERN).strip()) if text.startswith(PATTERN) else (False, covers)


@lru_cache(maxsize=4096)
def _permitting(covers: str) -> tuple["re.Pattern[str]", ...]:
    asked, text = _split(covers)
    return tuple(re.compile(translate(form if asked else _starred(form))) for form in _readings(text))


@lru_cache(maxsize=4096)
def _prohibiting(covers: str) -> tuple["re.Pattern[str]", ...]:
    _, text = _split(covers)
    forms = {each for form in _folded_readings(text) for each in (form, _starred(form))}
    return tuple(re.compile(translate(form)) for form in sorted(forms))

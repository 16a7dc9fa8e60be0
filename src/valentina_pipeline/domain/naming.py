"""Comparison of image names, which have many spellings by operating system and web address.

Every comparison uses two readings. The first follows the standards: Unicode's NFC, and RFC 3986's
normalization of escapes and dot segments. The second follows the most lenient server: all escapes decoded,
backslashes and doubled slashes read as one slash. A permission must match in both readings. A prohibition
matches in either, ignoring case, and read both as a name and as a pattern.
"""

import re
import unicodedata
from collections.abc import Mapping
from fnmatch import translate
from functools import lru_cache
from typing import TypeVar
from urllib.parse import quote, unquote, unquote_to_bytes

PATTERN = "pattern:"
"""Prefix of a shell pattern with `*`, `?` and `[...]`; other texts are names, where only `*` is special."""

ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
INVISIBLE = "Cf"
"""Unicode's category of invisible formatting characters."""

MAX_UNESCAPES = 5
"""Levels of nested escapes that are decoded; no server decodes more."""

Value = TypeVar("Value")


def canonical(name: str) -> str:
    """Return a name in the standards' reading, without https://."""
    text = _strip_scheme(name)
    if "%" in text:
        text = ESCAPES.sub(_decode_unreserved, text)
    return unicodedata.normalize("NFC", _remove_dot_segments(text))


def permits(covers: str, name: str) -> bool:
    """Return True if a text covers a name in both readings, that is, without doubt."""
    rules = _permitting(covers)
    return all(rule.match(form) for rule, form in zip(rules, _readings(name), strict=True))


def prohibits(covers: str, name: str) -> bool:
    """Return True if a text may be meant to cover a name, in any reading, case or syntax."""
    return any(rule.match(form) for rule in _prohibiting(covers) for form in _folded_readings(name))


def names_folder(covers: str, folder: str) -> bool:
    """Return True if a text names a folder, as "garden/*" does; covering it by "*" is not enough."""
    return canonical(_split(covers)[1]).startswith(f"{canonical(folder)}/")


def same(one: str, other: str) -> bool:
    """Return True if two names may be spellings of one name."""
    return bool(_folded_readings(one) & _folded_readings(other))


def by_name(values: Mapping[str, Value]) -> dict[str, Value]:
    """Return values by canonical name.

    Raises:
        ValueError: two spellings of one name have different values.
    """
    values_by_name: dict[str, Value] = {}
    for name, value in values.items():
        if values_by_name.setdefault(canonical(name), value) != value:
            raise ValueError(f"{name!r} occurs twice, spelled differently, with different values")
    return values_by_name


@lru_cache(maxsize=1024)  # a name is compared with each record
def _readings(name: str) -> tuple[str, str]:
    lenient = _strip_scheme(name)
    for _ in range(MAX_UNESCAPES):
        if "%" not in lenient or (decoded := unquote(lenient)) == lenient:
            break
        lenient = decoded
    slashes = re.sub(r"/{2,}", "/", lenient.replace("\\", "/"))
    return canonical(name), unicodedata.normalize("NFC", _remove_dot_segments(slashes))


def _strip_scheme(name: str) -> str:
    return name[8:] if name[:8].lower() == "https://" else name


def _decode_unreserved(escapes: "re.Match[str]") -> str:
    """Decode escapes that RFC 3986 calls unnecessary, and escaped letters outside ASCII."""
    content = unquote_to_bytes(escapes[0])
    try:
        letters = content.decode()
    except UnicodeDecodeError:
        return quote(content, safe="~")
    return "".join(letter if ord(letter) > 127 else quote(letter, safe="~") for letter in letters)


def _remove_dot_segments(path: str) -> str:
    """Remove `.` and `..` segments from a path, never going above its root: RFC 3986, 5.2.4."""
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


def _fold(text: str) -> str:
    """Normalize case, width, invisible characters and runs of spaces."""
    visible = "".join(char for char in text if unicodedata.category(char) != INVISIBLE)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", visible).casefold())
    return " ".join(folded.split())


@lru_cache(maxsize=1024)
def _folded_readings(name: str) -> frozenset[str]:
    return frozenset(_fold(form) for form in _readings(name))


def _escape_name(name: str) -> str:
    """Return the shell pattern of a name in which only `*` is special."""
    return re.sub(r"[\[?]", r"[\g<0>]", name)


def _split(covers: str) -> tuple[bool, str]:
    """Return (True, pattern) for a text with the prefix PATTERN, else (False, name)."""
    text = covers.strip()
    return (True, text.removeprefix(PATTERN).strip()) if text.startswith(PATTERN) else (False, covers)


@lru_cache(maxsize=4096)
def _permitting(covers: str) -> tuple["re.Pattern[str]", ...]:
    is_pattern, text = _split(covers)
    return tuple(
        re.compile(translate(form if is_pattern else _escape_name(form))) for form in _readings(text)
    )


@lru_cache(maxsize=4096)
def _prohibiting(covers: str) -> tuple["re.Pattern[str]", ...]:
    _, text = _split(covers)
    forms = {syntax for form in _folded_readings(text) for syntax in (form, _escape_name(form))}
    return tuple(re.compile(translate(form)) for form in sorted(forms))

"""Text as it is meant: look-alike and invisible letters, digits for letters, words split or stretched."""

import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import confusable_homoglyphs
from anyascii import anyascii

from valentina_pipeline.image.safety.policy.lists import words

PART = ","
"""Stands between what belongs to different things: "union jack, black boots"."""

LEET = str.maketrans("0134567890@$!€£+", "oieasgtbgoasielt")
"""Letters that digits and signs stand for; 1 and ! are also l."""

FAUX = str.maketrans("ηυεμωπρτκχνασιγβоиядшвнтмзьцпулгеаєłøıđþ", "nueuwnptkxvaoiybonrdwbhtmebunylreaeloidp")
"""Letters that are written for others by their looks, beyond Unicode's list of confusables."""

READABLE = (
    "LATIN", "GREEK", "CYRILLIC", "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HANGUL", "ARABIC", "HEBREW",
    "THAI", "DEVANAGARI",
)  # fmt: skip
"""Scripts in which the lists have words."""

WORD = re.compile(
    r"\d+(?:[.,:/]\d+)+|[@$]?[^\W_](?:[@$!*#€£]*[^\W_])*(?:(?<=[^\W\d_])[@€$](?!\w))?|"
    r"[\u2600-\u27bf\U0001f300-\U0001faff]"
)
PARTING = re.compile(r"[,;\n|!?。、，]|\.\s")
WEIGHT = re.compile(r"[:=]\s*\d*\.?\d+(?=\s*[)\]}>])")
MASK = re.compile(r"[*#]")

COUNTED = re.compile(r"\d{1,2}(?:e|o|a|f|y|yo|st|nd|rd|th|er|ere|re|eme|nde)|[ufky]\d{1,2}")
"""Numbers with letters that are no digits for letters: "13e", "9o", "16yo", "u17"."""

SINGLES = 3
"""So many single letters in a row are one word: "n u d e"."""

TITLES = frozenset(("mr", "mrs", "ms", "dr", "st", "jr", "sr"))

PIECES = 4
"""A word is taken together from up to so many pieces: "se-xu-al"."""

COMMON = words("common")
"""Small words, which are not taken for pieces of others when a space is between them."""


@dataclass(frozen=True)
class Token:
    """A word of a prompt.

    Attributes:
        forms: what it may be read as, as it is written first; (PART,) between phrases.
    """

    forms: tuple[str, ...]


@dataclass(frozen=True)
class _Piece:
    raw: str
    glue: str  # between it and the piece before
    run: bool = False


def fold(text: str) -> str:
    """Return lower case in one spelling, without accents and invisible characters."""
    text = html.unescape(html.unescape(text))  # text encoders' own cleaning does so
    if text.isascii() and text.isprintable():  # as most entries of the lists: the rest would change nothing
        return text.lower()
    text = "".join((anyascii(c) + " ")[:1] if 0x1F100 <= ord(c) <= 0x1F1FF else c for c in text)
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text)).casefold()
    kept = (" " if c in "\u3164\u115f\u1160\uffa0\u2800" else c for c in decomposed if _seen(c))
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", "".join(kept)))


def _seen(char: str) -> bool:
    category = unicodedata.category(char)
    return char.isspace() or (
        category not in ("Mn", "Mc", "Me", "Cf", "Cc", "Cn", "Co") and not 0x1F3FB <= ord(char) <= 0x1F3FF
    )


def unreadable(text: str) -> str | None:
    """Return the script of the first letter that cannot be judged, or None."""
    for char in fold(text):
        if char > "\u02ff" and char.isalpha() and not _looks(char).isascii():
            script = unicodedata.name(char, "UNKNOWN").partition(" ")[0]
            if not script.startswith(READABLE):
                return script.capitalize()
    return None


def read(text: str, known: Callable[[str, int], bool]) -> list[Token]:
    """Return the words of a text.

    Args:
        text: as it was given.
        known: whether a word is one that the caller looks for; the number is where pieces of it met, so
            that the beginning of a word alone does not count.
    """
    pieces = list(_split(_runs(_pieces(WEIGHT.sub("", fold(text)))), known))
    tokens: list[Token] = []
    at = 0
    while at < len(pieces):
        if _parted(pieces, at):
            tokens.append(Token((PART,)))
        whole, used = _joined(pieces[at : at + PIECES], known)
        token = Token(forms(whole))
        tokens.append(token)
        if pieces[at].run:
            tokens += [Token((word,)) for word in _hidden(whole, known)]
        at += used
    return tokens


def _parted(pieces: list[_Piece], at: int) -> bool:
    """Return whether another phrase begins here; the point of an initial or title, "J. K.", ends none."""
    before = pieces[at - 1].raw if at else ""
    initial = (len(before) == 1 or before in TITLES) and pieces[at].glue.strip() == "."
    return at > 0 and not initial and bool(PARTING.search(pieces[at].glue))


def _pieces(text: str) -> list[_Piece]:
    found, end = [], 0
    for match in WORD.finditer(text):
        found.append(_Piece(match[0], text[end : match.start()]))
        end = match.end()
    return found


def _runs(pieces: list[_Piece]) -> Iterator[_Piece]:
    """Join single letters: "n u d e", "n.u.d.e", and the digits of "1 6"."""
    at = 0
    while at < len(pieces):
        end = at
        while end < len(pieces) and len(pieces[end].raw) == 1 and (end == at or len(pieces[end].glue) <= 3):
            end += 1
        run = pieces[at:end]
        two_digits = [p for p in run[:2] if p.raw.isdigit()]
        if len(run) >= SINGLES and all(piece.raw.isalnum() for piece in run):
            yield _Piece("".join(piece.raw for piece in run), run[0].glue, run=True)
            at = end
        elif len(two_digits) == 2 and run[1].glue.isspace():
            yield _Piece(run[0].raw + run[1].raw, run[0].glue)
            at += 2
        else:
            yield pieces[at]
            at += 1


def _split(pieces: Iterator[_Piece], known: Callable[[str, int], bool]) -> Iterator[_Piece]:
    """Part digits from letters, "16yo", unless they stand for letters: "n4ked"."""
    for piece in pieces:
        parts = re.findall(r"\d+|[^\d]+", piece.raw)
        whole = len(parts) == 1 or (piece.raw[:1].isdigit() and not re.search(r"[^\W\d_]", piece.raw))
        spelled = not COUNTED.fullmatch(piece.raw) and any(known(f, 0) for f in forms(piece.raw)[1:])
        if whole or spelled:
            yield piece
        else:
            yield from (_Piece(part, "" if at else piece.glue) for at, part in enumerate(parts))


def _joined(pieces: list[_Piece], known: Callable[[str, int], bool]) -> tuple[str, int]:
    """Return the longest known word that the first pieces are together, else the first; and how many."""
    genitive_first = pieces[0].raw == "s" and pieces[0].glue in ("'", "’")
    for count in range(len(pieces), 1, -1):
        parts, glues = [p.raw for p in pieces[:count]], [p.glue for p in pieces[1:count]]
        spaced = any(glue.isspace() for glue in glues)
        genitive = parts[-1] == "s" and glues[-1] in ("'", "’")
        if genitive or any(g == "" or PARTING.search(g) for g in glues) or (spaced and count > 3):
            continue
        if spaced and (any(map(str.isdigit, parts)) or all(part in COMMON for part in parts)):
            continue
        if genitive_first or (spaced and count == 2 and parts[1] in COMMON and known(parts[0], 0)):
            continue
        whole = "".join(parts)
        if len(whole) >= 4 and any(known(form, len(whole) - len(parts[-1])) for form in forms(whole)):
            return whole, count
    return pieces[0].raw, 1


def _hidden(run: str, known: Callable[[str, int], bool]) -> Iterator[str]:
    """Yield the known words in letters that were written apart: "n u d e w o m a n"."""
    run = run[:60]
    for start in range(len(run)):
        for end in range(start + 4, min(len(run), start + 16) + 1):
            if end - start < len(run) and known(run[start:end], end - start - 1):
                yield run[start:end]


@lru_cache(maxsize=65536)
def forms(raw: str) -> tuple[str, ...]:
    """Return what a word may be read as, as it is written first."""
    plain = re.sub(r"[^\w]", "", raw) or raw
    found = [plain]
    if not plain.isascii():
        found += ["".join(map(_looks, plain)), re.sub(r"[^a-z0-9]", "", anyascii(plain).lower())]
    mixed = raw if plain.isascii() else "".join(map(_looks, raw))
    if not mixed.isalpha() and not mixed.isdigit():
        for letter in "il":
            spelled = mixed.replace("1", letter).replace("!", letter).translate(LEET)
            found.append(re.sub(r"[^\w]", "", spelled))
    if plain.isascii() and len(plain) >= 4 and "v" in plain[1:]:
        found.append(plain.replace("v", "u"))  # "nvde", as it was carved in stone
    for form in tuple(found):
        found += [re.sub(r"(.)\1{2,}", r"\1", form), re.sub(r"(.)\1{2,}", r"\1\1", form)]
        single = re.sub(r"([^\W\d])\1+", r"\1", form)
        if len(form) > 4 and len(single) >= 4:
            found.append(single)
            doubled = list(re.finditer(r"([^\W\d])\1", form))
            if 1 < len(doubled) <= 3:
                found += [form[: each.start()] + form[each.start() + 1 :] for each in doubled]
    if "*" in raw or "#" in raw:
        found.append(MASK.sub("*", raw))
    return tuple(dict.fromkeys(form for form in found if form))


@lru_cache(maxsize=4096)
def _looks(char: str) -> str:
    """Return the ASCII character that this one looks like, or itself."""
    return char if char.isascii() else _confusables().get(char) or char.translate(FAUX)


@lru_cache(maxsize=1)
def _confusables() -> dict[str, str]:
    """Return Unicode's characters that look like an ASCII letter or digit, in lower case."""
    file = Path(confusable_homoglyphs.__file__).with_name("confusables.json")
    table: dict[str, list[dict[str, str]]] = json.loads(file.read_text("utf-8"))
    alike = {}
    for char, others in table.items():
        if len(char) == 1 and not char.isascii():
            letters = [each["c"].lower() for each in others if each["c"].isascii() and each["c"].isalnum()]
            if letters and len(letters[0]) == 1:
                alike[char] = letters[0]
    return alike

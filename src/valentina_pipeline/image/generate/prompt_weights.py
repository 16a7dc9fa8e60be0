"""Parse A1111's prompt notation: (words:1.3), (words), [words], BREAK; a backslash escapes a bracket."""

import re
from collections.abc import Sequence

Words = Sequence[tuple[str, float]]
"""Parts of a text in order, with their weights."""

BREAK = "BREAK"
"""A separate part; the text after it starts a new chunk."""

UP, DOWN = 1.1, 1 / 1.1
"""Weights of (words) and [words], as in A1111."""

HEAVIEST = 2.0
"""Largest weight of a part."""

_MARK = re.compile(r"\\[()\[\]\\]|[()\[\]]|\bBREAK\b|[^\\()\[\]B]+|.", re.DOTALL)
_WEIGHT = re.compile(r"(.*):\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*", re.DOTALL)


class InvalidPromptWeightError(ValueError):
    """A prompt has a weight out of range or unsupported notation; the message says which."""


def parse(prompt: str) -> list[tuple[str, float]]:
    """Return the parts of a prompt with their weights; an unmatched bracket is plain text.

    Raises:
        InvalidPromptWeightError: a weight is not in [0, 2], or the prompt uses prompt editing, such as
            [one:other:0.5] or [one|other].
    """
    marks = _MARK.findall(prompt)
    pairs = _pairs(marks)
    openings = {opened: closed for closed, opened in pairs.items()}
    parts: list[tuple[str, float]] = []
    starts: list[int] = []
    for place, mark in enumerate(marks):
        if place in openings:
            starts.append(len(parts))
        elif place in pairs:
            start = starts.pop()
            weight = DOWN if mark == "]" else UP
            if mark == "]":
                _refuse_editing("".join(text for text, _ in parts[start:]))
            elif parts[start:] and (weighted := _WEIGHT.fullmatch(parts[-1][0])):
                parts[-1], weight = (weighted[1], parts[-1][1]), float(weighted[2])
            parts[start:] = [(text, factor * weight) for text, factor in parts[start:]]
        elif mark == BREAK:
            parts.append((BREAK, 1.0))
        else:
            parts.append((mark[1:] if len(mark) == 2 and mark[0] == "\\" else mark, 1.0))
    return _joined(parts)


def plain(prompt: str) -> str:
    """Return the text without notation, as the text encoders read it.

    Raises:
        InvalidPromptWeightError: see `parse`.
    """
    return "".join(" " if text == BREAK else text for text, _ in parse(prompt))


def _pairs(marks: Sequence[str]) -> dict[int, int]:
    """Return closing bracket -> its opening bracket, by position; unmatched ones are plain text."""
    pairs: dict[int, int] = {}
    opened: list[int] = []
    for place, mark in enumerate(marks):
        if mark in ("(", "["):
            opened.append(place)
        elif mark in (")", "]"):
            matches = [depth for depth, at in enumerate(opened) if marks[at] + mark in ("()", "[]")]
            if matches:
                pairs[place] = opened[matches[-1]]
                del opened[matches[-1] :]
    return pairs


def _refuse_editing(inside: str) -> None:
    if "|" in inside or (":" in inside and _WEIGHT.fullmatch(inside)):
        raise InvalidPromptWeightError(f"[{inside}] is prompt editing, which is not supported: remove it")


def _joined(parts: Words) -> list[tuple[str, float]]:
    """Join neighboring parts of equal weight, drop empty ones and check the weights."""
    joined: list[tuple[str, float]] = []
    for text, weight in parts:
        if text == BREAK:
            joined.append((BREAK, 1.0))
            continue
        if not 0 <= weight <= HEAVIEST:
            raise InvalidPromptWeightError(
                f"invalid weight {weight:.3g} of {text.strip()!r}: must be between 0 and {HEAVIEST:g}; "
                "write plain brackets as \\( and \\)"
            )
        if text and joined and joined[-1][0] != BREAK and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text, weight)
        elif text:
            joined.append((text, weight))
    return joined

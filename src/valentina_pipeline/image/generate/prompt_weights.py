"""A1111's notation in a prompt: (words:1.3), (words), [words], BREAK; a backslash makes a bracket plain."""

import re
from collections.abc import Sequence

Words = Sequence[tuple[str, float]]
"""Parts of a text in order, with the weight of each."""

BREAK = "BREAK"
"""A part of its own: what follows begins a new piece."""

UP, DOWN = 1.1, 1 / 1.1
"""Weights of (words) and of [words], as A1111 has them."""

HEAVIEST = 2.0

_MARK = re.compile(r"\\[()\[\]\\]|[()\[\]]|\bBREAK\b|[^\\()\[\]B]+|.", re.DOTALL)
_WEIGHT = re.compile(r"(.*):\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*", re.DOTALL)


class InvalidPromptWeightError(ValueError):
    """A prompt asks for a weight out of range, or for what is not drawn here; the message says which."""


def parse(prompt: str) -> list[tuple[str, float]]:
    """Return the parts of a prompt with their weights; a bracket without its other half is plain.

    Raises:
        InvalidPromptWeightError: a weight is not in [0, 2], or words would change between the steps:
            [one:other:0.5], [one|other].
    """
    marks = _MARK.findall(prompt)
    pairs = _pairs(marks)
    begun = {opened: closed for closed, opened in pairs.items()}
    parts: list[tuple[str, float]] = []
    starts: list[int] = []
    for place, mark in enumerate(marks):
        if place in begun:
            starts.append(len(parts))
        elif place in pairs:
            start = starts.pop()
            weight = DOWN if mark == "]" else UP
            if mark == "]":
                _refuse_editing("".join(text for text, _ in parts[start:]))
            elif parts[start:] and (given := _WEIGHT.fullmatch(parts[-1][0])):
                parts[-1], weight = (given[1], parts[-1][1]), float(given[2])
            parts[start:] = [(text, factor * weight) for text, factor in parts[start:]]
        elif mark == BREAK:
            parts.append((BREAK, 1.0))
        else:
            parts.append((mark[1:] if len(mark) == 2 and mark[0] == "\\" else mark, 1.0))
    return _joined(parts)


def plain(prompt: str) -> str:
    """Return the words alone, as the text encoders read them.

    Raises:
        InvalidPromptWeightError: see `parse`.
    """
    return "".join(" " if text == BREAK else text for text, _ in parse(prompt))


def _pairs(marks: Sequence[str]) -> dict[int, int]:
    """Return for each closing bracket where it was opened; one that stays open in between is plain."""
    pairs: dict[int, int] = {}
    opened: list[int] = []
    for place, mark in enumerate(marks):
        if mark in ("(", "["):
            opened.append(place)
        elif mark in (")", "]"):
            halves = [depth for depth, at in enumerate(opened) if marks[at] + mark in ("()", "[]")]
            if halves:
                pairs[place] = opened[halves[-1]]
                del opened[halves[-1] :]
    return pairs


def _refuse_editing(inside: str) -> None:
    if "|" in inside or (":" in inside and _WEIGHT.fullmatch(inside)):
        raise InvalidPromptWeightError(
            f"[{inside}] changes words between steps, which is not done here: leave it out"
        )


def _joined(parts: Words) -> list[tuple[str, float]]:
    """Return the parts with neighbors of one weight in one, empty ones left out."""
    joined: list[tuple[str, float]] = []
    for text, weight in parts:
        if text == BREAK:
            joined.append((BREAK, 1.0))
            continue
        if not 0 <= weight <= HEAVIEST:
            raise InvalidPromptWeightError(
                f"{text.strip()!r} would weigh {weight:.3g}, and 0 to {HEAVIEST:g} is drawn; plain brackets "
                "are written \\( and \\)"
            )
        if text and joined and joined[-1][0] != BREAK and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text, weight)
        elif text:
            joined.append((text, weight))
    return joined

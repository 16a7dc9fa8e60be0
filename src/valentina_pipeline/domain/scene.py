"""Scene library: named scenes that can replace a prompt."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class InvalidScenesError(ValueError):
    """The scene library is invalid; the message names the scene and the reason."""


@dataclass(frozen=True)
class Scene:
    """Prompt words of a scene: everything in an image besides its subject.

    Attributes:
        category: category, such as "travel".
        words: words, such as "smiling, wearing a white shirt, beach background".
    """

    category: str
    words: str


def parse_scenes(library: object) -> dict[str, Scene]:
    """Return the scenes of a library by name, in its order.

    Args:
        library: category -> name -> words.

    Raises:
        InvalidScenesError: the library has another form, or a name occurs twice.
    """
    if not isinstance(library, Mapping):
        raise InvalidScenesError("the scene library must map categories to scenes")
    scenes: dict[str, Scene] = {}
    for category, named in library.items():
        if not isinstance(named, Mapping):
            raise InvalidScenesError(f"the scene library's category {category} must map names to words")
        for name, words in named.items():
            if not all(isinstance(text, str) and NAME.fullmatch(text) for text in (category, name)):
                raise InvalidScenesError(
                    f"{category}.{name} is not a valid name: use lower case letters, digits and '_'"
                )
            if not isinstance(words, str) or not words.strip():
                raise InvalidScenesError(f"scene {name} has no words")
            if name in scenes:
                raise InvalidScenesError(
                    f"scene {name} occurs twice, in {scenes[name].category} and in {category}"
                )
            scenes[name] = Scene(category, " ".join(words.split()))
    return scenes

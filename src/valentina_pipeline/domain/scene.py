"""The scene library: scenes with names, which people ask for in place of a prompt."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class InvalidScenesError(ValueError):
    """The scene library cannot be used; the message says which scene and why."""


@dataclass(frozen=True)
class Scene:
    """What a picture shows besides its subject.

    Attributes:
        category: such as "travel".
        words: such as "smiling, wearing a white shirt, beach background".
    """

    category: str
    words: str


def parse_scenes(library: object) -> dict[str, Scene]:
    """Return the scenes of a library by name, in its order.

    Args:
        library: category -> name -> words.

    Raises:
        InvalidScenesError: it has another form, or a name is there twice.
    """
    if not isinstance(library, Mapping):
        raise InvalidScenesError("the scene library has to map categories to scenes")
    found: dict[str, Scene] = {}
    for category, named in library.items():
        if not isinstance(named, Mapping):
            raise InvalidScenesError(f"the scene library's {category} has to map names to words")
        for name, words in named.items():
            if not all(isinstance(each, str) and NAME.fullmatch(each) for each in (category, name)):
                raise InvalidScenesError(f"{category}.{name} is no name: small letters, digits and '_'")
            if not isinstance(words, str) or not words.strip():
                raise InvalidScenesError(f"scene {name} has no words")
            if name in found:
                raise InvalidScenesError(
                    f"scene {name} is there twice, in {found[name].category} and in {category}"
                )
            found[name] = Scene(category, " ".join(words.split()))
    return found

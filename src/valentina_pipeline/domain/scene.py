"""The scene library: scenes with names, which people ask for in place of a prompt."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class BadScenes(ValueError):
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


def scenes(library: object) -> dict[str, Scene]:
    """Return the scenes of a library by name, in its order.

    Args:
        library: category -> name -> words.

    Raises:
        BadScenes: it has another form, or a name is there twice.
    """
    if not isinstance(library, Mapping):
        raise BadScenes("the scene library has to map categories to scenes")
    found: dict[str, Scene] = {}
    for category, named in library.items():
        if not isinstance(named, Mapping):
            raise BadScenes(f"the scene library's {category} has to map names to words")
        for name, words in named.items():
            if not all(isinstance(each, str) and NAME.fullmatch(each) for each in (category, name)):
                raise BadScenes(f"{category}.{name} is no name: small letters, digits and '_'")
            if not isinstance(words, str) or not words.strip():
                raise BadScenes(f"scene {name} has no words")
            if name in found:
                raise BadScenes(f"scene {name} is there twice, in {found[name].category} and in {category}")
            found[name] = Scene(category, " ".join(words.split()))
    return found

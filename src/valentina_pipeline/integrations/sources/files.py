"""Source interface: files by name, each with a version that changes with its content."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class InvalidSourceError(ValueError):
    """A source cannot be listed or is empty; the message says what to do."""


@dataclass(frozen=True)
class Entry:
    """File of a source.

    Attributes:
        name: relative posix path, not sanitized for a file system.
        version: changes with the content; "" where unknown.
        size: bytes, None where unknown.
    """

    name: str
    version: str = ""
    size: int | None = None


class Source(Protocol):
    """Files by name. Sources must be picklable: worker processes read from them, too."""

    @property
    def where(self) -> str:
        """Location of the source, for messages."""
        ...

    @property
    def remote(self) -> bool:
        """True where reads wait for a network, so that many files are read at once."""
        ...

    def entries(self) -> Sequence[Entry]:
        """Return every file, sorted by name; raise InvalidSourceError where the source is empty."""
        ...

    def read(self, entry: Entry, limit: int) -> bytes:
        """Return a file's content, at most its first `limit` + 1 bytes.

        Raises:
            OSError: the file cannot be read, or has changed since it was listed.
        """
        ...


def is_candidate(name: str) -> bool:
    """Return whether a name may be an image's: not a hidden file, a folder or a .dvc file."""
    hidden = any(part.startswith(".") and part != ".." for part in name.split("/"))
    return not hidden and not name.endswith(("/", ".dvc"))

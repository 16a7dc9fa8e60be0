"""What every source is: files by name, each with a version that changes when its content does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class InvalidSourceError(ValueError):
    """A source cannot be listed, or holds nothing; the message says what to do."""


@dataclass(frozen=True)
class Entry:
    """A file of a source.

    Attributes:
        name: a relative posix path, not yet fit for a file system.
        version: changes when the content does; "" where the source cannot tell.
        size: bytes, where the source can tell.
    """

    name: str
    version: str = ""
    size: int | None = None


class Source(Protocol):
    """Files by name. A source can be pickled: worker processes read from it, too."""

    @property
    def where(self) -> str:
        """The source, for messages."""
        ...

    @property
    def remote(self) -> bool:
        """Whether reading waits for a network, so that many files are read at once."""
        ...

    def entries(self) -> Sequence[Entry]:
        """Return every file, sorted by name; raise InvalidSourceError where there is none."""
        ...

    def read(self, entry: Entry, limit: int) -> bytes:
        """Return a file's content, of a file larger than `limit` bytes the first `limit` + 1.

        Raises:
            OSError: the file cannot be read, or is not what was listed.
        """
        ...


def is_candidate(name: str) -> bool:
    """Return whether a name may be a picture's: hidden files, folders and DVC's own are none."""
    hidden = any(part.startswith(".") and part != ".." for part in name.split("/"))
    return not hidden and not name.endswith(("/", ".dvc"))

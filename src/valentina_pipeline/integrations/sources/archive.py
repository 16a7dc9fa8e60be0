"""A zip as a source: members are read in place and never unpacked, so that no name can lead anywhere."""

import stat
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

from valentina_pipeline.integrations.sources.files import Entry, InvalidSourceError, is_candidate

MOST = 1_000_000
"""Members; a directory of more is an attack or a mistake."""

BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What zipfile raises on members that are damaged, encrypted or packed in ways it does not know."""


class ZipFile:
    """The members of a zip file."""

    remote = False

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def where(self) -> str:
        """The zip's path."""
        return str(self._path)

    def entries(self) -> list[Entry]:
        """Return the members; of two of one name, the second is called `name#2`."""
        try:
            members = self._opened().infolist()
        except FileNotFoundError as err:
            raise InvalidSourceError(
                f"{self._path} does not exist: put the zip there, or correct `source`"
            ) from err
        except (OSError, *BROKEN) as err:
            raise InvalidSourceError(f"{self._path} cannot be read as a zip ({err}): make it again") from err
        if len(members) > MOST:
            raise InvalidSourceError(
                f"{self._path} has {len(members):,} members, more than {MOST:,}: split it"
            )
        times: dict[str, int] = {}
        found = []
        for index, member in enumerate(members):
            times[member.filename] = times.get(member.filename, 0) + 1
            again = f"#{times[member.filename]}" if times[member.filename] > 1 else ""
            if not member.is_dir() and is_candidate(member.filename):
                version = f"{index}-{member.CRC:08x}-{member.file_size}"
                found.append(Entry(member.filename + again, version, member.file_size))
        if not found:
            raise InvalidSourceError(
                f"{self._path} is empty: put her portraits into it (JPEG, PNG, WebP, TIFF, HEIC)"
            )
        return sorted(found, key=lambda entry: entry.name)

    def read(self, entry: Entry, limit: int) -> bytes:
        """Return a member's content, at most `limit` + 1 bytes of it however small it is packed."""
        index = int(entry.version.partition("-")[0])
        try:
            opened = self._opened()
            member = opened.infolist()[index]
            if stat.S_ISLNK(member.external_attr >> 16):
                raise OSError(f"{entry.name} is a link")
            with opened.open(member) as file:
                return file.read(limit + 1)
        except BROKEN as err:
            raise OSError(f"{entry.name} cannot be unpacked: {err}") from err

    def _opened(self) -> zipfile.ZipFile:
        about = self._path.stat()
        return _directory(self._path, about.st_size, about.st_mtime_ns, about.st_ino)


@lru_cache(maxsize=1)
def _directory(path: Path, *_version: int) -> zipfile.ZipFile:
    """Return the zip, opened once a process: reading the directory of many members takes long."""
    return zipfile.ZipFile(path)

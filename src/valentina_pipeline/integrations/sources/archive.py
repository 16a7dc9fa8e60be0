"""Zip file as a source: members are read in place and never unpacked, so that their names are harmless."""

import stat
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

from valentina_pipeline.integrations.sources.files import Entry, InvalidSourceError, is_candidate

MAX_MEMBERS = 1_000_000
"""More members are an attack or a mistake."""

MEMBER_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
"""Errors of zipfile on damaged or encrypted members and unknown compression methods."""


class ZipFile:
    """Members of a zip file."""

    remote = False

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def where(self) -> str:
        """The zip's path."""
        return str(self._path)

    def entries(self) -> list[Entry]:
        """Return the members, sorted by name; the second of two equal names becomes `name#2`."""
        try:
            members = self._open().infolist()
        except FileNotFoundError as err:
            raise InvalidSourceError(
                f"{self._path} does not exist: create the zip, or correct `source`"
            ) from err
        except (OSError, *MEMBER_ERRORS) as err:
            raise InvalidSourceError(
                f"{self._path} cannot be read as a zip ({err}): create it again"
            ) from err
        if len(members) > MAX_MEMBERS:
            raise InvalidSourceError(
                f"{self._path} has {len(members):,} members, more than {MAX_MEMBERS:,}: split it"
            )
        counts: dict[str, int] = {}
        found = []
        for index, member in enumerate(members):
            counts[member.filename] = counts.get(member.filename, 0) + 1
            suffix = f"#{counts[member.filename]}" if counts[member.filename] > 1 else ""
            if not member.is_dir() and is_candidate(member.filename):
                version = f"{index}-{member.CRC:08x}-{member.file_size}"
                found.append(Entry(member.filename + suffix, version, member.file_size))
        if not found:
            raise InvalidSourceError(
                f"{self._path} has no images: add portraits of the character (JPEG, PNG, WebP, TIFF, HEIC)"
            )
        return sorted(found, key=lambda entry: entry.name)

    def read(self, entry: Entry, limit: int) -> bytes:
        """Return a member's content, at most `limit` + 1 bytes whatever its compression."""
        index = int(entry.version.partition("-")[0])
        try:
            archive = self._open()
            member = archive.infolist()[index]
            if stat.S_ISLNK(member.external_attr >> 16):
                raise OSError(f"{entry.name} is a link")
            with archive.open(member) as file:
                return file.read(limit + 1)
        except MEMBER_ERRORS as err:
            raise OSError(f"{entry.name} cannot be unpacked: {err}") from err

    def _open(self) -> zipfile.ZipFile:
        about = self._path.stat()
        return _directory(self._path, about.st_size, about.st_mtime_ns, about.st_ino)


@lru_cache(maxsize=1)
def _directory(path: Path, *_version: int) -> zipfile.ZipFile:
    """Return the zip, opened once per process: reading the directory of many members is slow."""
    return zipfile.ZipFile(path)

"""Where pictures come from: a folder or an s3:// prefix, listed and read the same way.

S3 takes its endpoint, region and credentials from the environment, as all AWS tools do
(AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, AWS_PROFILE, ...).
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif"})
"""What makes a folder or a link to one look like a picture, so that it gets a row in the report."""


class BadSource(ValueError):
    """A source cannot be listed, or holds nothing; the message says what to do."""


class Source(Protocol):
    """Files by name; names are relative posix paths, sorted."""

    @property
    def where(self) -> str:
        """The source, for messages."""
        ...

    def names(self) -> Sequence[str]:
        """Return every file's name; raise BadSource where there is none."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """Return a file's content, of a file larger than `limit` bytes the first `limit` + 1.

        Raises:
            OSError: the file cannot be read.
        """
        ...


def source(place: str, root: Path) -> Source:
    """Return the source at `place`: s3://bucket/prefix, or a folder, relative ones from `root`.

    Raises:
        BadSource: another kind of address.
    """
    if place.startswith("s3://"):
        return S3Prefix(place)
    if "://" in place:
        raise BadSource(f"source {place!r}: only a folder or s3://bucket/prefix can be read")
    return LocalFolder(root / place)


class LocalFolder:
    """The files of a folder and of the folders in it; hidden ones and DVC's own are no pictures."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def where(self) -> str:
        """The folder's path."""
        return str(self._folder)

    def names(self) -> list[str]:
        """Return the files, and what is no file but is named like a picture."""
        if not self._folder.is_dir():
            raise BadSource(
                f"{self._folder} is not a folder: create it and put her portraits there, "
                "or set `source` in her concept file to where they are"
            )
        found: list[str] = []
        for parent, folders, files in os.walk(self._folder, onerror=_cannot_list):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            odd = [f for f in folders if Path(f).suffix.lower() in SUFFIXES or Path(parent, f).is_symlink()]
            here = [Path(parent, name).relative_to(self._folder).as_posix() for name in (*files, *odd)]
            found += [name for name in here if _is_candidate(name)]
        if not found:
            raise BadSource(f"{self._folder} is empty: put her portraits there (JPEG, PNG, WebP or TIFF)")
        return sorted(found)

    def read(self, name: str, limit: int) -> bytes:
        """Return a regular file's content, at most `limit` + 1 bytes of it."""
        path = self._folder / name
        # before opening: a pipe would block for ever
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(f"{name} is a folder, a pipe or a device")
        with path.open("rb") as file:
            return file.read(limit + 1)


class S3Prefix:
    """The objects under an s3:// prefix."""

    def __init__(self, address: str) -> None:
        import s3fs

        self._prefix = address.removeprefix("s3://").strip("/")
        if not self._prefix:
            raise BadSource(f"source {address!r} names no bucket: s3://bucket/prefix")
        # no caches: what is listed is what is there
        self._files = s3fs.S3FileSystem(
            use_listings_cache=False,
            skip_instance_cache=True,
            config_kwargs={"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}},
        )
        self._sizes: dict[str, int] = {}

    @property
    def where(self) -> str:
        """The prefix's address."""
        return f"s3://{self._prefix}"

    def names(self) -> list[str]:
        """Return the objects' names below the prefix."""
        from botocore.exceptions import BotoCoreError

        try:
            found = self._files.find(self._prefix, detail=True)
        except FileNotFoundError as err:
            raise BadSource(f"{self.where}: no such bucket or prefix") from err
        except (OSError, BotoCoreError) as err:
            raise BadSource(
                f"{self.where} cannot be listed ({err}): check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION "
                "and the credentials in the environment"
            ) from err
        sizes = {key.removeprefix(f"{self._prefix}/"): int(info["size"]) for key, info in found.items()}
        self._sizes = {name: size for name, size in sizes.items() if _is_candidate(name)}
        if not self._sizes:
            raise BadSource(f"{self.where} holds no objects: upload her portraits there, or correct `source`")
        return sorted(self._sizes)

    def read(self, name: str, limit: int) -> bytes:
        """Return an object's content, at most `limit` + 1 bytes of it."""
        from botocore.exceptions import BotoCoreError

        if self._sizes.get(name) == 0:  # a range of nothing is an error to S3
            return b""
        try:
            content: bytes = self._files.cat_file(f"{self._prefix}/{name}", start=0, end=limit + 1)
        except BotoCoreError as err:
            raise OSError(str(err)) from err
        return content


def _is_candidate(name: str) -> bool:
    hidden = any(part.startswith(".") for part in name.split("/"))
    return not hidden and not name.endswith(("/", ".dvc"))


def _cannot_list(err: OSError) -> None:
    raise BadSource(f"{err.filename} cannot be listed ({err.strerror}): check its permissions") from err

"""Atomic writes, private folders, folder locks, and writing files that cannot leave their folder."""

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath

MAX_WRITE_SECONDS = 24 * 3600
"""Age from which a partial file counts as left by a killed process."""


def replace(path: Path, content: bytes, mode: int = 0o666, durable: bool = False) -> None:
    """Write a file atomically: no reader sees half of it, and several writers may run at once.

    Args:
        path: path of the file; its folder is created if necessary.
        content: content of the file.
        mode: permissions of the file, before the process's umask.
        durable: return only once the file is on the disk, so that it survives a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # a rename is on the disk once its folder is
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a unique path next to `path`; move it to `path` if the block succeeds, else remove it.

    The first call for a folder also removes partial files that killed processes left in it.
    """
    _remove_leftovers(path.parent)
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")  # short: a name has at most 255 bytes
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        _remove(partial)
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that replaces the folder `path` if the block succeeds."""
    partial, former = (path.with_name(f".{path.name}.{state}") for state in ("partial", "former"))
    for leftover in (partial, former):  # left by a killed run
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if path.exists():
        path.rename(former)  # a folder cannot be renamed onto one that holds files
    partial.rename(path)
    shutil.rmtree(former, ignore_errors=True)


@lru_cache(maxsize=1024)  # once for each folder: a server's holds thousands of files
def _remove_leftovers(folder: Path) -> None:
    oldest = time.time() - MAX_WRITE_SECONDS
    for leftover in folder.glob(f".{'[0-9a-f]' * 16}.partial"):
        with suppress(OSError):  # another process removes it, too
            if leftover.lstat().st_mtime < oldest:
                _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def private(folder: Path) -> Path:
    """Return a folder that only its owner may enter; create it if necessary."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(OSError):  # the owner is somebody else, such as for a mounted secret: keep its mode
        folder.chmod(0o700)  # an existing folder may have another mode
    return folder


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes of this project inside the block."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)  # not a file in it, because files are replaced
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write(files: Mapping[str, bytes | Path], folder: Path) -> None:
    """Write files into an existing folder, given as relative path -> content or file to copy.

    Raises:
        ValueError: a path could leave the folder.
    """
    for name, content in sorted(files.items()):
        if not stays_inside(name):
            raise ValueError(f"{name!r} is not a plain relative path: it could leave its folder")
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            shutil.copyfile(content, file)


def stays_inside(name: str) -> bool:
    """Return True if a name is a plain relative path, which cannot leave its folder."""
    plain = PurePosixPath(name)
    return (
        bool(name)
        and plain.as_posix() == name
        and not plain.is_absolute()
        and not {"..", "."} & set(plain.parts)
        and "\\" not in name
    )

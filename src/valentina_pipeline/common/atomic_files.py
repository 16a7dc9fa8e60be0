"""Files written whole or not at all, and folders of them that nothing leaves."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath


def replace(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Have the file hold `content`, so that nobody ever reads half of it, and several may do so at once.

    Args:
        path: of the file, whose folder is made where there is none.
        content: of the file.
        mode: who may read and write it; less what the process's umask takes away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        made = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(made, "wb") as opened:
            opened.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside `path`, nobody else's, for what takes its place when the block ends well."""
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")  # short: a name has at most 255 bytes
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
        raise


def private(folder: Path) -> Path:
    """Return a folder that its owner alone may enter, made where there is none."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(OSError):  # another's, such as a mounted secret: who may enter is up to them
        folder.chmod(0o700)  # it may have been there before
    return folder


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes of this project out of the block, for the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)  # in place of its files, which are replaced
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def write(files: Mapping[str, bytes | Path], folder: Path) -> None:
    """Write relative path -> content, or a file to copy, into `folder`, which exists.

    Raises:
        ValueError: a path that is not plainly inside the folder.
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
    """Return whether a name is a plain relative path, which cannot leave its folder."""
    plain = PurePosixPath(name)
    return (
        bool(name)
        and plain.as_posix() == name
        and not plain.is_absolute()
        and not {"..", "."} & set(plain.parts)
        and "\\" not in name
    )

"""A folder written from a mapping of its files, none of which may leave it."""

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath


def write(files: Mapping[str, bytes | Path], folder: Path) -> None:
    """Write relative path -> content, or a file to copy, into `folder`, which exists.

    Raises:
        ValueError: a path that is not plainly inside the folder.
    """
    for name, content in sorted(files.items()):
        if not _stays_inside(name):
            raise ValueError(f"{name!r} is not a plain relative path: it could leave its folder")
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            shutil.copyfile(content, file)


def _stays_inside(name: str) -> bool:
    plain = PurePosixPath(name)
    return (
        bool(name)
        and plain.as_posix() == name
        and not plain.is_absolute()
        and not {"..", "."} & set(plain.parts)
        and "\\" not in name
    )

"""Files written whole or not at all, and folders of them that nothing leaves."""

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath


def replace(path: Path, content: bytes) -> None:
    """Have the file hold `content`: written beside, then renamed, so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


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

"""Checksums of a package: SHA256SUMS lists every other file."""

from collections.abc import Mapping
from pathlib import Path

from valentina_pipeline.domain.artifacts import sha256

SUMS_FILE = "SHA256SUMS"


class DamagedPackageError(ValueError):
    """The files of a package differ from its SHA256SUMS."""


def sha256sums(files: Mapping[str, bytes | Path]) -> bytes:
    """Return SHA256SUMS of these files, as `sha256sum --check` reads it."""
    lines = (f"{sha256(content)}  {name}\n" for name, content in sorted(files.items()))
    return "".join(lines).encode()


def listed_names(sums: str) -> set[str]:
    """Return the names that a text of the form of SHA256SUMS lists."""
    return {line.partition("  ")[2] for line in sums.splitlines()}


def checked_files(folder: Path) -> dict[str, Path]:
    """Return a package's files by relative path, SHA256SUMS included.

    Raises:
        DamagedPackageError: a file is missing, changed or not listed.
    """
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    sums = sha256sums({name: file for name, file in files.items() if name != SUMS_FILE})
    if SUMS_FILE not in files or files[SUMS_FILE].read_bytes() != sums:
        raise DamagedPackageError(
            f"the files of {folder} differ from its {SUMS_FILE}: run `uv run dvc checkout` to restore them"
        )
    return files

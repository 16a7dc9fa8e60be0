"""Outputs of stages by their md5, from DVC's cache of this project."""

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from valentina_pipeline.integrations.run_inputs import run_command

COMMAND_SECONDS = 60.0
"""Timeout of the command that prints the cache's folder."""

FOLDER_SUFFIX = ".dir"
"""End of a folder's md5, which names a list of the folder's files."""


def read_output(root: Path, path: str, md5: str) -> bytes | None:
    """Return an output file's content from the cache or the working tree; None where neither has it.

    Args:
        root: the project.
        path: path of the output in the project.
        md5: md5 of the content, which is checked.
    """
    for file in (_cache_folder(root) / md5[:2] / md5[2:], root / path):
        try:
            content = file.read_bytes()
        except OSError:
            continue
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(FOLDER_SUFFIX):
            return content
    return None


def list_folder(root: Path, path: str, md5: str) -> Iterator[tuple[str, str]]:
    """Yield the relative path and md5 of each file in an output folder; nothing where the cache lacks it."""
    listing = read_output(root, path, md5)
    for entry in json.loads(listing) if listing is not None else ():
        yield entry["relpath"], entry["md5"]


@lru_cache(maxsize=1)
def _cache_folder(root: Path) -> Path:
    printed = run_command(root, "dvc", "cache", "dir", seconds=COMMAND_SECONDS).strip()
    return Path(printed or root / ".dvc/cache") / "files/md5"

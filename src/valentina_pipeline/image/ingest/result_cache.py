"""Cache of screening results: an interrupted run resumes, and unchanged images are not read again."""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valentina_pipeline.common import atomic_files


@dataclass(frozen=True)
class CachedImage:
    """An accepted image: its manifest fields, and the path of its PNG."""

    facts: dict[str, Any]
    path: Path


class ResultCache:
    """Outcomes by key, and PNG files by sha256, in one folder. Delete the folder to clear the cache.

    Args:
        folder: created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._rows = _open_database(folder / "outcomes.sqlite")

    def get(self, key: str) -> CachedImage | tuple[str, str] | None:
        """Return an image, or a rejection's (reason, detail), or None if unknown or its file has changed."""
        row = self._rows.execute("SELECT outcome FROM outcomes WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        outcome = json.loads(row[0])
        if "reason" in outcome:
            return outcome["reason"], outcome["detail"]
        path = self._path(outcome["facts"]["sha256"])
        return CachedImage(outcome["facts"], path) if _stamp(path) == outcome["stamp"] else None

    def reject(self, key: str, reason: str, detail: str) -> None:
        """Store the rejection of an image."""
        self._put(key, {"reason": reason, "detail": detail})

    def keep(self, key: str, facts: dict[str, Any], content: bytes) -> CachedImage:
        """Write an image's file, named by `facts["sha256"]`, and store its outcome if `key` is not empty."""
        path = self._path(facts["sha256"])
        # do not rewrite a duplicate's file: another outcome stores its modification time
        if not (path.is_file() and path.read_bytes() == content):
            atomic_files.replace(path, content)
        self._put(key, {"facts": facts, "stamp": _stamp(path)})
        return CachedImage(facts, path)

    def forget_all_but(self, keys: Iterable[str], names: Iterable[str]) -> None:
        """Delete outcomes whose key is not in `keys`, and files whose sha256 is not in `names`."""
        self._rows.execute("CREATE TEMP TABLE used (key TEXT PRIMARY KEY)")
        self._rows.executemany("INSERT OR IGNORE INTO used VALUES (?)", ((key,) for key in keys))
        self._rows.execute("DELETE FROM outcomes WHERE key NOT IN (SELECT key FROM used)")
        self._rows.execute("DROP TABLE used")
        self._rows.commit()
        kept = {f"{name}.png" for name in names}
        for file in self._folder.glob("??/*"):
            if file.name not in kept:
                file.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the database."""
        self._rows.close()

    def _put(self, key: str, outcome: dict[str, Any]) -> None:
        if not key:
            return
        self._rows.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?)", (key, json.dumps(outcome)))
        self._rows.commit()  # if the process is killed, only the current image is lost

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / f"{sha256}.png"


def _open_database(file: Path) -> sqlite3.Connection:
    """Open the database; replace a file that is corrupt, such as after a power failure."""
    for attempt in range(2):
        rows = sqlite3.connect(file)
        try:
            rows.execute("PRAGMA journal_mode = WAL")
            rows.execute("PRAGMA synchronous = NORMAL")  # do not wait for the disk after each image
            rows.execute("CREATE TABLE IF NOT EXISTS outcomes (key TEXT PRIMARY KEY, outcome TEXT NOT NULL)")
            return rows
        except sqlite3.DatabaseError:
            rows.close()
            if attempt:
                raise
            file.unlink()
    raise AssertionError


def _stamp(path: Path) -> str:
    with suppress(OSError):
        stat = path.stat()
        return f"{stat.st_size}-{stat.st_mtime_ns}"
    return ""

"""What was made of each picture before: a killed run goes on, and what did not change is not read again."""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CachedImage:
    """A picture that passed: what is known of it, and its PNG's file."""

    facts: dict[str, Any]
    path: Path


class ResultCache:
    """Outcomes by key, and PNG files by sha256, in a folder that `rm -r` makes forget.

    Args:
        folder: made where it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._rows = _opened(folder / "outcomes.sqlite")

    def get(self, key: str) -> CachedImage | tuple[str, str] | None:
        """Return a picture, a rejection's reason and detail, or None: not known, or its file has changed."""
        found = self._rows.execute("SELECT outcome FROM outcomes WHERE key = ?", (key,)).fetchone()
        if found is None:
            return None
        outcome = json.loads(found[0])
        if "reason" in outcome:
            return outcome["reason"], outcome["detail"]
        path = self._path(outcome["facts"]["sha256"])
        return CachedImage(outcome["facts"], path) if _stamp(path) == outcome["stamp"] else None

    def reject(self, key: str, reason: str, detail: str) -> None:
        """Remember that a picture was refused."""
        self._put(key, {"reason": reason, "detail": detail})

    def keep(self, key: str, facts: dict[str, Any], content: bytes) -> CachedImage:
        """Store a picture named by its `sha256` in `facts`, and remember it, if it has a key."""
        path = self._path(facts["sha256"])
        path.parent.mkdir(exist_ok=True)
        if not (path.is_file() and path.read_bytes() == content):  # a copy's: its time is in another outcome
            partial = path.with_suffix(".partial")
            partial.write_bytes(content)
            partial.replace(path)
        self._put(key, {"facts": facts, "stamp": _stamp(path)})
        return CachedImage(facts, path)

    def forget_all_but(self, keys: Iterable[str], names: Iterable[str]) -> None:
        """Forget what is not among these keys, and remove files whose sha256 is not among `names`."""
        self._rows.execute("CREATE TEMP TABLE used (key TEXT PRIMARY KEY)")
        self._rows.executemany("INSERT OR IGNORE INTO used VALUES (?)", ((key,) for key in keys))
        self._rows.execute("DELETE FROM outcomes WHERE key NOT IN (SELECT key FROM used)")
        self._rows.execute("DROP TABLE used")
        self._rows.commit()
        wanted = {f"{name}.png" for name in names}
        for file in self._folder.glob("??/*"):
            if file.name not in wanted:
                file.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the table."""
        self._rows.close()

    def _put(self, key: str, outcome: dict[str, Any]) -> None:
        if not key:
            return
        self._rows.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?)", (key, json.dumps(outcome)))
        self._rows.commit()  # a kill costs what was being worked on, and no more

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / f"{sha256}.png"


def _opened(file: Path) -> sqlite3.Connection:
    """Return the table; a file that is none, as a crash of the machine may leave it, is begun again."""
    for attempt in range(2):
        rows = sqlite3.connect(file)
        try:
            rows.execute("PRAGMA journal_mode = WAL")
            rows.execute("PRAGMA synchronous = NORMAL")  # no wait for the disk at each picture
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
        about = path.stat()
        return f"{about.st_size}-{about.st_mtime_ns}"
    return ""

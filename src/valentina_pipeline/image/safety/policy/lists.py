"""Lists of words that lie in data/ as text files."""

import re
from functools import lru_cache
from pathlib import Path

DATA = Path(__file__).with_name("data")


@lru_cache(maxsize=8)
def sections(name: str) -> dict[str, list[str]]:
    """Return the lines of a file's sections, without comments; `[name]` begins a section."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for written in (DATA / name).read_text("utf-8").splitlines():
        line = written.partition("#")[0].strip()
        if re.fullmatch(r"\[\w+\]", line):
            current = found.setdefault(line.strip("[]"), [])
        elif line:
            current.append(line)
    return found


def words(section: str) -> frozenset[str]:
    """Return a section of sets.txt; _ in it stands for a space."""
    return frozenset(
        word.replace("_", " ") for line in sections("sets.txt")[section] for word in line.split()
    )

"""Programs that some tests drive: one that is missing is said, and in CI it is a failure."""

import os
import shutil
from pathlib import Path

import pytest

INSTALL = {
    "npm": "install Node.js",
    "npx": "install Node.js",
    "chromium": "install Chromium, such as Debian's package chromium",
    "initdb": "install PostgreSQL, such as Debian's package postgresql",
    "postgres": "install PostgreSQL, such as Debian's package postgresql",
}


def program(name: str) -> str:
    """Return a program's path; Debian keeps PostgreSQL's out of PATH."""
    if found := shutil.which(name) or next(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None):
        return found
    said = f"{name} is missing: {INSTALL[name]} (.ci/run does)"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)

"""Programs that some tests drive: one that is missing is said, and in CI it is a failure."""

import os
import shutil

import pytest

INSTALL = {"npx": "install Node.js", "chromium": "install Chromium, such as Debian's package chromium"}


def program(name: str) -> str:
    """Return a program's path."""
    if found := shutil.which(name):
        return found
    said = f"{name} is missing: {INSTALL[name]} (.ci/run does)"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)

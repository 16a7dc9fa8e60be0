"""Tracker interface of a stage; outside a tracked run it does nothing.

Separate from integrations/mlflow.py, so that edits there do not change the code that training imports.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL import Image


class Tracker(Protocol):
    """Tracked run of a stage."""

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Log metrics, of a step or once (None)."""

    def image(self, name: str, image: "Image.Image", step: int) -> None:
        """Log an image of a step."""

    def file(self, path: Path) -> None:
        """Log a file under its name."""


class NullTracker:
    """Tracker that does nothing."""

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Do nothing."""

    def image(self, name: str, image: "Image.Image", step: int) -> None:
        """Do nothing."""

    def file(self, path: Path) -> None:
        """Do nothing."""


_tracker: Tracker = NullTracker()


def current_tracker() -> Tracker:
    """Return the tracker of the stage that is running in this process."""
    return _tracker


def set_tracker(tracker: Tracker | None) -> None:
    """Set the tracker that `current_tracker` returns; None sets a `NullTracker`."""
    global _tracker
    _tracker = tracker or NullTracker()

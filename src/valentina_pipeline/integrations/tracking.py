"""What a stage sees of tracking: a tracker to log to, which does nothing outside a tracked run.

Apart from integrations/mlflow.py, so that an edit there is no edit of what a training imports.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL import Image


class Tracker(Protocol):
    """The tracked run of a stage."""

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Log figures, of a step or once."""

    def image(self, name: str, image: "Image.Image", step: int) -> None:
        """Log an image of a step."""

    def file(self, path: Path) -> None:
        """Log a file under its name."""


class NullTracker:
    """A tracker outside a tracked run."""

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
    """Let `current_tracker` return this tracker; None: one that does nothing."""
    global _tracker
    _tracker = tracker or NullTracker()

"""Where models lie, and the one error for one that is not at hand: nothing is ever downloaded silently."""

from pathlib import Path


class MissingModel(RuntimeError):
    """A model's weights are not on this machine; the message says which, its licence and how to get it."""

    def __init__(self, model: str, licence: str, obtain: str) -> None:
        super().__init__(model, licence, obtain)  # as given: workers pickle it
        self.model = model
        self.licence = licence
        self.obtain = obtain

    def __str__(self) -> str:
        return f"{self.model} is not on this machine (licence: {self.licence}). To get it: {self.obtain}"


def located(path: str, root: Path) -> str:
    """Return what is there below `root` as an absolute path; other values are names that loaders know."""
    return str(root / path) if (root / path).exists() else path

"""Where models lie, and the one error for one that is not at hand: nothing is ever downloaded silently."""

from pathlib import Path


class MissingModelError(RuntimeError):
    """A model's weights are not on this machine; the message says which, its licence and how to get it."""

    def __init__(self, model: str, licence: str, obtain: str) -> None:
        super().__init__(model, licence, obtain)  # as given: workers pickle it
        self.model = model
        self.licence = licence
        self.obtain = obtain

    def __str__(self) -> str:
        return f"{self.model} is not on this machine (licence: {self.licence}). To get it: {self.obtain}"


HUB_PATTERNS = ("*.json", "*.txt", "*.csv", "*.model", "*.jinja", "*.safetensors")
"""Files of a hub repository that are read; it often carries several gigabytes of other formats."""


def download_command(model: str) -> str:
    """Return the shell command that fetches what is read of a hub repository, and no more."""
    return " ".join([f"hf download {model}", *(f'--include "{pattern}"' for pattern in HUB_PATTERNS)])


def missing_hub_model(kind: str, model: str, licence: str, key: str) -> MissingModelError:
    """Return the error for a hub model or a folder that is not there or is incomplete.

    Args:
        kind: the model's task, as in "the upscaler".
        model: hub id or folder.
        licence: its license.
        key: the parameter that names it, as in "ingest.upscale".
    """
    obtain = f"`{download_command(model)}`, or set {key} to a folder that holds such a model"
    return MissingModelError(f"{kind} {model}", licence, obtain)


def has_hub_model(model: str) -> bool:
    """Return whether the configuration and weights of a hub id or folder are on this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    folder = Path(model)
    if not folder.is_dir():
        try:
            cached = try_to_load_from_cache(model, "config.json")
        except HFValidationError:
            return False
        if not isinstance(cached, str):
            return False
        folder = Path(cached).parent
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def resolve_path(path: str, root: Path) -> str:
    """Return what is there below `root` as an absolute path; other values are names that loaders know."""
    return str(root / path) if (root / path).exists() else path

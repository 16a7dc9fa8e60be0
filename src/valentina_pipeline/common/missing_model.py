"""Find models on this machine, and raise an error for a missing one; nothing is downloaded implicitly."""

from pathlib import Path


class MissingModelError(RuntimeError):
    """A model's weights are not on this machine; the message gives its license and how to get it."""

    def __init__(self, model: str, license: str, download_instructions: str) -> None:
        super().__init__(model, license, download_instructions)  # pickle rebuilds the error from these
        self.model = model
        self.license = license
        self.download_instructions = download_instructions

    def __str__(self) -> str:
        return (
            f"{self.model} is not on this machine (license: {self.license}). "
            f"To get it: {self.download_instructions}"
        )


HUB_PATTERNS = ("*.json", "*.txt", "*.csv", "*.model", "*.jinja", "*.safetensors")
"""Files of a hub repository that are used; other formats often add several gigabytes."""


def download_command(model: str) -> str:
    """Return the shell command that downloads only the used files of a hub repository."""
    return " ".join([f"hf download {model}", *(f'--include "{pattern}"' for pattern in HUB_PATTERNS)])


def missing_hub_model(kind: str, model: str, license: str, key: str) -> MissingModelError:
    """Return the error for a missing or incomplete hub model or folder.

    Args:
        kind: use of the model in messages, such as "the upscaler".
        model: hub id or folder.
        license: license of the model.
        key: parameter that names the model, such as "ingest.upscale_model".
    """
    download_instructions = f"`{download_command(model)}`, or set {key} to a folder that holds such a model"
    return MissingModelError(f"{kind} {model}", license, download_instructions)


def has_hub_model(model: str) -> bool:
    """Return True if the configuration and weights of a hub id or folder are on this machine."""
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
    """Return an existing path below `root` as an absolute path; return others, such as hub ids, as is."""
    return str(root / path) if (root / path).exists() else path

"""Files by their content: the name that their sha256 is, and which of a training's files draws."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

LORA_FILE = "pytorch_lora_weights.safetensors"
"""A LoRA's name in diffusers' format."""

FACES_FILE = "faces.safetensors"
"""In a package: the weights of its face embedder, where they travel with it."""

REVOKED_FILE = "REVOKED.json"
"""In a package: rights that it stands on were taken back, and why."""

UNMEASURED = {"status": "not measured"}
"""In a package: what its files of figures say where the LoRA came without pictures to measure it on."""


def sha256(content: bytes | Path) -> str:
    """Return the sha256 of bytes or of a file, in hex."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_sha256(file: Path) -> str:
    """Return the sha256 over the tensors of a safetensors file, whatever its metadata says.

    Each tensor counts by its name, type, shape and bytes, in the order of the names.
    """
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        tensors = json.loads(opened.read(size))
        tensors.pop("__metadata__", None)
        total = hashlib.sha256()
        for name in sorted(tensors):
            begin, end = tensors[name].pop("data_offsets")
            total.update(json.dumps([name, tensors[name]], sort_keys=True).encode())
            opened.seek(8 + size + begin)
            total.update(opened.read(end - begin))
    return total.hexdigest()


def primary_weights(files: Iterable[Path]) -> Path:
    """Return which of train_lora's files draws: the LoRA, or the first of what else was learned."""
    learned = (file for file in files if file.suffix == ".safetensors")
    return min(learned, key=lambda file: (file.name != LORA_FILE, file.name))

"""Artifacts: sha256 of files and tensors, names of files in a package, and the main file of a LoRA."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

LORA_FILE = "pytorch_lora_weights.safetensors"
"""File name of a LoRA in diffusers' format."""

FACES_FILE = "faces.safetensors"
"""In a package: the weights of its face embedder, if bundled."""

REVOKED_FILE = "REVOKED.json"
"""In a package: its rights were revoked, and why."""

UNMEASURED = {"status": "not measured"}
"""In a package: content of its metrics files if the LoRA came without reference images."""


def sha256(content: bytes | Path) -> str:
    """Return the sha256 of bytes or of a file, in hex."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_sha256(file: Path) -> str:
    """Return the sha256 over the tensors of a safetensors file; its metadata does not count.

    Each tensor counts by name, type, shape and bytes, in the order of the names.
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
    """Return train_lora's main file: the LoRA, or the first other file of weights by name."""
    candidates = (file for file in files if file.suffix == ".safetensors")
    return min(candidates, key=lambda file: (file.name != LORA_FILE, file.name))

"""Disk cache of frozen networks' outputs for images and captions, keyed by a hash of all their inputs."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.common import atomic_files

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


@dataclass(frozen=True)
class Cache:
    """Cache files named by a hash of their inputs; a new caption, crop, base model or code has a new file.

    Attributes:
        folder: folder of the files; several runs may share it, because files are written atomically and equal
            names have equal content. None caches nothing.
        about: inputs that all files depend on: base weights, dtype, device, threads, versions, code.
    """

    folder: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def get(self, of: str, compute: "Callable[[], dict[str, Tensor]]") -> "dict[str, Tensor]":
        """Return the tensors for key `of` from the cache, or compute and store them.

        A damaged file is computed again.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load, save

        if self.folder is None:
            return compute()
        key = hashlib.sha256(json.dumps([dict(self.about), of], sort_keys=True).encode()).hexdigest()
        path = self.folder / key[:2] / f"{key}.safetensors"
        try:
            return load(path.read_bytes())
        except (FileNotFoundError, SafetensorError):
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in compute().items()}
        atomic_files.replace(path, save(tensors))
        return tensors

    def image(self, of: str, draw: "Callable[[], list[Image.Image]]") -> "Image.Image":
        """Return the RGB image for key `of` from the cache, or generate and store the one of `draw`."""
        import numpy as np
        import torch
        from PIL import Image

        def pixels() -> "dict[str, Tensor]":
            return {"rgb": torch.from_numpy(np.array(draw()[0].convert("RGB")))}

        return Image.fromarray(self.get(of, pixels)["rgb"].numpy())


NO_CACHE = Cache()

"""What frozen networks make of a picture or a caption, kept between runs under all that it depends on."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


@dataclass(frozen=True)
class Cache:
    """Files named by a hash of their inputs: a changed caption, crop, base or code is another file.

    Attributes:
        folder: of any number of runs at once: files appear whole, and those of one name are alike. None: keep
            nothing.
        about: what all of them depend on: base weights, dtype, device, threads, versions, code.
    """

    folder: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def get(self, of: str, compute: "Callable[[], dict[str, Tensor]]") -> "dict[str, Tensor]":
        """Return what `compute` makes of `of`, from its file where there is one.

        A file that cannot be read is made again.
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
            made = {name: tensor.detach().cpu().contiguous() for name, tensor in compute().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.partial")
        beside.write_bytes(save(made))
        beside.replace(path)
        return made

    def image(self, of: str, draw: "Callable[[], list[Image.Image]]") -> "Image.Image":
        """Return the one RGB picture that `draw` makes of `of`, from its file where there is one."""
        import numpy as np
        import torch
        from PIL import Image

        def pixels() -> "dict[str, Tensor]":
            return {"rgb": torch.from_numpy(np.array(draw()[0].convert("RGB")))}

        return Image.fromarray(self.get(of, pixels)["rgb"].numpy())


NO_CACHE = Cache()

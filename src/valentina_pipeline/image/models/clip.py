"""CLIP through open_clip: pictures and texts as unit vectors in one space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from valentina_pipeline.common.missing_model import MissingModelError

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["tiny", "open_clip"]

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"

PUBLISHED = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""Names of the weights in open_clip's repositories on the hub; pickles are not read."""

AT_ONCE = 32


@dataclass(frozen=True)
class Clip:
    """A CLIP model on the CPU, with the preprocessing that it was trained with.

    Attributes:
        model: open_clip's, in eval mode.
        preprocess: an RGB picture -> float32 (3, size, size).
        tokenizer: texts -> int64 (n, 77).
    """

    model: Any
    preprocess: Callable[[Image.Image], "Tensor"]
    tokenizer: Callable[[list[str]], "Tensor"]

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return float32 (n, d), each of norm 1."""
        import torch

        return self._encoded(
            list(images),
            lambda part: self.model.encode_image(
                torch.stack([self.preprocess(image.convert("RGB")) for image in part]), normalize=True
            ),
        )

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 (n, d), each of norm 1."""
        return self._encoded(
            list(texts), lambda part: self.model.encode_text(self.tokenizer(part), normalize=True)
        )

    def _encoded(self, items: list[Any], encode: "Callable[[list[Any]], Tensor]") -> np.ndarray:
        import torch

        if not items:
            raise ValueError("nothing to encode with CLIP")
        with torch.inference_mode():
            parts = [encode(items[start : start + AT_ONCE]) for start in range(0, len(items), AT_ONCE)]
        return torch.cat(parts).float().numpy()


def load_clip(kind: Kind, path: str | Path) -> Clip:
    """Load a CLIP model.

    Args:
        kind: "tiny" or "open_clip".
        path: for tiny a folder in open_clip's layout; for open_clip such a folder, or
            "ViT-B-32/laion2b_s34b_b79k" (architecture/tag), whose weights are in the hub's local cache.

    Raises:
        MissingModelError: the weights are not on this machine; they are never downloaded silently.
        ValueError: open_clip knows no such architecture and tag.
    """
    file = require_clip(kind, path)
    if kind == "open_clip" and not (Path(path) / CONFIG).is_file():
        return _published(str(path), file)
    return _clip(f"local-dir:{path}", {})


def require_clip(kind: Kind, path: str | Path) -> Path:
    """Return the file of a CLIP model's weights without reading it; see `load_clip`."""
    folder = Path(path)
    if kind == "open_clip" and not (folder / CONFIG).is_file():
        return _cached(str(path), _published_config(str(path))["hf_hub"].split("/")[:2])
    if not ((folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()):
        raise MissingModelError(
            f"the tiny CLIP ({folder})", "Apache-2.0", "`git checkout -- tiny/weights` brings it back"
        )
    return folder / WEIGHTS


def _published_config(path: str) -> dict[str, Any]:
    import open_clip

    architecture, _, tag = path.partition("/")
    known = open_clip.get_pretrained_cfg(architecture, tag)
    if not known or not known.get("hf_hub"):
        raise ValueError(f"open_clip has no model {path!r} on the hub: see open_clip.list_pretrained()")
    return dict(known)


def _published(path: str, weights: Path) -> Clip:
    """Return one of open_clip's published models, whose weights are in the hub's cache."""
    known = _published_config(path)
    options = {
        "pretrained": str(weights),
        "force_quick_gelu": bool(known.get("quick_gelu", False)),
        "image_mean": known.get("mean"),
        "image_std": known.get("std"),
        "image_interpolation": known.get("interpolation"),
        "image_resize_mode": known.get("resize_mode"),
    }
    return _clip(path.partition("/")[0], options)


def _cached(path: str, repository: list[str]) -> Path:
    from huggingface_hub import try_to_load_from_cache

    name = "/".join(repository)
    for file in PUBLISHED:
        found = try_to_load_from_cache(name, file)
        if isinstance(found, str):
            return Path(found)
    raise MissingModelError(
        f"CLIP {path} ({name})",
        "MIT; see the model's page",
        f"`hf download {name} {PUBLISHED[0]}`, or set `clip.path` in conf/base/bases.yml to a folder "
        f"with {CONFIG} and {WEIGHTS}",
    )


def _clip(name: str, options: dict[str, Any]) -> Clip:
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(name, **options)
    return Clip(model.eval(), preprocess, open_clip.get_tokenizer(name))

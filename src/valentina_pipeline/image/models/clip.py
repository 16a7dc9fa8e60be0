"""CLIP through open_clip: embed images and texts as unit vectors in one space."""

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
"""File names of the weights in open_clip's hub repositories; pickles are not read."""

BATCH_SIZE = 32


@dataclass(frozen=True)
class Clip:
    """CLIP model on the CPU, with the preprocessing of its training.

    Attributes:
        model: open_clip's model in eval mode.
        preprocess: RGB image -> float32 (3, size, size).
        tokenizer: texts -> int64 (n, 77).
    """

    model: Any
    preprocess: Callable[[Image.Image], "Tensor"]
    tokenizer: Callable[[list[str]], "Tensor"]

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return image embeddings, float32 (n, d) of norm 1."""
        import torch

        return self._encode(
            list(images),
            lambda part: self.model.encode_image(
                torch.stack([self.preprocess(image.convert("RGB")) for image in part]), normalize=True
            ),
        )

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return text embeddings, float32 (n, d) of norm 1."""
        return self._encode(
            list(texts), lambda part: self.model.encode_text(self.tokenizer(part), normalize=True)
        )

    def _encode(self, items: list[Any], encode: "Callable[[list[Any]], Tensor]") -> np.ndarray:
        import torch

        if not items:
            raise ValueError("CLIP needs at least one image or text")
        with torch.inference_mode():
            parts = [encode(items[start : start + BATCH_SIZE]) for start in range(0, len(items), BATCH_SIZE)]
        return torch.cat(parts).float().numpy()


def load_clip(kind: Kind, path: str | Path) -> Clip:
    """Load a CLIP model.

    Args:
        kind: "tiny" or "open_clip".
        path: folder in open_clip's layout; for open_clip also an architecture and tag such as
            "ViT-B-32/laion2b_s34b_b79k", with weights in the hub's local cache.

    Raises:
        MissingModelError: the weights are not on this machine; they are never downloaded implicitly.
        ValueError: open_clip does not know the architecture and tag.
    """
    file = require_clip(kind, path)
    if kind == "open_clip" and not (Path(path) / CONFIG).is_file():
        return _load_published(str(path), file)
    return _create_clip(f"local-dir:{path}", {})


def require_clip(kind: Kind, path: str | Path) -> Path:
    """Return the path of a CLIP model's weights without reading them; see `load_clip`."""
    folder = Path(path)
    if kind == "open_clip" and not (folder / CONFIG).is_file():
        return _find_cached(str(path), _published_config(str(path))["hf_hub"].split("/")[:2])
    if not ((folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()):
        raise MissingModelError(
            f"the tiny CLIP ({folder})", "Apache-2.0", "`git checkout -- tiny/weights` restores it"
        )
    return folder / WEIGHTS


def _published_config(path: str) -> dict[str, Any]:
    import open_clip

    architecture, _, tag = path.partition("/")
    config = open_clip.get_pretrained_cfg(architecture, tag)
    if not config or not config.get("hf_hub"):
        raise ValueError(f"open_clip has no model {path!r} on the hub: see open_clip.list_pretrained()")
    return dict(config)


def _load_published(path: str, weights: Path) -> Clip:
    """Load a published model of open_clip from weights in the hub's cache."""
    config = _published_config(path)
    options = {
        "pretrained": str(weights),
        "force_quick_gelu": bool(config.get("quick_gelu", False)),
        "image_mean": config.get("mean"),
        "image_std": config.get("std"),
        "image_interpolation": config.get("interpolation"),
        "image_resize_mode": config.get("resize_mode"),
    }
    return _create_clip(path.partition("/")[0], options)


def _find_cached(path: str, repository: list[str]) -> Path:
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


def _create_clip(name: str, options: dict[str, Any]) -> Clip:
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(name, **options)
    return Clip(model.eval(), preprocess, open_clip.get_tokenizer(name))

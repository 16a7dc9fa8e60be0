"""Face embeddings: identity vectors of face crops."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.common.threads import one_thread

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["tiny", "facenet"]

LEFT_EYE, RIGHT_EYE, NOSE, LEFT_MOUTH, RIGHT_MOUTH = range(5)
"""Landmark indices in MTCNN's order; left and right are the viewer's."""

VGGFACE2 = "20180402-114759-vggface2.pt"

VGGFACE2_URL = f"https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/{VGGFACE2}"


@dataclass(frozen=True)
class FaceEmbedder:
    """A face embedding network with its preprocessing.

    Attributes:
        size: width and height in pixels of its input crops, see `face_crop`.
        network: float32 (n, 3, size, size), scaled -> float32 (n, d), norm 1.
        scale: divisor of the pixel values after 127.5 is subtracted.
    """

    size: int
    network: Callable[["Tensor"], "Tensor"]
    scale: float

    def embed(self, crops: Sequence[Image.Image]) -> np.ndarray:
        """Return the identity vectors of the crops, float32 (n, d), each of norm 1.

        Crops of another size are resized.
        """
        import torch

        if not crops:
            raise ValueError("no face crops to embed")
        same = [c if c.size == (self.size,) * 2 else c.resize((self.size,) * 2) for c in crops]
        pixels = torch.from_numpy(np.stack([np.asarray(crop.convert("RGB")) for crop in same]))
        inputs = (pixels.permute(0, 3, 1, 2).to(torch.float32) - 127.5) / self.scale
        with one_thread(), torch.inference_mode():
            # one by one: a vector must not depend on the other crops of a batch
            return torch.cat([self.network(crop) for crop in inputs.split(1)]).numpy()


def load_face_embedder(kind: Kind, path: str | Path) -> FaceEmbedder:
    """Load a face embedding network.

    Args:
        kind: "tiny" (FaceNetTiny, 128 dimensions) or "facenet" (InceptionResnetV1, 512 dimensions).
        path: weights file; for facenet also "vggface2", the published weights in torch's cache.

    Raises:
        MissingModelError: the weights are not on this machine; they are never downloaded implicitly.
    """
    return _LOADERS[kind](str(path))


def require_embedder(kind: Kind, path: str | Path) -> Path:
    """Return the path of a face embedder's weights without reading it; arguments as in `load_face_embedder`.

    Raises:
        MissingModelError: the file is not on this machine.
    """
    return {"tiny": _tiny_file, "facenet": _facenet_file}[kind](str(path))


def _tiny(path: str) -> FaceEmbedder:
    from safetensors.torch import load_file

    from valentina_pipeline.image.faces.tiny_facenet import FaceNetTiny

    network = FaceNetTiny()
    weights = load_file(_tiny_file(path))
    network.load_state_dict({k: v.float() for k, v in weights.items()})  # stored as float16
    return FaceEmbedder(FaceNetTiny.SIZE, network.eval(), scale=127.5)


def _tiny_file(path: str) -> Path:
    if not Path(path).is_file():
        raise MissingModelError(
            f"the tiny face embedder ({path})", "Apache-2.0", "restore it with `git checkout -- tiny/weights`"
        )
    return Path(path)


def _facenet(path: str) -> FaceEmbedder:
    import torch
    from facenet_pytorch import InceptionResnetV1
    from safetensors.torch import load_file

    file = _facenet_file(path)
    if file.suffix == ".safetensors":
        state = load_file(file)
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
    network = InceptionResnetV1(pretrained=None, classify=False)
    # the published file also contains the classifier of its 8,631 training identities
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith("logits.")})
    return FaceEmbedder(160, network.eval(), scale=128.0)


def _facenet_file(path: str) -> Path:
    import torch

    hub = Path(torch.hub.get_dir()) / "checkpoints" / VGGFACE2
    places = [hub, hub.parents[2] / "checkpoints" / VGGFACE2] if path == "vggface2" else [Path(path)]
    for place in places:
        if place.is_file():
            return place
    raise MissingModelError(
        f"FaceNet InceptionResnetV1, weights vggface2 ({places[0]})",
        "code MIT; weights trained on VGGFace2, for research only",
        f"download {VGGFACE2_URL} to {places[0]}, or set `face_embedder.path` in conf/base/bases.yml to it",
    )


_LOADERS: dict[Kind, Callable[[str], FaceEmbedder]] = {"tiny": _tiny, "facenet": _facenet}

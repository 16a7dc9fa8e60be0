"""Finding faces (MTCNN), cutting them out in one canonical way, and turning them into identity vectors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from valentina_pipeline.image.missing import MissingModel

if TYPE_CHECKING:
    from facenet_pytorch import MTCNN
    from torch import Tensor

Kind = Literal["tiny", "facenet"]

LEFT_EYE, RIGHT_EYE, NOSE, LEFT_MOUTH, RIGHT_MOUTH = range(5)
"""MTCNN's order of landmarks; left and right as the viewer sees them."""

CANONICAL = np.array([[0.35, 0.39], [0.65, 0.39], [0.5, 0.7356]])
"""Eyes and mouth centre in the canonical crop, in widths: the usual proportions of face recognition
(eye distance 0.868 of the way from eyes to mouth), looser at the edges so that the hairline shows."""

LONGEST_SEARCHED = 640
"""Pixels: larger pictures are shrunk before the search; a main face stays far above MTCNN's 20 px."""

VGGFACE2 = "20180402-114759-vggface2.pt"
VGGFACE2_URL = f"https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/{VGGFACE2}"


@dataclass(frozen=True)
class Face:
    """A detected face, in pixels of its picture.

    Attributes:
        box: (x0, y0, x1, y1).
        probability: MTCNN's, in [0, 1].
        landmarks: float64 (5, 2): eyes, nose, mouth corners.
    """

    box: tuple[float, float, float, float]
    probability: float
    landmarks: np.ndarray

    @property
    def height(self) -> float:
        """The box's height in pixels."""
        return self.box[3] - self.box[1]

    @property
    def area(self) -> float:
        """The box's area in square pixels."""
        return (self.box[2] - self.box[0]) * self.height


def find_faces(images: Iterable[Image.Image]) -> list[list[Face]]:
    """Return each picture's faces, the largest first, an empty list where there is none.

    Pictures are searched one by one on one thread, so that a face's figures depend on neither its
    neighbours nor the machine's number of cores; they are rounded to 1/100 px for the same reason.
    """
    with one_thread():
        return [_faces(image) for image in images]


def _faces(image: Image.Image) -> list[Face]:
    shrink = max(1.0, max(image.size) / LONGEST_SEARCHED)
    size = (round(image.width / shrink), round(image.height / shrink))
    searched = image.convert("RGB")
    if shrink > 1:
        searched = searched.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    if min(size) < 20:  # below MTCNN's smallest face its pyramid is empty
        return []
    try:
        boxes, probabilities, points = _detector(max(20, min(size) // 16)).detect(searched, landmarks=True)
    except (RuntimeError, IndexError) as err:
        # facenet-pytorch stumbles when its first network's boxes all lie outside: there is no face
        if "non-empty list" not in str(err) and "shape of the mask" not in str(err):
            raise
        return []
    if boxes is None:
        return []
    scale = np.array(image.size) / np.array(size)
    found = zip(boxes.astype(float), probabilities.astype(float), points.astype(float), strict=True)
    return [_face(box, probability, landmarks, scale) for box, probability, landmarks in found]


def _face(box: np.ndarray, probability: float, landmarks: np.ndarray, scale: np.ndarray) -> Face:
    x0, y0, x1, y1 = (float(v) for v in np.round(box * np.tile(scale, 2), 2))
    return Face((x0, y0, x1, y1), round(float(probability), 6), np.round(landmarks * scale, 2))


@lru_cache(maxsize=8)
def _detector(min_face: int) -> "MTCNN":
    from facenet_pytorch import MTCNN

    return MTCNN(min_face_size=min_face, keep_all=True, device="cpu").eval()


def crop_matrix(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Return the similarity transform that brings a face to its canonical place.

    Least squares over both eyes and the mouth's centre (Umeyama 1991, without reflection): a turned head
    brings the eyes together but keeps their distance from the mouth.

    Args:
        landmarks: (5, 2), pixels, MTCNN's order.
        size: the crop's width and height in pixels.

    Returns:
        float64 (2, 3): picture -> crop, as cv2.warpAffine takes it.
    """
    eyes_and_mouth = np.stack(
        [landmarks[LEFT_EYE], landmarks[RIGHT_EYE], landmarks[[LEFT_MOUTH, RIGHT_MOUTH]].mean(axis=0)]
    ).astype(np.float64)
    target = CANONICAL * size
    # in complex numbers a similarity is z -> a z + b, and its least squares are one division
    z, w = (points[:, 0] + 1j * points[:, 1] for points in (eyes_and_mouth, target))
    spread = z - z.mean()
    a = np.vdot(spread, w - w.mean()) / max(np.vdot(spread, spread).real, 1e-12)
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def face_crop(image: Image.Image, face: Face, size: int) -> Image.Image:
    """Return the face level, centred and at one scale: the crop that every embedder gets.

    Args:
        image: the picture that `face` was found in.
        face: with landmarks in the picture's pixels.
        size: width and height of the crop in pixels.
    """
    import cv2

    rgb = image.convert("RGB")
    matrix = crop_matrix(face.landmarks, size)
    # linear sampling alone aliases below half size: shrink by a whole factor first
    factor = int(1 / max(np.hypot(matrix[0, 0], matrix[1, 0]), 1e-3))
    if factor > 1:
        rgb = rgb.reduce(factor)
        # pixel centres: x_small = (x + 1/2) / factor - 1/2
        matrix[:, 2] += matrix[:, :2] @ np.full(2, (factor - 1) / 2)
        matrix[:, :2] *= factor
    pixels = cv2.warpAffine(np.asarray(rgb), matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return Image.fromarray(pixels)


@dataclass(frozen=True)
class FaceEmbedder:
    """A network from face crops to identity vectors.

    Attributes:
        size: width and height in pixels of the crops that it wants from `face_crop`.
        network: float32 (n, 3, size, size), scaled as the network wants it -> float32 (n, d), norm 1.
    """

    size: int
    network: Callable[["Tensor"], "Tensor"]
    scale: float

    def embed(self, crops: Sequence[Image.Image]) -> np.ndarray:
        """Return the crops' identity vectors, float32 (n, d), each of norm 1.

        Crops of another size are resized.
        """
        import torch

        if not crops:
            raise ValueError("no face crops to embed")
        same = [c if c.size == (self.size,) * 2 else c.resize((self.size,) * 2) for c in crops]
        pixels = torch.from_numpy(np.stack([np.asarray(crop.convert("RGB")) for crop in same]))
        inputs = (pixels.permute(0, 3, 1, 2).to(torch.float32) - 127.5) / self.scale
        with one_thread(), torch.inference_mode():
            # one by one: a vector must not depend on which crops are embedded with it
            return torch.cat([self.network(one) for one in inputs.split(1)]).numpy()


def embedder(kind: Kind, path: str | Path) -> FaceEmbedder:
    """Load the network that turns faces into identity vectors.

    Args:
        kind: "tiny" (FaceNetTiny, 128 dimensions) or "facenet" (InceptionResnetV1, 512 dimensions).
        path: the weights' file; for facenet also "vggface2", the published weights in torch's cache.

    Raises:
        MissingModel: the weights are not on this machine; they are never downloaded silently.
    """
    return _LOADERS[kind](str(path))


def require_embedder(kind: Kind, path: str | Path) -> Path:
    """Return the file of a face embedder's weights without reading it; arguments as of `embedder`.

    Raises:
        MissingModel: the file is not on this machine.
    """
    return {"tiny": _tiny_file, "facenet": _facenet_file}[kind](str(path))


def _tiny(path: str) -> FaceEmbedder:
    from safetensors.torch import load_file

    from valentina_pipeline.image.tiny_models import FaceNetTiny

    network = FaceNetTiny()
    weights = load_file(_tiny_file(path))
    network.load_state_dict({k: v.float() for k, v in weights.items()})  # stored as float16
    return FaceEmbedder(FaceNetTiny.SIZE, network.eval(), scale=127.5)


def _tiny_file(path: str) -> Path:
    if not Path(path).is_file():
        raise MissingModel(
            f"the tiny face embedder ({path})", "Apache-2.0", "`git checkout -- tiny/weights` brings it back"
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
    # the published file also holds the classifier over its 8,631 training people
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith("logits.")})
    return FaceEmbedder(160, network.eval(), scale=128.0)


def _facenet_file(path: str) -> Path:
    import torch

    hub = Path(torch.hub.get_dir()) / "checkpoints" / VGGFACE2
    places = [hub, hub.parents[2] / "checkpoints" / VGGFACE2] if path == "vggface2" else [Path(path)]
    for place in places:
        if place.is_file():
            return place
    raise MissingModel(
        f"FaceNet InceptionResnetV1, weights vggface2 ({places[0]})",
        "code MIT; weights trained on VGGFace2, for research",
        f"download {VGGFACE2_URL} to {places[0]}, or set `face_embedder.path` in conf/base/bases.yml to it",
    )


_LOADERS: dict[Kind, Callable[[str], FaceEmbedder]] = {"tiny": _tiny, "facenet": _facenet}


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the block: sums rounded in one order everywhere."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

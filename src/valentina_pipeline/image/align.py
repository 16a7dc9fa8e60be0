"""From a picture to a portrait: one main face, level, at one scale, and surely hers."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from rich.progress import track

from valentina_pipeline.config import AlignConfig
from valentina_pipeline.domain.manifest import HELD_OUT, TRAIN
from valentina_pipeline.image.faces import (
    LEFT_EYE,
    RIGHT_EYE,
    Face,
    FaceEmbedder,
    face_crop,
    find_faces,
)
from valentina_pipeline.image.sheet import contact_sheet

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

SECOND_FACE = 0.25
"""A second face below this share of the main face's area is a passer-by."""

TIGHTEST = 6 / 7
"""A crop may be this much narrower than asked for, rather than show what is not in the picture."""

COLUMNS = 6
CELL = 192
LARGEST_SHEET = 120
"""Pictures: a sheet of more can no longer be looked over."""

FACE_COLUMNS = (
    "sha256",
    "probability",
    *("x0", "y0", "x1", "y1"),
    *(f"l{axis}{index}" for index in range(5) for axis in "xy"),
    "embedding",
    "outlier_distance",
    "kept",
    "reason",
    "split",
)


class NoPortraits(ValueError):
    """Too few pictures show her; the message names the reasons."""


@dataclass(frozen=True)
class Square:
    """A square of a picture: its centre (x, y) and side in pixels, turned by `angle` radians."""

    centre: tuple[float, float]
    side: float
    angle: float

    def matrix(self, size: int) -> np.ndarray:
        """Return float64 (2, 3): picture -> pixels of the square drawn at `size`."""
        scale = size / self.side
        cos, sin = np.cos(self.angle) * scale, np.sin(self.angle) * scale
        turn = np.array([[cos, sin], [-sin, cos]])
        # pixel centres lie at whole numbers: the middle of `size` pixels is (size - 1) / 2
        return np.column_stack([turn, np.full(2, (size - 1) / 2) - turn @ np.array(self.centre)])


@dataclass(frozen=True)
class Aligned:
    """One picture's result.

    Attributes:
        name: its sha256.
        face: in pixels of the portrait; None where no single main face was found.
        square: which part of the picture the portrait shows.
        embedding: float32 (d,), norm 1.
        outlier_distance: 1 - cosine to the median embedding.
        reason: why it is left out, or "".
    """

    name: str
    reason: str = ""
    face: Face | None = None
    square: Square | None = None
    embedding: np.ndarray | None = None
    outlier_distance: float = float("nan")


class Portraits(Mapping[str, Image.Image]):
    """The kept portraits by name, each cut when asked for: thousands need not fit memory."""

    def __init__(self, images: Mapping[str, Image.Image], squares: Mapping[str, Square], size: int) -> None:
        self._images, self._squares, self._size = images, squares, size

    def __getitem__(self, name: str) -> Image.Image:
        return cut(self._images[name], self._squares[name], self._size)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._squares))

    def __len__(self) -> int:
        return len(self._squares)


def align(
    images: Mapping[str, Image.Image], splits: Mapping[str, str], cfg: AlignConfig, embedder: FaceEmbedder
) -> tuple[Mapping[str, Image.Image], "pd.DataFrame", Image.Image]:
    """Cut one portrait from each picture that shows one main face that is hers.

    Args:
        images: by sha256.
        splits: sha256 -> "train" or "held_out".
        cfg: crop and thresholds.
        embedder: judges whose face it is.

    Returns:
        The kept portraits by sha256, `cfg.resolution` pixels square; one row for each picture (where no
        single face was found its figures are NaN and its embedding is empty); a contact sheet of all.

    Raises:
        NoPortraits: none is left to train on, or none to measure against.
    """

    def process(name: str) -> Aligned:
        return _locate(name, images[name], cfg, embedder)

    found = list(map(process, track(sorted(images), description="align", transient=True)))
    judged = flag_outliers(found, cfg.outlier_distance)
    _check(judged, splits)
    squares = {a.name: a.square for a in judged if not a.reason and a.square}
    portraits = Portraits(images, squares, cfg.resolution)
    return portraits, _frame(judged, splits), _sheet(judged, images, cfg.resolution)


def main_face(faces: Sequence[Face], min_probability: float) -> Face | str:
    """Return the one main face, or why there is none: "no face" or "two faces".

    Args:
        faces: the largest first.
        min_probability: faces below it are not counted.
    """
    sure = [face for face in faces if face.probability >= min_probability]
    if not sure:
        return "no face"
    if len(sure) > 1 and sure[1].area >= SECOND_FACE * sure[0].area:
        return "two faces"
    return sure[0]


def portrait_square(face: Face, margin: float, picture: tuple[int, int]) -> Square:
    """Return the square around a face in which the eyes are level.

    It is `margin` face heights wide, or up to a seventh less where only that fits in the picture, and is
    moved inside where it would reach out.

    Args:
        face: in pixels of the picture.
        margin: in face heights.
        picture: width and height in pixels.
    """
    x0, y0, x1, y1 = face.box
    asked = margin * face.height
    side = max(min(asked, *picture), TIGHTEST * asked)
    x, y = (
        float(np.clip((low + high) / 2, side / 2, extent - side / 2)) if side <= extent else (low + high) / 2
        for low, high, extent in ((x0, x1, picture[0]), (y0, y1, picture[1]))
    )
    across = face.landmarks[RIGHT_EYE] - face.landmarks[LEFT_EYE]
    angle = float(np.arctan2(across[1], across[0]))
    return Square((x, y), side, angle)


def cut(image: Image.Image, square: Square, size: int) -> Image.Image:
    """Return the square at `size` x `size` pixels, RGB, free of aliasing.

    Where it reaches outside, the picture's edge goes on: mirroring would show hair a second time.
    """
    import cv2

    native = min(max(round(square.side), 1), 8192)
    matrix = square.matrix(native)
    # only the part that is seen: OpenCV warps no picture of more than 32,767 pixels a side
    (x, y), reach = square.centre, square.side * 0.75 + 4
    left, top = max(0, int(x - reach)), max(0, int(y - reach))
    right, bottom = min(image.width, int(x + reach)), min(image.height, int(y + reach))
    part = image.convert("RGB").crop((left, top, right, bottom))
    matrix[:, 2] += matrix[:, :2] @ np.array([left, top])
    pixels = cv2.warpAffine(
        np.asarray(part), matrix, (native, native), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)


def flag_outliers(found: Sequence[Aligned], limit: float) -> list[Aligned]:
    """Measure each face's distance to the median face, and leave out those beyond `limit`."""
    embeddings = [a.embedding for a in found if a.embedding is not None]
    if not embeddings:
        return list(found)
    # the median of each coordinate: a few strangers do not move it as they would move a mean
    middle = np.median(np.stack(embeddings).astype(np.float64), axis=0)
    middle /= max(float(np.linalg.norm(middle)), 1e-12)
    return [_distanced(a, middle, limit) for a in found]


def _distanced(aligned: Aligned, middle: np.ndarray, limit: float) -> Aligned:
    if aligned.embedding is None:
        return aligned
    distance = round(1 - float(aligned.embedding.astype(np.float64) @ middle), 6)
    return replace(aligned, outlier_distance=distance, reason="identity outlier" if distance > limit else "")


def _locate(name: str, image: Image.Image, cfg: AlignConfig, embedder: FaceEmbedder) -> Aligned:
    face = main_face(find_faces([image])[0], cfg.min_face_probability)
    if isinstance(face, str):
        return Aligned(name, face)
    square = portrait_square(face, cfg.margin, image.size)
    inside = _moved(face, square, cfg.resolution)
    crop = face_crop(cut(image, square, cfg.resolution), inside, embedder.size)
    return Aligned(name, face=inside, square=square, embedding=embedder.embed([crop])[0])


def _moved(face: Face, square: Square, size: int) -> Face:
    """Return the face in pixels of its portrait; the box keeps its proportions about its centre."""
    matrix = square.matrix(size)
    landmarks = np.round(face.landmarks @ matrix[:, :2].T + matrix[:, 2], 2)
    half = np.array([face.box[2] - face.box[0], face.height]) / 2 * size / square.side
    middle = np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2
    centre = matrix[:, :2] @ middle + matrix[:, 2]
    x0, y0, x1, y1 = (float(v) for v in np.round([*(centre - half), *(centre + half)], 2))
    return Face((x0, y0, x1, y1), face.probability, landmarks)


def _frame(judged: Sequence[Aligned], splits: Mapping[str, str]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame([_row(a, splits[a.name]) for a in judged], columns=list(FACE_COLUMNS))


def _row(aligned: Aligned, split: str) -> list[object]:
    face = aligned.face
    figures = [float("nan")] * 15 if face is None else [face.probability, *face.box, *face.landmarks.ravel()]
    embedding = np.zeros(0, np.float32) if aligned.embedding is None else aligned.embedding
    kept = not aligned.reason
    return [aligned.name, *figures, embedding, aligned.outlier_distance, kept, aligned.reason, split]


def _check(judged: Sequence[Aligned], splits: Mapping[str, str]) -> None:
    left_out = [a for a in judged if a.reason]
    for aligned in left_out:
        logger.warning("left out %s: %s", aligned.name, aligned.reason)
    logger.info("%d portraits aligned, %d left out", len(judged) - len(left_out), len(left_out))
    kept = [splits[a.name] for a in judged if not a.reason]
    for split, purpose in ((TRAIN, "train on"), (HELD_OUT, "measure against")):
        if split not in kept:
            reasons = sorted(a.reason for a in left_out)
            said = (
                ", ".join(f"{r} ({reasons.count(r)})" for r in dict.fromkeys(reasons)) or "too few pictures"
            )
            raise NoPortraits(
                f"of {len(judged)} pictures none is left to {purpose}: {said}; add portraits that show her "
                "face alone, or correct align.min_face_probability and align.outlier_distance"
            )


def _sheet(judged: Sequence[Aligned], images: Mapping[str, Image.Image], size: int) -> Image.Image:
    """Return the contact sheet: what was left out first, then the faces least like the others."""

    def doubt(aligned: Aligned) -> tuple[bool, float, str]:
        return not aligned.reason, -float(np.nan_to_num(aligned.outlier_distance)), aligned.name

    shown = sorted(judged, key=doubt)[:LARGEST_SHEET]
    pictures = (_marked(aligned, images[aligned.name], size) for aligned in shown)
    return contact_sheet(pictures, [_label(aligned) for aligned in shown], COLUMNS, CELL)


def _label(aligned: Aligned) -> str:
    name = aligned.name[:8]
    if aligned.face is None:
        return f"{name} left out:\n{aligned.reason}"
    verdict = f"left out: {aligned.reason}" if aligned.reason else "kept"
    return f"{name} face {aligned.face.probability:.3f}\n{verdict}, distance {aligned.outlier_distance:.2f}"


def _marked(aligned: Aligned, image: Image.Image, size: int) -> Image.Image:
    """Return the portrait with its face box and landmarks, drawn on twice the sheet's cell."""
    if aligned.face is None or aligned.square is None:
        return image
    shown = 2 * CELL
    page = cut(image, aligned.square, size).resize((shown, shown), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(page)
    colour = (214, 60, 50) if aligned.reason else (74, 200, 120)
    scale = shown / size
    draw.rectangle([v * scale for v in aligned.face.box], outline=colour, width=4)
    for x, y in aligned.face.landmarks * scale:
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=(255, 214, 64), outline=(60, 50, 20))
    return page

"""From a picture to a portrait: one main face, level, at one scale, and surely hers."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from valentina_pipeline.config import AlignConfig
from valentina_pipeline.domain.manifest import HELD_OUT, TRAIN
from valentina_pipeline.image.crop import Crop, cut, moved, portrait_crop
from valentina_pipeline.image.each import Lost, each
from valentina_pipeline.image.faces import (
    Face,
    FaceEmbedder,
    face_crop,
    find_faces,
)
from valentina_pipeline.image.likeness import Hashes
from valentina_pipeline.image.pose import Pose, head_pose, landmark_contrast
from valentina_pipeline.image.progress import counted
from valentina_pipeline.image.sheet import contact_sheet

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

SECOND_FACE = 0.25
"""A second face below this share of the main face's area is a passer-by."""

COLUMNS = 6
CELL = 192
LARGEST_SHEET = 120
"""Pictures: a sheet of more can no longer be looked over."""

FACE_COLUMNS = (
    "sha256",
    "probability",
    *("x0", "y0", "x1", "y1"),
    *(f"l{axis}{index}" for index in range(5) for axis in "xy"),
    "yaw",
    "pitch",
    "misfit",
    "contrast",
    "face_share",
    "embedding",
    "outlier_distance",
    "kept",
    "reason",
    "split",
    "background_removed",
)


Map = Callable[[Callable[[str], Any], Iterable[str]], Iterable[Any]]
Alone = Callable[[Image.Image], Image.Image]


ALIKE_BITS = 12
"""Of the perceptual hash's 64: how close two pictures are whose faces are compared."""


class NoPortraits(ValueError):
    """Too few pictures show her; the message names the reasons."""


@dataclass(frozen=True)
class Aligned:
    """One picture's result.

    Attributes:
        name: its sha256.
        face: in pixels of the portrait; None where no single main face was found.
        crop: which part of the picture the portrait shows.
        pose: of the head.
        contrast: what is to be seen at the landmarks: pose.landmark_contrast.
        face_share: height of the face as a share of the picture's.
        embedding: float32 (d,), norm 1.
        outlier_distance: 1 - cosine to the median embedding.
        reason: why it is left out, or "".
    """

    name: str
    reason: str = ""
    face: Face | None = None
    crop: Crop | None = None
    pose: Pose | None = None
    contrast: float = float("nan")
    face_share: float = float("nan")
    embedding: np.ndarray | None = None
    outlier_distance: float = float("nan")


class Portraits(Mapping[str, Image.Image]):
    """The kept portraits by name, each cut when asked for: thousands need not fit memory."""

    def __init__(
        self, images: Mapping[str, Image.Image], crops: Mapping[str, Crop], size: int, alone: Alone
    ) -> None:
        self._images, self._crops, self._size, self._alone = images, crops, size, alone

    def __getitem__(self, name: str) -> Image.Image:
        return self._alone(cut(self._images[name], self._crops[name], self._size))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._crops))

    def __len__(self) -> int:
        return len(self._crops)


def align(
    images: Mapping[str, Image.Image],
    splits: Mapping[str, str],
    cfg: AlignConfig,
    embedder: FaceEmbedder,
    each: Map = each,
    alone: Alone = lambda image: image,
    hashes: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Mapping[str, Image.Image], "pd.DataFrame", Image.Image]:
    """Cut one portrait from each picture that shows one main face that is hers.

    Args:
        images: by sha256.
        splits: sha256 -> "train" or "held_out".
        cfg: crop and thresholds.
        embedder: judges whose face it is.
        each: see each.py.
        alone: takes away what is around her.
        hashes: sha256 -> perceptual hash; pictures without one are not compared with others.

    Returns:
        The kept portraits by sha256, of `cfg.resolution` squared pixels; one row for each picture (where no
        single face was found its figures are NaN and its embedding is empty); a contact sheet of all.

    Raises:
        NoPortraits: none is left to train on, or none to measure against.
    """
    names = sorted(images)
    made = each(partial(_locate, images, cfg, embedder), names)
    shown = counted(zip(names, made, strict=True), "align", len(names))
    found = [Aligned(name, result.why) if isinstance(result, Lost) else result for name, result in shown]
    judged = flag_repeats(flag_outliers(found, cfg.outlier_distance), hashes, cfg.duplicate_distance)
    _check(judged, splits)
    crops = {a.name: a.crop for a in judged if not a.reason and a.crop}
    portraits = Portraits(images, crops, cfg.resolution, alone)
    frame = _frame(judged, splits).assign(background_removed=bool(cfg.remove_background))
    return portraits, frame, _sheet(judged, images, cfg.resolution)


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


def unfit(face: Face, pose: Pose, contrast: float, cfg: AlignConfig) -> str:
    """Return why a main face is none to learn from, with the figure and its limit; "" where it is one."""
    if face.height < cfg.min_face_side:
        return f"small face: {face.height:.0f} px high, at least {cfg.min_face_side} are wanted"
    if abs(pose.yaw) > cfg.max_yaw:
        return f"turned away: yaw {pose.yaw:.0f} degrees, at most {cfg.max_yaw:g} are wanted"
    if abs(pose.pitch) > cfg.max_pitch:
        return f"looks up or down: pitch {pose.pitch:.0f} degrees, at most {cfg.max_pitch:g} are wanted"
    if pose.misfit > cfg.max_misfit:
        return f"no whole face: misfit {pose.misfit:.2f}, at most {cfg.max_misfit:g} is wanted"
    if contrast < cfg.min_contrast:
        return f"face partly hidden: contrast {contrast:.2f}, at least {cfg.min_contrast:g} is wanted"
    return ""


def flag_outliers(found: Sequence[Aligned], limit: float) -> list[Aligned]:
    """Measure each face's distance to the median face, and leave out those beyond `limit`."""
    embeddings = [a.embedding for a in found if a.embedding is not None]
    if not embeddings:
        return list(found)
    # the median of each coordinate: a few strangers do not move it as they would move a mean
    middle = np.median(np.stack(embeddings).astype(np.float64), axis=0)
    middle /= max(float(np.linalg.norm(middle)), 1e-12)
    return [_distanced(a, middle, limit) for a in found]


def flag_repeats(found: Sequence[Aligned], hashes: Mapping[str, str], limit: float) -> list[Aligned]:
    """Leave out second pictures of one moment, such as another crop of the same photograph.

    Perceptual hash and face are both close to those of one before them; ingest has left out what the hash
    alone tells.
    """
    judged: list[Aligned] = []
    kept: list[Aligned] = []
    known = Hashes(len(found))
    for aligned in found:
        if not aligned.reason and aligned.name in hashes:
            close = np.flatnonzero(known.distances(hashes[aligned.name]) <= ALIKE_BITS)
            same = next((kept[i].name for i in close if _same_moment(kept[i], aligned, limit)), None)
            if same:
                aligned = replace(aligned, reason=f"near duplicate: the same moment as {same[:8]}")
            else:
                known.add(hashes[aligned.name])
                kept.append(aligned)
        judged.append(aligned)
    return judged


def _same_moment(one: Aligned, other: Aligned, limit: float) -> bool:
    if one.embedding is None or other.embedding is None:
        return False
    return 1 - float(one.embedding @ other.embedding) <= limit


def _distanced(aligned: Aligned, middle: np.ndarray, limit: float) -> Aligned:
    if aligned.embedding is None:
        return aligned
    distance = round(1 - float(aligned.embedding.astype(np.float64) @ middle), 6)
    return replace(aligned, outlier_distance=distance, reason="identity outlier" if distance > limit else "")


def _locate(
    images: Mapping[str, Image.Image], cfg: AlignConfig, embedder: FaceEmbedder, name: str
) -> Aligned:
    image = images[name]
    face = main_face(find_faces([image])[0], cfg.min_face_probability)
    if isinstance(face, str):
        return Aligned(name, face)
    crop = portrait_crop(face, cfg.crop, cfg.margin, image.size)
    inside = moved(face, crop, cfg.resolution)
    pose, contrast = head_pose(face.landmarks), landmark_contrast(image, face.landmarks, face.box)
    share = round(face.height / image.height, 4)
    found = Aligned(name, "", inside, crop, pose, contrast, share)
    if reason := unfit(face, pose, contrast, cfg):
        return replace(found, reason=reason)
    # whatever the portrait shows, whose face it is is judged close up, as faces in drawn images are
    near = portrait_crop(face, "face", cfg.margin, image.size)
    close = face_crop(cut(image, near, cfg.resolution), moved(face, near, cfg.resolution), embedder.size)
    return replace(found, embedding=embedder.embed([close])[0])


def _frame(judged: Sequence[Aligned], splits: Mapping[str, str]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame([_row(a, splits[a.name]) for a in judged], columns=list(FACE_COLUMNS[:-1]))


def _row(aligned: Aligned, split: str) -> list[object]:
    face = aligned.face
    figures = [float("nan")] * 15 if face is None else [face.probability, *face.box, *face.landmarks.ravel()]
    pose = aligned.pose
    figures += [float("nan")] * 3 if pose is None else [pose.yaw, pose.pitch, pose.misfit]
    figures += [aligned.contrast, aligned.face_share]
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
    if aligned.face is None or aligned.crop is None:
        return image
    portrait = cut(image, aligned.crop, size)
    scale = 2 * CELL / max(portrait.size)
    page = portrait.resize([round(side * scale) for side in portrait.size], Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(page)
    colour = (214, 60, 50) if aligned.reason else (74, 200, 120)
    draw.rectangle([v * scale for v in aligned.face.box], outline=colour, width=4)
    for x, y in aligned.face.landmarks * scale:
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=(255, 214, 64), outline=(60, 50, 20))
    return page

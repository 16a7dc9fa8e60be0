"""From a picture to a portrait: one main face, level, at one scale, and surely hers."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from valentina_pipeline.common.parallel import WorkerFailure, parallel_map
from valentina_pipeline.common.progress import track_progress
from valentina_pipeline.config.align import AlignConfig
from valentina_pipeline.domain.manifest import assign_splits
from valentina_pipeline.image.align.crop import Crop, apply_crop, portrait_crop, transform_face
from valentina_pipeline.image.align.head_pose import Pose, head_pose, landmark_contrast
from valentina_pipeline.image.align.person import person_score
from valentina_pipeline.image.align.result import FACE_COLUMNS, Aligned
from valentina_pipeline.image.faces.crop import face_crop
from valentina_pipeline.image.faces.detection import Face, detect_faces
from valentina_pipeline.image.faces.embedding import FaceEmbedder
from valentina_pipeline.image.io.perceptual_hash import PerceptualHashIndex

if TYPE_CHECKING:
    import pandas as pd
from valentina_pipeline.image.align.overview import render_overview

logger = logging.getLogger(__name__)

SECOND_FACE = 0.25
"""A second face below this share of the main face's area is a passer-by."""

NUMBERS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)

MOST_LOOKED_AT = 20
"""Faces of a picture, the largest first, of which a second opinion is asked."""


Map = Callable[[Callable[[str], Any], Iterable[str]], Iterable[Any]]

Alone = Callable[[Image.Image], Image.Image]

ALIKE_BITS = 12
"""Of the perceptual hash's 64: how close two pictures are whose faces are compared."""


class Portraits(Mapping[str, Image.Image]):
    """The kept portraits by name, each cut when asked for: thousands need not fit memory."""

    def __init__(
        self, images: Mapping[str, Image.Image], crops: Mapping[str, Crop], size: int, alone: Alone
    ) -> None:
        self._images, self._crops, self._size, self._alone = images, crops, size, alone

    def __getitem__(self, name: str) -> Image.Image:
        return self._alone(apply_crop(self._images[name], self._crops[name], self._size))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._crops))

    def cut_masks(self, masks: Mapping[str, Image.Image]) -> Iterator[tuple[str, Image.Image]]:
        """Yield the masks of these portraits by name, L, cut as they are."""
        for name in self:
            if name in masks:
                yield name, apply_crop(masks[name], self._crops[name], self._size, linear=True).convert("L")

    def __len__(self) -> int:
        return len(self._crops)


def align(
    images: Mapping[str, Image.Image],
    sources: Mapping[str, str],
    cfg: AlignConfig,
    embedder: FaceEmbedder,
    each: Map = parallel_map,
    alone: Alone = lambda image: image,
    hashes: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Portraits, "pd.DataFrame", Image.Image]:
    """Cut one portrait from each picture that shows one main face that is hers.

    Args:
        images: by sha256.
        sources: sha256 -> file name, by which messages name a picture.
        cfg: crop and thresholds.
        embedder: judges whose face it is.
        each: see each.py.
        alone: takes away what is around her.
        hashes: sha256 -> perceptual hash; pictures without one are not compared with others.

    Returns:
        The kept portraits by sha256, of `cfg.resolution` squared pixels; one row for each picture (where no
        single face was found its figures are NaN and its embedding is empty); a contact sheet of all. Too few
        may be kept: see enough.py.
    """
    names = sorted(images)
    made = each(partial(_locate, images, cfg, embedder), names)
    shown = track_progress(zip(names, made, strict=True), "align", len(names))
    found = [
        Aligned(name, result.why) if isinstance(result, WorkerFailure) else result for name, result in shown
    ]
    own = flag_outliers(found, cfg.outlier_distance)
    judged = flag_duplicates(own, hashes, cfg.duplicate_distance, sources)
    _report(judged, sources)
    crops = {a.name: a.crop for a in judged if not a.reason and a.crop}
    portraits = Portraits(images, crops, cfg.resolution, alone)
    frame = _frame(judged).assign(background_removed=bool(cfg.remove_background))
    return portraits, frame, render_overview(judged, images, sources, cfg.resolution)


def main_face(faces: Sequence[Face], min_probability: float) -> Face | str:
    """Return the one main face, or why there is none, with the figure: "no face" or "two faces".

    Args:
        faces: the largest first.
        min_probability: faces below it are not counted.
    """
    sure = [face for face in faces if face.probability >= min_probability]
    if not sure:
        best = max((face.probability for face in faces), default=0.0)
        wanted = f"at least {min_probability:g} (align.min_face_probability) is wanted"
        return f"no face: the surest place has probability {best:.2f}, {wanted}" if faces else "no face"
    shares = [face.area / sure[0].area for face in sure]
    count = sum(share >= SECOND_FACE for share in shares)
    if count > 1:
        said = NUMBERS[count] if count < len(NUMBERS) else str(count)
        return (
            f"{said} faces: the second is {shares[1]:.2f} of the largest, less than {SECOND_FACE:g} is wanted"
        )
    return sure[0]


def _people(image: Image.Image, faces: Sequence[Face], cfg: AlignConfig) -> list[Face]:
    """Return the faces without animals' and toys', where a person's is among them."""
    sure = [face for face in faces if face.probability >= cfg.min_face_probability][:MOST_LOOKED_AT]
    if len(sure) < 2:
        return list(faces)
    people = [face for face in sure if person_score(image, face) >= cfg.min_person]
    return people or list(faces)


def rejection_reason(face: Face, pose: Pose, contrast: float, cfg: AlignConfig) -> str:
    """Return why a main face is none to learn from, with the figure and its limit; "" where it is one."""
    checks = (
        (face.height < cfg.min_face_side, "small face", f"{face.height:.0f} px high", "min_face_side"),
        (abs(pose.yaw) > cfg.max_yaw, "turned away", f"yaw {pose.yaw:.0f} degrees", "max_yaw"),
        (abs(pose.pitch) > cfg.max_pitch, "looks up or down", f"pitch {pose.pitch:.0f} degrees", "max_pitch"),
        (pose.misfit > cfg.max_misfit, "no whole face", f"misfit {pose.misfit:.2f}", "max_misfit"),
        (contrast < cfg.min_contrast, "face partly hidden", f"contrast {contrast:.2f}", "min_contrast"),
    )
    for beyond, reason, figure, key in checks:
        if beyond:
            return f"{reason}: {figure}, {_wanted(key, getattr(cfg, key))}"
    return ""


def _unlike_people(image: Image.Image, face: Face, cfg: AlignConfig) -> str:
    score = person_score(image, face)
    figure = f"no person's face: score {score:.2f}"
    return f"{figure}, {_wanted('min_person', cfg.min_person)}" if score < cfg.min_person else ""


def _wanted(key: str, limit: float) -> str:
    return f"at {'most' if key.startswith('max') else 'least'} {limit:g} (align.{key}) is wanted"


def flag_outliers(found: Sequence[Aligned], limit: float) -> list[Aligned]:
    """Measure each face's distance to the median face, and leave out those beyond `limit`."""
    embeddings = [a.embedding for a in found if a.embedding is not None]
    if not embeddings:
        return list(found)
    # the median of each coordinate: a few strangers do not move it as they would move a mean
    middle = np.median(np.stack(embeddings).astype(np.float64), axis=0)
    middle /= max(float(np.linalg.norm(middle)), 1e-12)
    return [_distanced(a, middle, limit) for a in found]


def flag_duplicates(
    found: Sequence[Aligned], hashes: Mapping[str, str], limit: float, sources: Mapping[str, str]
) -> list[Aligned]:
    """Leave out second pictures of one moment, such as another crop of the same photograph.

    Perceptual hash and face are both close to those of one before them; ingest has left out what the hash
    alone tells.
    """
    judged: list[Aligned] = []
    kept: list[Aligned] = []
    known = PerceptualHashIndex(len(found))
    for aligned in found:
        if not aligned.reason and aligned.name in hashes:
            close = np.flatnonzero(known.distances(hashes[aligned.name]) <= ALIKE_BITS)
            same = next((kept[i].name for i in close if _same_moment(kept[i], aligned, limit)), None)
            if same:
                aligned = replace(aligned, reason=f"near duplicate: the same moment as {sources[same]}")
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
    wanted = f"at most {limit:g} (align.outlier_distance) is wanted"
    reason = f"identity outlier: distance {distance:.2f}, {wanted}" if distance > limit else ""
    return replace(aligned, outlier_distance=distance, reason=reason)


def _locate(
    images: Mapping[str, Image.Image], cfg: AlignConfig, embedder: FaceEmbedder, name: str
) -> Aligned:
    image = images[name]
    people = _people(image, detect_faces([image])[0], cfg)
    face = main_face(people, cfg.min_face_probability)
    if isinstance(face, str):
        return Aligned(name, face)
    crop = portrait_crop(face, cfg.crop, cfg.margin, image.size)
    inside = transform_face(face, crop, cfg.resolution)
    pose, contrast = head_pose(face.landmarks), landmark_contrast(image, face.landmarks, face.box)
    share = round(face.height / image.height, 4)
    found = Aligned(name, "", inside, crop, pose, contrast, share)
    if reason := rejection_reason(face, pose, contrast, cfg) or _unlike_people(image, face, cfg):
        return replace(found, reason=reason)
    # whatever the portrait shows, whose face it is is judged close up, as faces in drawn images are
    near = portrait_crop(face, "face", cfg.margin, image.size)
    close = face_crop(
        apply_crop(image, near, cfg.resolution), transform_face(face, near, cfg.resolution), embedder.size
    )
    return replace(found, embedding=embedder.embed([close])[0])


def _frame(judged: Sequence[Aligned]) -> "pd.DataFrame":
    import pandas as pd

    return assign_splits(pd.DataFrame([_row(a) for a in judged], columns=list(FACE_COLUMNS[:-2])))


def _row(aligned: Aligned) -> list[object]:
    face = aligned.face
    figures = [float("nan")] * 15 if face is None else [face.probability, *face.box, *face.landmarks.ravel()]
    pose = aligned.pose
    figures += [float("nan")] * 3 if pose is None else [pose.yaw, pose.pitch, pose.misfit]
    figures += [aligned.contrast, aligned.face_share]
    embedding = np.zeros(0, np.float32) if aligned.embedding is None else aligned.embedding
    kept = not aligned.reason
    return [aligned.name, *figures, embedding, aligned.outlier_distance, kept, aligned.reason]


def _report(judged: Sequence[Aligned], sources: Mapping[str, str]) -> None:
    left_out = [a for a in judged if a.reason]
    for aligned in left_out:
        logger.warning("left out %s: %s", sources[aligned.name], aligned.reason)
    logger.info("%d portraits aligned, %d left out", len(judged) - len(left_out), len(left_out))

"""Alignment: find one main face per image, check that it is the character's, crop it level and scaled."""

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
from valentina_pipeline.image.align.head_pose import Pose, head_pose, landmark_contrast
from valentina_pipeline.image.align.overview import render_overview
from valentina_pipeline.image.align.person import person_score
from valentina_pipeline.image.align.portrait_crop import Crop, apply_crop, portrait_crop, transform_face
from valentina_pipeline.image.align.result import FACE_COLUMNS, Aligned
from valentina_pipeline.image.faces.canonical_crop import face_crop
from valentina_pipeline.image.faces.detection import Face, detect_faces
from valentina_pipeline.image.faces.embedding import FaceEmbedder
from valentina_pipeline.image.io.perceptual_hash import PerceptualHashIndex

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

MIN_SECOND_FACE_SHARE = 0.25
"""Share of the main face's area: a smaller second face counts as a passer-by."""

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

MAX_CHECKED_FACES = 20
"""Largest faces of an image that the person detector also checks."""


Map = Callable[[Callable[[str], Any], Iterable[str]], Iterable[Any]]

RemoveBackground = Callable[[Image.Image], Image.Image]

MAX_PHASH_BITS = 12
"""Distance in bits of 64: the faces of two images with closer perceptual hashes are compared."""


class Portraits(Mapping[str, Image.Image]):
    """The accepted portraits by name, each cropped on access, so that thousands need not fit in memory."""

    def __init__(
        self,
        images: Mapping[str, Image.Image],
        crops: Mapping[str, Crop],
        size: int,
        remove_background: RemoveBackground,
    ) -> None:
        self._images, self._crops, self._size = images, crops, size
        self._remove_background = remove_background

    def __getitem__(self, name: str) -> Image.Image:
        return self._remove_background(apply_crop(self._images[name], self._crops[name], self._size))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._crops))

    def cut_masks(self, masks: Mapping[str, Image.Image]) -> Iterator[tuple[str, Image.Image]]:
        """Yield the masks of these portraits by name, in mode L, with the same crop."""
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
    alone: RemoveBackground = lambda image: image,
    hashes: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Portraits, "pd.DataFrame", Image.Image]:
    """Crop one portrait from each image that shows one main face, the character's.

    Args:
        images: images by sha256.
        sources: sha256 -> file name, for messages.
        cfg: crop and thresholds.
        embedder: face embedding, for the identity check.
        each: maps a function over items; see common/parallel.py.
        alone: removes the background of a portrait.
        hashes: sha256 -> perceptual hash; images without one are not checked for duplicates.

    Returns:
        The accepted portraits by sha256, of `cfg.resolution` squared pixels; one row per image (without a
        single main face its numbers are NaN and its embedding is empty); a contact sheet of all. Too few may
        be accepted: see sufficiency.py.
    """
    names = sorted(images)
    results = track_progress(
        zip(names, each(partial(_locate, images, cfg, embedder), names), strict=True), "align", len(names)
    )
    found = [
        Aligned(name, result.why) if isinstance(result, WorkerFailure) else result for name, result in results
    ]
    with_distances = flag_outliers(found, cfg.max_identity_distance)
    judged = flag_duplicates(with_distances, hashes, cfg.duplicate_face_distance, sources)
    _log_result(judged, sources)
    crops = {a.name: a.crop for a in judged if not a.reason and a.crop}
    portraits = Portraits(images, crops, cfg.resolution, alone)
    frame = _frame(judged).assign(background_removed=bool(cfg.background_model))
    return portraits, frame, render_overview(judged, images, sources, cfg.resolution)


def main_face(faces: Sequence[Face], min_probability: float) -> Face | str:
    """Return the main face, or the reason why there is not exactly one: "no face" or "two faces".

    Args:
        faces: sorted by size, the largest first.
        min_probability: faces below this detection probability are ignored.
    """
    confident = [face for face in faces if face.probability >= min_probability]
    if not confident:
        best = max((face.probability for face in faces), default=0.0)
        limit = f"at least {min_probability:g} (align.min_detection_confidence) is required"
        return f"no face: the best detection has probability {best:.2f}, {limit}" if faces else "no face"
    shares = [face.area / confident[0].area for face in confident]
    count = sum(share >= MIN_SECOND_FACE_SHARE for share in shares)
    if count > 1:
        number = NUMBERS[count] if count < len(NUMBERS) else str(count)
        limit = f"less than {MIN_SECOND_FACE_SHARE:g} is required"
        return f"{number} faces: the second is {shares[1]:.2f} of the largest, {limit}"
    return confident[0]


def _people(image: Image.Image, faces: Sequence[Face], cfg: AlignConfig) -> list[Face]:
    """Return the faces of people, without animals and toys, if there are any; otherwise all faces."""
    confident = [face for face in faces if face.probability >= cfg.min_detection_confidence][
        :MAX_CHECKED_FACES
    ]
    if len(confident) < 2:
        return list(faces)
    people = [face for face in confident if person_score(image, face) >= cfg.min_person]
    return people or list(faces)


def rejection_reason(face: Face, pose: Pose, contrast: float, cfg: AlignConfig) -> str:
    """Return why a main face is unsuitable for training, with value and limit; "" if it is suitable."""
    checks = (
        (face.height < cfg.min_face_side, "small face", f"{face.height:.0f} px high", "min_face_side"),
        (abs(pose.yaw) > cfg.max_yaw, "turned away", f"yaw {pose.yaw:.0f} degrees", "max_yaw"),
        (abs(pose.pitch) > cfg.max_pitch, "looks up or down", f"pitch {pose.pitch:.0f} degrees", "max_pitch"),
        (
            pose.landmark_error > cfg.max_landmark_error,
            "no whole face",
            f"landmark error {pose.landmark_error:.2f}",
            "max_landmark_error",
        ),
        (
            contrast < cfg.min_landmark_contrast,
            "face partly hidden",
            f"contrast {contrast:.2f}",
            "min_landmark_contrast",
        ),
    )
    for exceeded, reason, value, key in checks:
        if exceeded:
            return f"{reason}: {value}, {_limit(key, getattr(cfg, key))}"
    return ""


def _no_person_reason(image: Image.Image, face: Face, cfg: AlignConfig) -> str:
    score = person_score(image, face)
    reason = f"no person's face: score {score:.2f}"
    return f"{reason}, {_limit('min_person', cfg.min_person)}" if score < cfg.min_person else ""


def _limit(key: str, limit: float) -> str:
    return f"at {'most' if key.startswith('max') else 'least'} {limit:g} (align.{key}) is required"


def flag_outliers(found: Sequence[Aligned], limit: float) -> list[Aligned]:
    """Set each face's distance to the median face, and reject faces farther than `limit`."""
    embeddings = [a.embedding for a in found if a.embedding is not None]
    if not embeddings:
        return list(found)
    # median of each coordinate: unlike a mean, it barely moves with a few faces of other people
    middle = np.median(np.stack(embeddings).astype(np.float64), axis=0)
    middle /= max(float(np.linalg.norm(middle)), 1e-12)
    return [_with_distance(a, middle, limit) for a in found]


def flag_duplicates(
    found: Sequence[Aligned], hashes: Mapping[str, str], limit: float, sources: Mapping[str, str]
) -> list[Aligned]:
    """Reject a second image of one moment, such as another crop of the same photograph.

    Both its perceptual hash and its face are close to an earlier image's. Ingest has already rejected
    duplicates that the hash alone reveals.
    """
    judged: list[Aligned] = []
    kept: list[Aligned] = []
    index = PerceptualHashIndex(len(found))
    for aligned in found:
        if not aligned.reason and aligned.name in hashes:
            close = np.flatnonzero(index.distances(hashes[aligned.name]) <= MAX_PHASH_BITS)
            same = next((kept[i].name for i in close if _same_moment(kept[i], aligned, limit)), None)
            if same:
                aligned = replace(aligned, reason=f"near duplicate: the same moment as {sources[same]}")
            else:
                index.add(hashes[aligned.name])
                kept.append(aligned)
        judged.append(aligned)
    return judged


def _same_moment(one: Aligned, other: Aligned, limit: float) -> bool:
    if one.embedding is None or other.embedding is None:
        return False
    return 1 - float(one.embedding @ other.embedding) <= limit


def _with_distance(aligned: Aligned, middle: np.ndarray, limit: float) -> Aligned:
    if aligned.embedding is None:
        return aligned
    distance = round(1 - float(aligned.embedding.astype(np.float64) @ middle), 6)
    required = f"at most {limit:g} (align.max_identity_distance) is required"
    reason = f"identity outlier: distance {distance:.2f}, {required}" if distance > limit else ""
    return replace(aligned, identity_distance=distance, reason=reason)


def _locate(
    images: Mapping[str, Image.Image], cfg: AlignConfig, embedder: FaceEmbedder, name: str
) -> Aligned:
    image = images[name]
    people = _people(image, detect_faces([image])[0], cfg)
    face = main_face(people, cfg.min_detection_confidence)
    if isinstance(face, str):
        return Aligned(name, face)
    crop = portrait_crop(face, cfg.crop, cfg.crop_scale, image.size)
    inside = transform_face(face, crop, cfg.resolution)
    pose, contrast = head_pose(face.landmarks), landmark_contrast(image, face.landmarks, face.box)
    share = round(face.height / image.height, 4)
    found = Aligned(name, "", inside, crop, pose, contrast, share)
    if reason := rejection_reason(face, pose, contrast, cfg) or _no_person_reason(image, face, cfg):
        return replace(found, reason=reason)
    # embed a close-up crop whatever `cfg.crop` is, so that scores compare with generated images
    near = portrait_crop(face, "face", cfg.crop_scale, image.size)
    close = face_crop(
        apply_crop(image, near, cfg.resolution), transform_face(face, near, cfg.resolution), embedder.size
    )
    return replace(found, embedding=embedder.embed([close])[0])


def _frame(judged: Sequence[Aligned]) -> "pd.DataFrame":
    import pandas as pd

    return assign_splits(pd.DataFrame([_row(a) for a in judged], columns=list(FACE_COLUMNS[:-2])))


def _row(aligned: Aligned) -> list[object]:
    face = aligned.face
    values = [float("nan")] * 15 if face is None else [face.probability, *face.box, *face.landmarks.ravel()]
    pose = aligned.pose
    values += [float("nan")] * 3 if pose is None else [pose.yaw, pose.pitch, pose.landmark_error]
    values += [aligned.landmark_contrast, aligned.face_share]
    embedding = np.zeros(0, np.float32) if aligned.embedding is None else aligned.embedding
    accepted = not aligned.reason
    return [aligned.name, *values, embedding, aligned.identity_distance, accepted, aligned.reason]


def _log_result(judged: Sequence[Aligned], sources: Mapping[str, str]) -> None:
    left_out = [a for a in judged if a.reason]
    for aligned in left_out:
        logger.warning("left out %s: %s", sources[aligned.name], aligned.reason)
    logger.info("%d portraits aligned, %d left out", len(judged) - len(left_out), len(left_out))

"""Nodes of the stage `align`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.config.align import AlignConfig
from valentina_pipeline.config.base_model import FaceEmbedderConfig
from valentina_pipeline.config.validation import parse_config

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from valentina_pipeline.image.align.align import Portraits


def align_portraits(
    images: "Mapping[str, Image.Image]",
    masks: "Mapping[str, Image.Image]",
    manifest: "pd.DataFrame",
    project_root: Path,
    tiny_weights: Path,
    align: dict[str, Any],
    face_embedder: dict[str, Any],
) -> "tuple[Portraits, pd.DataFrame, Image.Image, Iterator[tuple[str, Image.Image]]]":
    """Detect the one face of each image, level it and crop it.

    Args:
        images: images by sha256.
        masks: masks of some of them, of the same size, by the image's sha256.
        manifest: see domain/manifest.py.
        project_root: the project's folder, where relative paths of a base start.
        tiny_weights: an input so that DVC follows the models that those paths name.
        align: see AlignConfig.
        face_embedder: see FaceEmbedderConfig.

    Returns:
        aligned, faces, alignment_overview, aligned_masks.
    """
    from functools import partial

    from valentina_pipeline.common.missing_model import resolve_path
    from valentina_pipeline.image.align.align import align as align_images
    from valentina_pipeline.image.align.background_removal import remover
    from valentina_pipeline.image.faces.embedding import load_face_embedder

    cfg = parse_config(AlignConfig, align, "align")
    embedder = parse_config(FaceEmbedderConfig, face_embedder, "base.face_embedder")
    sources, hashes = (_by_sha256(manifest, name) for name in ("source_name", "phash"))
    # the tiny embedder is always a file of the project; others may be names that their loaders resolve
    in_project = embedder.kind == "tiny"
    path = str(project_root / embedder.path) if in_project else resolve_path(embedder.path, project_root)
    faces = load_face_embedder(embedder.kind, path)
    align_all = partial(align_images, images, sources, cfg, faces, hashes=hashes)
    model = cfg.background_model
    portraits, rows, sheet = align_all(alone=remover(model)) if model else align_all()
    return portraits, rows, sheet, portraits.cut_masks(masks)


def check_portraits(faces: "pd.DataFrame", manifest: "pd.DataFrame") -> None:
    """Check that enough portraits are left for training and evaluation.

    A separate node checks this, so that the faces table and the contact sheet are written first.

    Args:
        faces: align's rows.
        manifest: see domain/manifest.py.

    Raises:
        TooFewPortraitsError: none is left to train on, or none to measure against.
    """
    from valentina_pipeline.image.align.sufficiency import check_portraits as check

    check(faces, _by_sha256(manifest, "source_name"))


def _by_sha256(manifest: "pd.DataFrame", column: str) -> dict[str, str]:
    return dict(zip(manifest["sha256"], manifest[column], strict=True))

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
    weights: Path,
    align: dict[str, Any],
    face_embedder: dict[str, Any],
) -> "tuple[Portraits, pd.DataFrame, Image.Image, Iterator[tuple[str, Image.Image]]]":
    """Find the one face of each image, level it and crop it.

    Args:
        images: by sha256.
        masks: of some of them, as large, by the picture's sha256.
        manifest: domain/manifest.py's.
        weights: tiny/weights; an embedder's relative path counts from the project's folder, two above.
        align: see AlignConfig.
        face_embedder: see FaceEmbedderConfig.

    Returns:
        aligned, faces, align_sheet, aligned_masks.
    """
    from functools import partial

    from valentina_pipeline.common.missing_model import resolve_path
    from valentina_pipeline.image.align.align import align as cut_portraits
    from valentina_pipeline.image.align.background_removal import remover
    from valentina_pipeline.image.faces.embedding import load_face_embedder

    cfg = parse_config(AlignConfig, align, "align")
    judge = parse_config(FaceEmbedderConfig, face_embedder, "base.face_embedder")
    root = weights.parent.parent
    sources, hashes = (_by_sha256(manifest, name) for name in ("source_name", "phash"))
    # a tiny one is a file of the project, there or not; others may be names that their loaders know
    path = str(root / judge.path) if judge.kind == "tiny" else resolve_path(judge.path, root)
    faces = load_face_embedder(judge.kind, path)
    cut = partial(cut_portraits, images, sources, cfg, faces, hashes=hashes)
    removed = cfg.remove_background
    portraits, rows, sheet = cut(alone=remover(removed)) if removed else cut()
    return portraits, rows, sheet, portraits.cut_masks(masks)


def check_portraits(faces: "pd.DataFrame", manifest: "pd.DataFrame") -> None:
    """See that portraits are left to train on and to measure against, once table and sheet are written.

    Args:
        faces: align's rows.
        manifest: domain/manifest.py's.

    Raises:
        NoPortraits: there are none.
    """
    from valentina_pipeline.image.align.sufficiency import check_portraits as check

    check(faces, _by_sha256(manifest, "source_name"))


def _by_sha256(manifest: "pd.DataFrame", column: str) -> dict[str, str]:
    return dict(zip(manifest["sha256"], manifest[column], strict=True))

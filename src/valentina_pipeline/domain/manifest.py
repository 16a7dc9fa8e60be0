"""Manifest: schema of ingest's table, the split into training and held-out portraits, and checks."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from pandera.pandas import DataFrameSchema

TRAIN, HELD_OUT = "train", "held_out"

TABLES = ("manifest", "extra_manifest", "faces", "descriptions", "captions", "caption_fields")
FOLDERS = ("images", "extra_images", "aligned")
INCLUSIONS = (
    ("manifest", "images", "ingest"),
    ("extra_manifest", "extra_images", "ingest"),
    ("manifest", "faces", "align"),
    ("faces", "manifest", "align"),
    ("accepted faces", "aligned", "align"),
    ("accepted faces", "captions", "caption"),
    ("accepted faces", "descriptions", "describe"),
    ("accepted faces", "caption_fields", "caption"),
)
"""Outputs of stages: (part, whole that contains it, stage to rerun where it does not)."""

REJECTION_COLUMNS = ("source_name", "reason", "detail")


class StaleInputError(ValueError):
    """A stage's inputs come from different runs; the message names the stage to run again."""


def check_same_run(inputs: Mapping[str, Any]) -> None:
    """Check that each input holds all images of the inputs that were made from it, see INCLUSIONS.

    Args:
        inputs: inputs by their catalog names: FOLDERS by sha256, and TABLES with a column sha256. Others are
            ignored.

    Raises:
        StaleInputError: an input lacks images that another input has.
    """
    names = {table: set(inputs[table]["sha256"]) for table in TABLES if table in inputs}
    names |= {folder: set(inputs[folder]) for folder in FOLDERS if folder in inputs}
    if "faces" in inputs:
        names["accepted faces"] = set(inputs["faces"].loc[inputs["faces"]["accepted"].astype(bool), "sha256"])
    for part, whole, stage in INCLUSIONS:
        if lacking := names.get(part, set()) - names.get(whole, names.get(part, set())):
            raise StaleInputError(
                f"{part} and {whole} come from different runs: {whole} lacks {len(lacking)} of "
                f"{len(names[part])} images, such as {min(lacking)[:12]}. Run `uv run dvc repro`, or the "
                f"stage {stage} and those after it"
            )


def select_held_out(hashes: Iterable[str]) -> frozenset[str]:
    """Return the images to hold out from training: the fifth with the lowest hashes.

    At least two of four images or more are held out, one of two or three, none of one. Adding or removing an
    image moves at most one other image between the splits.
    """
    ordered = sorted(set(hashes))
    share = max(2, len(ordered) // 5) if len(ordered) >= 4 else len(ordered) // 2
    return frozenset(ordered[:share])


def assign_splits(faces: "pd.DataFrame") -> "pd.DataFrame":
    """Return align's rows with their split; the split of portraits that are not accepted is "".

    Only accepted portraits are split, so that rejections never empty one side.
    """
    accepted = faces["accepted"].astype(bool)
    held_out = select_held_out(faces.loc[accepted, "sha256"])
    split = [HELD_OUT if name in held_out else TRAIN for name in faces["sha256"]]
    return faces.assign(split=[side if used else "" for side, used in zip(split, accepted, strict=True)])


def apply_review(faces: "pd.DataFrame", captions: "pd.DataFrame") -> "pd.DataFrame":
    """Return align's rows, split again, in which portraits that a person rejected are not accepted.

    Without such portraits the rows are unchanged.

    Args:
        faces: align's rows.
        captions: sha256, caption, rejected.
    """
    rejected = faces["sha256"].isin(captions.loc[captions["rejected"].astype(bool), "sha256"])
    if not rejected.any():
        return faces
    return assign_splits(
        faces.assign(
            accepted=faces["accepted"].astype(bool) & ~rejected,
            reason=faces["reason"].where(~rejected, "rejected in the review"),
        )
    )


def validate_manifest(manifest: "pd.DataFrame") -> "pd.DataFrame":
    """Return the manifest with its columns in order, checked.

    Raises:
        pandera.errors.SchemaErrors: a column is missing or unknown, or values are out of bounds.
    """
    frame: pd.DataFrame = _schema().validate(manifest, lazy=True)
    return frame[list(_schema().columns)]


def empty_manifest() -> "pd.DataFrame":
    """Return a manifest without images."""
    import pandas as pd

    return pd.DataFrame(columns=list(_schema().columns), dtype=str)


@lru_cache(maxsize=1)
def _schema() -> "DataFrameSchema":
    from pandera.pandas import Check, Column, DataFrameSchema

    sha256 = Check.str_matches(r"^[0-9a-f]{64}$")
    positive, share = Check.gt(0), Check.in_range(0, 1)
    return DataFrameSchema(
        {
            "sha256": Column(str, sha256, unique=True, description="sha256 of the stored PNG, and its name"),
            "source_name": Column(str, Check.str_length(min_value=1), unique=True),
            "source_sha256": Column(str, sha256, description="sha256 of the source file"),
            "format": Column(
                str,
                Check.isin(["AVIF", "HEIC", "JPEG", "PNG", "TIFF", "WEBP"]),
                description="format of the source file",
            ),
            "width": Column("int64", positive, description="pixels, as stored"),
            "height": Column("int64", positive, description="pixels, as stored"),
            "bytes": Column("int64", positive, description="size of the source file"),
            "rights_id": Column(
                str, Check.str_length(min_value=1), description="the record that allows training"
            ),
            "synthetic": Column(bool),
            "phash": Column(str, Check.str_matches(r"^[0-9a-f]{16}$"), description="perceptual hash"),
            "sharpness": Column(float, Check.ge(0), description="variance of the Laplacian"),
            "brightness": Column(float, share, description="mean luminance"),
            "clipped_fraction": Column(
                float, share, description="share of black or white pixels outside plain areas"
            ),
            "clipped_white_fraction": Column(float, share, description="the white part of clipped_fraction"),
            "brightness_outside_white": Column(float, share, description="mean luminance"),
            "brightness_outside_black": Column(float, share, description="mean luminance"),
            "noise": Column(float, Check.ge(0), description="standard deviation in 8-bit levels"),
            "jpeg_quality": Column(
                float,
                Check.in_range(1, 100),
                nullable=True,
                coerce=True,
                description="quality of JPEG source files",
            ),
            "overlay_letters": Column(
                float,
                Check.ge(0),
                nullable=True,
                coerce=True,
                description="number of letters; NaN: not checked",
            ),
            "clip_iqa": Column(float, share, nullable=True, coerce=True, description="score, if configured"),
            "brisque": Column(
                float, Check.in_range(0, 100), nullable=True, coerce=True, description="score, if configured"
            ),
            "upscaled": Column(bool, description="True if stored larger than the source"),
            "caption": Column(str, description="a person's caption from a file beside the image"),
            "notes": Column(str, description="parts of the file that were ignored or chosen"),
            "attributes": Column(str, Check.str_startswith("{"), description="JSON: trait -> word"),
        },
        strict=True,
    )

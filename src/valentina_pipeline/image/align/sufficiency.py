"""Check that portraits are left for training and for evaluation, with advice on how to get more."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from valentina_pipeline.domain.manifest import HELD_OUT, TRAIN

if TYPE_CHECKING:
    import pandas as pd

ADVICE = {
    "no face": "add images in which the face is larger, well lit and unobstructed",
    "no person": "animals and toys are excluded; if it is a person, lower align.min_person",
    "small face": "add larger images, or set align.crop to bust",
    "turned away": "add images from the front",
    "looks up or down": "add images at eye level",
    "no whole face": "add images that show the whole face",
    "face partly hidden": "add images without mask, hand or sunglasses",
    "identity outlier": "check on the sheet whether it is somebody else; with few images add more",
    "near duplicate": "add images of other moments",
}
"""Beginning of a reason -> advice on how to get usable portraits."""

CROP_ADVICE = "crop these to one person"

FILES_NAMED = 5


class TooFewPortraitsError(ValueError):
    """Too few usable portraits of the character; the message names the reasons."""


def check_portraits(faces: "pd.DataFrame", sources: Mapping[str, str]) -> None:
    """Check that both splits have portraits.

    Args:
        faces: the table of faces from align.
        sources: sha256 -> file name.

    Raises:
        TooFewPortraitsError: the training split or the held-out split is empty.
    """
    for split, purpose in ((TRAIN, "training"), (HELD_OUT, "evaluation")):
        if split in set(faces["split"]):
            continue
        left_out = faces[~faces["accepted"].astype(bool)]
        files = defaultdict(list)
        for name, reason in zip(left_out["sha256"], left_out["reason"], strict=True):
            files[reason.partition(":")[0]].append(
                f"{sources[name]}{reason[len(reason.partition(':')[0]) :]}"
            )
        reasons = "".join(f"\n- {_summarize(reason, found)}" for reason, found in sorted(files.items()))
        raise TooFewPortraitsError(
            f"none of {len(faces)} images is left for {purpose}: "
            f"{len(faces) - len(left_out)} can be used, at least 2 are required.{reasons or ' Add images.'}\n"
            "The faces table and the contact sheet (data/08_reporting) show all images."
        )


def _summarize(reason: str, files: Sequence[str]) -> str:
    listed = "; ".join(files[:FILES_NAMED])
    more = f"; and {len(files) - FILES_NAMED} more" if len(files) > FILES_NAMED else ""
    advice = next((text for start, text in ADVICE.items() if reason.startswith(start)), CROP_ADVICE)
    return f"{reason} ({len(files)}): {advice}. {listed}{more}"

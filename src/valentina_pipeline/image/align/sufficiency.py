"""Whether portraits are left to train on and to measure against, and what would bring more."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from valentina_pipeline.domain.manifest import HELD_OUT, TRAIN

if TYPE_CHECKING:
    import pandas as pd

ADVICE = {
    "no face": "take pictures in which the face is larger, in the light and unhidden",
    "no person": "animals and toys are not learned from; where it is a person, lower align.min_person",
    "small face": "take larger pictures, or crop to bust",
    "turned away": "add pictures from the front",
    "looks up or down": "add pictures at eye level",
    "no whole face": "take pictures that show the whole face",
    "face partly hidden": "take pictures without mask, hand or sunglasses",
    "identity outlier": "see on the sheet whether it is somebody else; with few pictures add more",
    "near duplicate": "add pictures of other moments",
}
"""By the reason's beginning: how to come by portraits that can be used."""

CROP_ADVICE = "crop these to one person"

FILES_NAMED = 5


class TooFewPortraitsError(ValueError):
    """Too few pictures show her; the message names the reasons."""


def check_portraits(faces: "pd.DataFrame", sources: Mapping[str, str]) -> None:
    """See that portraits are left on both sides.

    Args:
        faces: align's rows.
        sources: sha256 -> file name.

    Raises:
        TooFewPortraitsError: none is left to train on, or none to measure against.
    """
    for split, purpose in ((TRAIN, "train on"), (HELD_OUT, "measure against")):
        if split in set(faces["split"]):
            continue
        left_out = faces[~faces["kept"].astype(bool)]
        files = defaultdict(list)
        for name, reason in zip(left_out["sha256"], left_out["reason"], strict=True):
            files[reason.partition(":")[0]].append(
                f"{sources[name]}{reason[len(reason.partition(':')[0]) :]}"
            )
        said = "".join(f"\n- {_counted(reason, found)}" for reason, found in sorted(files.items()))
        raise TooFewPortraitsError(
            f"of {len(faces)} pictures none is left to {purpose}: "
            f"{len(faces) - len(left_out)} can be used, two are the least.{said or ' Add some.'}\n"
            "The faces table and the contact sheet (data/08_reporting) show all of them."
        )


def _counted(reason: str, files: Sequence[str]) -> str:
    named = "; ".join(files[:FILES_NAMED])
    more = f"; and {len(files) - FILES_NAMED} more" if len(files) > FILES_NAMED else ""
    advice = next((said for start, said in ADVICE.items() if reason.startswith(start)), CROP_ADVICE)
    return f"{reason} ({len(files)}): {advice}. {named}{more}"

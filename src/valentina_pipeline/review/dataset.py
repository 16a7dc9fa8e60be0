"""Dataset of the review page: read the stages' outputs of a concept, and write edited captions."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from valentina_pipeline.domain import artifacts
from valentina_pipeline.integrations import captions

SCORES = {
    "probability": "face probability",
    "identity_distance": "distance to the median face",
    "yaw": "yaw, degrees",
    "pitch": "pitch, degrees",
    "landmark_error": "landmark error",
    "landmark_contrast": "landmark contrast",
    "sharpness": "sharpness",
    "brightness": "brightness",
    "noise": "noise",
    "jpeg_quality": "JPEG quality",
}
"""Columns of faces and manifest -> labels on the page."""

BOX = ("x0", "y0", "x1", "y1")
LANDMARKS = tuple(f"l{axis}{index}" for index in range(5) for axis in "xy")


class NotReadyError(RuntimeError):
    """The dataset is not ready for review; the message says what to run."""


@dataclass(frozen=True)
class Dataset:
    """A concept's dataset on disk.

    Attributes:
        root: the project's folder.
        concept: the name of its file in conf/base/concepts.
    """

    root: Path
    concept: str

    @property
    def captions(self) -> Path:
        """Path of the captions file, which people edit."""
        return self._in("04_feature", "captions.csv")

    def picture(self, sha256: str) -> Path:
        """Return the path of the portrait, or of the source image where align rejected it."""
        aligned = self._portrait(sha256)
        return aligned if aligned.is_file() else self._in("02_intermediate", "images") / f"{sha256}.png"

    def portraits(self) -> list[dict[str, Any]]:
        """Return all ingested images as plain JSON, reviewable ones first.

        Raises:
            NotReadyError: the stages up to caption have not run.
            captions.InvalidCaptionsError: the file cannot be read.
        """
        files = self._in("03_primary", "faces.parquet"), self._in("02_intermediate", "manifest.parquet")
        for file in (*files, self.captions):
            if not file.is_file():
                raise NotReadyError(f"{file} is missing: run `uv run dvc repro` up to the stage caption")
        faces, manifest = map(pd.read_parquet, files)
        table = captions.read(self.captions)
        captions_by_hash = table.set_index("sha256")
        superseded = captions.find_superseded(table, set(faces.loc[faces["accepted"], "sha256"]))
        rows = faces.merge(manifest, on="sha256").to_dict("records")
        entries = [self._entry(row, captions_by_hash, superseded) for row in rows]
        return sorted(entries, key=lambda row: (not row["reviewable"], row["source_name"]))

    def edit(self, sha256: str, before: dict[str, str], after: dict[str, str], editor: str) -> None:
        """Change the caption or the verdict of a portrait; see captions.edit."""
        seen = {"seen": self._portrait_hash(sha256)}
        captions.edit(self.captions, {sha256: captions.Edit(before, {**after, **seen})}, editor)

    def replace(self, find: str, replacement: str, editor: str) -> int:
        """Replace text in the captions of all portraits, and return the number of changed captions.

        Raises:
            captions.InvalidCaptionsError: a caption would become empty, or somebody changed it meanwhile.
        """
        edits = {}
        for row in self.portraits():
            caption = row["human"] or row["machine"]
            if not row["reviewable"] or find not in caption:
                continue
            changed = " ".join(caption.replace(find, replacement).split())
            if not changed:
                raise captions.InvalidCaptionsError(f"the caption of {row['source_name']} would be empty")
            after = {"human": changed, "seen": self._portrait_hash(row["sha256"])}
            edits[row["sha256"]] = captions.Edit({"human": row["human"]}, after)
        captions.edit(self.captions, edits, editor)
        return len(edits)

    def _entry(
        self, row: dict[Any, Any], captions_by_hash: pd.DataFrame, superseded: dict[str, str]
    ) -> dict[str, Any]:
        sha256 = row["sha256"]
        has_caption = sha256 in captions_by_hash.index
        fields = (
            captions_by_hash.loc[sha256].to_dict() if has_caption else dict.fromkeys(captions.COLUMNS[1:], "")
        )
        scores = {name: row[column] for column, name in SCORES.items() if _is_number(row.get(column))}
        reviewable = bool(row["accepted"]) and has_caption
        return {
            "sha256": sha256,
            "source_name": row["source_name"],
            "split": row["split"],
            "reviewable": reviewable,
            "reason": row["reason"] or ("" if reviewable else "no caption yet"),
            "box": [row[name] for name in BOX] if reviewable else [],
            "landmarks": [row[name] for name in LANDMARKS] if reviewable else [],
            "scores": {name: round(float(value), 3) for name, value in scores.items()},
            **{name: fields[name] for name in ("machine", "human", "verdict", "editor", "edited")},
            "changed": reviewable and fields["seen"] not in ("", self._portrait_hash(sha256)),
            "former": captions_by_hash.loc[superseded[sha256], "human"] if sha256 in superseded else "",
        }

    def _portrait_hash(self, sha256: str) -> str:
        file = self._portrait(sha256)
        return _file_hash(file, file.stat().st_mtime_ns) if file.is_file() else ""

    def _portrait(self, sha256: str) -> Path:
        return self._in("03_primary", "aligned") / f"{sha256}.png"

    def _in(self, layer: str, name: str) -> Path:
        return self.root / "data" / layer / self.concept / name


@lru_cache(maxsize=100_000)
def _file_hash(file: Path, _time: int) -> str:
    return artifacts.sha256(file)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)

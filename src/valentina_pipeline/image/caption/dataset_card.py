"""Dataset card: counts, plots, sample images and gaps of a dataset, with advice on what to add.

A LoRA reproduces its training set: if all images face the camera, the character always will.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING

from PIL import Image

from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.domain.manifest import HELD_OUT, TRAIN
from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.image.io import png
from valentina_pipeline.image.io.contact_sheet import contact_sheet

if TYPE_CHECKING:
    import pandas as pd

FRONT, PROFILE, LEVEL = 15.0, 50.0, 15.0
"""Degrees: maximum yaw of a frontal head, minimum yaw of a profile, maximum pitch of a level head."""

SIDES = (
    "half turned to the left",
    "half turned to the right",
    "in profile to the left",
    "in profile to the right",
)

FRAMINGS = {0.45: "close-up", 0.22: "head and shoulders", 0.12: "half length", 0.0: "full length"}
"""Minimum height of the face as a share of the image's -> framing."""

LIGHTS = {0.6: "bright", 0.35: "medium", 0.0: "dark"}
"""Minimum mean luminance -> light."""

MAX_SHARE = 0.6
"""Share of the images above which a value is learned as part of the character."""

UNKNOWN = "not known"
IMAGES_PER_VALUE, COLUMNS, CELL_PIXELS = 4, 8, 160
MAX_VALUES = 12
"""Maximum number of values that a plot and a sheet show; the card counts the rest."""


@dataclass(frozen=True)
class Aspect:
    """One property in which images differ.

    Attributes:
        name: such as "pose".
        values: image -> value.
        wanted: values that a dataset should contain; () if any value is fine.
        source: origin of the values.
    """

    name: str
    values: "pd.Series[str]"
    wanted: tuple[str, ...]
    source: str

    def counts(self) -> dict[str, int]:
        """Return value -> number of images: first the wanted values, then others by frequency."""
        found = {str(value): int(count) for value, count in self.values.value_counts().items()}
        rest = sorted((value for value in found if value not in self.wanted), key=lambda v: (-found[v], v))
        return {value: found.get(value, 0) for value in (*self.wanted, *rest)}

    def advice(self) -> list[str]:
        """Return advice on what to add, with reasons."""
        counts, total = self.counts(), len(self.values)
        known = {value: count for value, count in counts.items() if value != UNKNOWN}
        advice = []
        if unknown := counts.get(UNKNOWN, 0):
            advice.append(
                f"{unknown} of {total} are unknown: use another captioner, or set it in attributes.json"
            )
        top = max(known, key=lambda value: known[value], default="")
        missing = [value for value in self.wanted if not known[value]]
        if top and known[top] > MAX_SHARE * total:
            others = missing or [value for value in self.wanted if value != top]
            add = f"add {_join_words(others)}" if others else "add others, or the character always has it"
            advice.append(f"{known[top]} of {total} are {top}; {add}")
        elif missing:
            advice.append(f"none of {total} is {_join_words(missing, 'or')}; add some")
        return advice


def aspects(faces: "pd.DataFrame", manifest: "pd.DataFrame", descriptions: "pd.DataFrame") -> list[Aspect]:
    """Return the properties in which the accepted portraits differ.

    Args:
        faces: the table of faces from align.
        manifest: see domain/manifest.py.
        descriptions: sha256 and the fields of image/caption/description.py.
    """
    table = faces[faces["accepted"].astype(bool)].merge(manifest, on="sha256")
    table = table.merge(descriptions, on="sha256", how="left").set_index("sha256").sort_index()
    shares = table["face_share"].map(lambda share: _lookup(FRAMINGS, share))
    light = table["brightness"].map(lambda mean: _lookup(LIGHTS, mean))
    measured = [
        Aspect("direction", table["yaw"].map(_direction), ("facing the camera", *SIDES), "yaw of the head"),
        Aspect(
            "tilt", table["pitch"].map(_tilt), ("level", "looking up", "looking down"), "pitch of the head"
        ),
        Aspect("framing", shares, tuple(FRAMINGS.values()), "the face's share of the picture's height"),
        Aspect("brightness", light, tuple(reversed(LIGHTS.values())), "mean luminance"),
    ]
    described = [
        Aspect(name, table[field].fillna("").replace("", UNKNOWN), (), "the captioner")
        for name, field in (
            ("expression", "expression"), ("clothes", "clothes"), ("background", "place"), ("light", "light"),
        )
    ]  # fmt: skip
    return [*measured, *described]


def dataset_card(
    person: Concept,
    found: Sequence[Aspect],
    aligned: Mapping[str, Image.Image],
    manifest: "pd.DataFrame",
    faces: "pd.DataFrame",
    rejections: "pd.DataFrame",
    rights: Sequence[RightsRecord],
) -> dict[str, bytes]:
    """Return the card's files by name: README.md, a plot of all aspects, and a sheet of images for each.

    Args:
        person: the concept of the dataset.
        found: the result of `aspects`.
        aligned: portraits by sha256.
        manifest: see domain/manifest.py.
        faces: the table of faces from align.
        rejections: the table of rejections from ingest.
        rights: the concept's rights records.
    """
    sheets = {f"{aspect.name}.png": png.encode(_sheet(aspect, aligned)) for aspect in found}
    sections = (
        _front_matter(person, rights),
        f"# Portraits of {person.name}\n",
        _summary(manifest, faces),
        "## Gaps\n\n" + _gaps(found),
        "## Distribution\n\n![Images by aspect](balance.png)\n",
        *(_aspect(aspect) for aspect in found),
        "## Excluded images\n\n" + _excluded(faces, rejections),
        "## Rights\n\n" + _rights(manifest, rights),
    )
    text = "\n".join(sections)
    return {"README.md": text.encode(), "balance.png": _plot(found), **sheets}


def _direction(yaw: float) -> str:
    if abs(yaw) <= FRONT:
        return "facing the camera"
    return SIDES[2 * (abs(yaw) > PROFILE) + (yaw > 0)]


def _tilt(pitch: float) -> str:
    if abs(pitch) <= LEVEL:
        return "level"
    return "looking down" if pitch > 0 else "looking up"


def _lookup(steps: Mapping[float, str], value: float) -> str:
    return next(name for minimum, name in steps.items() if value >= minimum)


def _join_words(words: Sequence[str], last: str = "and") -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else words[0]


def _front_matter(person: Concept, rights: Sequence[RightsRecord]) -> str:
    licenses = sorted({record.license for record in rights})
    return (
        "---\n"
        "license: other\n"
        f"license_name: {', '.join(licenses)}\n"
        f"pretty_name: {person.name}\n"
        "task_categories: [text-to-image]\n"
        "---\n"
    )


def _summary(manifest: "pd.DataFrame", faces: "pd.DataFrame") -> str:
    accepted = faces[faces["accepted"].astype(bool)]
    train, held_out = ((accepted["split"] == split).sum() for split in (TRAIN, HELD_OUT))
    sides = manifest[["width", "height"]].min(axis=1)
    return (
        f"{len(accepted)} portraits of one adult character: {train} for training, {held_out} held out for "
        f"evaluation. {int(manifest['synthetic'].sum())} of the {len(manifest)} accepted images are "
        f"synthetic. Their shorter sides are {sides.min()} to {sides.max()} pixels long.\n"
    )


def _gaps(found: Sequence[Aspect]) -> str:
    items = [f"- **{aspect.name}**: {advice}\n" for aspect in found for advice in aspect.advice()]
    return "".join(items) or "These counts show none.\n"


def _aspect(aspect: Aspect) -> str:
    counts = aspect.counts()
    rows = "".join(f"| {value} | {count} |\n" for value, count in list(counts.items())[:MAX_VALUES])
    more = len(counts) - MAX_VALUES
    rest = f"\n{more} further values are not shown.\n" if more > 0 else ""
    return (
        f"### {aspect.name}\n\nBy {aspect.source}.\n\n| {aspect.name} | images |\n|---|---|\n{rows}{rest}\n"
        f"![{aspect.name}]({aspect.name}.png)\n"
    )


def _excluded(faces: "pd.DataFrame", rejections: "pd.DataFrame") -> str:
    by_align = faces.loc[~faces["accepted"].astype(bool), "reason"].str.split(":").str[0]
    counts = {
        stage: reasons.value_counts().sort_index().to_dict()
        for stage, reasons in (("ingest", rejections["reason"]), ("align", by_align))
    }
    rows = [
        f"| {stage} | {reason} | {count} |\n"
        for stage, found in counts.items()
        for reason, count in found.items()
    ]
    return "| stage | reason | images |\n|---|---|---|\n" + "".join(rows) if rows else "None.\n"


def _rights(manifest: "pd.DataFrame", rights: Sequence[RightsRecord]) -> str:
    counts = manifest["rights_id"].value_counts()
    rows = (
        f"| {record.id} | {record.holder} | {record.license} | {', '.join(record.uses)} | "
        f"{record.expires or 'does not expire'} | {counts.get(record.id, 0)} |\n"
        for record in rights
    )
    return "| record | holder | license | uses | until | images |\n|---|---|---|---|---|---|\n" + "".join(
        rows
    )


def _sheet(aspect: Aspect, aligned: Mapping[str, Image.Image]) -> Image.Image:
    """Return a sheet of a few images for each value, labeled with it."""
    selected = [
        (name, value)
        for value in list(aspect.counts())[:MAX_VALUES]
        for name in sorted(aspect.values.index[aspect.values == value])[:IMAGES_PER_VALUE]
    ]
    labels = [f"{value}\n{name[:8]}" for name, value in selected]
    return contact_sheet((aligned[name] for name, _ in selected), labels, COLUMNS, CELL_PIXELS)


def _plot(found: Sequence[Aspect]) -> bytes:
    """Return bar charts of all aspects as PNG; the bytes are reproducible."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [dict(list(aspect.counts().items())[:MAX_VALUES]) for aspect in found]
    heights = [1 + 0.8 * len(counts) for counts in shown]
    figure = Figure(figsize=(8, 0.28 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(found), 1, height_ratios=heights, squeeze=False)[:, 0]
    for aspect, counts, axis in zip(found, shown, axes, strict=True):
        # highlight gaps
        colors = [
            "#b5443c" if not count or value == UNKNOWN else "#4a7a8c" for value, count in counts.items()
        ]
        bars = axis.barh(
            [shorten(value, 40, placeholder="…") for value in counts], list(counts.values()), color=colors
        )
        axis.bar_label(bars, padding=3, fontsize=8)
        axis.set_title(aspect.name, loc="left", fontsize=10)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.1 * max(counts.values()))
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(bottom=False, labelbottom=False, left=False, labelsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()

import numpy as np
import pandas as pd
import pytest

from portraits import CONCEPT, RIGHTS, noise
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.image.caption.dataset_card import Aspect, aspects, dataset_card
from valentina_pipeline.image.caption.description import FIELDS
from valentina_pipeline.image.io import png

NAMES = [f"{index:064x}" for index in range(6)]
YAWS = [0.0, -5, 10, 14, 40, -60]


def tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Faces, manifest and descriptions of six pictures, the last of which align left out."""
    faces = pd.DataFrame(
        {
            "sha256": NAMES,
            "yaw": YAWS,
            "pitch": [0.0, 20, -20, 0, 0, 0],
            "face_share": [0.5, 0.3, 0.3, 0.15, 0.05, 0.3],
            "accepted": [True] * 5 + [False],
            "reason": [""] * 5 + ["turned away: yaw -60 degrees"],
            "split": ["train"] * 4 + ["held_out"] * 2,
        }
    )
    manifest = pd.DataFrame(
        {
            "sha256": NAMES,
            "width": 900,
            "height": np.arange(6) + 800,
            "brightness": [0.1, 0.5, 0.5, 0.5, 0.9, 0.5],
            "synthetic": True,
            "rights_id": "test",
        }
    )
    seen = {field: [""] * 5 for field in FIELDS} | {"expression": ["smiling"] * 4 + ["serious"]}
    return faces, manifest, pd.DataFrame({"sha256": NAMES[:5], **seen})


def aspect(name: str) -> Aspect:
    return next(each for each in aspects(*tables()) if each.name == name)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("direction", [4, 0, 1, 0, 0]),
        ("tilt", [3, 1, 1]),
        ("framing", [1, 2, 1, 1]),
        ("brightness", [1, 3, 1]),
    ],
)
def test_pictures_are_counted_by_what_was_measured(name: str, counts: list[int]) -> None:
    assert list(aspect(name).counts().values()) == counts


def test_what_is_missing_is_said_with_figures() -> None:
    assert aspect("direction").advice() == [
        "4 of 5 are facing the camera; add half turned to the left, in profile to the left and in profile "
        "to the right"
    ]
    assert aspect("tilt").advice() == []
    assert aspect("expression").advice() == ["4 of 5 are smiling; add others, or the character always has it"]
    assert aspect("clothes").advice() == [
        "5 of 5 are unknown: use another captioner, or set it in attributes.json"
    ]


def test_a_value_that_nobody_has_is_missing_even_where_none_is_too_frequent() -> None:
    even = pd.Series(["dark", "bright"] * 3, index=NAMES)
    assert Aspect("brightness", even, ("dark", "medium", "bright"), "").advice() == [
        "none of 6 is medium; add some"
    ]


def test_the_card_has_counts_pictures_rights_and_what_was_left_out() -> None:
    faces, manifest, descriptions = tables()
    aligned = {name: noise(seed, 64, 64) for seed, name in enumerate(NAMES[:5])}
    rejections = pd.DataFrame({"source_name": ["x"], "reason": ["too small"], "detail": ["1 x 1"]})
    found = aspects(faces, manifest, descriptions)
    person = Concept.model_validate(CONCEPT)
    files = dataset_card(person, found, aligned, manifest, faces, rejections, RIGHTS)
    text = files["README.md"].decode()
    for said in (
        "5 portraits of one adult character: 4 for training, 1 held out",
        "**direction**: 4 of 5 are facing the camera; add half turned to the left",
        "| half turned to the right | 1 |",
        "| ingest | too small | 1 |",
        "| align | turned away | 1 |",
        "| test | the tests | Apache-2.0 | training | does not expire | 6 |",
        "license_name: Apache-2.0",
    ):
        assert said in text
    pictures = {line.split("(")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")}
    assert pictures | {"README.md"} == set(files)
    assert png.decode(files["direction.png"]).width > 600 and png.decode(files["balance.png"]).height > 400
    assert dataset_card(person, found, aligned, manifest, faces, rejections, RIGHTS) == files


def test_where_nothing_was_left_out_the_card_says_so() -> None:
    faces, manifest, descriptions = (table[:5] for table in tables())
    aligned = {name: noise(seed, 64, 64) for seed, name in enumerate(NAMES[:5])}
    found = aspects(faces, manifest, descriptions)
    nothing = pd.DataFrame({"source_name": [], "reason": [], "detail": []}, dtype=str)
    files = dataset_card(Concept.model_validate(CONCEPT), found, aligned, manifest, faces, nothing, RIGHTS)
    assert "## Excluded images\n\nNone.\n" in files["README.md"].decode()

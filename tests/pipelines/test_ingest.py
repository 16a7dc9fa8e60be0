import hashlib
import io
import json
import os
import unicodedata
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from packages import stage
from portraits import CONCEPT, RIGHTS, noise
from valentina_pipeline.domain import clock
from valentina_pipeline.domain.rights import InvalidLedgerError, RightsRecord
from valentina_pipeline.image.ingest import rendered_source
from valentina_pipeline.image.ingest.ingest import NoImagesError
from valentina_pipeline.image.renderer.traits import EXPRESSIONS
from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
from valentina_pipeline.integrations.sources.files import InvalidSourceError
from valentina_pipeline.pipelines.ingest.nodes import ingest_images
from valentina_pipeline.pipelines.ingest.source_images import InvalidAttributesError

LIMITS = {
    **stage("ingest"),
    "num_rendered_images": 4,
    "min_side": 32,
    "max_bytes": 1_000_000,
    "min_sharpness": 0,
    "brightness_range": (0, 1),
    "max_clipped_fraction": 1,
    "max_noise": 100,
    "min_jpeg_quality": 0,
}
FOLDER: dict[str, Any] = {**CONCEPT, "source": "data/01_raw/test_woman"}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The empty folder data/01_raw/test_woman."""
    (tmp_path / "data/01_raw/test_woman").mkdir(parents=True)
    return tmp_path / "data/01_raw/test_woman"


def ran(raw: Path, concept: dict[str, Any], rights: tuple[RightsRecord, ...]) -> tuple[Any, ...]:
    root = raw.parents[2]
    extra = root / "data/05_model_input" / raw.name
    extra.mkdir(parents=True, exist_ok=True)
    return ingest_images(raw, extra, rights, root, concept, LIMITS, 7)


def ingested(
    raw: Path, concept: dict[str, Any] = FOLDER, rights: tuple[RightsRecord, ...] = RIGHTS
) -> tuple[Any, ...]:
    """The stage's images, manifest, rejections and masks."""
    return ran(raw, concept, rights)[:4]


def ingested_extra(raw: Path, rights: tuple[RightsRecord, ...]) -> tuple[Any, ...]:
    """The stage's images, manifest, rejections and masks of the extra data."""
    _, _, rejections, _, images, manifest, masks = ran(raw, FOLDER, rights)
    return images, manifest, rejections, masks


def test_the_renderers_portraits_are_taken_in_with_their_attributes(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendered_source, "SMALLEST", 160)  # 768 takes seconds each

    images, manifest, rejections, masks = ingested(raw, CONCEPT)

    assert list(manifest["source_name"]) == [f"test_woman_{i:04d}.png" for i in range(4)]
    assert rejections.empty and len(manifest) == 4 and not masks
    assert set(manifest["width"]) == {160} and manifest["synthetic"].all()
    for index, words in enumerate(map(json.loads, manifest["attributes"])):
        assert words["eyes"] == "green" and words["expression"] in EXPRESSIONS
        assert words["background"] == rendered_source.scene(7, index).background
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in images.values()} == set(
        manifest["sha256"]
    )
    assert list(ingested(raw, CONCEPT)[0]) == list(images)


def test_a_folder_gives_its_pictures_and_a_row_for_all_else(raw: Path) -> None:
    folder = raw
    noise(1).save(folder / "good.png")
    noise(2).save(folder / "also.jpg")
    (folder / "notes.txt").write_text("not a picture")
    noise(3).save(folder / "other-masklabel.png")
    (folder / "folder.jpg").mkdir()
    (folder / "broken.png").symlink_to("nothing")
    (folder / "attributes.json").write_text('{"good.png": {"expression": "smiling"}}')
    with (Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff\n.png"))).open("wb") as file:
        file.write(b"x")

    images, manifest, rejections, _ = ingested(raw)

    assert list(manifest["source_name"]) == ["also.jpg", "good.png"] and len(images) == 2
    assert list(manifest["attributes"]) == ["{}", '{"expression": "smiling"}']
    assert dict(zip(rejections["source_name"], rejections["reason"], strict=True)) == {
        "bad\\udcff\\n.png": "not an image",
        "broken.png": "cannot be opened",
        "folder.jpg": "cannot be opened",
        "notes.txt": "not an image",
        "other-masklabel.png": "not an image",
    }
    rejections.to_csv(raw / "rejections.csv")
    manifest.to_parquet(raw / "manifest.parquet")


def test_an_empty_folder_is_an_error_that_names_it(raw: Path) -> None:
    with pytest.raises(InvalidSourceError, match="data/01_raw/test_woman has no images"):
        ingested(raw)


def test_no_rights_record_no_training(raw: Path) -> None:
    noise(1).save(raw / "a.png")
    with pytest.raises(NoImagesError, match="no rights record"):
        ingested(raw, FOLDER, ())


def test_a_folder_outside_data_is_read_with_a_warning(raw: Path, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = raw.parents[2] / "photos"
    elsewhere.mkdir()
    noise(1).save(elsewhere / "a.png")
    _, manifest, *_ = ingested(raw, {**FOLDER, "source": "photos"})
    assert len(manifest) == 1 and "DVC does not see" in caplog.text


@pytest.mark.parametrize("content", ["{", "[]", '{"a.png": "smiling"}', '{"a.png": {"expression": 3}}'])
def test_a_broken_file_of_attributes_is_named(raw: Path, content: str) -> None:
    noise(1).save(raw / "a.png")
    (raw / "attributes.json").write_text(content)
    with pytest.raises(InvalidAttributesError, match=r"attributes\.json"):
        ingested(raw)


@pytest.mark.parametrize("place", ["folder", "zip"])
def test_captions_and_masks_beside_pictures_are_taken_in(raw: Path, place: str) -> None:
    folder = raw
    for number, name in enumerate(("a.png", "b.jpg", "c.png", "a_mask.png"), start=1):
        noise(number).save(folder / name)
    Image.linear_gradient("L").resize((48, 32)).save(folder / "b-masklabel.png")
    (folder / "a.txt").write_text("test_woman woman\non a beach")
    (folder / "b.caption").write_text("test_woman woman, smiling")
    concept = FOLDER
    if place == "zip":
        files = list(folder.iterdir())
        with zipfile.ZipFile(raw / "all.zip", "w") as packed:
            for file in files:
                packed.write(file, file.name)
        concept = {**CONCEPT, "source": "data/01_raw/test_woman/all.zip"}
    images, manifest, rejections, masks = ingested(raw, concept)
    assert dict(zip(manifest["source_name"], manifest["caption"], strict=True)) == {
        "a.png": "test_woman woman on a beach", "b.jpg": "test_woman woman, smiling", "c.png": ""
    }  # fmt: skip
    assert rejections.empty and list(masks) == list(manifest["sha256"][:2]) and set(masks) < set(images)
    opened = [Image.open(io.BytesIO(content)) for content in masks.values()]
    assert [(mask.mode, mask.size) for mask in opened] == [("L", (96, 64))] * 2
    assert np.array_equal(np.asarray(opened[0]), np.asarray(noise(4).convert("L")))


def test_a_mask_that_cannot_be_used_is_a_row_and_its_picture_stays(
    raw: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, name in enumerate("abcde", start=1):
        noise(number).save(raw / f"{name}.png")
    (raw / "a_mask.png").write_bytes(b"no picture")
    Image.new("L", (64, 96), 255).save(raw / "b_mask.png")
    Image.new("L", (96, 64)).save(raw / "c_mask.png")
    (raw / "d_mask.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * LIMITS["max_bytes"])
    hidden = Image.new("RGBA", (96, 64), (255, 255, 255, 0))
    hidden.paste("white", (0, 0, 10, 64))
    hidden.save(raw / "e_mask.png")

    _, manifest, rejections, masks = ingested(raw)

    assert list(manifest["source_name"]) == [f"{name}.png" for name in "abcde"]
    assert list(rejections["source_name"]) == [f"{name}_mask.png" for name in "abcd"]
    assert set(rejections["reason"]) == {"mask not used"}
    said = ["not an image: none of PNG, JPEG", "the mask has 64 x 96 pixels", "all black", "too large"]
    assert all(words in detail for words, detail in zip(said, rejections["detail"], strict=True))
    assert "the mask b_mask.png is not used: another shape" in caplog.text
    (shown,) = masks.values()  # what is transparent counts as black
    assert np.asarray(Image.open(io.BytesIO(shown))).mean(axis=0).tolist() == [255] * 10 + [0] * 86


def test_a_caption_in_another_encoding_stops_ingest_by_its_name(raw: Path) -> None:
    noise(1).save(raw / "a.png")
    (raw / "a.txt").write_bytes("caf\u00e9".encode("cp1252"))
    with pytest.raises(InvalidAttributesError, match=r"a\.txt is not UTF-8: save it as UTF-8"):
        ingested(raw)


RECORD = RIGHTS[0]
TAKEN_BACK = {"revoked": date(2020, 1, 1), "revocation": "asked"}


def test_attributes_that_the_word_policy_refuses_stop_ingest_by_their_picture(raw: Path) -> None:
    noise(1).save(raw / "a.png")
    noise(2).save(raw / "b.png")
    (raw / "attributes.json").write_text('{"b.png": {"clothes": "no clothes"}}')

    said = r"b\.png: its attribute 'no clothes' is refused: sexual content"
    with pytest.raises(InvalidAttributesError, match=said):
        ingested(raw)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"class_word": "teenage girl"}, "only adults are drawn"),
        ({"description": "she looks fifteen"}, "only adults are drawn"),
        ({"description": "topless"}, "sexual content is not drawn"),
        ({"description": "looks like Scarlett Johansson"}, "a real person"),
    ],
)
def test_a_concept_that_the_word_policy_refuses_is_named(
    raw: Path, fields: dict[str, str], said: str
) -> None:
    noise(1).save(raw / "a.png")

    with pytest.raises(UnsafePromptError, match=f"class_word and description of test_woman: .*{said}"):
        ingested(raw, {**FOLDER, **fields})


def test_a_decomposed_name_keeps_its_attributes_and_its_rights(raw: Path) -> None:
    mac, pc = (unicodedata.normalize(form, "Zoë 01.png") for form in ("NFD", "NFC"))
    noise(1).save(raw / mac)
    (raw / "attributes.json").write_text(json.dumps({pc: {"expression": "smiling"}}))
    rights = (RECORD.model_copy(update={"covers": pc}),)
    _, manifest, *_ = ingested(raw, FOLDER, rights)
    assert list(manifest["attributes"]) == ['{"expression": "smiling"}']


def test_attributes_and_records_that_fit_no_picture_are_reported(
    raw: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise(1).save(raw / "a.png")
    (raw / "attributes.json").write_text('{"A.png": {"expression": "smiling"}, "a.png": {}}')
    other = RECORD.model_copy(update={"id": "other", "covers": "A.PNG"})
    _, manifest, *_ = ingested(raw, FOLDER, (*RIGHTS, other))
    assert list(manifest["attributes"]) == ["{}"]
    assert "no image is named A.png; their attributes are not used" in caplog.text
    assert "record other covers 'A.PNG', but no image has such a name (close: a.png)" in caplog.text


def test_what_is_revoked_is_left_out_however_it_is_named(raw: Path) -> None:
    noise(1).save(raw / "IMG [2].png")
    noise(2).save(raw / "a.png")
    one = RECORD.model_copy(update={"id": "one", "covers": "IMG [2].PNG", **TAKEN_BACK})
    _, manifest, rejections, _ = ingested(raw, FOLDER, (*RIGHTS, one))
    assert list(manifest["source_name"]) == ["a.png"]
    assert list(rejections["reason"]) == ["rights revoked"]


def test_a_revoked_record_that_covers_no_picture_is_an_error_but_for_deleted_pictures(raw: Path) -> None:
    noise(1).save(raw / "IMG_0001.png")
    one = RECORD.model_copy(update={"id": "one", "covers": "IMG_001.png", **TAKEN_BACK})
    with pytest.raises(
        InvalidLedgerError, match=r"record one covers 'IMG_001\.png'.*close: IMG_0001\.png.*`deleted: "
    ):
        ingested(raw, FOLDER, (*RIGHTS, one))
    gone = one.model_copy(update={"deleted": date(2020, 1, 2)})
    assert len(ingested(raw, FOLDER, (*RIGHTS, gone))[1]) == 1
    (raw.parents[1] / "05_model_input/test_woman/garden").mkdir(parents=True)
    noise(2).save(raw.parents[1] / "05_model_input/test_woman/garden/rose.png")
    beside = one.model_copy(update={"covers": "garden/*"})
    assert len(ingested(raw, FOLDER, (*RIGHTS, beside))[1]) == 1


def test_what_ends_is_left_out_from_the_day_after_on(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(1).save(raw / "a.png")
    rights = (RECORD.model_copy(update={"expires": date(2030, 1, 31)}),)
    monkeypatch.setattr(clock, "today", lambda: date(2030, 1, 31))
    assert len(ingested(raw, FOLDER, rights)[1]) == 1
    monkeypatch.setattr(clock, "today", lambda: date(2030, 2, 1))
    with pytest.raises(NoImagesError, match="rights expired"):
        ingested(raw, FOLDER, rights)


GARDEN = RECORD.model_copy(update={"id": "garden", "covers": "garden/*"})


@pytest.fixture
def garden(raw: Path) -> Path:
    """A folder of extra data with one image and its caption, beside the character's own image."""
    noise(1).save(raw / "a.png")
    folder = raw.parents[1] / "05_model_input/test_woman/garden"
    folder.mkdir(parents=True)
    noise(2, 64, 96).save(folder / "rose.png")
    (folder / "rose.txt").write_text("photo of a rose garden\n")
    return folder


def test_extra_data_passes_the_checks_of_portraits_and_each_refused_file_has_its_row(
    raw: Path, garden: Path
) -> None:
    for number, name in enumerate(("plain", "small", "again")):
        size = (24, 12) if name == "small" else (64, 96)
        noise(2 if name == "again" else number + 3, *size).save(garden / f"{name}.png")
        (garden / f"{name}.txt").write_text("photo of a garden\n" if name != "plain" else " ")
    (garden / "README.md").write_text("Notes")
    Image.new("L", (64, 96), 255).save(garden / "rose_mask.png")
    Image.new("L", (64, 96)).save(garden / "again_mask.png")
    lora = garden.parent / "lora"
    lora.mkdir()
    (lora / "adapter_model.safetensors").touch()

    own, own_manifest, *_ = ingested(raw)
    images, manifest, rejections, masks = ingested_extra(raw, (*RIGHTS, GARDEN))

    assert list(own_manifest["source_name"]) == ["a.png"] and len(own) == 1
    kept = manifest.set_index("source_name").to_dict("index")
    assert set(kept) == {"garden/again.png"}  # in the order of names, rose.png is the duplicate
    assert kept["garden/again.png"]["rights_id"] == "garden"
    assert kept["garden/again.png"]["caption"] == "photo of a garden"
    assert list(images) == [kept["garden/again.png"]["sha256"]] and not masks
    reasons = dict(zip(rejections["source_name"], rejections["reason"], strict=True))
    assert reasons == {
        "garden/README.md": "not an image",
        "garden/again_mask.png": "mask not used",
        "garden/plain.png": "no caption",
        "garden/rose.png": "duplicate",
        "garden/small.png": "too small",
    }


def test_extra_data_keeps_its_pixels_and_its_mask_and_may_be_half_as_large(raw: Path, garden: Path) -> None:
    Image.new("L", (64, 96), 255).save(garden / "rose_mask.png")
    noise(3, 16, 16).save(garden / "stamp.png")
    (garden / "stamp.txt").write_text("photo of a stamp")
    images, manifest, rejections, masks = ingested_extra(raw, (*RIGHTS, GARDEN))
    rose, stamp = manifest["sha256"]
    assert np.array_equal(np.asarray(Image.open(images[rose])), np.asarray(noise(2, 64, 96)))
    assert set(images) == {rose, stamp} and set(masks) == {rose} and rejections.empty
    assert list(manifest["caption"]) == ["photo of a rose garden", "photo of a stamp"]


@pytest.mark.parametrize(
    ("rights", "reason"),
    [
        (RIGHTS, "no rights record"),
        ((*RIGHTS, GARDEN.model_copy(update={"uses": ("generation",)})), "rights for another purpose"),
        ((*RIGHTS, GARDEN.model_copy(update={"expires": date(2020, 1, 1)})), "rights expired"),
        ((*RIGHTS, GARDEN.model_copy(update=TAKEN_BACK)), "rights revoked"),
    ],
)
def test_extra_data_needs_a_record_that_names_its_folder(
    rights: tuple[RightsRecord, ...], reason: str, raw: Path, garden: Path
) -> None:
    images, manifest, rejections, _ = ingested_extra(raw, rights)
    assert not images and manifest.empty
    assert rejections.to_numpy().tolist()[0][:2] == ["garden/rose.png", reason]
    assert list(ingested(raw, rights=rights)[1]["source_name"]) == ["a.png"]

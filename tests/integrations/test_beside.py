"""Captions and masks beside pictures, named as people and other trainers name them."""

from pathlib import Path

import pytest

from portraits import noise
from valentina_pipeline.integrations.sources.beside import BadCaptionError, read_caption, sorted_out
from valentina_pipeline.integrations.sources.files import Entry
from valentina_pipeline.integrations.sources.folder import LocalFolder


def named(*names: str) -> list[Entry]:
    return [Entry(name) for name in names]


def captions(*names: str) -> dict[str, str]:
    return {picture: entry.name for picture, entry in sorted_out(named(*names)).captions.items()}


@pytest.mark.parametrize("caption", ["a.txt", "a.caption", "a.TXT", "a.png.txt"])
def test_each_trainers_name_of_a_caption_is_found(caption: str) -> None:
    assert captions("a.png", caption, "b.png") == {"a.png": caption}


def test_a_caption_is_in_its_pictures_folder_and_may_have_two_pictures() -> None:
    assert captions("x/a.png", "a.txt", "y/a.jpg", "y/a.txt") == {"y/a.jpg": "y/a.txt"}
    assert captions("a.jpg", "a.png", "a.txt") == {"a.jpg": "a.txt", "a.png": "a.txt"}
    assert captions("a.jpg", "a.png", "a.jpg.txt") == {"a.jpg": "a.jpg.txt"}
    assert captions("e\u0301.png", "\u00e9.txt") == {"e\u0301.png": "\u00e9.txt"}


@pytest.mark.parametrize("order", [("a.caption", "a.txt"), ("a.txt", "a.caption")])
def test_of_two_captions_the_txt_counts_and_the_other_is_said(order: tuple[str, str]) -> None:
    found = sorted_out(named("a.png", *order))
    assert found.captions["a.png"].name == "a.txt"
    assert {entry.name: why for entry, why in found.unused.items()} == {"a.caption": "a.txt is the caption"}


@pytest.mark.parametrize(
    "mask", ["a-masklabel.png", "a_mask.png", "a-mask.jpg", "masks/a.png", "mask/a.png", "A/masks/a.png"]
)
def test_a_mask_is_no_picture(mask: str) -> None:
    picture = "A/a.jpg" if mask.startswith("A/") else "a.jpg"
    found = sorted_out(named(picture, mask))
    assert [entry.name for entry in found.pictures] == [picture]
    assert {name: entry.name for name, entry in found.masks.items()} == {picture: mask}


def test_a_portrait_may_be_called_mask_and_a_mask_without_a_picture_is_unused() -> None:
    found = sorted_out(named("venetian_mask.png", "masks/b.png", "a-masklabel.png", "b.txt", "notes.md"))
    assert [entry.name for entry in found.pictures] == ["venetian_mask.png", "masks/b.png", "notes.md"]
    assert {entry.name for entry in found.unused} == {"a-masklabel.png", "b.txt"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("on a beach\r\nsecond \u00e9".encode("utf-8-sig"), "on a beach second \u00e9"),
        ("caf\u00e9".encode("utf-16"), "caf\u00e9"),
        (b"  \n", ""),
        ("\U0001f600 on a beach\x00".encode(), "\U0001f600 on a beach"),
    ],
)
def test_a_caption_is_read_as_one_line_whatever_the_editor_that_wrote_it(
    tmp_path: Path, content: bytes, said: str
) -> None:
    noise(1).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(content)
    assert read_caption(LocalFolder(tmp_path), Entry("a.txt")) == said


@pytest.mark.parametrize(
    ("content", "said"), [("caf\u00e9".encode("cp1252"), "save it as UTF-8"), (b"x" * 20_000, "shorten it")]
)
def test_a_caption_that_is_none_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(BadCaptionError, match=rf"a\.txt .*{said}"):
        read_caption(LocalFolder(tmp_path), Entry("a.txt"))

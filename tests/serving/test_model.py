"""An opened package: what it checks, what it draws, what it refuses."""

import base64
import json
import shutil
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageChops

import packages
from valentina_pipeline.datasets import FileFolder
from valentina_pipeline.image import png
from valentina_pipeline.image.safety import UnsafePrompt
from valentina_pipeline.pipelines.publish.nodes import publish_package
from valentina_pipeline.release.package import sums
from valentina_pipeline.serving.model import BadPackage, Character, Wish, _load_pyfunc, check, read

DECISION = {"status": "champion", "reasons": [], "content_hash": "c" * 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("published")
    FileFolder(filepath=str(place / "package")).save(
        publish_package(decision=DECISION, **packages.inputs(place))
    )
    return place / "package"


@pytest.fixture(scope="module")
def character(folder: Path) -> Character:
    return Character(read(folder))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "package")


def difference(one: Image.Image | None, other: Image.Image | None) -> int:
    """Return by how much the two differ where they differ most, of 255."""
    assert one is not None
    assert other is not None
    extremes = ImageChops.difference(one, other).getextrema()
    return max(int(high) for _, high in extremes)  # type: ignore[misc]


def test_a_wish_gives_the_same_image_alone_and_among_others(character: Character) -> None:
    wish = Wish("smiling", 3, "draft")
    (alone,) = character.draw([wish])
    again, other = character.draw([wish, Wish("smiling", 4, "draft")])
    assert difference(alone.image, again.image) <= 3  # batches round differently
    assert difference(alone.image, other.image) > 30


def test_the_lora_is_at_work(character: Character) -> None:
    wish = Wish("smiling", 3, "draft")
    (adapted,) = character.draw([wish])
    character._pipe.disable_lora()
    try:
        (bare,) = character.draw([wish])
    finally:
        character._pipe.enable_lora()
    assert difference(adapted.image, bare.image) > 30


def test_images_say_what_they_are_and_from_what(character: Character) -> None:
    (drawn,) = character.draw([Wish("smiling", 3)])
    assert drawn.image is not None
    marks = drawn.image.info["text"]
    assert marks["synthetic"] == "true"
    assert marks["lora_sha256"] == character.about.lora_hash
    assert marks["base_sha256"] == character.about.base_hash
    assert (marks["seed"], drawn.preset) == ("3", "standard")


def test_mlflow_s_table_gets_a_row_for_a_row(character: Character) -> None:
    table = pd.DataFrame({"prompt": ["smiling", "beach"], "seed": [3, None], "preset": [None, "draft"]})
    answer = character.predict(table)
    assert list(answer["preset"]) == ["standard", "draft"]
    assert answer["seed"][0] == 3
    assert list(answer["refused"]) == ["", ""]
    image = png.decode(base64.b64decode(answer["image"][0]))
    assert image.size == (64, 64)
    assert "valentina_moreau" in image.info["text"]["prompt"]


def test_an_image_that_the_filter_refuses_is_not_given_out(
    character: Character, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Strict:
        def unsafe(self, image: Image.Image) -> str:
            return "exposed (score 0.90)"

    monkeypatch.setattr(character, "_filter", Strict())
    answer = character.predict(pd.DataFrame({"prompt": ["smiling"], "preset": ["draft"]}))
    assert answer["image"][0] == ""
    assert answer["refused"][0] == "exposed (score 0.90)"


@pytest.mark.parametrize(
    ("prompt", "drawn"),
    [
        ("valentina_moreau woman at sea", "valentina_moreau woman at sea"),
        ("a Woman at sea", "a valentina_moreau woman at sea"),
        ("at sea", "photo of a valentina_moreau woman, at sea"),
        ("superwoman at sea", "photo of a valentina_moreau woman, superwoman at sea"),
    ],
)
def test_the_trigger_is_put_in_where_it_is_absent(character: Character, prompt: str, drawn: str) -> None:
    assert character.about.subject(prompt) == drawn


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ([], "0 images at once"),
        ([Wish("a", 1)] * 65, "65 images at once"),
        ([Wish("  ", 1)], "1 to 2000 characters"),
        ([Wish("a" * 2001, 1)], "not 2001"),
        ([Wish("a", 1, "best")], "no preset 'best': draft"),
        ([Wish("a", -1)], "a seed is"),
    ],
)
def test_a_wish_out_of_bounds_says_why(character: Character, wishes: list[Wish], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(character.about, wishes)


def test_a_prompt_against_the_policy_is_refused(character: Character) -> None:
    with pytest.raises(UnsafePrompt):
        character.draw([Wish("smiling", 1), Wish("n.u.d.e", 1)])


def test_a_changed_or_missing_file_is_found_before_anything_is_loaded(copy: Path) -> None:
    file = copy / "lora/pytorch_lora_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BadPackage, match=r"pytorch_lora_weights\.safetensors was changed"):
        read(copy)
    file.unlink()
    with pytest.raises(BadPackage, match="is missing"):
        read(copy)


def test_a_folder_that_is_no_package_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadPackage, match="uv run dvc repro"):
        _load_pyfunc(str(tmp_path))


def test_another_base_than_the_one_trained_on_is_refused(copy: Path) -> None:
    described = json.loads((copy / "base.json").read_text())
    (copy / "base.json").write_text(json.dumps({**described, "sha256": "0" * 64}))
    files = {
        f.relative_to(copy).as_posix(): f for f in copy.rglob("*") if f.is_file() and f.name != "SHA256SUMS"
    }
    (copy / "SHA256SUMS").write_bytes(sums(files))
    with pytest.raises(BadPackage, match="other weights"):
        Character(read(copy))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"expires": date(2020, 1, 1)},
            "draws nothing any more: record valentina-moreau-2024 ended 2020-01-01",
        ),
        ({"uses": ("training",)}, "record valentina-moreau-2024 does not allow generation"),
    ],
)
def test_a_package_whose_rights_ended_or_are_for_something_else_draws_nothing(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    (record,) = packages.rights()
    inputs = packages.inputs(tmp_path, rights=(record.model_copy(update=changes),))
    FileFolder(filepath=str(tmp_path / "package")).save(publish_package(decision=DECISION, **inputs))
    with pytest.raises(BadPackage, match=said):
        read(tmp_path / "package")

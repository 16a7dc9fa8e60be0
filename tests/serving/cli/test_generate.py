"""The command: a prompt in, marked PNG files out, and one line when it cannot."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from given import dunes
from stores import empty_store
from valentina_pipeline.image.io import png
from valentina_pipeline.integrations.registry import Registry
from valentina_pipeline.serving.cli.generate import generate
from valentina_pipeline.serving.marks.c2pa import read


class Metadata:
    """What Kedro passes to a project's command."""

    def __init__(self, project_path: Path) -> None:
        self.project_path = project_path


@pytest.fixture(scope="module")
def project(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").write_text("concepts: [valentina_moreau]\n")
    shutil.copytree(package, root / "data/06_models/valentina_moreau/package")
    return root


def command(project: Path, *arguments: str) -> Result:
    return CliRunner().invoke(generate, [*arguments], obj=Metadata(project))


def test_it_writes_marked_images_and_prints_where(project: Path, tmp_path: Path) -> None:
    result = command(
        project, "smiling", "--preset", "draft", "--seed", "7", "--num-images", "2", "--output", str(tmp_path)
    )
    assert result.exit_code == 0, result.output
    files = [Path(line) for line in result.stdout.splitlines()]
    assert sorted(tmp_path.iterdir()) == files
    first = png.decode(files[0].read_bytes())
    assert first.info["text"]["seed"] == "7"
    assert first.info["text"]["prompt"] == "photo of a valentina_moreau woman, smiling"
    manifest = read(files[0].read_bytes())
    assert manifest is not None
    assert manifest.generated and manifest.intact


def test_a_refused_prompt_is_one_line_and_no_file(project: Path, tmp_path: Path) -> None:
    result = command(project, "nude", "--output", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert result.output == "Error: this prompt is refused: sexual content is not drawn\n"
    assert not (tmp_path / "out").exists()


def test_an_unknown_preset_names_those_there_are(project: Path) -> None:
    result = command(project, "smiling", "--preset", "best")
    assert "preset: unknown preset 'best'; available: draft, high, standard, ultra" in result.output


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--steps", "0"), "steps: Input should be greater than or equal to 1"),
        (("--width", "100"), "width: Input should be a multiple of 8"),
        (("--lora", "style:0.5"), "loras: unknown LoRA 'style'; available: valentina_moreau"),
        (("--lora", "valentina_moreau:much"), "loras.0.weight: Input should be a valid number"),
    ],
)
def test_an_impossible_wish_names_the_field_and_what_it_may_be(
    project: Path, option: tuple[str, str], said: str
) -> None:
    result = command(project, "smiling", *option)
    assert result.exit_code == 1
    assert said in result.output


def test_an_image_is_drawn_again_from_its_file_but_for_what_is_said(project: Path, tmp_path: Path) -> None:
    settings = (
        "--preset",
        "draft",
        "--width",
        "72",
        "--lora",
        "valentina_moreau:0.5",
        "--output",
        str(tmp_path),
    )
    (first,) = command(project, "smiling", *settings, "--seed", "9").stdout.splitlines()
    like = ("--params-from", first, "--output", str(tmp_path / "again"))
    (again,) = command(project, *like).stdout.splitlines()
    same, before = (png.decode(Path(each).read_bytes()) for each in (again, first))
    assert (same.tobytes(), same.info) == (before.tobytes(), before.info)  # the signature is another
    (wider,) = command(project, *like, "--width", "80").stdout.splitlines()
    marks = png.decode(Path(wider).read_bytes())
    assert marks.size == (80, 64)
    assert marks.info["text"]["seed"] == "9"
    assert (
        "does not say how it was generated" in command(project, "--params-from", str(plain(tmp_path))).output
    )


def test_several_prompts_make_a_sheet_with_a_row_each(project: Path, tmp_path: Path) -> None:
    asked = ("smiling", "at sea", "--preset", "draft", "--num-images", "3", "--contact-sheet")
    printed = command(project, *asked, "--output", str(tmp_path)).stdout.splitlines()
    assert len(printed) == 7
    sheet = png.decode(Path(printed[-1]).read_bytes())
    assert sheet.width > sheet.height > 2 * 256
    assert sheet.info["text"]["synthetic"] == "true"
    assert read(Path(printed[-1]).read_bytes()) is not None


def test_a_grid_of_scenes_and_seeds_is_drawn_by_their_kind(project: Path, tmp_path: Path) -> None:
    asked = ("--scene", "editorial", "--scene", "weekend", "--preset", "draft", "--num-images", "2")
    printed = command(project, *asked, "--output", str(tmp_path)).stdout.splitlines()
    prompts = [png.decode(Path(each).read_bytes()).info["text"]["prompt"] for each in printed]
    assert len(prompts) == 4 * 2
    assert "sunset background" in prompts[5]
    assert "red t-shirt" in prompts[6]


def test_pictures_are_given_as_files(project: Path, tmp_path: Path) -> None:
    dunes().save(tmp_path / "dunes.png")
    Image.new("L", dunes().size, 255).save(tmp_path / "all.png")
    pictures = (
        "--image",
        str(tmp_path / "dunes.png"),
        "--mask",
        str(tmp_path / "all.png"),
        "--strength",
        "0.5",
    )
    control = ("--control", f"canny:{tmp_path / 'dunes.png'}:0.5")
    output = ("--preset", "draft", "--output", str(tmp_path / "out"))
    (drawn,) = command(project, "smiling", *pictures, *control, *output).stdout.splitlines()
    texts = png.decode(Path(drawn).read_bytes()).info["text"]
    (kept_to,) = json.loads(texts["controls"])
    assert (texts["strength"], kept_to["kind"], kept_to["scale"]) == ("0.5", "canny", 0.5)
    missing = command(project, "--params-from", drawn, *output)
    assert "image: needs the input image of the original again" in missing.output
    (again,) = command(project, "--params-from", drawn, *pictures, *control, *output).stdout.splitlines()
    assert png.decode(Path(again).read_bytes()).info == png.decode(Path(drawn).read_bytes()).info
    assert "no such" in command(project, "a", "--image", str(tmp_path / "none.png")).output.lower()


def test_a_version_of_the_registry_is_drawn_from_by_its_name(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_store(tmp_path, monkeypatch)
    files = {f.relative_to(package).as_posix(): f for f in package.rglob("*") if f.is_file()}
    registry = Registry(tmp_path, "her")
    registry.promote(registry.register(files, {"package_sha256": "0" * 64}))
    output = ("--preset", "draft", "--output", str(tmp_path / "out"))
    for uri in ("models:/her@champion", "models:/her/1"):
        result = command(tmp_path, "smiling", "--package", uri, *output)
        assert result.exit_code == 0, result.output
    unknown = command(tmp_path, "smiling", "--package", "models:/her@best").output
    assert "models:/her@best not found" in unknown
    assert "must be models:/NAME@ALIAS" in command(tmp_path, "smiling", "--package", "models:her").output


def plain(folder: Path) -> Path:
    (folder / "plain.png").write_bytes(png.encode(Image.new("RGB", (8, 8))))
    return folder / "plain.png"


def test_without_a_package_it_says_how_to_make_one(project: Path) -> None:
    result = command(project, "smiling", "--concept", "nobody")
    assert result.exit_code == 1
    assert "uv run dvc repro" in result.output


def test_without_params_it_says_what_to_name(tmp_path: Path) -> None:
    assert "run this in the project's folder" in command(tmp_path, "smiling").output
    (tmp_path / "params.yaml").write_text("concepts: []\n")
    assert "--concept" in command(tmp_path, "smiling").output

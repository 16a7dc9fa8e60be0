"""The command: a prompt in, marked PNG files out, and one line when it cannot."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import packages
from valentina_pipeline.datasets import FileFolder
from valentina_pipeline.image import png
from valentina_pipeline.pipelines.publish.nodes import publish_package
from valentina_pipeline.serving.generate import generate

DECISION = {"status": "champion", "reasons": [], "content_hash": "c" * 64}


class Metadata:
    """What Kedro passes to a project's command."""

    def __init__(self, project_path: Path) -> None:
        self.project_path = project_path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").write_text("concepts: [valentina_moreau]\n")
    FileFolder(filepath=str(root / "data/06_models/valentina_moreau/package")).save(
        publish_package(decision=DECISION, **packages.inputs(root))
    )
    return root


def command(project: Path, *arguments: str) -> Result:
    return CliRunner().invoke(generate, [*arguments], obj=Metadata(project))


def test_it_writes_marked_images_and_prints_where(project: Path, tmp_path: Path) -> None:
    result = command(
        project, "smiling", "--preset", "draft", "--seed", "7", "--count", "2", "--output", str(tmp_path)
    )
    assert result.exit_code == 0, result.output
    files = [Path(line) for line in result.stdout.splitlines()]
    assert sorted(tmp_path.iterdir()) == files
    first = png.decode(files[0].read_bytes())
    assert first.info["text"]["seed"] == "7"
    assert first.info["text"]["prompt"] == "photo of a valentina_moreau woman, smiling"


def test_a_refused_prompt_is_one_line_and_no_file(project: Path, tmp_path: Path) -> None:
    result = command(project, "nude", "--output", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert result.output == "Error: this prompt is refused: sexual content is not drawn\n"
    assert not (tmp_path / "out").exists()


def test_an_unknown_preset_names_those_there_are(project: Path) -> None:
    result = command(project, "smiling", "--preset", "best")
    assert "there is no preset 'best': draft, high, standard, ultra" in result.output


def test_without_a_package_it_says_how_to_make_one(project: Path) -> None:
    result = command(project, "smiling", "--concept", "nobody")
    assert result.exit_code == 1
    assert "uv run dvc repro" in result.output


def test_without_params_it_says_what_to_name(tmp_path: Path) -> None:
    assert "run this in the project's folder" in command(tmp_path, "smiling").output
    (tmp_path / "params.yaml").write_text("concepts: []\n")
    assert "--concept" in command(tmp_path, "smiling").output

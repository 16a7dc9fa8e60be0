"""The project's commands, as Kedro calls them."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner, Result

from valentina_pipeline.cli import ShortErrorGroup, cli
from valentina_pipeline.domain.rights import InvalidLedgerError


def kedro(project: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, obj=SimpleNamespace(project_path=project))


@pytest.mark.slow
def test_dvc_yaml_is_checked_written_and_then_up_to_date(project: Path) -> None:
    assert kedro(project, "dvc").output == "dvc.yaml written\n"
    assert kedro(project, "dvc").output == "dvc.yaml is up to date\n"
    assert kedro(project, "dvc", "--check").exit_code == 0
    file = project / "dvc.yaml"
    stale = file.read_text().replace("kedro run --pipelines align", "kedro run --pipelines sleep")
    file.write_text(stale)
    checked = kedro(project, "dvc", "--check")
    assert checked.exit_code == 1
    assert "-    cmd: kedro run --pipelines sleep" in checked.output
    assert "+    cmd: kedro run --pipelines align" in checked.output
    assert file.read_text() == stale


def test_a_dag_that_cannot_be_is_told_without_a_traceback(project: Path) -> None:
    catalog = project / "conf/base/catalog.yml"
    catalog.write_text(catalog.read_text().replace("metrics.json", "decision.json"))
    done = kedro(project, "dvc")
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert "decision.json" in done.output


def test_without_a_lock_there_is_nothing_to_reproduce(tmp_path: Path) -> None:
    for command in ("init --quiet", "-c user.name=T -c user.email=t@x commit --quiet --allow-empty -m empty"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    done = kedro(tmp_path, "reproduce")
    assert done.exit_code == 1
    assert "HEAD has no dvc.lock" in done.output


@pytest.mark.parametrize("command", ["check", "dvc", "new-concept", "reproduce", "generate"])
def test_help_teaches(command: str, tmp_path: Path) -> None:
    assert len(kedro(tmp_path, command, "--help").output.splitlines()) > 8


@pytest.fixture
def failing() -> click.Group:
    """A group like the project's, with commands that fail."""
    group = ShortErrorGroup(name="failing")

    @group.command()
    @click.argument("kind")
    def fail(kind: str) -> None:
        raise InvalidLedgerError("studio.yml:\n  no record") if kind == "ours" else KeyError("sha256")

    return group


def test_an_error_ends_in_one_paragraph(failing: click.Group) -> None:
    done = CliRunner().invoke(failing, ["fail", "ours"])
    assert done.exit_code == 1
    assert done.output == "Error: studio.yml: no record\n(--verbose shows the traceback)\n"
    assert "KeyError: 'sha256'" in CliRunner().invoke(failing, ["fail", "other"]).output


def test_verbose_shows_the_traceback(failing: click.Group) -> None:
    done = CliRunner().invoke(failing, ["fail", "ours", "--verbose"])
    assert isinstance(done.exception, InvalidLedgerError)


def test_check_names_every_problem_and_creates_the_folders(project: Path) -> None:
    concepts = project / "conf/base/concepts"
    file = concepts / "ada.yml"
    text = (concepts / "valentina_moreau.yml").read_text()
    text = text.replace("trigger: valentina_moreau", "trigger: ada").replace(
        "source: renderer", "source: gone"
    )
    file.write_text(text)
    done = kedro(project, "check", "ada")
    assert done.exit_code == 1
    assert "ada\tmissing\trights: " in done.output
    assert "ada\tmissing\tsource: " in done.output and "gone" in done.output
    assert "ada\tmissing\tmodels: tiny/weights/base" in done.output  # the copy has no weights
    assert (project / "data/01_raw/ada").is_dir() and (project / "data/05_model_input/ada").is_dir()


def test_check_reports_a_concept_without_a_file(project: Path) -> None:
    done = kedro(project, "check", "nobody")
    assert done.exit_code == 1
    assert "concept: 'nobody' has no file" in done.output


@pytest.mark.parametrize(
    "command",
    [
        ("lora", "merge"),
        ("lora", "resize"),
        ("base", "single-file"),
        ("new-concept",),
        ("package",),
        ("dvc",),
    ],
)
def test_examples_in_helps_keep_their_lines(command: tuple[str, ...], tmp_path: Path) -> None:
    shown = kedro(tmp_path, *command, "--help").output
    assert "\\b" not in shown
    starts = ("kedro ", "- a node's") if command == ("dvc",) else ("kedro ",)
    assert any(line.strip().startswith(starts) for line in shown.splitlines())

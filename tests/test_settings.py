"""How Kedro is set up here: where parameters come from, and what a wrong one looks like."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.project import pipelines, settings

from valentina_pipeline.config.validation import InvalidParameterError
from valentina_pipeline.config_loader import ProjectConfigLoader
from valentina_pipeline.pipeline_registry import PIPELINES


def loader(project: Path, **runtime: Any) -> ProjectConfigLoader:
    return ProjectConfigLoader(
        project / "conf", runtime_params=runtime, base_env="base", default_run_env="local"
    )


def test_kedro_uses_the_projects_loader(root: Path) -> None:
    assert settings.CONFIG_LOADER_CLASS is ProjectConfigLoader


def test_the_registry_has_the_stages_in_order_and_all_of_them_by_default(root: Path) -> None:
    pipelines.set_requested(None)
    assert tuple(pipelines) == (*PIPELINES, "__default__")
    assert {node.name for node in pipelines["__default__"].nodes} >= set(PIPELINES)


def test_asking_for_one_pipeline_imports_only_its_folder(project: Path) -> None:
    code = """
import sys
from kedro.framework.startup import bootstrap_project
from kedro.framework.project import pipelines
bootstrap_project(sys.argv[1])
pipelines.set_requested(["caption"])
assert set(pipelines) == {"caption", "__default__"}
print(*(name.split(".")[2] for name in sys.modules if name.startswith("valentina_pipeline.pipelines.")))
"""
    shown = subprocess.check_output([sys.executable, "-c", code, str(project)], text=True, env=bare())
    assert set(shown.splitlines()[-1].split()) == {"caption"}


def test_without_a_concept_the_first_in_the_list_is_meant(project: Path) -> None:
    made = loader(project)
    assert made["parameters"]["concept"]["trigger"] == "valentina_moreau"
    assert made["catalog"]["lora"]["filepath"] == "data/06_models/valentina_moreau/lora"


def test_a_concept_given_at_runtime_is_used_by_catalog_and_parameters(project: Path) -> None:
    concepts = project / "conf/base/concepts"
    text = (concepts / "valentina_moreau.yml").read_text()
    (concepts / "anna_k.yml").write_text(text.replace("trigger: valentina_moreau", "trigger: anna_k"))
    made = loader(project, concept="anna_k")
    assert made["parameters"]["concept"]["trigger"] == "anna_k"
    assert made["catalog"]["lora"]["filepath"] == "data/06_models/anna_k/lora"


def test_a_trigger_that_is_not_the_files_name_is_refused(project: Path) -> None:
    concepts = project / "conf/base/concepts"
    (concepts / "anna.yml").write_text((concepts / "valentina_moreau.yml").read_text())
    with pytest.raises(InvalidParameterError, match=r"'valentina_moreau' must be the file's name, 'anna'"):
        loader(project, concept="anna")["parameters"]


def test_a_runtime_parameter_wins_like_one_in_params_yaml(project: Path) -> None:
    implied = loader(project)["parameters"]
    made = loader(project, train_lora={"rank": 3}, seed=7)["parameters"]
    assert made["train_lora"] == {**implied["train_lora"], "rank": 3}
    assert implied["train_lora"]["rank"] != 3
    assert made["seed"] == 7


def test_parameter_files_in_an_environment_take_no_part(project: Path) -> None:
    (project / "conf/local/parameters.yml").write_text("train_lora: {rank: 99}\n")
    assert loader(project)["parameters"]["train_lora"]["rank"] != 99


def test_a_small_number_in_short_notation_is_a_number(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("  learning_rate: auto", "  learning_rate: 1e-05"))
    assert loader(project)["parameters"]["train_lora"]["learning_rate"] == 1e-5


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("params.yaml", "  rank: auto", "  rank: auto\n  rnak: 8", r"train_lora\.rnak: Extra"),
        ("params.yaml", "base: tiny", "base: [tiny", r"params\.yaml is not YAML"),
        ("params.yaml", "[valentina_moreau]", "[]", "concepts: params.yaml needs at least one"),
        (
            "params.yaml",
            "[valentina_moreau]",
            "[nobody]",
            "concept: 'nobody' has no file in .*valentina_moreau",
        ),
        (
            "conf/base/concepts/valentina_moreau.yml",
            "kind: character",
            "kind: ghost",
            r"concept\.kind: Input",
        ),
    ],
)
def test_a_wrong_file_is_one_clear_message(
    project: Path, file: str, old: str, new: str, message: str
) -> None:
    path = project / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InvalidParameterError, match=message):
        loader(project)["parameters"]


def test_the_command_that_a_missing_file_s_message_names_restores_it(project: Path) -> None:
    bases = project / "conf/base/bases.yml"
    for command in (
        ["init"],
        ["add", "conf"],
        ["-c", "user.name=x", "-c", "user.email=x", "commit", "-m", "x"],
    ):
        subprocess.run(["git", "-C", project, *command], check=True, capture_output=True)
    bases.unlink()
    with pytest.raises(InvalidParameterError) as caught:
        loader(project)["parameters"]
    _, command, _ = str(caught.value).split("`")
    subprocess.run(command.split(), cwd=project, check=True, capture_output=True)
    assert bases.is_file()


@pytest.mark.parametrize("name", ["../../../etc/passwd", {"name": "x"}])
def test_a_concept_that_is_no_name_is_refused(project: Path, name: object) -> None:
    with pytest.raises(InvalidParameterError, match="has no file in"):
        loader(project, concept=name)["parameters"]


def kedro(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kedro", *arguments]
    return subprocess.run(
        command, cwd=project, text=True, capture_output=True, env=bare() | {"COLUMNS": "200"}
    )


def bare() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.mark.slow
def test_a_wrong_parameter_is_one_line_on_the_command_line_before_any_work(project: Path) -> None:
    done = kedro(project, "run", "--pipelines", "caption", "--params", "train_lora.rank=0")
    assert done.returncode == 1
    assert "Error: train_lora.rank: Input should be greater than or equal to 1" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "Running node" not in done.stdout


@pytest.mark.slow
def test_an_unknown_pipeline_is_answered_with_those_there_are(project: Path) -> None:
    done = kedro(project, "run", "--pipelines", "train")
    assert done.returncode == 1
    assert "choose from ingest, align" in done.stdout + done.stderr


@pytest.mark.slow
def test_kedro_dvc_writes_and_its_check_shows_what_is_stale(project: Path) -> None:
    assert "dvc.yaml written" in kedro(project, "dvc").stdout
    catalog = project / "conf/base/catalog.yml"
    catalog.write_text(
        catalog.read_text().replace("${_concept}/comparison_grid.png", "${_concept}/images.png")
    )
    stale = kedro(project, "dvc", "--check")
    assert stale.returncode == 1
    assert "-    - data/08_reporting/${item.concept}/comparison_grid.png" in stale.stdout
    assert "+    - data/08_reporting/${item.concept}/images.png" in stale.stdout

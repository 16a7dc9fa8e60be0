"""What a run's inputs are, told apart by content and by nothing else."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from valentina_pipeline.integrations.run_inputs import Commit, commit, inputs_hash, locked_outputs

LOCK = """
schema: '2.0'
stages:
  evaluate@anna:
    cmd: kedro run
    outs:
    - {path: data/metrics.json, hash: md5, md5: 0123, size: 5}
  evaluate@berta:
    cmd: kedro run
    outs:
    - {path: data/other.json, hash: md5, md5: "4567", size: 5}
  record@anna:
    cmd: kedro run
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name, content in {
        "dvc.yaml": "stages: {}",
        "conf/base/catalog.yml": "a: 1",
        "conf/base/prompts/character.yml": "- b",
        "src/valentina_pipeline/pipelines/evaluate/pipeline.py": "import valentina_pipeline.x",
        "src/valentina_pipeline/x.py": "X = 1",
        "src/valentina_pipeline/unused.py": "X = 1",
        "src/valentina_pipeline/datasets/tables.py": "X = 1",
        "tiny/judges.json": "{}",
        "tiny/weights/base/unet.safetensors": "weights",
        "data/01_raw/anna.dvc": "md5",
        "data/01_raw/anna/1.png": "picture",
        "data/01_raw/berta.dvc": "md5",
        "conf/base/rights/anna/studio.yml": "- id: anna",
        "conf/base/rights/berta/studio.yml": "- id: berta",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def params(**changes: Any) -> dict[str, Any]:
    return {"concept": {"trigger": "anna", "source": "data/01_raw/anna"}, "seed": 1, **changes}


def test_a_copy_elsewhere_has_the_same_inputs(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    assert inputs_hash(copy, params()) == inputs_hash(root, params())


@pytest.mark.parametrize(
    "name",
    [
        "dvc.yaml",
        "conf/base/catalog.yml",
        "conf/base/prompts/character.yml",
        "tiny/judges.json",
        "tiny/weights/base/unet.safetensors",
        "data/01_raw/anna.dvc",
        "data/01_raw/anna/1.png",
        "conf/base/rights/anna/studio.yml",
    ],
)
def test_an_input_that_changes_is_another_set_of_inputs(root: Path, name: str) -> None:
    before = inputs_hash(root, params())
    (root / name).write_text("longer than it was before")
    assert inputs_hash(root, params()) != before


@pytest.mark.parametrize("name", ["x.py", "datasets/tables.py"])
def test_code_is_an_input_and_its_words_are_not(root: Path, tmp_path: Path, name: str) -> None:
    before = inputs_hash(root, params())
    copy = shutil.copytree(root, tmp_path / "worded")
    (copy / "src/valentina_pipeline" / name).write_text('"""A docstring."""\n\nX = 1  # a comment\n')
    (copy / "src/valentina_pipeline/unused.py").write_text("X = 2\n")
    assert inputs_hash(copy, params()) == before
    copy = shutil.copytree(root, tmp_path / "changed")
    (copy / "src/valentina_pipeline" / name).write_text("X = 2")
    assert inputs_hash(copy, params()) != before


@pytest.mark.parametrize("name", ["data/01_raw/berta.dvc", "conf/base/rights/berta/studio.yml"])
def test_another_concept_is_no_input(root: Path, name: str) -> None:
    before = inputs_hash(root, params())
    (root / name).write_text("longer than it was before")
    assert inputs_hash(root, params()) == before


def test_a_parameter_that_changes_is_another_set_of_inputs(root: Path) -> None:
    assert inputs_hash(root, params(seed=2)) != inputs_hash(root, params())


def test_what_a_run_writes_is_no_input_but_a_person_s_edit_is(root: Path) -> None:
    before = inputs_hash(root, params())
    captions = root / "data/04_feature/anna/captions.csv"
    captions.parent.mkdir(parents=True)
    captions.write_text("sha256,machine,human\n1,photo of anna,\n")
    (root / "data/08_reporting").mkdir()
    (root / "data/08_reporting/metrics.json").write_text("{}")
    (root / "tiny/weights/__pycache__").mkdir()
    (root / "tiny/weights/__pycache__/x.pyc").write_text("compiled")
    assert inputs_hash(root, params()) == before
    captions.write_text("sha256,machine,human\n1,photo of anna,anna smiles\n")
    assert inputs_hash(root, params()) != before


def test_the_lock_is_read_for_one_concept(root: Path) -> None:
    assert locked_outputs(root, "anna") == {}
    (root / "dvc.lock").write_text(LOCK)
    assert locked_outputs(root, "anna")["record"] == {}
    assert locked_outputs(root, "berta") == {"evaluate": {"data/other.json": "4567"}}


def test_a_lock_with_conflict_marks_is_no_error(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "dvc.lock").write_text("<<<<<<< HEAD\n\tstages: {")
    assert locked_outputs(root, "anna") == {}
    assert "git checkout -- dvc.lock" in caplog.text


def test_git_tells_the_commit_and_whether_files_differ_from_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commit(root) is None
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.com")
    for command in ("init --quiet", "add --all", "commit --quiet --message one"):
        subprocess.run(["git", *command.split()], cwd=root, check=True)
    clean = commit(root)
    assert clean is not None
    assert len(clean.sha) == 40
    assert not clean.dirty
    (root / "dvc.yaml").write_text("changed")
    assert commit(root) == Commit(clean.sha, True)
    assert str(commit(root)) == f"{clean.sha}-dirty"

"""`kedro reproduce`: a clean clone runs HEAD again and every output is compared."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from valentina_pipeline.cli.reproduce import (
    MetricChange,
    ReproductionError,
    StageComparison,
    compare,
    reproduce_committed,
)

STAGES = {
    "stable": {"cmd": "echo same > same.txt", "outs": ["same.txt"]},
    "metrics": {
        "cmd": "cat metrics.json.source > metrics.json",
        "deps": ["same.txt"],
        "metrics": [{"metrics.json": {"cache": False}}],
    },
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed pipeline of two stages, reproduced once."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.com")
    (folder / "metrics.json.source").write_text(
        '{"identity": {"gain_over_base": 0.5, "ratio_to_ceiling": 0.8}}'
    )
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    for command in ("git init --quiet", "dvc init --quiet", "dvc repro --quiet"):
        call(folder, command)
    commit(folder)
    return folder


def call(folder: Path, command: str) -> None:
    words = command.split()
    if words[0] == "dvc":
        words = [sys.executable, "-m", *words]
    subprocess.run(words, cwd=folder, check=True)


def commit(folder: Path) -> None:
    call(folder, "git add --all")
    call(folder, "git commit --quiet --message state")


def reproduced(folder: Path, *stages: str) -> tuple[bool, str]:
    shown = io.StringIO()
    same = reproduce_committed(folder, stages, console=Console(file=shown, width=120))
    return same, shown.getvalue()


def test_equal_hashes_are_identical_and_a_moved_metric_is_told() -> None:
    before = {"train": {"lora": "a"}, "evaluate": {"m.json": "b", "comparison_grid.png": "c"}, "record": {}}
    now = {"train": {"lora": "a"}, "evaluate": {"m.json": "x", "comparison_grid.png": "c"}, "record": {}}
    old = {"m.json": {"identity": {"gain_over_base": 0.5}, "num_images": 3, "same": 1, "champion": True}}
    new = {"m.json": {"identity": {"gain_over_base": 0.75}, "num_images": 5, "same": 1, "champion": False}}
    assert list(compare(before, now, old, new)) == [
        StageComparison("train", 1, (), ()),
        StageComparison(
            "evaluate",
            2,
            ("m.json",),
            (MetricChange("num_images", 3.0, 5.0), MetricChange("identity.gain_over_base", 0.5, 0.75)),
        ),
        StageComparison("record", 0, (), ()),
    ]


def test_an_output_or_a_stage_that_one_side_lacks_differs() -> None:
    results = list(compare({"a": {"x": "1"}}, {"a": {}, "b": {"y": "2"}}, {}, {}))
    assert [result.differing for result in results] == [("x",), ("y",)]


@pytest.mark.slow
def test_what_is_committed_is_reproduced_without_touching_the_repository(repository: Path) -> None:
    (repository / "metrics.json.source").write_text("{}")  # not committed: takes no part
    before = sorted(path.name for path in repository.iterdir())
    same, shown = reproduced(repository)
    assert same
    assert shown.count("identical") == 2
    assert "1 uncommitted changes are not used" in shown
    assert sorted(path.name for path in repository.iterdir()) == before


@pytest.mark.slow
def test_a_difference_names_stage_output_and_metric(repository: Path) -> None:
    # committed without a rerun: the lock no longer tells the truth
    (repository / "metrics.json.source").write_text(
        '{"identity": {"gain_over_base": 0.4, "ratio_to_ceiling": 0.8}}'
    )
    commit(repository)
    same, shown = reproduced(repository)
    assert not same
    assert shown.count("identical") == 1
    assert "differs: metrics.json" in shown
    assert "identity.gain_over_base: 0.5 -> 0.4 (-0.1)" in shown
    same, shown = reproduced(repository, "stable")
    assert same and "metrics" not in shown


def test_without_a_lock_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.com")
    call(tmp_path, "git init --quiet")
    (tmp_path / "file").touch()
    commit(tmp_path)
    with pytest.raises(ReproductionError, match=r"HEAD has no dvc\.lock"):
        reproduce_committed(tmp_path, console=Console(file=io.StringIO()))

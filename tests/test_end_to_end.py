"""The main job on the real tiny world, small: portraits in, a package out, as a person would run it."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from dvc.repo import Repo
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from PIL import Image
from voluptuous import Invalid

from conftest import copy_project
from portraits import picture
from valentina_pipeline.cli import cli

pytestmark = pytest.mark.slow

CONCEPT = "valentina_moreau"
SMALL = {
    "ingest": {"num_rendered_images": 6},
    "train_lora": {
        "max_steps": 4, "batch_size": 2, "save_every": 2, "sample_every": 0, "extra_datasets": {"garden": {}},
    },
    "evaluate": {"num_images_per_prompt": 1, "num_inference_steps": 2, "bootstrap_resamples": 100},
}  # fmt: skip
STAGES = "kedro", "run", "--params", f"concept={CONCEPT}"
"""All stages in one process, without DVC."""


def some_file(pattern: str) -> Callable[[Path], bool]:
    """Return a sign of a moment: that a file of this pattern has come to be in the project."""
    return lambda folder: next(folder.glob(pattern), None) is not None


def locked(stage: str) -> Callable[[Path], bool]:
    """Return a sign of a moment: that dvc.lock names the stage."""
    return lambda folder: (lock := folder / "dvc.lock").is_file() and f"{stage}@" in lock.read_text()


KILLS = {
    "code is written": some_file("code_fingerprints.json"),
    "DVC writes its lock": some_file("dvc.lock"),
    "ingest writes images": some_file(f"data/02_intermediate/{CONCEPT}/**/*.png"),
    "DVC stores a result": some_file(".dvc/cache/files/md5/*/*"),
    "ingest is locked, align starts": locked("ingest"),
    "training has a checkpoint": some_file(f"data/06_models/{CONCEPT}/checkpoints/**/step-*.json"),
    "evaluate writes images": some_file(f"data/07_model_output/{CONCEPT}/**/*.png"),
    "publish writes the package": some_file(f"data/06_models/{CONCEPT}/*package*/*"),
}
"""Moments at which the main job is killed, in their order -> sign of it in the project's folder."""


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    """Start a command line in `folder`, whose own code it imports, as whoever typed it would."""
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(folder / "src"), os.environ.get("PYTHONPATH", "")]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, *command: str) -> str:
    """Run a command line in `folder` and return what it printed."""
    process = start(folder, *command)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed[-4000:]
    return printed


def mend(folder: Path) -> None:
    """Do as README.md says where a kill met DVC while it wrote a file of its own, which it does in place."""
    for name, whole in ((".dvc/tmp/rwlock", json.loads), ("dvc.lock", _valid)):
        with suppress(FileNotFoundError):
            try:
                whole((folder / name).read_text())
            except (json.JSONDecodeError, yaml.YAMLError, Invalid):
                (folder / name).unlink()


def _valid(text: str) -> None:
    COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(text) or {})


def killed_when(folder: Path, moment: str) -> None:
    """Start the main job and kill it at one of the moments; its stage is killed with it."""
    process = start(folder, "dvc", "repro")
    while process.poll() is None and not KILLS[moment](folder):
        time.sleep(0.02)  # each look at the files takes some milliseconds of the core that the job needs
    process.kill()
    printed, _ = process.communicate(timeout=600)  # a stage that outlived DVC would hold its output open
    assert process.returncode == -signal.SIGKILL, f"not killed when {moment}: {printed[-4000:]}"
    mend(folder)


def in_process(folder: Path, *command: str) -> str:
    """Run one of the project's commands in this process and return what it printed."""
    done = CliRunner().invoke(cli, command, obj=SimpleNamespace(project_path=folder))
    assert done.exit_code == 0, done.output
    return done.output


def outputs(folder: Path, lock: Path) -> dict[str, str]:
    """Return the sha256 of each file in `folder` that the stages in `lock` write."""
    stages = yaml.safe_load(lock.read_text())["stages"]
    places = [folder / out["path"] for stage in stages.values() for out in stage.get("outs", ())]
    files = [file for place in places for file in (place, *place.rglob("*")) if file.is_file()]
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }


@pytest.fixture(scope="module")
def fresh(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that nobody ran yet, its numbers small."""
    folder = copy_project(root, tmp_path_factory.mktemp("fresh") / "project", compiled=True)
    shutil.copytree(root / "tiny/weights", folder / "tiny/weights", dirs_exist_ok=True)
    shutil.copy(root / "dvc.yaml", folder / "dvc.yaml")
    chosen = yaml.safe_load((folder / "params.yaml").read_text())
    for stage, values in SMALL.items():
        chosen[stage].update(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(chosen))
    ledger = folder / "conf/base/rights" / CONCEPT / "renderer.yml"
    whole = ledger.read_text()
    early = whole.replace("id: valentina-moreau-2024", "id: early")
    ledger.write_text(early.replace('"*"', '"pattern:*_000[01].png"') + whole)
    garden = folder / "data/05_model_input" / CONCEPT / "garden"
    garden.mkdir()
    picture(3).save(garden / "someone.png")
    (garden / "someone.txt").write_text("photo of someone in a garden\n")
    record = whole.replace("id: valentina-moreau-2024", "id: garden-2026").replace('"*"', '"garden/*"')
    (ledger.parent / "garden.yml").write_text(record)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    Repo.init(str(folder)).close()
    return folder


@pytest.fixture(scope="module")
def built(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same in which everything ran, killed at each of the moments, and what the last run printed."""
    folder = tmp_path_factory.mktemp("built") / "project"
    shutil.copytree(fresh, folder)
    for moment in KILLS:
        killed_when(folder, moment)
    return folder, run(folder, "dvc", "repro")


def test_a_run_ends_with_the_figures_and_where_to_look(built: tuple[Path, str]) -> None:
    _, printed = built
    assert "Valentina Moreau" in printed
    assert "identity" in printed
    assert "uv run mlflow ui" in printed


def test_the_package_is_what_its_checksums_say(built: tuple[Path, str]) -> None:
    package = built[0] / "data/06_models" / CONCEPT / "package"
    lines = (package / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    files = {f.relative_to(package).as_posix(): f for f in package.rglob("*") if f.is_file()}
    assert set(listed) == set(files) - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == digest, name


def test_generate_draws_marked_images_from_the_package(built: tuple[Path, str]) -> None:
    prompt = "smiling, wearing a red dress"
    printed = run(built[0], "kedro", "generate", prompt, "--preset", "draft", "--num-images", "4")
    (*_, last) = [line for line in printed.splitlines() if line.endswith(".png")]
    with Image.open(built[0] / last) as drawn:
        assert drawn.size == (128, 128)
        assert "trainedAlgorithmicMedia" in "".join(map(str, drawn.info.values()))


def test_generate_refuses_what_is_not_safe_for_work(built: tuple[Path, str]) -> None:
    with pytest.raises(AssertionError, match=r"(?i)refus|sexual|nud"):
        in_process(built[0], "generate", "nude, in bed")


def test_killed_at_each_of_its_moments_it_has_the_same_bytes_as_a_run_in_one_go(
    built: tuple[Path, str], fresh: Path, tmp_path: Path
) -> None:
    folder, lock = tmp_path / "project", built[0] / "dvc.lock"
    shutil.copytree(fresh, folder)
    run(folder, "kedro", "fingerprint")
    run(folder, "kedro", "base-settings")
    run(folder, *STAGES)
    expected = outputs(folder, lock)
    assert {Path(name).name for name in expected} >= {"report.html", "decision.json", "SHA256SUMS"}
    assert outputs(built[0], lock) == expected


def test_revoked_rights_are_refused_everywhere_and_the_next_run_trains_without_them(
    built: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = built[0]  # the last test: it changes what the others look at
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.com")
    for command in (["add", "--all"], ["commit", "--quiet", "--message", "state"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    package = folder / "data/06_models" / CONCEPT / "package"

    monkeypatch.chdir(folder)
    before = in_process(folder, "lineage", "early")
    assert f"{CONCEPT}: 2 images" in before and "working tree" in before
    assert f"{CONCEPT} 1" in before and f"data/06_models/{CONCEPT}/package" in before
    along = in_process(folder, "lineage", "garden-2026")
    assert "dataset" not in along and f"trained on\t{CONCEPT}: 1 images\tworking tree" in along
    assert f"{CONCEPT} 1" in along and f"data/06_models/{CONCEPT}/package" in along
    said = in_process(folder, "revoke", "early", "--reason", "she asked for it")
    assert "is marked: it can no longer generate" in said
    with pytest.raises(AssertionError, match="she asked for it"):
        in_process(folder, "generate", "smiling")
    (package / "REVOKED.json").unlink()
    with pytest.raises(AssertionError, match="record early was revoked: she asked for it"):
        in_process(folder, "generate", "smiling")

    assert f"ingest@{CONCEPT}:" in run(folder, "dvc", "status")  # the next `dvc repro` begins there
    run(folder, *STAGES)
    rejections = pd.read_csv(folder / "data/02_intermediate" / CONCEPT / "rejections.csv")
    assert list(rejections["reason"]) == ["rights revoked"] * 2
    rights = json.loads((package / "rights.json").read_text())
    assert [record["id"] for record in rights["records"]] == ["garden-2026", "valentina-moreau-2024"]
    assert len(rights["images"]) == 5
    in_process(folder, "generate", "smiling", "--preset", "draft")
    assert f"{CONCEPT}: 2 images" in in_process(folder, "lineage", "early")

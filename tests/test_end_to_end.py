"""The main job on the real tiny world, small: portraits in, a package out, as a person would run it."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from PIL import Image
from voluptuous import Invalid

from conftest import copy_project
from portraits import picture

pytestmark = pytest.mark.slow

CONCEPT = "valentina_moreau"
SMALL = {
    "ingest": {"num_rendered_images": 6},
    "train_lora": {
        "max_steps": 4, "batch_size": 2, "save_every": 2, "sample_every": 0, "extra_datasets": {"garden": {}},
    },
    "evaluate": {"num_images_per_prompt": 1, "num_inference_steps": 2, "bootstrap_resamples": 100},
}  # fmt: skip


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


def outputs(folder: Path) -> dict[str, dict[str, str]]:
    """Return stage -> output -> hash, as dvc.lock has it."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return {name: {out["path"]: out["md5"] for out in stages[name].get("outs", ())} for name in stages}


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
    run(folder, "dvc", "init", "--quiet")
    return folder


@pytest.fixture(scope="module")
def built(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same in which everything ran, and what it printed."""
    folder = tmp_path_factory.mktemp("built") / "project"
    shutil.copytree(fresh, folder)
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


def test_training_again_from_the_same_inputs_gives_the_same_bytes(built: tuple[Path, str]) -> None:
    lora = built[0] / "data/06_models" / CONCEPT / "lora"
    before = {file.name: file.read_bytes() for file in lora.iterdir()}
    shutil.rmtree(lora)
    run(built[0], "kedro", "run", "--pipelines", "train_lora")
    assert {file.name: file.read_bytes() for file in lora.iterdir()} == before


def test_generate_draws_marked_images_from_the_package(built: tuple[Path, str]) -> None:
    prompt = "smiling, wearing a red dress"
    printed = run(built[0], "kedro", "generate", prompt, "--preset", "draft", "--num-images", "4")
    (*_, last) = [line for line in printed.splitlines() if line.endswith(".png")]
    with Image.open(built[0] / last) as drawn:
        assert drawn.size == (128, 128)
        assert "trainedAlgorithmicMedia" in "".join(map(str, drawn.info.values()))


def test_generate_refuses_what_is_not_safe_for_work(built: tuple[Path, str]) -> None:
    with pytest.raises(AssertionError, match=r"(?i)refus|sexual|nud"):
        run(built[0], "kedro", "generate", "nude, in bed")


def test_killed_at_a_dozen_moments_it_completes_with_the_same_hashes(
    built: tuple[Path, str], fresh: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(fresh, folder)
    moments = random.Random(1)
    for _ in range(12):
        process = start(folder, "dvc", "repro")
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=moments.uniform(1, 20))
        process.kill()
        process.communicate(timeout=600)  # a stage that outlived its `dvc repro` would hold its output open
        mend(folder)
    run(folder, "dvc", "repro")
    assert outputs(folder) == outputs(built[0])


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

    before = run(folder, "kedro", "lineage", "early")
    assert f"{CONCEPT}: 2 images" in before and "working tree" in before
    assert f"{CONCEPT} 1" in before and f"data/06_models/{CONCEPT}/package" in before
    along = run(folder, "kedro", "lineage", "garden-2026")
    assert "dataset" not in along and f"trained on\t{CONCEPT}: 1 images\tworking tree" in along
    assert f"{CONCEPT} 1" in along and f"data/06_models/{CONCEPT}/package" in along
    said = run(folder, "kedro", "revoke", "early", "--reason", "she asked for it")
    assert "is marked: it can no longer generate" in said
    with pytest.raises(AssertionError, match="she asked for it"):
        run(folder, "kedro", "generate", "smiling")
    (package / "REVOKED.json").unlink()
    with pytest.raises(AssertionError, match="record early was revoked: she asked for it"):
        run(folder, "kedro", "generate", "smiling")

    run(folder, "dvc", "repro")
    rejections = pd.read_csv(folder / "data/02_intermediate" / CONCEPT / "rejections.csv")
    assert list(rejections["reason"]) == ["rights revoked"] * 2
    rights = json.loads((package / "rights.json").read_text())
    assert [record["id"] for record in rights["records"]] == ["garden-2026", "valentina-moreau-2024"]
    assert len(rights["images"]) == 5
    run(folder, "kedro", "generate", "smiling", "--preset", "draft")
    assert f"{CONCEPT}: 2 images" in run(folder, "kedro", "lineage", "early")

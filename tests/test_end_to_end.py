"""The main job on the real tiny world, small: portraits in, a package out, as a person would run it."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from conftest import copy_project

pytestmark = pytest.mark.slow

CONCEPT = "valentina_moreau"
SMALL = [
    *("ingest.count=6", "train_lora.steps=4", "train_lora.batch_size=2", "train_lora.checkpoint_every=2"),
    *(
        "train_lora.sample_every=0",
        "evaluate.images_per_prompt=1",
        "evaluate.steps=2",
        "evaluate.bootstrap=100",
    ),
]


def kedro(folder: Path, *arguments: str) -> str:
    """Run the command line in `folder`, whose own code it imports; return what it printed."""
    path = os.pathsep.join([str(folder / "src"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "kedro", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project in which everything ran, and what it printed."""
    folder = copy_project(root, tmp_path_factory.mktemp("whole") / "project")
    shutil.copytree(root / "tiny/weights", folder / "tiny/weights", dirs_exist_ok=True)
    return folder, kedro(folder, "run", "--params", ",".join(SMALL))


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
    kedro(built[0], "run", "--pipelines", "train_lora", "--params", ",".join(SMALL))
    assert {file.name: file.read_bytes() for file in lora.iterdir()} == before


def test_generate_draws_marked_images_from_the_package(built: tuple[Path, str]) -> None:
    printed = kedro(built[0], "generate", "smiling, wearing a red dress", "--preset", "draft", "--seed", "3")
    with Image.open(built[0] / printed.split()[-1]) as drawn:
        assert drawn.size == (128, 128)
        assert "trainedAlgorithmicMedia" in "".join(map(str, drawn.info.values()))


def test_generate_refuses_what_is_not_safe_for_work(built: tuple[Path, str]) -> None:
    with pytest.raises(AssertionError, match=r"(?i)refus|sexual|nud"):
        kedro(built[0], "generate", "nude, in bed")

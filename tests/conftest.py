"""What tests share: the project itself, and a copy of it that a test may change."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import hypothesis
import pytest
from kedro.framework.startup import bootstrap_project
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).parents[1]

if "PYTEST_XDIST_WORKER" in os.environ:  # one core each: threads that wait for each other's cores cost most
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}

os.environ["DO_NOT_TRACK"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

LONGEST = (
    "test_end_to_end", "test_app", "test_loop", "test_dvc_stages", "test_page", "test_train_lora",
    "test_onnx", "test_engines", "test_adapters",
)  # fmt: skip
"""Files that begin first, so that no process is left alone with one of them."""

# the same examples in every run, whatever the machine's speed
hypothesis.settings.register_profile("exact", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("exact")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files: the longest first, the others as they were found."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root, with Kedro set up for it."""
    bootstrap_project(ROOT)
    return ROOT


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A copy of the project's code and configuration, without data, weights or history."""
    return copy_project(root, tmp_path / "project")


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of an S3 server that the environment leads to."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield boto3.client("s3")
    server.stop()


def copy_project(root: Path, target: Path, compiled: bool = False) -> Path:
    """Copy what a run reads besides data; the weights are a stand-in of a few bytes.

    With `compiled` the renderer's machine code comes along, which takes half a minute to make anew.
    """
    ignored = None if compiled else shutil.ignore_patterns("__pycache__")
    for folder in ("src", "conf/base"):
        shutil.copytree(root / folder, target / folder, ignore=ignored)
    for file in ("params.yaml", "pyproject.toml", ".telemetry", ".gitignore", ".dvcignore"):
        shutil.copy(root / file, target / file)
    sources = ("data/01_raw/valentina_moreau", "data/05_model_input/valentina_moreau")
    for folder in ("conf/local", *sources, "tiny/weights"):
        (target / folder).mkdir(parents=True)
        (target / folder / ".gitkeep").touch()
    shutil.copy(root / "tiny/judges.json", target / "tiny/judges.json")
    return target

"""What answers tell those who ask from elsewhere, and what a server leaves behind."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from valentina_pipeline.serving.api.app import create_app
from valentina_pipeline.serving.api.auth import ApiKeyAuth
from valentina_pipeline.serving.api.service import GenerationService, without_folders
from valentina_pipeline.serving.inference.package import read
from valentina_pipeline.serving.jobs.database import sqlite
from valentina_pipeline.serving.jobs.dispatcher import Dispatcher
from valentina_pipeline.serving.jobs.metrics import Metrics
from valentina_pipeline.serving.jobs.store import JobStore
from valentina_pipeline.serving.jobs.worker import WorkerConfig

ROOT = Path(__file__).parents[3]

SERVE = """
import shutil, sys
from pathlib import Path
from valentina_pipeline.integrations import registry
from valentina_pipeline.integrations.shutdown import end_in_order
from valentina_pipeline.serving.cli.serve import serve
registry.download = lambda root, uri, target: Path(shutil.copytree(sys.argv[1], target / "package"))
if __name__ == "__main__":
    end_in_order()
    serve(["models:/her@champion", "--port", "0", "--state-dir", sys.argv[2]])
"""


@pytest.fixture
def desk(package: Path, tmp_path: Path) -> Dispatcher:
    copied = Path(shutil.copytree(package, tmp_path / "secret-place" / "her"))
    store = JobStore(sqlite(tmp_path))
    return Dispatcher(
        store, read(copied), WorkerConfig(copied, tmp_path / "c2pa"), tmp_path / "images", Metrics()
    )


@pytest.fixture
def client(desk: Dispatcher) -> Iterator[TestClient]:
    app = create_app(GenerationService({}, desk, ApiKeyAuth({}), Metrics()))
    yield TestClient(app, "http://localhost")  # not entered: nothing is drawn


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("/srv/x/package is damaged, lora/a is missing", "package is damaged, lora/a is missing"),
        ("OSError: [Errno 28] No space: '/var/lib/s/images/a.png'", "OSError: [Errno 28] No space: 'a.png'"),
        ("data/06_models/her/package draws nothing (1/2)", "package draws nothing (1/2)"),
        ("../../x/y and ~/z.txt", "y and z.txt"),
        ("https://hf.co/a/b/c has stabilityai/sdxl", "https://hf.co/a/b/c has stabilityai/sdxl"),
    ],
)  # fmt: skip
def test_a_message_tells_no_folders(message: str, told: str) -> None:
    assert without_folders(message) == told


def test_neither_a_failed_job_nor_a_revoked_package_tells_where_files_are(
    client: TestClient, desk: Dispatcher
) -> None:
    job = client.post("/v1/generations", json={"prompt": "smiling"}).json()["id"]
    desk.jobs.end([job], "failed", f"OSError: [Errno 28] No space left: '{desk.about.folder}/x.png'")
    desk.broken = f"MissingModel: {desk.about.folder} is missing"
    (desk.about.folder / "REVOKED.json").write_text('{"revoked": "by its holder"}')
    failed = client.get(f"/v1/jobs/{job}")
    gone = client.post("/v1/generations", json={"prompt": "smiling"})
    unready = client.get("/readyz")
    assert (failed.status_code, gone.status_code, unready.status_code) == (200, 410, 503)
    assert failed.json()["error"].endswith("x.png'")
    for answer in (failed, gone, unready):
        assert not re.search(r"/\w+/|secret", _said(answer.json()))


def _said(answer: dict) -> str:
    error = answer.get("error", answer.get("reason"))
    return error["message"] if isinstance(error, dict) else str(error)


def test_no_answer_can_be_framed(client: TestClient) -> None:
    for path in ("/", "/docs", "/v1/jobs", "/healthz", "/nowhere"):
        headers = client.get(path).headers
        assert headers["x-frame-options"] == "DENY", path
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path


@pytest.mark.slow
def test_a_server_that_is_asked_to_end_leaves_nothing_in_the_temporary_folder(
    package: Path, tmp_path: Path
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(package), str(tmp_path / "state")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert "http://" in server.stdout.readline()
    assert [file.name.startswith("package-") for file in place.iterdir()].count(True) == 1
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 128 + signal.SIGTERM
    assert not [file for file in place.iterdir() if file.name.startswith("package-")]
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700

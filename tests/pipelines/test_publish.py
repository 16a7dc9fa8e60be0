"""Publish: a folder that another process serves, checked against its checksums."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

import packages
from valentina_pipeline.datasets.folders import OutputFolder
from valentina_pipeline.pipelines.publish.nodes import publish_package
from valentina_pipeline.release.checksums import DamagedPackageError, sha256sums

FRESH = """
import json, sys
sys.path = [place for place in sys.path if not place.endswith("/src")]  # as if it were not installed
import mlflow.diffusers, mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
drawn = model.predict(model.metadata.load_input_example(sys.argv[1]))
import valentina_pipeline
print(json.dumps({
    "code": valentina_pipeline.__file__,
    "image": drawn["image"][0],
    "others": sorted({"kedro", "dvc"} & {name.split(".")[0] for name in sys.modules}),
    "adapters": mlflow.diffusers.load_model(sys.argv[1])
        .load_pipeline(base_model=sys.argv[1] + "/base").get_active_adapters(),
}))
"""


def saved(folder: Path, files: Mapping[str, bytes | Path]) -> Path:
    dataset = OutputFolder(filepath=str(folder))
    dataset.save(files)
    return dataset.load()


def published(root: Path) -> Path:
    built = saved(root / "built", packages.built(root, {**packages.DECISION, "reasons": ["It is good."]}))
    return saved(root / "package", publish_package(built))


def test_the_package_is_delivered_file_by_file(tmp_path: Path) -> None:
    lora = {"lora/a": b"weights"}
    built = saved(tmp_path / "built", {**lora, "SHA256SUMS": sha256sums(lora)})
    folder = saved(tmp_path / "package", publish_package(built))
    assert (folder / "lora/a").read_bytes() == b"weights"
    assert (folder / "SHA256SUMS").read_bytes() == (built / "SHA256SUMS").read_bytes()


@pytest.mark.parametrize(
    "files",
    [
        {"lora/a": b"other weights", "SHA256SUMS": sha256sums({"lora/a": b"weights"})},
        {"SHA256SUMS": sha256sums({"lora/a": b"weights"})},
        {"lora/a": b"weights", "lora/b": b"", "SHA256SUMS": sha256sums({"lora/a": b"weights"})},
        {"lora/a": b"weights"},
    ],
    ids=["changed", "missing", "added", "without sums"],
)
def test_a_damaged_package_is_not_delivered(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(DamagedPackageError, match="built differ from its SHA256SUMS"):
        publish_package(saved(tmp_path / "built", files))


@pytest.mark.slow
def test_a_fresh_process_without_this_project_draws_from_it(tmp_path: Path) -> None:
    folder = published(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(folder)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["code"] == str(folder / "code/valentina_pipeline/__init__.py")
    assert said["image"].startswith("iVBOR")  # PNG in base64
    assert said["others"] == []
    assert said["adapters"] == ["default_0"]


@pytest.mark.slow
def test_mlflow_serves_it_and_refuses_what_is_refused(tmp_path: Path) -> None:
    folder = published(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    scripts = str(Path(sys.executable).parent)  # where mlflow looks for uvicorn
    server = subprocess.Popen(
        [*command, "--model-uri", str(folder), "--port", str(port)],
        cwd=tmp_path,
        env={**os.environ, "PATH": os.pathsep.join([scripts, os.environ["PATH"]])},
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        where = f"http://127.0.0.1:{port}/invocations"
        status, answer = asked(where, {"prompt": "smiling", "seed": 1, "preset": "draft"})
        assert status == 200
        assert answer["predictions"][0]["image"].startswith("iVBOR")
        status, answer = asked(where, {"prompt": "naked woman"})
        assert status == 400
        assert "this prompt is refused" in json.dumps(answer)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        assert server.poll() is None, "the server ended"
        try:
            urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise TimeoutError(url)


def asked(url: str, row: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    body = json.dumps({"dataframe_records": [row]}).encode()
    request = Request(url, body, {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except HTTPError as err:
        return err.code, json.load(err)

"""What `pip install valentina-pipeline[serve]` installs is enough to serve a package."""

import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx
import pytest

from conftest import ROOT
from waiting import until

pytestmark = pytest.mark.slow

HIDE = """
import sys
from importlib.machinery import PathFinder

HIDDEN = set({hidden})


class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
"""


def beside(extra: str) -> set[str]:
    """Return the modules that are installed here and would not be with this extra alone."""
    listed = ["uv", "export", "--quiet", "--frozen", "--no-dev", "--extra", extra, "--no-hashes"]
    lines = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    names = {_plain(line.partition("==")[0]) for line in lines if re.match(r"[a-z0-9]", line)}
    modules = packages_distributions().items()
    hidden = {module for module, found in modules if not names & set(map(_plain, found))}
    return hidden - {"valentina_pipeline"}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_a_package_is_served_without_kedro_dvc_mlflow_and_what_else_trains(
    package: Path, tmp_path: Path
) -> None:
    hidden = beside("serve")
    assert {"kedro", "dvc", "mlflow", "pandas", "pandera", "pytest"} <= hidden
    assert not {"torch", "diffusers", "fastapi", "cv2", "onnxruntime", "facenet_pytorch"} & hidden
    (tmp_path / "sitecustomize.py").write_text(HIDE.format(hidden=sorted(hidden)))
    paths = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    server = subprocess.Popen(
        [sys.executable, "-m", "valentina_pipeline.serving", str(package), "--port", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        said = re.search(r"http://\S+", server.stdout.readline())
        assert said is not None
        with httpx.Client(base_url=said[0], timeout=30) as http:
            until(lambda: http.get("/readyz").status_code == 200)
            job = http.post("/v1/generations", json={"scene": "cover", "preset": "draft"}).json()["id"]
            until(lambda: http.get(f"/v1/jobs/{job}").json()["state"] not in ("queued", "running"))
            done = http.get(f"/v1/jobs/{job}").json()
            assert (done["state"], done["error"]) == ("done", "")
            assert http.get(done["images"][0]["url"]).content.startswith(b"\x89PNG")
            assert (
                "valentina_faces_total{" in http.get("/metrics").text
            )  # images are compared with her portraits
    finally:
        server.terminate()
        server.wait(60)


def test_drawing_on_the_command_line_needs_no_more(package: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE.format(hidden=sorted(beside("serve"))))
    code = "from valentina_pipeline.serving.cli.generate import generate; generate()"
    done = subprocess.run(
        [sys.executable, "-c", code, "smiling", "--package", str(package), "--preset", "draft"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / done.stdout.split()[-1]).is_file()

"""Publish: a folder that another process serves, and the same bytes when it is made again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import packages
from shipping import imported_modules
from valentina_pipeline.datasets import FileFolder
from valentina_pipeline.pipelines.assembly import shipped
from valentina_pipeline.pipelines.publish.nodes import publish_package

DECISION = {"status": "champion", "reasons": ["It is good."], "content_hash": "c" * 64}

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


def published(root: Path, **changes: Any) -> dict[str, bytes | Path]:
    return publish_package(decision=DECISION, **packages.inputs(root, **changes))


def test_made_again_it_is_byte_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = published(tmp_path)
    monkeypatch.chdir(tmp_path)  # MLflow looks for a uv project in the working directory
    assert published(tmp_path) == first
    assert "uv.lock" not in first


def test_every_module_that_the_code_imports_travels_along() -> None:
    names = set(shipped(packages.SERVING))
    needed = imported_modules(shipped(packages.SERVING).values())
    assert {f"code/{name}" for name in needed} <= names


def test_another_decision_is_another_package(tmp_path: Path) -> None:
    other = publish_package(decision={**DECISION, "status": "candidate"}, **packages.inputs(tmp_path))
    assert other["SHA256SUMS"] != published(tmp_path)["SHA256SUMS"]


@pytest.mark.slow
def test_a_fresh_process_without_this_project_draws_from_it(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    FileFolder(filepath=str(folder)).save(published(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(folder)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["code"] == str(folder / "code/valentina_pipeline/__init__.py")
    assert said["image"].startswith("iVBOR")  # PNG in base64
    assert said["others"] == []
    assert said["adapters"] == ["default_0"]

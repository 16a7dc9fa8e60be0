"""Start-up: a process imports no heavy library before the work that needs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from valentina_pipeline.pipeline_registry import PIPELINES

HEAVY = {
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "mlflow",
    "sqlalchemy",
    "scipy",
}
HEAVY |= {"sklearn", "matplotlib", "plotly", "onnxruntime", "numba", "cv2", "fastapi", "dvc", "ray"}

UP_TO_THE_FIRST_NODE = """
import os, sys
from kedro.framework.cli.cli import main
from kedro.runner.task import Task

def execute(task):
    print(*{name.partition(".")[0] for name in sys.modules}, flush=True)
    os._exit(0)

Task.execute = execute
sys.argv = ["kedro", "run", "--pipelines", "ingest"]
main()
"""

COMMANDS = """
import atexit, sys
from kedro.framework.cli.cli import main

atexit.register(lambda: print(*{name.partition(".")[0] for name in sys.modules}))
sys.argv = ["kedro", "--help"]
main()
"""

PIPELINE = """
import importlib, sys
importlib.import_module(f"valentina_pipeline.pipelines.{sys.argv[1]}").create_pipeline()
print(*{name.partition(".")[0] for name in sys.modules})
"""


def imported(root: Path, script: str, *arguments: str) -> set[str]:
    """Return the top-level packages that a process of the project has imported."""
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",  # nothing is tracked: nobody listens on discard
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    command = [sys.executable, "-c", script, *arguments]
    run = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


def test_a_stage_reaches_its_first_node_without_heavy_imports(root: Path) -> None:
    assert imported(root, UP_TO_THE_FIRST_NODE) & HEAVY == set()


def test_the_list_of_commands_imports_nothing_heavy(root: Path) -> None:
    assert imported(root, COMMANDS) & (HEAVY | {"pandas"}) == set()


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_s_wiring_imports_nothing_heavy(root: Path, name: str) -> None:
    assert imported(root, PIPELINE, name) & (HEAVY | {"pandas"}) == set()

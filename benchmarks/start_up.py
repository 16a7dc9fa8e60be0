"""How long is it from `kedro run --pipelines train_lora` to the first step, and on what is it spent?

    uv run python benchmarks/start_up.py      # after `dvc repro` or `dvc pull`: it needs the aligned pictures

Runs the stage for two steps in a temporary project that shares this one's code and data, three times: the
first fills the cache of latents. Prints seconds from the start of the process to each mark, and the ratio of
the run without a cache to the run with one.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONCEPT = "valentina_moreau"
SHARED = ("conf", "tiny", ".telemetry", "pyproject.toml", "data/01_raw", "data/02_intermediate")
SHARED += ("data/03_primary", f"data/04_feature/{CONCEPT}", "data/05_model_input")
MARKS = {
    "Kedro runs the node": r"of .*, 2 steps",
    "libraries are imported": r"libraries are imported",
    "the base is loaded": r"the base is loaded",
    "pictures and captions are encoded": r"pictures and captions are encoded",
}
FIRST = "the first step is done"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="start-up-") as folder:
        project = Path(folder)
        set_up(project)
        runs = [measured(project) for _ in range(3)]
    print("seconds from the start of the process, without and with a cache")
    for mark in (*MARKS, FIRST):
        print(f"{mark:34}" + "".join(f"{run[mark]:8.1f}" for run in runs))
    ratio = runs[0][FIRST] / min(run[FIRST] for run in runs[1:])
    print(f"the first step comes {ratio:.2f} times as soon with a cache")


def set_up(project: Path) -> None:
    for name in SHARED:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "src", project / "src")  # Kedro wants it inside the project
    params = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    params["train_lora"] |= {"max_steps": 2, "save_every": 1, "sample_every": 0}
    (project / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")


def measured(project: Path) -> dict[str, float]:
    """Run the stage once and return when each mark was reached."""
    command = [sys.executable, "-m", "kedro", "run", "--pipelines", "train_lora"]
    command += ["--params", f"concept={CONCEPT}"]
    reached: dict[str, float] = {}
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=project,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watching = threading.Thread(target=watch_checkpoints, args=(project, process, began, reached))
    watching.start()
    said = []
    for line in process.stdout or ():
        said.append(line)
        for mark, pattern in MARKS.items():
            if re.search(pattern, line):
                reached.setdefault(mark, time.perf_counter() - began)
    watching.join()
    if process.wait() != 0 or len(reached) != len(MARKS) + 1:
        sys.exit("".join(said))
    return reached


def watch_checkpoints(
    project: Path, process: subprocess.Popen[str], began: float, reached: dict[str, float]
) -> None:
    while process.poll() is None:
        if any(project.glob(f"data/06_models/{CONCEPT}/checkpoints/*/step-*.json")):
            reached.setdefault(FIRST, time.perf_counter() - began)
            return
        time.sleep(0.01)


if __name__ == "__main__":
    main()

"""What does each engine cost: memory, start-up and seconds per image, beside torch's in the same run?

    uv run python benchmarks/engines.py [--package FOLDER]      # published with engines: [onnx]

Each engine draws in a process of its own, one image at a time with the draft preset; engines take turns.
Prints the median of the rounds and, for each figure, the ratio to torch's.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ENGINES = ("torch", "onnx", "renderer")
PACKAGE = Path("data/06_models/valentina_moreau/package")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--package", type=Path, default=PACKAGE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5, help="after the first one, in each round")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.engine:
        print(json.dumps(measured(asked.package, asked.engine, asked.images)))
        return
    command = [sys.executable, __file__, "--package", str(asked.package), "--images", str(asked.images)]
    runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    for _ in range(asked.rounds):
        for engine in ENGINES:
            begun = time.time()
            done = subprocess.run([*command, "--engine", engine], capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            said = json.loads(done.stdout.splitlines()[-1])
            runs[engine].append({**said, "start-up, s": said["start-up, s"] - begun})
    medians = {
        engine: {name: statistics.median(run[name] for run in rounds) for name in rounds[0]}
        for engine, rounds in runs.items()
    }
    for name, reference in medians["torch"].items():
        each = (
            f"{engine} {figures[name]:8.2f} ({figures[name] / reference:4.2f})"
            for engine, figures in medians.items()
        )
        print(f"{name:18}" + "   ".join(each))


def measured(package: Path, engine: str, images: int) -> dict[str, float]:
    """Return this process's figures; start-up as the time of day when the networks were loaded."""
    from valentina_pipeline.serving.inference.engine import InferenceEngine
    from valentina_pipeline.serving.inference.request import GenerationRequest

    studio = InferenceEngine.open(package, engine=engine)  # type: ignore[arg-type]
    ready, begun, took = time.time(), time.perf_counter(), []
    for seed in range(images + 1):
        studio.generate(GenerationRequest(prompt="smiling, beach background", seed=seed, preset="draft"))
        took.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    return {
        "start-up, s": ready,
        "first image, s": took[0],
        "further image, s": statistics.median(took[1:]),
        "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()

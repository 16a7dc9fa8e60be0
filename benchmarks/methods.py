"""Which method draws her best on the tiny world? The table of docs/training.md.

    uv run python benchmarks/methods.py             # queue, run and print: some two hours on two cores
    uv run python benchmarks/methods.py --print     # print what has run

Each method runs with three seeds (which render three sets of portraits, too) as DVC experiments named after
both, so that what has run is not run again. Prints a Markdown table: means over the seeds (minutes: the
quickest run's), and the ratio of each method's identity to that of `lora`. `uv run dvc exp show` and
`uv run mlflow ui` have the rest.
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

from valentina_pipeline.integrations import mlflow

ROOT = Path(__file__).resolve().parents[1]
CONCEPT = "valentina_moreau"
REPORTS = f"data/08_reporting/{CONCEPT}"
SEEDS = (20240607, 1, 2)
METHODS: dict[str, dict[str, object]] = {
    "lora": {},
    "dora": {},
    "lokr": {"learning_rate": 1.0e-2},
    "full": {"learning_rate": 1.0e-3, "text_encoder_lr": 0.0, "num_class_images": 48},
    "textual_inversion": {},
    "pivotal": {},
}
"""Settings of train_lora beside the base's defaults; lokr and full would learn too little at its rate."""

COLUMNS = ("identity", "ratio", "CLIP-T", "memorized", "minutes", "file")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--print", action="store_true", help="run nothing, print what has run")
    if not parser.parse_args().print:
        run_all()
    print(table(found()))


def run_all() -> None:
    done = set(found())
    for seed in SEEDS:  # by seed: the stages before training run once for each
        for method, settings in METHODS.items():
            name = f"{method.replace('_', '-')}-{seed}"
            if name in done:
                continue
            chosen = {"seed": seed, "train_lora.method": method}
            chosen |= {f"train_lora.{key}": value for key, value in settings.items()}
            changes = [part for key, value in chosen.items() for part in ("-S", f"{key}={value}")]
            dvc("exp", "run", "--queue", "--name", name, *changes, f"evaluate@{CONCEPT}")
    dvc("exp", "run", "--run-all", "--jobs", "1")


def found() -> dict[str, dict[str, Any]]:
    """Return the figures of the experiments that have run, by name."""
    listed = json.loads(dvc("exp", "show", "--json", capture=True))
    results = {}
    for commit in listed:
        for experiment in commit.get("experiments") or []:
            for revision in experiment["revs"]:
                files = (revision.get("data") or {}).get("metrics") or {}
                figures, train = (
                    (files.get(f"{REPORTS}/{name}.json") or {}).get("data") for name in ("metrics", "train")
                )
                if revision.get("name") and figures and train:
                    results[revision["name"]] = {**figures, "train": train}
    return results


def table(results: dict[str, dict[str, Any]]) -> str:
    seconds = durations()
    lines = ["| method | " + " | ".join(COLUMNS) + " | runs |", "|---" * (len(COLUMNS) + 2) + "|"]
    reference = None
    for method in METHODS:
        names = [f"{method.replace('_', '-')}-{seed}" for seed in SEEDS]
        rows = [results[name] for name in names if name in results]
        if not rows:
            continue
        identity = [row["identity"]["lora"]["mean"] for row in rows]
        mean = statistics.mean(identity)
        reference = reference or mean
        took = [seconds[name] / 60 for name in names if name in seconds]
        cells = [
            f"{mean:.3f} ({min(identity):.3f} to {max(identity):.3f})",
            f"{mean / reference:.2f}",
            f"{statistics.mean(row['clip_t']['lora']['mean'] for row in rows):.3f}",
            f"{statistics.mean(row['memorization']['rate'] for row in rows):.1%}",
            f"{min(took):.1f}" if took else "",
            f"{rows[0]['train']['adapter_bytes'] / 1e6:.2g} MB",
        ]
        lines.append(f"| `{method}` | " + " | ".join(cells) + f" | {len(rows)} |")
    return "\n".join(lines)


def durations() -> dict[str, float]:
    """Return the seconds of each experiment's training, from MLflow."""
    store = mlflow.client(ROOT)
    places = [experiment.experiment_id for experiment in store.search_experiments()]
    runs = store.search_runs(places, max_results=1000)
    names = {run.info.run_id: run.data.tags.get("dvc_experiment") for run in runs}
    return {
        name: run.data.metrics["seconds"]
        for run in runs
        if run.data.tags.get("stage") == "train_lora" and "seconds" in run.data.metrics
        if (name := names.get(run.data.tags.get("mlflow.parentRunId")))
    }


def dvc(*arguments: str, capture: bool = False) -> str:
    ended = subprocess.run(["dvc", *arguments], cwd=ROOT, check=True, text=True, capture_output=capture)
    return ended.stdout or ""


if __name__ == "__main__":
    main()

"""`kedro compare`: runs of the working tree, of git and of MLflow, paired by prompt and seed."""

import hashlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from stores import empty_store
from valentina_pipeline.cli.compare import IMAGES, SCORES, compare
from valentina_pipeline.image.evaluate.run_comparison import NothingSharedError, compare_runs
from valentina_pipeline.image.io import png
from valentina_pipeline.integrations import mlflow

PROMPTS = [f"smiling, wearing a red dress, place {number}" for number in range(8)]


def scores(gain: float, seeds: tuple[int, ...] = (1, 2), variant: str = "lora") -> pd.DataFrame:
    """Return image scores in which `gain` is added to each identity."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "name": f"{variant}/{number * 2 + index:04d}",
            "variant": variant,
            "prompt": prompt,
            "seed": 1000 * number + seed,
            "identity": rng.uniform(0.2, 0.6) + gain + rng.normal(0, 0.01),
            "face_probability": 0.99,
            "clip_t": rng.uniform(),
            "nearest_training": 0.5,
            "nearest_layout": 0.5,
            "nearest_name": "ab",
            "memorized": False,
        }
        for number, prompt in enumerate(PROMPTS)
        for index, seed in enumerate(seeds)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose HEAD is a run, and whose working tree is a run with 0.1 more identity."""
    root = tmp_path / "project"
    empty_store(root, monkeypatch)
    (root / "params.yaml").write_text("concepts: [ada]\n")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.com")
    finish_run(root, scores(0.0), "red")
    for command in (("init", "--quiet"), ("add", "dvc.lock"), ("commit", "--quiet", "--message", "a run")):
        subprocess.run(["git", *command], cwd=root, check=True)
    finish_run(root, scores(0.1), "blue")
    return root


def finish_run(root: Path, table: pd.DataFrame, color: str) -> None:
    """Put a run's outputs into DVC's cache and its dvc.lock into the working tree."""
    picture = cache(root, png.encode(Image.new("RGB", (16, 16), color)))
    listing = [{"relpath": f"{name}.png", "md5": picture} for name in table["name"]]
    outs = {
        SCORES.format(concept="ada"): cache(root, table.to_csv(index=False).encode()),
        IMAGES.format(concept="ada"): cache(root, json.dumps(listing).encode(), ".dir"),
    }
    stage = {"outs": [{"path": path, "md5": md5} for path, md5 in outs.items()]}
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"evaluate@ada": stage}}))


def track_run(project: Path) -> None:
    """Record the working tree's run in MLflow; the end of its name is 1f2e3d4c."""
    run = mlflow.open_parent(project, "ada", "1f2e3d4c" * 8, {
        "train_lora": {"method": "lora", "rank": 4, "max_steps": 9}, "base_name": "tiny",
    })  # fmt: skip
    run.open_stage("evaluate", "code")
    outs = yaml.safe_load((project / "dvc.lock").read_text())["stages"]["evaluate@ada"]["outs"]
    run.log("evaluate", {}, {"outs": json.dumps({out["path"]: out["md5"] for out in outs})})
    mlflow.close_parent(mlflow.FINISHED)


def cache(root: Path, content: bytes, suffix: str = "") -> str:
    md5 = hashlib.md5(content).hexdigest()
    file = root / ".dvc/cache/files/md5" / md5[:2] / f"{md5[2:]}{suffix}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return md5 + suffix


def call(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        compare, arguments, obj=SimpleNamespace(project_path=root), env={"COLUMNS": "200"}
    )


def test_a_gain_is_found_where_single_means_would_overlap() -> None:
    (identity, clip_t, *_) = compare_runs(scores(0.0), scores(0.1), "lora", 500, 0)
    assert identity.metric == "identity" and identity.num_images == 16
    assert identity.difference.mean == pytest.approx(0.1)
    assert identity.differs and 0.099 < identity.difference.ci_low <= identity.difference.ci_high < 0.101
    assert clip_t.metric == "clip_t" and not clip_t.differs


def test_only_shared_prompts_and_seeds_count() -> None:
    other = scores(0.1, seeds=(2, 3))
    other.loc[other["seed"] % 1000 == 2, "identity"] = np.nan
    rows = {row.metric: row for row in compare_runs(scores(0.0), other, "lora", 100, 0)}
    assert set(rows) == {"clip_t", "memorized", "face_found"}  # no pair has an identity
    assert rows["clip_t"].num_images == 8
    with pytest.raises(NothingSharedError, match="base"):
        compare_runs(scores(0.0), scores(0.1), "base", 100, 0)


def test_commit_and_working_tree_are_compared_image_by_image(project: Path) -> None:
    shown = call(project, "HEAD", "--grid", str(project / "grid.png"))
    assert shown.exit_code == 0, shown.output
    assert "16 shared images" in shown.output and "+0.100" in shown.output and "*" in shown.output
    with Image.open(project / "grid.png") as grid:
        colors = {color for _, color in grid.convert("RGB").getcolors(1 << 16)}
    assert {(255, 0, 0), (0, 0, 255)} <= colors


def test_a_run_of_mlflow_is_found_by_the_end_of_its_name(project: Path) -> None:
    track_run(project)
    shown = call(project, "HEAD", "1f2e3d4c")
    assert shown.exit_code == 0, shown.output
    assert "1f2e3d4c" in shown.output and "+0.100" in shown.output


def test_the_page_shows_differences_and_images_and_is_logged_to_runs_of_mlflow(project: Path) -> None:
    track_run(project)

    shown = call(project, "HEAD", "1f2e3d4c", "--report", str(project / "page.html"))
    assert shown.exit_code == 0, shown.output
    page = (project / "page.html").read_text()
    assert "<td>identity</td>" in page and "+0.100" in page and "16 images" in page
    assert page.count("<img") == 2 * len(PROMPTS)
    assert f"<h3>{PROMPTS[0]}</h3>" in page and "identity 0." in page
    client = mlflow.client(project)
    (experiment,) = [e for e in client.search_experiments() if e.name == "ada"]
    logged = [
        client.download_artifacts(found.info.run_id, "comparison/lora.html")
        for found in client.search_runs([experiment.experiment_id])
        if client.list_artifacts(found.info.run_id, "comparison")
    ]
    assert [Path(file).read_text() for file in logged] == [page]


def test_what_cannot_be_compared_is_named(project: Path) -> None:
    assert "main~9: no run of ada" in call(project, "main~9").output
    assert "compared with itself" in call(project, ".").output
    for file in (project / ".dvc/cache").rglob("*.dir"):
        file.unlink()
    shown = call(project, "HEAD", "--grid", str(project / "grid.png"))
    assert shown.exit_code == 1 and "dvc fetch" in shown.output
    assert not (project / "grid.png").exists()

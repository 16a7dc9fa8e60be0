"""Record: the parent is whole, also where stages came from the cache, and the user knows where to look."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import packages
from stores import empty_store
from valentina_pipeline.domain.concept import STAGE_NAMES
from valentina_pipeline.integrations import mlflow
from valentina_pipeline.pipelines.record.nodes import record_run

NAME = "valentina_moreau"
DECISION = {"status": "candidate", "reasons": ["Too few faces."], "content_hash": "c"}
LOCK = """
stages:
  train_lora@valentina_moreau:
    outs: [{path: data/06_models/valentina_moreau/lora, md5: abc.dir}]
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    yield empty_store(tmp_path, monkeypatch)
    mlflow.forget()


def recorded(root: Path) -> None:
    package = root / f"data/06_models/{NAME}/package"
    record_run(
        metrics=packages.metrics(),
        train_metrics=packages.train_metrics(),
        training_images=packages.manifest(),
        decision=DECISION,
        package=package,
        project_root=root,
        concept=packages.concept(),
        base={"path": "tiny/weights/base"},
    )


def parent(root: Path) -> mlflow.Parent:
    train = {"method": "lora", "rank": 8, "max_steps": 500}
    params = {"base_name": "tiny", "seed": 1, "train_lora": train, "concept": packages.concept()}
    return mlflow.open_parent(root, NAME, "abc", params)


def test_stages_from_the_cache_get_a_child_and_the_parent_the_figures(tmp_path: Path, client: Any) -> None:
    (tmp_path / "dvc.lock").write_text(LOCK)
    reporting = tmp_path / "data/08_reporting" / NAME
    reporting.mkdir(parents=True)
    (reporting / "report.html").write_text("<p>")
    (reporting / ".gitignore").write_text("/report.html")
    run = parent(tmp_path)
    run.open_stage("evaluate", "c0de")
    mlflow.close_stage(mlflow.FINISHED)
    recorded(tmp_path)
    recorded(tmp_path)  # without a parent: prints only
    children = parent(tmp_path).children()
    assert set(children) == set(STAGE_NAMES)
    assert children["evaluate"].data.tags["mlflow.source.name"] == "kedro run --pipelines evaluate"
    train = children["train_lora"]
    assert train.data.tags["mlflow.source.name"] == "DVC cache"
    assert json.loads(train.data.tags["outs"]) == {"data/06_models/valentina_moreau/lora": "abc.dir"}
    assert train.data.metrics["train_loss_mean_last_50"] == 0.12
    assert train.data.params["train_lora.rank"] == "8"
    whole = client.get_run(run.run_id)
    assert whole.data.metrics["identity.lora.mean"] == 0.7
    assert whole.data.tags["decision"] == "candidate"
    for tracked in (whole, train):
        assert [used.dataset.name for used in tracked.inputs.dataset_inputs] == [f"{NAME} training images"]
    assert [each.path for each in client.list_artifacts(run.run_id)] == ["report.html"]


def test_recording_again_changes_nothing(tmp_path: Path, client: Any) -> None:
    reporting = tmp_path / "data/08_reporting" / NAME
    reporting.mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(reporting / "comparison_grid.png")
    for _ in range(2):
        run = parent(tmp_path)
        recorded(tmp_path)
    assert len(client.search_runs([run.experiment_id])) == 1 + len(STAGE_NAMES)
    assert len(client.get_metric_history(run.run_id, "identity.lora.mean")) == 1
    assert len(client.get_run(run.run_id).inputs.dataset_inputs) == 1
    shown = client.list_artifacts(run.run_id, "images")
    assert sorted((each.path[:29], each.path[-4:]) for each in shown) == [
        ("images/comparison_grid+step+0", ".png"),
        ("images/comparison_grid+step+0", "webp"),
    ]
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_the_table_has_the_figures_and_where_to_look_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path)
    said = capsys.readouterr().out
    for part in (
        "0.700 (0.660 to 0.740)",
        "shown: clothes color",
        "candidate",
        "Too few faces.",
        "uv run mlflow ui",
        "data/08_reporting/valentina_moreau/report.html",
        "data/06_models/valentina_moreau/package",
        'uv run kedro generate "',
    ):
        assert part in said


def test_a_store_that_is_away_is_a_warning(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = parent(tmp_path)

    def away() -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(run, "children", away)
    recorded(tmp_path)
    assert "no route" in caplog.text

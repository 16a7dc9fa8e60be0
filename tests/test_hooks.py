"""The hook: runs around Kedro's nodes, and work that goes on when tracking does not."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from click import ClickException
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner

from stores import empty_store
from valentina_pipeline import dvc_yaml
from valentina_pipeline.config_loader import ProjectConfigLoader
from valentina_pipeline.datasets.json_file import JsonFile
from valentina_pipeline.datasets.tables import ParquetFile
from valentina_pipeline.domain.concept import STAGE_NAMES
from valentina_pipeline.hooks import InputHooks, ProjectHooks, TrackingHooks
from valentina_pipeline.image.models.requirements import find_missing_models
from valentina_pipeline.integrations import mlflow
from valentina_pipeline.integrations.stage_tracking import OwnTracking
from valentina_pipeline.integrations.tracking import NullTracker, current_tracker
from valentina_pipeline.pipeline_registry import register_pipelines

PARAMS = {
    "base_name": "tiny",
    "concept": {"trigger": "anna", "source": "renderer"},
    "seed": 1,
    "train_lora": {"method": "lora", "rank": 8, "max_steps": 500},
    "evaluate": {"steps": 9},
}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    yield empty_store(tmp_path, monkeypatch)
    mlflow.forget()


def run(root: Path, *nodes: Any) -> None:
    """Run nodes as a Kedro session does, with the hook."""
    hooks = _create_hook_manager()
    hooks.register(ProjectHooks())
    hooks.register(TrackingHooks())
    report = JsonFile(
        filepath=str(root / "data/08_reporting/anna/metrics.json"), metadata={"dvc": {"kind": "metrics"}}
    )
    catalog = DataCatalog(
        {
            "parameters": MemoryDataset(PARAMS),
            "params:evaluate": MemoryDataset(PARAMS["evaluate"]),
            "metrics": report,
            "training_images": ParquetFile(filepath=str(root / "training_images.parquet")),
        }
    )
    pipeline = Pipeline(list(nodes))
    hooks.hook.before_pipeline_run(run_params={"project_path": str(root)}, pipeline=pipeline, catalog=catalog)
    try:
        SequentialRunner().run(pipeline, catalog, hooks, run_id="1")
    except Exception as error:
        hooks.hook.on_pipeline_error(error=error, run_params={}, pipeline=pipeline, catalog=catalog)
        raise
    hooks.hook.after_pipeline_run(run_params={}, run_result={}, pipeline=pipeline, catalog=catalog)


def evaluate(params: dict[str, Any]) -> dict[str, Any]:
    current_tracker().log({"live": params["steps"]}, 1)
    return {"identity": {"gain_over_base": 0.5}}


def stage(work: Any = evaluate, name: str = "evaluate") -> Any:
    return node(work, inputs="params:evaluate", outputs="metrics", name=name)


def runs(client: Any) -> list[Any]:
    return client.search_runs([client.get_experiment_by_name("anna").experiment_id])


def test_a_stage_is_tracked_with_params_figures_time_and_files(tmp_path: Path, client: Any) -> None:
    run(tmp_path, stage())
    (child,) = (each for each in runs(client) if "stage" in each.data.tags)
    (parent,) = (each for each in runs(client) if "inputs" in each.data.tags)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.status == "FINISHED"
    assert parent.info.status == "RUNNING"  # until record
    assert child.data.params == {"evaluate.steps": "9", "seed": "1"}
    assert child.data.metrics["identity.gain_over_base"] == 0.5
    assert child.data.metrics["live"] == 9
    assert child.data.metrics["seconds"] >= 0
    assert [each.path for each in client.list_artifacts(child.info.run_id)] == ["metrics.json"]
    assert isinstance(current_tracker(), NullTracker)


def test_a_stage_s_code_is_tagged_as_dvc_knows_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tagged: dict[str, str] = {}
    parent = SimpleNamespace(open_stage=tagged.__setitem__)
    monkeypatch.setattr(mlflow, "parent", lambda: parent)
    loader = ProjectConfigLoader(root / "conf", base_env="base", default_run_env="base")
    hooks = TrackingHooks()
    hooks._catalog = DataCatalog.from_config(loader["catalog"])
    hooks._tracking = OwnTracking()
    for name in STAGE_NAMES:
        for each in register_pipelines()[name].nodes:
            hooks.before_node_run(each)
    known = json.loads(dvc_yaml.fingerprints(root))
    assert tagged == {name: known[name] for name in STAGE_NAMES}


def test_a_node_gets_the_project_s_folder(tmp_path: Path, client: Any) -> None:
    given: list[Path] = []
    run(tmp_path, node(given.append, inputs="project_root", outputs=None))
    assert given == [tmp_path]


def test_stages_in_several_processes_share_a_parent(tmp_path: Path, client: Any) -> None:
    run(tmp_path, stage(name="register"))  # tracks in its own process, align in another one
    run(tmp_path, stage(name="align"))
    assert len([each for each in runs(client) if "inputs" in each.data.tags]) == 1
    assert len([each for each in runs(client) if "stage" in each.data.tags]) == 2


def test_the_images_of_a_training_are_on_its_page_before_the_next_stage(tmp_path: Path, client: Any) -> None:
    def train(params: dict[str, Any]) -> pd.DataFrame:
        return pd.DataFrame({"sha256": ["a"], "split": ["train"]})

    run(tmp_path, node(train, inputs="params:evaluate", outputs="training_images", name="train_lora"))
    for tracked in runs(client):
        assert [used.dataset.name for used in tracked.inputs.dataset_inputs] == ["anna training images"]


def test_a_stage_that_fails_is_failed_in_both_runs(tmp_path: Path, client: Any) -> None:
    def broken(params: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("no faces")

    with pytest.raises(ValueError, match="no faces"):
        run(tmp_path, stage(broken, name="register"))
    assert [each.info.status for each in runs(client)] == ["FAILED", "FAILED"]


def test_record_opens_no_child(tmp_path: Path, client: Any) -> None:
    run(tmp_path, stage(name="record"))
    assert [each for each in runs(client) if "stage" in each.data.tags] == []


def test_a_pipeline_that_is_not_the_project_s_is_not_tracked(tmp_path: Path, client: Any) -> None:
    run(tmp_path, stage(name="somebody_elses"))
    assert client.get_experiment_by_name("anna") is None


def test_a_server_that_is_down_is_a_warning_and_the_stage_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens on discard
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run(tmp_path, stage())
    assert capfd.readouterr().err.count("is not tracked") == 1
    assert (tmp_path / "data/08_reporting/anna/metrics.json").is_file()


def test_all_missing_models_are_named_before_a_stage_runs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # relative names that are not below the project count from here
    params = {**ProjectConfigLoader(root / "conf", base_env="base", default_run_env="base")["parameters"]}
    params["caption"] = {**params["caption"], "captioner": "vlm", "model": "nobody/nothing"}
    params["ingest"] = {**params["ingest"], "upscale_model": "nobody/upscaler", "brisque_model": "nowhere"}
    catalog = DataCatalog({"parameters": MemoryDataset(params)})
    arguments: dict[str, Any] = {"run_params": {"project_path": str(tmp_path)}, "catalog": catalog}
    with pytest.raises(ClickException) as caught:
        InputHooks().before_pipeline_run(pipeline=Pipeline([stage()]), **arguments)
    lines = caught.value.message.splitlines()
    assert lines[0] == "models are missing; nothing was run:"
    names = (
        "tiny/weights/base",
        "tiny face embedder",
        "tiny CLIP",
        "controlnet_canny",
        "BRISQUE",
        "upscaler",
        "captioner vlm",
    )
    assert len(lines) == 1 + len(names)
    for name, line in zip(names, lines[1:], strict=True):
        assert name in line and "license" in line
    InputHooks().before_pipeline_run(pipeline=Pipeline([stage(name="record")]), **arguments)


def test_the_embedded_models_are_there(root: Path) -> None:
    params = ProjectConfigLoader(root / "conf", base_env="base", default_run_env="base")["parameters"]
    assert find_missing_models(params, root) == []


FACES = pd.DataFrame({"sha256": ["a", "b", "c"], "accepted": [True, True, False]})
WHOLE: dict[str, Any] = {
    "manifest": pd.DataFrame({"sha256": ["a", "b", "c"]}),
    "extra_manifest": pd.DataFrame({"sha256": ["e"]}),
    "extra_images": {"e": None, "old": None},
    "faces": FACES,
    "captions": pd.DataFrame({"sha256": ["a", "b", "old"]}),
    "aligned": {"a": None, "b": None},
}


@pytest.mark.parametrize(
    ("stale", "message"),
    [
        ({"manifest": pd.DataFrame({"sha256": ["a", "b"]})}, "faces and manifest .* stage align"),
        ({"manifest": pd.DataFrame({"sha256": list("abcd")})}, "manifest and faces .* stage align"),
        (
            {"aligned": {"a": None}},
            "accepted faces and aligned .* lacks 1 of 2 images, such as b.* stage align",
        ),
        ({"extra_images": {}}, "extra_manifest and extra_images .* stage ingest"),
        ({"captions": pd.DataFrame({"sha256": ["a"]})}, "accepted faces and captions .* stage caption"),
    ],
)
def test_inputs_of_different_runs_are_named(stale: dict[str, Any], message: str) -> None:
    node = stage()
    InputHooks().before_node_run(node=node, inputs=WHOLE)
    with pytest.raises(ClickException, match=f"evaluate: {message}"):
        InputHooks().before_node_run(node=node, inputs={**WHOLE, **stale})

"""Runs, registry and model files, in a store of sqlite as the project's own."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow.data.dataset_source_registry import get_dataset_source_from_json
from mlflow.types import Schema
from mlflow.utils import mlflow_tags
from PIL import Image

from stores import empty_store
from valentina_pipeline.integrations import mlflow
from valentina_pipeline.integrations.flavors import model_files
from valentina_pipeline.integrations.registry import Registry
from valentina_pipeline.integrations.run_description import name_run, read_commit, training_dataset
from valentina_pipeline.integrations.run_inputs import Commit
from valentina_pipeline.integrations.tracking import NullTracker, current_tracker, set_tracker

PARAMS = {
    "base_name": "tiny",
    "seed": 1,
    "num_threads": 2,
    "train_lora": {"method": "lora", "rank": 8, "max_steps": 500},
    "concept": {"trigger": "anna", "rights": ["a"]},
}
COMMIT = Commit("c0ffee", dirty=False)
IMAGES = pd.DataFrame(
    {
        "sha256": ["a" * 64, "b" * 64, "c" * 64],
        "source_name": ["1.png", "2.png", "3.png"],
        "rights_id": ["shoot"] * 3,
        "split": ["train", "held_out", "train"],
    }
)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    yield empty_store(tmp_path, monkeypatch)
    mlflow.forget()


def opened(root: Path, inputs: str = "abc") -> mlflow.Parent:
    return mlflow.open_parent(root, "anna", inputs, PARAMS, COMMIT)


def runs(client: Any, **tags: str) -> list[Any]:
    experiment = client.get_experiment_by_name("anna").experiment_id
    found = client.search_runs([experiment])
    return [run for run in found if tags.items() <= run.data.tags.items()]


def test_outside_a_tracked_run_the_tracker_does_nothing(tmp_path: Path) -> None:
    tracker = current_tracker()
    assert isinstance(tracker, NullTracker)
    tracker.log({"loss": 1.0}, 1)
    tracker.image("grid", Image.new("RGB", (2, 2)), 1)
    tracker.file(tmp_path / "not there")


def test_one_set_of_inputs_has_one_parent_from_whichever_process(tmp_path: Path, client: Any) -> None:
    first = opened(tmp_path).run_id
    mlflow.forget()  # as a process that ends
    assert opened(tmp_path).run_id == first
    assert opened(tmp_path, "other inputs").run_id != first
    (run,) = runs(client, inputs="abc")
    assert run.data.params == {
        "base_name": "tiny",
        "seed": "1",
        "num_threads": "2",
        "train_lora.method": "lora",
        "train_lora.rank": "8",
        "train_lora.max_steps": "500",
        "concept.trigger": "anna",
        "concept.rights": '["a"]',
    }


def test_the_name_source_and_commit_are_where_mlflow_s_pages_read_them(tmp_path: Path, client: Any) -> None:
    parent = mlflow.open_parent(tmp_path, "anna", "1f2e3d4c5b", PARAMS, Commit("c0ffee", dirty=True))
    parent.open_stage("train_lora", "c0de")
    parent.add_cached("evaluate")
    mlflow.close_stage(mlflow.FINISHED)
    found = {run.info.run_name: run.data.tags for run in runs(client)}
    assert {name: tags[mlflow_tags.MLFLOW_SOURCE_NAME] for name, tags in found.items()} == {
        "lora r8 500 steps tiny · 1f2e3d4c": "dvc.yaml",
        "train_lora · 1f2e3d4c": "kedro run --pipelines train_lora",
        "evaluate · 1f2e3d4c": "DVC cache",
    }
    for tags in found.values():
        assert tags[mlflow_tags.MLFLOW_SOURCE_TYPE] == "LOCAL"
        assert tags[mlflow_tags.MLFLOW_GIT_COMMIT] == "c0ffee"
        assert tags[mlflow_tags.MLFLOW_GIT_DIRTY] == "true"
        assert str(read_commit(tags)) == "c0ffee-dirty"


def test_without_git_a_run_has_a_source_and_no_commit(tmp_path: Path, client: Any) -> None:
    mlflow.open_parent(tmp_path, "anna", "abc", PARAMS)
    (run,) = runs(client)
    assert run.data.tags[mlflow_tags.MLFLOW_SOURCE_NAME] == "dvc.yaml"
    assert read_commit(run.data.tags) is None


@pytest.mark.parametrize(
    ("method", "name"),
    [("lokr", "lokr r8 500 steps tiny"), ("full", "full 500 steps tiny"),
     ("textual_inversion", "textual_inversion 500 steps tiny")],
)  # fmt: skip
def test_a_run_is_named_after_its_settings(method: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params = PARAMS | {"train_lora": {"method": method, "rank": 8, "max_steps": 500}}
    assert name_run(params, "1f2e3d4c5b") == f"{name} · 1f2e3d4c"
    monkeypatch.setenv("DVC_EXP_NAME", "lokr-1")
    assert name_run(params, "1f2e3d4c5b") == f"{name} · 1f2e3d4c · lokr-1"


def test_the_training_images_are_a_dataset_of_the_run_and_its_training(tmp_path: Path, client: Any) -> None:
    parent = opened(tmp_path)
    parent.add_cached("evaluate")
    parent.add_cached("train_lora")
    for _ in range(2):
        parent.log_training_images(IMAGES)
    logged = {run.data.tags.get("stage", "parent"): run.inputs.dataset_inputs for run in runs(client)}
    assert logged["evaluate"] == []
    (ours,), (training,) = logged["parent"], logged["train_lora"]
    assert ours.dataset == training.dataset
    assert ours.dataset.name == "anna training images"
    assert json.loads(ours.dataset.profile) == {"num_rows": 3, "train": 2, "held_out": 1}
    assert [(tag.key, tag.value) for tag in ours.tags] == [(mlflow_tags.MLFLOW_DATASET_CONTEXT, "training")]
    schema = json.dumps(json.loads(ours.dataset.schema)["mlflow_colspec"])
    assert Schema.from_json(schema).input_names() == list(IMAGES)
    source = get_dataset_source_from_json(ours.dataset.source, ours.dataset.source_type)
    assert source.uri == "data/06_models/anna/training_images.parquet"


def test_a_dataset_is_the_same_for_the_same_images_in_the_same_splits() -> None:
    def digest(table: pd.DataFrame) -> str:
        return str(training_dataset("anna", table).dataset.digest)

    assert digest(IMAGES[::-1].assign(source_name="renamed.png")) == digest(IMAGES)
    assert digest(IMAGES.assign(split="train")) != digest(IMAGES)
    assert digest(IMAGES[:2]) != digest(IMAGES)


def test_a_stage_is_a_child_with_its_params_metrics_and_artifacts(tmp_path: Path, client: Any) -> None:
    parent = opened(tmp_path)
    parent.open_stage("train_lora", "c0de")
    file = tmp_path / "report.html"
    file.write_text("<p>")
    tracker = current_tracker()
    for step in (1, 2):
        tracker.log({"loss": 1 / step}, step)
    tracker.image("samples", Image.new("RGB", (2, 2)), 2)
    tracker.file(file)
    mlflow.close_stage(mlflow.FINISHED)
    assert isinstance(current_tracker(), NullTracker)
    (run,) = runs(client, stage="train_lora")
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert run.data.params == {
        "train_lora.method": "lora",
        "train_lora.rank": "8",
        "train_lora.max_steps": "500",
        "seed": "1",
        "num_threads": "2",
    }
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [1.0, 0.5]
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {"images", "report.html"}
    assert {a.path[:21] for a in client.list_artifacts(run.info.run_id, "images")} == {
        "images/samples+step+2"
    }
    assert run.info.status == "FINISHED"
    assert (tmp_path / "mlruns/anna" / run.info.run_id / "artifacts/report.html").is_file()


def test_a_figure_logged_once_by_the_stage_and_once_by_the_hook_is_one_figure(
    tmp_path: Path, client: Any
) -> None:
    opened(tmp_path).open_stage("evaluate", "c0de")
    current_tracker().log({"identity": 0.7}, None)
    current_tracker().log({"identity": 0.7}, None)
    mlflow.close_stage(mlflow.FINISHED)
    (run,) = runs(client, stage="evaluate")
    assert len(client.get_metric_history(run.info.run_id, "identity")) == 1


def test_a_killed_stage_is_gone_on_with_and_a_finished_one_superseded(tmp_path: Path, client: Any) -> None:
    parent = opened(tmp_path)
    for status in (mlflow.KILLED, mlflow.FINISHED, mlflow.FINISHED):
        parent.open_stage("train_lora", "c0de")
        mlflow.close_stage(status)
    former, latest = sorted(runs(client, stage="train_lora"), key=lambda run: run.info.start_time)
    assert former.data.tags["superseded"] == "true"
    assert parent.children()["train_lora"].info.run_id == latest.info.run_id


def test_a_store_that_breaks_is_told_once_and_the_work_goes_on(
    tmp_path: Path, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        calls = 0

        def log_batch(self, *_: object, **__: object) -> None:
            self.calls += 1
            raise ConnectionError("server down")

    broken = Broken()
    tracker = mlflow._LiveRun(broken, "run")  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            tracker.log({"loss": 1.0}, step)
            tracker.flush()
    assert broken.calls == 1
    assert caplog.text.count("server down") == 1


def test_a_cached_stage_gets_a_child_and_logging_again_changes_nothing(tmp_path: Path, client: Any) -> None:
    parent = opened(tmp_path)
    parent.add_cached("evaluate")
    for _ in range(2):
        parent.log("evaluate", {"identity": 0.7}, {"outs": "{}"})
        parent.log(None, {"identity": 0.7}, {"decision": "champion"})
    mlflow.close_parent(mlflow.FINISHED)
    (child,), (run,) = runs(client, stage="evaluate"), runs(client, inputs="abc")
    assert child.info.status == run.info.status == "FINISHED"
    assert child.data.tags["outs"] == "{}"
    for each in (child, run):
        assert len(client.get_metric_history(each.info.run_id, "identity")) == 1


def test_experiments_in_dvc_s_copies_belong_to_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert mlflow.tracking_uri(Path("/home/p/.dvc/tmp/exps/tmp1")) == "sqlite:////home/p/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert mlflow.tracking_uri(Path("/home/p")) == "http://server"


def test_a_package_is_registered_once_and_found_by_its_tags(tmp_path: Path, client: Any) -> None:
    registry = Registry(tmp_path, "anna")
    assert registry.champion() is None
    assert registry.find(content_hash="c") is None
    tags = {"package_sha256": "p", "content_hash": "c", "decision": "candidate"}
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    first = registry.register({"lora/a": file, "MLmodel": b"x: 1\n"}, tags)
    again = registry.register({}, {**tags, "decision": "champion"})
    assert again.number == first.number == "1"
    found = registry.find(content_hash="c")
    assert found is not None
    assert found.tags["decision"] == "champion"
    stored = Path(client.get_model_version_download_uri("anna", "1").removeprefix("file://"))
    assert (stored / "lora/a").read_bytes() == b"weights"
    registry.promote(first)
    second = registry.register({"MLmodel": b"x: 2\n"}, {**tags, "package_sha256": "q"})
    assert second.number == "2"
    present = registry.champion()
    assert present is not None
    assert present.number == "1"


def test_a_revoked_version_is_champion_no_more_and_its_package_says_why(tmp_path: Path, client: Any) -> None:
    registry = Registry(tmp_path, "anna")
    first = registry.register({"MLmodel": b"x: 1\n"}, {"package_sha256": "p"})
    second = registry.register({"MLmodel": b"x: 2\n"}, {"package_sha256": "q"})
    registry.promote(second)
    assert registry.revoke(first.number, "shoot: she asked") == ()
    assert registry.revoke(second.number, "shoot: she asked") == ("champion",)
    assert registry.champion() is None
    found = registry.find(package_sha256="q")
    assert found is not None and found.tags["revoked"] == "shoot: she asked"
    stored = Path(client.get_model_version_download_uri("anna", "2").removeprefix("file://"))
    assert json.loads((stored / "REVOKED.json").read_text()) == {"revoked": "shoot: she asked"}


def test_model_files_are_two_flavours_and_depend_on_their_arguments_alone() -> None:
    arguments = (
        "valentina_pipeline.serving.inference.pyfunc",
        "some/base",
        {"prompt": "a", "seed": 1},
        "f" * 64,
    )
    files = model_files(*arguments)
    assert model_files(*arguments) == files
    model = yaml.safe_load(files["MLmodel"])
    assert (
        model["flavors"]["python_function"]["loader_module"] == "valentina_pipeline.serving.inference.pyfunc"
    )
    assert model["flavors"]["diffusers"]["base_model"] == "some/base"
    assert model["model_uuid"] == "f" * 32
    assert b"torch==" in files["requirements.txt"]
    assert b"+" not in files["requirements.txt"]
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_nested_figures_get_dotted_names_and_words_are_no_figures() -> None:
    nested = {"identity": {"lora": {"mean": 0.7}}, "name": "x", "passed": True, "images": 3}
    assert mlflow.flatten_metrics(nested) == {"identity.lora.mean": 0.7, "images": 3.0}


def test_a_tracker_can_be_used_by_a_caller_of_its_own() -> None:
    class Mine(NullTracker):
        pass

    set_tracker(Mine())
    try:
        assert isinstance(current_tracker(), Mine)
    finally:
        set_tracker(None)

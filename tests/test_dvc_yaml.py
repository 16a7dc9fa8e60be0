"""dvc.yaml from pipelines and catalog: what it says, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.pipeline import Pipeline, node, pipeline

from valentina_pipeline import dvc_yaml
from valentina_pipeline.config_loader import ParameterUsageError, ProjectConfigLoader


def work(*_: object) -> None:
    """Stand for a node's function: only its wiring matters here."""


def wired(inputs: Any, outputs: Any, name: str = "work") -> Pipeline:
    return pipeline([node(work, inputs, outputs, name=name)])


def entry(path: str, **more: Any) -> dict[str, Any]:
    return {"type": "pandas.CSVDataset", "filepath": path, **more}


def test_the_committed_files_are_up_to_date(root: Path) -> None:
    assert dvc_yaml.diff(root / "dvc.yaml", dvc_yaml.render_dvc_yaml(root)) == ""
    assert dvc_yaml.diff(root / "base_settings.json", dvc_yaml.render_base_settings(root)) == ""


def test_each_concept_has_the_settings_that_kedro_resolves(project: Path) -> None:
    """The files that DVC follows and the parameters of a run name the same base model for each concept."""
    concepts, bases = project / "conf/base/concepts", project / "conf/base/bases.yml"
    text = (concepts / "valentina_moreau.yml").read_text()
    (concepts / "anna.yml").write_text(
        f"base: small\n{text.replace('trigger: valentina_moreau', 'trigger: anna')}"
    )
    entries = yaml.safe_load(bases.read_text())
    entries["small"] = {**entries["tiny"], "train_lora": {**entries["tiny"]["train_lora"], "rank": 4}}
    bases.write_text(yaml.safe_dump(entries))
    chosen = project / "params.yaml"
    chosen.write_text(chosen.read_text().replace("[valentina_moreau]", "[valentina_moreau, anna]"))
    settings = json.loads(dvc_yaml.render_base_settings(project))
    assert settings == {"valentina_moreau": entries["tiny"], "anna": entries["small"]}
    for concept, rank in (("valentina_moreau", 16), ("anna", 4)):
        resolved = ProjectConfigLoader(
            project / "conf", "base", {"concept": concept}, base_env="base", default_run_env="base"
        )["parameters"]
        assert resolved["train_lora"]["rank"] == settings[concept]["train_lora"]["rank"] == rank


def test_an_unknown_base_is_refused_before_dvc_runs_a_stage(project: Path) -> None:
    concept = project / "conf/base/concepts/valentina_moreau.yml"
    concept.write_text(f"base: sd3\n{concept.read_text()}")
    with pytest.raises(ParameterUsageError, match=r"'sd3' in valentina_moreau\.yml is not one of"):
        dvc_yaml.render_base_settings(project)


def test_the_project_s_folder_is_no_dependency() -> None:
    """It comes from a hook, and every file in it that counts is an input by itself."""
    catalog = {"raw": entry("data/raw.csv"), "model": entry("data/model.csv")}
    made = dvc_yaml.stages({"train": wired(["raw", "project_root"], "model")}, catalog)
    assert made["train"]["deps"] == ["data/raw.csv"]
    assert "project_root" not in json.dumps(made)


def test_a_stage_is_a_pipeline_with_its_paths_params_and_code() -> None:
    catalog = {
        "images": entry("data/${item.concept}/images.csv"),
        "lora": entry("data/${item.concept}/lora.csv"),
        "unused": entry("data/unused.csv"),
    }
    pipes = {"first": wired(["images", "params:train_lora", "params:base", "params:seed"], "lora")}
    (stage,) = dvc_yaml.stages(pipes, catalog).values()
    assert stage["matrix"] == {"concept": "${concepts}"}
    assert stage["cmd"] == "kedro run --pipelines first --params concept=${item.concept}"
    assert stage["outs"] == ["data/${item.concept}/lora.csv"]
    assert stage["deps"] == ["data/${item.concept}/images.csv"]
    assert stage["params"] == [
        "seed",
        "train_lora",
        {"base_settings.json": ["${item.concept}.model", "${item.concept}.train_lora"]},
        {"conf/base/concepts/${item.concept}.yml": ["overrides.train_lora"]},
        {"conf/base/catalog.yml": ["images", "lora"]},
        {"code_fingerprints.json": ["first"]},
    ]


def test_metadata_says_how_dvc_keeps_an_output() -> None:
    catalog = {
        "a": entry("a"),
        "m": entry("m.json", metadata={"dvc": {"kind": "metrics", "cache": False}}),
        "p": entry("p.csv", metadata={"dvc": {"kind": "plots", "x": "step", "y": "loss"}}),
        "k": entry("k.csv", metadata={"dvc": {"persist": True}, "kedro-viz": {"layer": "x"}}),
    }
    (stage,) = dvc_yaml.stages({"first": wired("a", ["m", "p", "k"])}, catalog).values()
    assert stage["metrics"] == [{"m.json": {"cache": False}}]
    assert stage["plots"] == [{"p.csv": {"x": "step", "y": "loss"}}]
    assert stage["outs"] == [{"k.csv": {"persist": True}}]


def test_a_stage_that_only_reads_has_no_outs() -> None:
    (stage,) = dvc_yaml.stages({"first": wired("a", None)}, {"a": entry("a")}).values()
    assert not set(dvc_yaml.KINDS) & set(stage)


def test_what_stays_within_a_stage_needs_no_entry() -> None:
    both = wired("a", "inner", "one") + wired("inner", "b", "two")
    (stage,) = dvc_yaml.stages({"first": both}, {"a": entry("a"), "b": entry("b")}).values()
    assert stage["outs"] == ["b"]


@pytest.mark.parametrize(
    ("parameter", "keys"),
    [
        ("num_threads", {"params.yaml": ["num_threads"]}),
        ("base.face_embedder", {dvc_yaml.BASE_SETTINGS: ["${item.concept}.model.face_embedder"]}),
        ("concept.trigger", {dvc_yaml.CONCEPT: ["trigger"]}),
    ],
)
def test_a_parameter_leads_to_the_keys_that_make_it(parameter: str, keys: dict[str, list[str]]) -> None:
    assert dvc_yaml._keys_behind(parameter) == keys


def test_the_whole_concept_is_every_key_but_base_and_overrides() -> None:
    keys = dvc_yaml._keys_behind("concept")[dvc_yaml.CONCEPT]
    assert {"trigger", "renderer_parameters", "source"} <= set(keys)
    assert not {"base", "overrides"} & set(keys)


def test_every_catalog_entry_of_the_project_is_used(root: Path) -> None:
    catalog = dvc_yaml.read_catalog(root)
    stages = [
        stage
        for stage in yaml.safe_load(dvc_yaml.render_dvc_yaml(root))["stages"].values()
        if "matrix" in stage
    ]
    assert {name for stage in stages for name in stage["params"][-2][dvc_yaml.CATALOG]} == set(catalog)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("data/x", "data/x"), "first writes b to data/x and second writes c to data/x"),
        (("data/x", "data/x/y.csv"), "each path must have one writer"),
    ],
)
def test_two_writers_of_one_path_are_refused(paths: tuple[str, str], message: str) -> None:
    catalog = {"a": entry("a"), "b": entry(paths[0]), "c": entry(paths[1])}
    with pytest.raises(dvc_yaml.InvalidDagError, match=message):
        dvc_yaml.stages({"first": wired("a", "b"), "second": wired("a", "c")}, catalog)


def test_one_dataset_that_two_stages_write_is_refused() -> None:
    with pytest.raises(dvc_yaml.InvalidDagError, match="each path must have one writer"):
        dvc_yaml.stages(
            {"first": wired("a", "b"), "second": wired("a", "b")}, {"a": entry("a"), "b": entry("b")}
        )


def test_an_unpersisted_dataset_between_stages_is_refused() -> None:
    pipes = {"first": wired("a", "inner"), "second": wired("inner", "b")}
    with pytest.raises(dvc_yaml.InvalidDagError, match="second takes 'inner', which is not persisted"):
        dvc_yaml.stages(pipes, {"a": entry("a"), "b": entry("b")})


def test_a_memory_dataset_in_the_catalog_is_not_persisted_either() -> None:
    catalog = {"a": entry("a"), "inner": {"type": "MemoryDataset"}, "b": entry("b")}
    pipes = {"first": wired("a", "inner"), "second": wired("inner", "b")}
    with pytest.raises(dvc_yaml.InvalidDagError, match="inner has no filepath"):
        dvc_yaml.stages(pipes, catalog)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (entry("b", versioned=True), "b is `versioned: true`, but DVC versions it"),
        (entry("/etc/b"), "only paths inside the project"),
        (entry("../b"), "only paths inside the project"),
        (entry("s3://bucket/b"), "only paths inside the project"),
        (entry("b", metadata={"dvc": {"kind": "metric"}}), "kind must be one of outs, metrics, plots"),
        (entry("b", metadata={"dvc": {"x": "step"}}), "outs allows cache, persist, push, remote"),
    ],
)
def test_an_entry_that_dvc_cannot_keep_is_refused(output: dict[str, Any], message: str) -> None:
    with pytest.raises(dvc_yaml.InvalidDagError, match=message):
        dvc_yaml.stages({"first": wired("a", "b")}, {"a": entry("a"), "b": output})


@pytest.mark.parametrize("parameter", ["train", "train_lora.rank"])
def test_a_parameter_that_nobody_makes_is_refused(parameter: str) -> None:
    with pytest.raises(dvc_yaml.InvalidDagError, match=f"params:{parameter} is unknown"):
        dvc_yaml.stages({"first": wired(["a", f"params:{parameter}"], None)}, {"a": entry("a")})


def test_writing_says_whether_anything_changed(tmp_path: Path) -> None:
    path = tmp_path / "dvc.yaml"
    assert dvc_yaml.write(path, "a\n")
    assert not dvc_yaml.write(path, "a\n")
    assert "-a\n+b\n" in dvc_yaml.diff(path, "b\n")
    assert [file.name for file in tmp_path.iterdir()] == ["dvc.yaml"]

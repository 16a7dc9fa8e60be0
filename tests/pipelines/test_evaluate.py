"""The stage on a randomly initialised base of true architecture: every line that a real base meets."""

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from kedro.pipeline import Pipeline
from safetensors.torch import save_file

from given import ledger
from portraits import CONCEPT, picture
from tiny_bases import SIZE, clip_folder, config, sd15_folder, sdxl_folder
from valentina_pipeline import dvc_yaml
from valentina_pipeline.domain.rights import NotAllowedError, parse_records
from valentina_pipeline.image.evaluate.prompts import VARIANTS
from valentina_pipeline.image.faces.tiny_facenet import FaceNetTiny
from valentina_pipeline.image.lora.adapter import AdapterSpec, inject
from valentina_pipeline.image.lora.formats import AdapterMetadata, export_adapter
from valentina_pipeline.image.models.base_model import load_base
from valentina_pipeline.image.models.weights import base_hash
from valentina_pipeline.pipelines.evaluate.nodes import evaluate_adapter
from valentina_pipeline.pipelines.evaluate.pipeline import create_pipeline

(RIGHTS,) = parse_records(yaml.safe_load(ledger("ours")), "ours.yml")
FOLDERS = {"sdxl": sdxl_folder, "sd15": sd15_folder}
PROMPTS = ["photo of {subject}, smiling, beach background", "photo of {subject}, serious, sunset background"]
CFG = {
    "num_images_per_prompt": 1,
    "num_inference_steps": 2,
    "guidance_scale": 2.0,
    "bootstrap_resamples": 100,
}


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield 1
    torch.set_num_threads(before)


def inputs(family: str, place: Path) -> dict[str, Any]:
    """What the stage takes, with a LoRA that changes what is drawn."""
    torch.manual_seed(0)
    embedder = place / "faces.safetensors"
    save_file({k: v.contiguous() for k, v in FaceNetTiny().state_dict().items()}, embedder)
    folder = FOLDERS[family]()
    (place / "lora_steps").mkdir()
    base = config(family, folder).model_dump()
    base["face_embedder"]["path"], base["clip"]["path"] = str(embedder), str(clip_folder())
    names = [f"{index:02d}{'a' * 62}" for index in range(4)]
    vectors = torch.nn.functional.normalize(torch.randn(4, 128), dim=1).numpy()
    return {
        "lora": lora(family, folder, place / "lora"),
        "lora_steps": place / "lora_steps",
        "aligned": {name: picture(index, size=SIZE) for index, name in enumerate(names)},
        "faces": pd.DataFrame(
            {
                "sha256": names,
                "embedding": list(vectors),
                "accepted": True,
                "reason": "",
                "split": ["train", "train", "held_out", "held_out"],
            }
        ),
        "captions": pd.DataFrame(
            {"sha256": names, "caption": "photo of a test_woman woman, laughing", "rejected": False}
        ),
        "project_root": place,
        "tiny_weights": place / "tiny" / "weights",
        "tiny_judges": {"face_embedder": "another one's hash"},
        "prompts": PROMPTS,
        "training_images": pd.DataFrame({"rights_id": ["ours"]}),
        "rights": (RIGHTS,),
        "concept": CONCEPT,
        "base": base,
        "evaluate": CFG,
        "seed": 5,
    }


def lora(family: str, folder: Path, target: Path) -> Path:
    base = load_base(config(family, folder), Path("/"))
    adapter = inject(base, AdapterSpec("lora", 2, 2.0, "attention"), text=False, seed=0)
    with torch.no_grad():
        for parameter in adapter.weights().values():
            parameter.copy_(torch.full_like(parameter, 0.3))
    notes = AdapterMetadata("test_woman", base_hash(folder), "0" * 64, SIZE, base.prediction_type)
    target.mkdir()
    for name, content in export_adapter(adapter, notes).items():
        (target / name).write_bytes(content)
    return target


@pytest.mark.parametrize("family", FOLDERS)
def test_lora_and_bare_base_are_drawn_measured_and_marked(family: str, tmp_path: Path, threads: int) -> None:
    given = inputs(family, tmp_path)
    images, scores, metrics, plot, notes, steps = evaluate_adapter(**given, num_threads=threads)

    assert sorted(images) == sorted(f"{variant}/{number:04d}" for variant in VARIANTS for number in (0, 1))
    assert scores["name"].tolist() == list(images)
    assert {image.size for image in images.values()} == {(SIZE, SIZE)}
    # one trigger, one seed: what differs is the LoRA
    assert images["lora/0000"].tobytes() != images["base_trigger/0000"].tobytes()
    marks = images["lora/0000"].info["text"]
    assert marks["synthetic"] == "true" and len(marks["lora"]) == 64
    assert marks["prompt"] == "photo of a test_woman woman, smiling, beach background"
    assert "lora" not in images["base/0000"].info["text"]
    assert "oval face" in images["base/0000"].info["text"]["prompt"]
    assert metrics["num_images"] + metrics["num_filtered"] == 8
    assert list(plot.columns) == ["prompt", "variant", "identity"]
    assert steps.empty
    assert ["lora", marks["lora"]] in notes["settings"]
    # the judges know the embedded base's world, and this is another one
    assert "attributes" not in metrics and scores["missed"].isna().all()
    assert notes["notes"][0].startswith("Attributes and identification were not measured")


def test_a_kept_lora_is_drawn_by_its_own_weights(tmp_path: Path, threads: int) -> None:
    given = inputs("sdxl", tmp_path)
    for step in ("5", "10"):
        shutil.copytree(given["lora"], given["lora_steps"] / step)
    images, *_, steps = evaluate_adapter(**given, num_threads=threads)

    assert (
        images["step-0005/0000"].tobytes() == images["lora/0000"].tobytes() != images["base/0000"].tobytes()
    )
    assert "lora" not in images["step-0005/0000"].info["text"]  # it is not the LoRA of the package
    assert sorted(steps["step"].unique()) == [5, 10]


def test_nothing_is_drawn_under_a_record_that_does_not_allow_it(tmp_path: Path, threads: int) -> None:
    given = inputs("sdxl", tmp_path)
    for change, why in (
        ({"revoked": date(2026, 1, 1), "revocation": "asked to"}, "rights revoked: record ours"),
        ({"uses": ("training",)}, "allows training, not generation"),
        ({"expires": date(2020, 1, 1)}, "ended on 2020-01-01"),
    ):
        with pytest.raises(NotAllowedError, match=why):
            evaluate_adapter(**given | {"rights": (RIGHTS.model_copy(update=change),)}, num_threads=threads)


@pytest.mark.slow
def test_the_same_inputs_give_the_same_images_figures_and_notes(tmp_path: Path, threads: int) -> None:
    given = inputs("sdxl", tmp_path)
    first, second = (evaluate_adapter(**given, num_threads=threads) for _ in range(2))

    assert {n: i.tobytes() for n, i in first[0].items()} == {n: i.tobytes() for n, i in second[0].items()}
    pd.testing.assert_frame_equal(first[1], second[1])
    assert first[2] == second[2]
    assert first[4] == second[4]


def test_the_stage_follows_its_prompts(root: Path) -> None:
    pipeline: Pipeline = create_pipeline()
    catalog = dvc_yaml.read_catalog(root)
    stage = dvc_yaml.stages({"evaluate": pipeline}, catalog)["evaluate"]

    assert "conf/base/prompts/character.yml" in stage["deps"]

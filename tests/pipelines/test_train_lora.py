from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load

import tiny_bases
from loras import written
from portraits import noise
from runs import FACE, config, samples
from valentina_pipeline.config.train_lora import ExtraDatasetConfig
from valentina_pipeline.domain.artifacts import LORA_FILE
from valentina_pipeline.domain.concept import SECTIONS
from valentina_pipeline.domain.rights import RightsRecord
from valentina_pipeline.image.lora.formats import read_metadata
from valentina_pipeline.image.train import loop
from valentina_pipeline.pipelines.train_lora import nodes, training_images

KOHYA, PEFT = "vee.kohya.safetensors", "peft"
SAID = ("photo of a vee woman, smiling", "photo of a vee woman, topless")
KINDS = ("lora", "dora", "rslora", "lokr")
OWN = RightsRecord(
    id="own", holder="Acme", covers="*", uses=("training",), license="CC0-1.0", synthetic=True,
    evidence="made",
)  # fmt: skip
GARDEN = RightsRecord(
    id="garden-2026", holder="Jane Doe", covers="garden/*", uses=("training",), license="CC-BY-4.0",
    synthetic=False, evidence="contract",
)  # fmt: skip


@dataclass
class Result:
    files: dict[str, bytes]
    steps: dict[str, bytes]
    used: pd.DataFrame
    loss: pd.DataFrame
    validation_curve: pd.DataFrame
    figures: dict[str, float]
    class_images: dict[str, Image.Image]


def trained(root: Path, **changes: Any) -> Result:
    """Run the node in `root` on three pictures; `changes` are arguments of it or of train_lora."""
    images = {f"{i}" * 64: sample.image for i, sample in enumerate(samples(3))}
    names = list(images)
    concept = {
        "kind": "character", "name": "V", "trigger": "vee", "class_word": "woman", "adult": True,
        "source": "renderer", "caption_excluded_words": [], "asymmetric": False, "description": "a woman",
        "renderer_parameters": {},
        "overrides": {name: {} for name in SECTIONS},
    }  # fmt: skip
    for folder in ("tiny/weights", "data/05_model_input/vee"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    arguments: dict[str, Any] = {
        "aligned": images,
        "aligned_masks": {},
        "faces": pd.DataFrame([FACE] * 3, columns=["x0", "y0", "x1", "y1"]).assign(
            sha256=names, accepted=True, reason="", split=["train", "train", "held_out"]
        ),
        "captions": pd.DataFrame({"sha256": names, "caption": "photo of vee woman", "rejected": False}),
        "manifest": pd.DataFrame(
            {
                "sha256": names,
                "source_name": names,
                "rights_id": "own",
            }
        ),
        "rights": (OWN, GARDEN),
        "project_root": root,
        "tiny_weights": root / "tiny/weights",
        "extra_training_data": root / "data/05_model_input/vee",
        **{**garden(), "extra_manifest": garden()["extra_manifest"].iloc[:0]},
        "concept": concept,
        "base": tiny_bases.config("sdxl", tiny_bases.sdxl_folder()).model_dump(),
        "seed": 3,
        "num_threads": 1,
    }
    own = {name: changes.pop(name) for name in list(changes) if name in arguments}
    small = {"max_steps": 2, "save_every": 1, "sample_inference_steps": 2}
    settings = config(**{**small, **changes}).model_dump()
    return Result(*nodes.train_adapter(**{**arguments, **own}, train_lora=settings))


def metadata(files: dict[str, bytes], folder: Path) -> dict[str, str]:
    file = folder / "some.safetensors"
    file.write_bytes(files[LORA_FILE])
    return read_metadata(file)


def garden(mask: Image.Image | None = None) -> dict[str, Any]:
    """The node's arguments for one image of extra data."""
    row = {"sha256": "9" * 64, "source_name": "garden/rose.png", "rights_id": GARDEN.id}
    return {
        "extra_images": {row["sha256"]: noise(1, 64, 96)},
        "extra_masks": {row["sha256"]: mask} if mask else {},
        "extra_manifest": pd.DataFrame([{**row, "caption": "photo of a rose garden"}]),
    }


def extra_samples(rights: tuple[RightsRecord, ...], *folders: str, **changes: Any) -> Any:
    given = {**garden(), **changes}
    wanted = {name: ExtraDatasetConfig() for name in folders}
    return training_images.extra_samples(
        given["extra_images"], given["extra_masks"], given["extra_manifest"], wanted, rights
    )


def test_it_trains_on_the_training_split_and_leaves_no_checkpoints(tmp_path: Path) -> None:
    result = trained(tmp_path, sample_every=2, eval_every=1)
    assert sorted(result.files) == [LORA_FILE, KOHYA]
    assert result.loss["step"].tolist() == result.validation_curve["step"].tolist() == [1, 2]
    gap = result.validation_curve["val_loss"] - result.validation_curve["train_loss_fixed_noise"]
    np.testing.assert_allclose(result.validation_curve["generalization_gap"], gap)
    assert result.figures["steps"] == 2
    assert result.figures["trainable_parameters"] > 0
    assert result.class_images == {}
    assert metadata(result.files, tmp_path)["rights"] == '["own: Acme, CC0-1.0"]'
    assert not (tmp_path / "data/06_models/vee/checkpoints").exists()
    assert trained(tmp_path, sample_every=2, eval_every=1).files == result.files  # from the cache
    assert trained(tmp_path / "other").validation_curve.empty


def test_kept_steps_survive_an_interruption_and_are_the_loras_of_shorter_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"max_steps": 3, "keep_every": 1, "lr_scheduler": "constant"}
    with monkeypatch.context() as patched:
        patched.setattr(loop, "DIVERGENCE_FACTOR", 0.0)
        patched.setattr(loop, "NUM_FIRST_LOSSES", 2)  # the third step "diverges"
        with pytest.raises(loop.LossDivergedError):
            trained(tmp_path, **settings)
    resumed = trained(tmp_path, **settings)

    assert resumed.steps.keys() == {f"{step}/{name}" for step in (1, 2, 3) for name in resumed.files}
    assert resumed.steps[f"3/{LORA_FILE}"] == resumed.files[LORA_FILE]
    whole = trained(tmp_path / "whole", **settings)
    assert whole.steps == resumed.steps
    short = trained(tmp_path / "short", **settings | {"max_steps": 2, "keep_every": 0})
    assert short.steps == {}
    assert load(short.files[LORA_FILE]).keys() == load(whole.steps[f"2/{LORA_FILE}"]).keys()
    for name, tensor in load(short.files[LORA_FILE]).items():
        assert np.array_equal(tensor, load(whole.steps[f"2/{LORA_FILE}"])[name])


def test_a_record_that_ended_after_ingest_stops_the_run(tmp_path: Path) -> None:
    ended = OWN.model_copy(update={"expires": date(2020, 1, 1)})
    with pytest.raises(
        training_images.NoTrainingImagesError, match=r"record own ended on 2020-01-01.*leaves it out"
    ):
        trained(tmp_path, rights=(ended,))


def test_nothing_to_train_on_is_an_error_that_says_what_is_missing(tmp_path: Path) -> None:
    captions = pd.DataFrame({"sha256": ["0" * 64], "caption": "photo of vee woman", "rejected": False})
    with pytest.raises(training_images.NoTrainingImagesError, match="no caption"):
        trained(tmp_path, captions=captions)
    with pytest.raises(training_images.NoTrainingImagesError, match="training split"):
        rejected = [f"{index}" * 64 for index in range(3)]
        trained(tmp_path, captions=pd.DataFrame({"sha256": rejected, "caption": "a", "rejected": True}))


def test_a_caption_that_the_word_policy_refuses_stops_training_by_its_picture() -> None:
    plain, bad = (replace(one, caption=said) for one, said in zip(samples(2), SAID, strict=True))

    training_images.refuse_captions([plain], "V")
    said = rf"image {bad.name}: its caption '{SAID[1]}'"
    with pytest.raises(training_images.NoTrainingImagesError, match=said):
        training_images.refuse_captions([plain, bad], "V")


def test_private_files_say_nothing_of_the_pictures(tmp_path: Path) -> None:
    about = metadata(trained(tmp_path, strip_metadata=True).files, tmp_path)
    assert about["trigger"] == "vee"
    assert not {"rights", "data_sha256", "ss_tag_frequency", "ss_num_train_images"} & set(about)


def test_another_concept_trains_along_with_its_rights_on_record(tmp_path: Path) -> None:
    wanted = {"garden": {"num_repeats": 2, "loss_weight": 0.5}}
    result = trained(tmp_path, **garden(), extra_datasets=wanted)
    about = metadata(result.files, tmp_path)
    assert about["rights"] == '["own: Acme, CC0-1.0", "garden-2026: Jane Doe, CC-BY-4.0"]'
    assert about["ss_num_train_images"] == "3"
    assert result.used["source_name"].to_list() == [f"{i}" * 64 for i in range(3)] + ["garden/rose.png"]
    assert result.used["rights_id"].to_list() == ["own", "own", "own", "garden-2026"]
    assert result.used["split"].to_list() == ["train", "train", "held_out", "train"]
    assert len(result.used["sha256"].iloc[-1]) == 64
    assert "rose garden" in about["ss_tag_frequency"]
    assert result.files[LORA_FILE] != trained(tmp_path / "alone").files[LORA_FILE]


def test_a_mask_weighs_what_is_learned_from_a_portrait_and_from_what_trains_along(tmp_path: Path) -> None:
    half = Image.new("L", (64, 96))
    half.paste(255, (0, 0, 32, 96))
    ((rose,), _) = extra_samples((OWN, GARDEN), "garden", **garden(half))
    assert rose.mask is not None and np.array_equal(np.asarray(rose.mask), np.asarray(half))
    size = samples(1)[0].image.size
    white, black = (Image.new("RGB", size, color) for color in ("white", "black"))
    names = [f"{i}" * 64 for i in range(2)]
    plain, whole, nothing = (
        trained(tmp_path, aligned_masks=masks)
        for masks in ({}, dict.fromkeys(names, white), dict.fromkeys(names, black))
    )
    assert plain.loss.equals(whole.loss) and (plain.loss["train_loss"] > 0).all()
    assert (nothing.loss["train_loss"] == 0).all()


@pytest.mark.parametrize("folder", ["meadow", "gard", "../06_models", ".", "/etc"])
def test_a_folder_without_accepted_images_stops_the_run(folder: str) -> None:
    with pytest.raises(training_images.InvalidExtraDataError, match="accepted no image of this folder"):
        extra_samples((OWN, GARDEN), folder)


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        ((OWN,), "no rights record"),
        ((OWN, GARDEN.model_copy(update={"expires": date(2020, 1, 1)})), "rights expired"),
        ((OWN.model_copy(update={"revoked": date(2020, 1, 1), "revocation": "no"}), GARDEN), "revoked"),
    ],
)
def test_extra_data_whose_rights_ended_after_ingest_stops_the_run(
    rights: tuple[RightsRecord, ...], said: str
) -> None:
    with pytest.raises(training_images.NoTrainingImagesError, match=f"garden/rose.png was ingested.*{said}"):
        extra_samples(rights, "garden")


def test_class_images_are_drawn_once_and_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from valentina_pipeline.image.generate import generate

    drawn: list[object] = []
    real = generate.generate_images
    monkeypatch.setattr(generate, "generate_images", lambda *a, **k: drawn.append(a[1]) or real(*a, **k))
    first = trained(tmp_path, num_class_images=3, method="full", text_encoder_lr=0.0)
    assert len(drawn) == 3
    assert list(first.class_images) == ["00000", "00001", "00002"]
    assert first.class_images["00001"].info["text"]["synthetic"] == "true"
    assert list(first.files) == ["unet.safetensors"]
    again = trained(tmp_path, num_class_images=3, method="full", text_encoder_lr=0.0)
    assert len(drawn) == 3
    assert again.files == first.files


def test_a_prior_is_shown_as_often_as_the_concept() -> None:
    own = samples(2)
    images = {f"{n}": own[0].image for n in range(6)}
    both = training_images.add_prior_preservation(own, images, "woman", 0.3)
    assert [sample.repeats for sample in both] == [3, 3, 1, 1, 1, 1, 1, 1]
    assert {sample.weight for sample in both[2:]} == {0.3}
    assert {sample.caption for sample in both[2:]} == {"photo of a woman"}
    assert training_images.add_prior_preservation(own * 3, {"0": own[0].image}, "woman", 1)[-1].repeats == 6
    assert training_images.add_prior_preservation(own, {}, "woman", 1.0) == own


@pytest.mark.parametrize(
    ("form", "method"),
    [(LORA_FILE, "lora"), (KOHYA, "lora"), (LORA_FILE, "lokr"), *((PEFT, kind) for kind in KINDS)],
)
def test_an_adapter_is_gone_on_from_and_taken_as_it_is_with_no_steps(
    form: str, method: str, tmp_path: Path
) -> None:
    first = trained(
        tmp_path, learning_rate=0.1, alpha=1.0, method=method, export_formats=["diffusers", "kohya", "peft"]
    )
    start = "theirs" if form == PEFT else "theirs.safetensors"
    (written(first.files, tmp_path / "first") / form).rename(tmp_path / "data/05_model_input/vee" / start)
    kept = trained(tmp_path, init_from=start, max_steps=0)
    assert kept.loss.empty
    assert kept.figures["trainable_parameters"] == first.figures["trainable_parameters"]
    about = metadata(kept.files, tmp_path)
    assert (about["method"], about["rank"], about["alpha"]) == (method, "2", "1")
    before, after = load(first.files[LORA_FILE]), load(kept.files[LORA_FILE])
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_allclose(after[name], tensor, atol=1e-7)
    on = load(trained(tmp_path, init_from=start, learning_rate=0.1).files[LORA_FILE])
    assert any(not np.array_equal(on[name], tensor) for name, tensor in before.items())


def test_a_folder_of_the_unet_alone_is_an_adapter_too(tmp_path: Path) -> None:
    first = trained(tmp_path, learning_rate=0.1, export_formats=["diffusers", "peft"])
    (written(first.files, tmp_path / "first") / "peft/unet").rename(
        tmp_path / "data/05_model_input/vee/theirs"
    )
    kept = load(trained(tmp_path, init_from="theirs", max_steps=0).files[LORA_FILE])
    assert kept
    assert all(name.startswith("unet.") for name in kept)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_that_is_no_adapter_is_an_error(missing: str, tmp_path: Path) -> None:
    first = trained(tmp_path, export_formats=["diffusers", "peft"])
    theirs = tmp_path / "data/05_model_input/vee/theirs"
    (written(first.files, tmp_path / "first") / "peft").rename(theirs)
    (theirs / "unet" / missing).unlink()
    with pytest.raises(ValueError, match=r"theirs/unet is not a peft adapter"):
        trained(tmp_path, init_from="theirs")


def test_a_start_that_is_no_lora_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        training_images.InvalidExtraDataError, match=r"absent.safetensors must be a .safetensors file"
    ):
        trained(tmp_path, init_from="absent.safetensors")

"""Stable Diffusion's safety checker, of random weights: both answers, and what it does when it is broken."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor

from portraits import picture
from valentina_pipeline.image.safety.sd_safety_checker import WEIGHTS, InvalidCheckerError, SafetyChecker

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def nothing_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def written(base: Path, threshold: float) -> Path:
    """Write a checker that flags pictures whose likeness to any concept is above the threshold."""
    torch.manual_seed(0)
    eyes = {**SMALL, "image_size": 32, "patch_size": 8}
    words = {**SMALL, "vocab_size": 99, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    network = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config=eyes, text_config=words, projection_dim=8)
    )
    network.concept_embeds_weights.fill_(threshold)
    network.special_care_embeds_weights.fill_(2.0)
    network.save_pretrained(base / "safety_checker")
    CLIPImageProcessor(size=32, crop_size=32).save_pretrained(base / "feature_extractor")
    return base


def test_a_base_without_one_is_looked_at_by_the_filter_alone(tmp_path: Path) -> None:
    assert SafetyChecker.load_if_available(tmp_path) is None


@pytest.mark.parametrize(
    ("threshold", "said"), [(2.0, None), (-2.0, "unsafe by Stable Diffusion's safety checker")]
)
def test_a_picture_is_unsafe_where_it_is_like_a_concept(
    tmp_path: Path, threshold: float, said: str | None
) -> None:
    checker = SafetyChecker.load_if_available(written(tmp_path, threshold))
    assert checker is not None
    image = picture(0)
    before = image.tobytes()
    assert checker.unsafe(image) == said
    assert image.tobytes() == before


def test_one_of_sd_15_in_the_hub_s_cache_serves_every_base(tmp_path: Path) -> None:
    repository = tmp_path / "hub/models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    written(repository / "snapshots/abc", -2.0)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")
    checker = SafetyChecker.load_if_available(tmp_path / "base")
    assert checker is not None
    assert checker.unsafe(picture(0))


def test_what_cannot_be_looked_at_is_unsafe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checker = SafetyChecker(written(tmp_path, 2.0))
    monkeypatch.setattr(checker, "_prepare", None)
    assert "safety checker failed: TypeError" in str(checker.unsafe(picture(0)))


def test_a_checker_that_is_there_and_not_whole_is_no_checker_that_passes_everything(tmp_path: Path) -> None:
    file = written(tmp_path, 2.0) / WEIGHTS
    weights = load_file(file)
    save_file({name: w for name, w in weights.items() if name != "concept_embeds"}, file)
    with pytest.raises(InvalidCheckerError, match="lacks weights: concept_embeds"):
        SafetyChecker.load_if_available(tmp_path)
    save_file({**weights, "concept_embeds": weights["concept_embeds"] * float("nan")}, file)
    with pytest.raises(InvalidCheckerError, match="not finite"):
        SafetyChecker.load_if_available(tmp_path)
    file.write_bytes(b"pickle")
    with pytest.raises(InvalidCheckerError, match="cannot be read"):
        SafetyChecker.load_if_available(tmp_path)
    written(tmp_path, 2.0)
    shutil.rmtree(tmp_path / "feature_extractor")
    with pytest.raises(InvalidCheckerError, match="cannot be read"):
        SafetyChecker.load_if_available(tmp_path)

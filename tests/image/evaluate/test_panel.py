from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diffusers import AutoencoderKL
from PIL import Image

from judges import BLACK, CONFIG, GREEN, PERSON, RED, TEMPLATES, known, laid_out, models
from valentina_pipeline.image.evaluate.evaluate import Evaluation, evaluate
from valentina_pipeline.image.evaluate.identity_judge import IdentityJudge
from valentina_pipeline.image.evaluate.panel import Panel, Readings, panel_metrics, reconstruct
from valentina_pipeline.image.evaluate.run_comparison import compare_runs

PORTRAITS = known(train=[RED, RED], held_out=[RED, (150, 200, 0)])  # the last is (0.6, 0.8, 0)
PORTRAITS = replace(PORTRAITS, captions=dict.fromkeys(PORTRAITS.captions, "smiling, wearing a red dress"))


def sees_only_red_smiles(image: Image.Image, face: object, _: object) -> dict[str, str]:
    return {"expression": "smiling", "clothes_color": "red", "place": "beach"} if face else {}


PANEL: Any = Panel(
    SimpleNamespace(
        read=sees_only_red_smiles, accuracy=dict.fromkeys(("expression", "clothes_color", "place"), 0.9)
    ),  # type: ignore[arg-type]
    np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
)


def first_two_colors(image: Image.Image) -> np.ndarray | None:
    color = np.asarray(image.convert("RGB"), np.float64).mean(axis=(0, 1))[:2]
    return color if color.any() else None


def run(**colours: tuple[int, int, int]) -> Evaluation:
    drawing = replace(models(**colours), panel=PANEL)
    return evaluate(TEMPLATES, PERSON, PORTRAITS, drawing, CONFIG, 7, {})


def test_the_rank_counts_the_strangers_that_are_nearer_than_the_character() -> None:
    own = np.array([[1.0, 0.0, 0.0]])

    assert PANEL.rank(np.array([0.9, 0.3, 0.3]), own) == 1
    assert PANEL.rank(np.array([0.5, 0.8, 0.3]), own) == 2
    assert PANEL.rank(np.array([0.1, 0.7, 0.7]), own) == 3


def test_each_attribute_is_the_share_of_images_that_show_what_their_prompt_requests() -> None:
    metrics = run(lora=RED, base=BLACK).metrics
    shown = metrics["attributes"]

    # prompts: smiling, red, beach; serious, blue, teal wall; laughing, green, sunset
    assert {field: shown[field]["lora"]["mean"] for field in shown} == pytest.approx(
        {"expression": 1 / 3, "clothes_color": 1 / 3, "place": 1 / 3, "all": 1 / 3}
    )
    assert shown["expression"]["base"]["mean"] == 0  # no face
    assert shown["expression"]["real"]["mean"] == shown["expression"]["real_vae"]["mean"] == 1
    assert shown["expression"]["strangers"] == 0.9
    assert shown["place"]["real"]["mean"] == 0  # no portrait's caption names one
    drop = metrics["attributes_drop"]
    assert drop["mean"] == pytest.approx(shown["all"]["base"]["mean"] - 1 / 3)
    assert drop["ci_low"] <= drop["mean"] <= drop["ci_high"]
    assert shown["clothes_color"]["lora"]["ci_low"] < 1 / 3 < shown["clothes_color"]["lora"]["ci_high"]
    assert "light" not in shown


def test_images_are_identified_by_the_nearest_template() -> None:
    metrics = run(lora=RED, base=GREEN).metrics["identification"]

    assert metrics["num_strangers"] == 2
    assert (metrics["lora"]["mean"], metrics["lora"]["mean_rank"]) == (1, 1)
    assert (metrics["base"]["mean"], metrics["base"]["mean_rank"]) == (0, 2)
    nobody = run(lora=BLACK, base=GREEN).metrics["identification"]["lora"]
    assert (nobody["mean"], nobody["mean_rank"]) == (0, 3)


def test_identity_is_placed_between_strangers_and_portraits_through_the_vae_by_both_judges() -> None:
    judge = IdentityJudge(first_two_colors, np.zeros(2), np.eye(2), np.array([[0.0, 1.0]]))
    drawing = replace(models(lora=RED, base=GREEN), panel=replace(PANEL, independent=judge))
    result = evaluate(TEMPLATES, PERSON, PORTRAITS, drawing, CONFIG, 7, {})
    metrics, scale = result.metrics, result.metrics["identity_scale"]

    # held out: (1, 0) and (0.6, 0.8), the strangers (0, 1) and, for the embedder, (0, 0, 1)
    assert metrics["identity_dlib"]["strangers"] == pytest.approx(0.4, abs=0.01)
    assert metrics["identity_dlib"]["lora"]["mean"] == pytest.approx(0.8, abs=0.01)
    # real portraits, each to the others: red, red, red, (0.6, 0.8)
    real = (0.8 + 0.8 + 0.6 + 0.6) / 4
    assert metrics["identity_dlib"]["real_vae"]["mean"] == pytest.approx(real, abs=0.01)
    assert scale["dlib"]["lora"]["mean"] == pytest.approx((0.8 - 0.4) / (real - 0.4), abs=0.03)
    assert scale["embedder"]["lora"]["mean"] == pytest.approx((0.8 - 0.2) / (real - 0.2), abs=0.03)
    assert scale["embedder"]["real"]["mean"] == pytest.approx(1)
    gains = [scale[name]["lora"]["mean"] - scale[name]["base"]["mean"] for name in ("embedder", "dlib")]
    assert scale["gain"] == max(gains) > 0
    assert scale["lowest"] == min(scale[name]["lora"]["mean"] for name in ("embedder", "dlib"))
    _, page = laid_out(result, PORTRAITS, TEMPLATES, PERSON)
    assert "<td>dlib, independent</td>" in page
    assert "dlib is not installed" not in page


def test_without_dlib_the_report_says_how_to_install_it() -> None:
    result = run(lora=RED, base=GREEN)
    _, page = laid_out(result, PORTRAITS, TEMPLATES, PERSON)

    assert "uv sync --extra judges" in page
    assert set(result.metrics["identity_scale"]) == {"embedder", "lowest", "gain"}
    assert result.image_scores["identity_dlib"].isna().all()


def test_a_copy_of_training_portraits_is_less_like_the_held_out_ones() -> None:
    margin = run(lora=RED, base=GREEN).metrics["held_out_minus_training"]

    assert margin["lora"]["mean"] == pytest.approx((1 + 0.6) / 2 - 1, abs=0.01)
    assert margin["base"]["mean"] == pytest.approx((0 + 0.8) / 2 - 0, abs=0.01)
    # held out: 0.6 to each other, 1 and 0.6 to the training portraits
    assert margin["real"]["mean"] == pytest.approx((0.6 - 1 + 0.6 - 0.6) / 2, abs=0.01)


def test_the_report_says_what_is_shown_and_what_each_image_misses() -> None:
    result = run(lora=RED, base=GREEN)
    _, page = laid_out(result, PORTRAITS, TEMPLATES, PERSON)

    assert "<td>color of the clothes</td><td><b>33%</b>" in page
    assert "<td>recognized among 2 strangers</td><td><b>100%</b>" in page
    assert "expression 33%, color of the clothes 33%, place 33%" in page
    missed = (
        "expression: smiling, not serious; color of the clothes: red, not blue; place: beach, not teal wall"
    )
    assert f"identity 0.80; {missed}" in page
    assert "Attributes and identification were not measured" not in page


def test_each_image_has_its_attributes_as_numbers_for_a_paired_comparison() -> None:
    first, other = (run(lora=RED, base=colour).image_scores for colour in (GREEN, BLACK))
    rows = {row.metric: row for row in compare_runs(first, other, "base", 100, 1)}

    assert first["shows_expression"].tolist()[:6] == [1, 1, 0, 0, 0, 0]
    assert first["shows_light"].isna().all()
    assert (rows["shows_expression"].first, rows["shows_expression"].other) == pytest.approx((1 / 3, 0))
    assert "identity_training" not in rows


def test_intervals_of_a_variant_resample_its_prompts() -> None:
    shown = tuple({"place": index < 4} for index in range(8))
    alike = Readings((1, 1, 1, 1, 2, 2, 2, 2), shown, np.ones(8), np.ones(8), np.ones(8))
    apart = replace(alike, groups=tuple(range(8)))
    rows = {"lora": alike, "base": apart, "real": apart, "real_vae": apart}
    shares = panel_metrics(rows, PANEL, {"embedder": 0.0}, 300, 1)["attributes"]["place"]

    assert (shares["lora"]["ci_low"], shares["lora"]["ci_high"]) == (0, 1)
    assert 0 < shares["base"]["ci_low"] < 0.5 < shares["base"]["ci_high"] < 1


def test_a_reconstruction_has_the_size_of_its_image_and_depends_on_no_other() -> None:
    vae = AutoencoderKL(block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4).eval()  # fmt: skip
    images = [Image.new("RGB", (32, 16), RED), Image.new("RGB", (16, 16), GREEN)]
    both = reconstruct(vae, images)

    assert [image.size for image in both] == [(32, 16), (16, 16)]
    assert reconstruct(vae, images[1:])[0].tobytes() == both[1].tobytes()

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from judges import (
    BLACK,
    BLUE,
    CONFIG,
    DOUBTFUL,
    GREEN,
    GREY,
    PERSON,
    RED,
    TEMPLATES,
    ColourClip,
    judges,
    known,
    laid_out,
    models,
    plain,
)
from portraits import noise
from valentina_pipeline.common.confidence_intervals import Bootstrap
from valentina_pipeline.image.evaluate.evaluate import CharacterData, Evaluation, EvaluationModels, evaluate
from valentina_pipeline.image.evaluate.metrics import compute_metrics
from valentina_pipeline.image.evaluate.prompts import (
    VARIANTS,
    InvalidPromptsError,
    PlannedImage,
    parse,
    plan_images,
)
from valentina_pipeline.image.evaluate.scoring import (
    SCORE_COLUMNS,
    NothingToMeasureError,
    Portraits,
    ScoredImages,
    ceiling,
    copy_limits,
    layout_vector,
    portraits,
    score_images,
)

TWO_AND_TWO = known(train=[RED, RED], held_out=[RED, (150, 200, 0)])  # the last is (0.6, 0.8, 0)


def run(
    known: CharacterData = TWO_AND_TWO, templates: object = TEMPLATES, **colours: tuple[int, int, int]
) -> Evaluation:
    return evaluate(templates, PERSON, known, models(**colours), CONFIG, 7, {"steps": "1"})


def test_identity_is_the_mean_cosine_to_the_held_out_portraits() -> None:
    identity = run(lora=RED, base=GREEN, base_trigger=BLUE, floor=BLUE).metrics["identity"]

    assert identity["lora"]["mean"] == pytest.approx((1 + 0.6) / 2, abs=0.01)
    assert identity["base"]["mean"] == pytest.approx((0 + 0.8) / 2, abs=0.01)
    assert identity["base_trigger"]["mean"] == identity["floor"]["mean"] == 0
    # train: 0.8 each; held out against the other held out: 0.6 each
    assert identity["ceiling"]["mean"] == pytest.approx((0.8 + 0.8 + 0.6 + 0.6) / 4, abs=0.01)
    assert identity["gain_over_base"] == pytest.approx(identity["lora"]["mean"] - identity["base"]["mean"])
    assert identity["ratio_to_ceiling"] == pytest.approx(
        identity["lora"]["mean"] / identity["ceiling"]["mean"]
    )


def test_a_single_held_out_portrait_is_no_ceiling_to_itself() -> None:
    real = portraits(known([RED, GREEN], [RED]).aligned, known([RED, GREEN], [RED]).faces, ColourClip())

    assert ceiling(real).tolist() == [1.0, 0.0]


def test_an_image_without_a_sure_face_has_no_identity_and_counts_in_face_found() -> None:
    result = run(lora=RED, base=GREY, base_trigger=BLACK)
    scores = result.image_scores
    by = {variant: scores[scores["variant"] == variant] for variant in VARIANTS}

    assert result.metrics["face_detection_rate"]["lora"]["mean"] == 1
    assert result.metrics["face_detection_rate"]["base"]["mean"] == 0
    assert by["base"]["identity"].isna().all() and by["base_trigger"]["identity"].isna().all()
    assert by["base"]["face_probability"].eq(DOUBTFUL).all()
    assert by["base_trigger"]["face_probability"].eq(0).all()
    assert result.metrics["identity"]["base"] == {"mean": 0.0, "ci_low": 0.0, "ci_high": 0.0}
    assert set(result.identity_plot["variant"]) == {"lora"}


def test_clip_t_asks_for_the_same_words_of_all_variants() -> None:
    watched = models(lora=GREEN, base=RED)
    clip = ColourClip()
    watched = replace(watched, judges=replace(watched.judges, clip=clip))
    metrics = evaluate(TEMPLATES, PERSON, TWO_AND_TWO, watched, CONFIG, 7, {}).metrics

    assert clip.asked == [prompt.text("woman") for prompt in parse(TEMPLATES)]
    assert metrics["clip_t"]["base"]["mean"] == pytest.approx(1)
    assert metrics["clip_t"]["lora"]["mean"] == pytest.approx(0)
    assert metrics["clip_t"]["relative_drop"] == pytest.approx(1)


def test_diversity_is_the_distance_between_images_of_one_prompt() -> None:
    def draw(planned: Sequence[PlannedImage]) -> list[Image.Image]:
        return [plain(GREEN if take.variant == "lora" and take.seed % 2 else RED) for take in planned]

    result = evaluate(
        TEMPLATES, PERSON, TWO_AND_TWO, EvaluationModels(draw, lambda _: None, judges()), CONFIG, 8, {}
    )

    assert result.metrics["diversity"]["lora"]["mean"] == pytest.approx(1)
    assert result.metrics["diversity"]["base"]["mean"] == pytest.approx(0)


def test_a_copy_of_a_training_portrait_is_memorised_and_a_likeness_in_content_alone_is_not() -> None:
    rng = np.random.default_rng(0)
    real = Portraits(
        names=tuple("abcd"),
        identity=np.eye(4, 3),
        content=_unit(rng.normal(size=(4, 3))),
        layout=np.stack([layout_vector(noise(seed)) for seed in range(4)]),
        trained=np.array([True, True, True, False]),
    )

    class Clip(ColourClip):
        def images(self, images: object) -> np.ndarray:
            return real.content[:1]

    looking = replace(judges(), clip=Clip())
    planned = plan_images(parse(TEMPLATES), PERSON, 2, 1)[:2]
    scores = score_images(zip(planned, [noise(0), noise(9)], strict=True), "woman", real, looking).scores

    assert scores["memorized"].tolist() == [True, False]
    assert scores["nearest_training"].tolist() == [1.0, 1.0]
    assert scores["nearest_name"].tolist() == ["a", "a"]


def test_copies_are_judged_against_how_alike_real_portraits_are() -> None:
    angles = np.radians([0, 10, 40, 90])
    content = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    real = Portraits(tuple("abcd"), content, content, content, np.array([True, True, True, False]))

    # nearest others: 10, 10, 30 and 50 degrees away
    assert copy_limits(real)[0] == pytest.approx(np.quantile(np.cos(np.radians([10, 10, 30, 50])), 0.99))


def test_every_image_has_one_row_of_scores_and_every_figure_is_finite() -> None:
    result = run(lora=RED)

    assert list(result.image_scores.columns) == list(SCORE_COLUMNS)
    assert result.image_scores["name"].tolist() == list(result.evaluation_images)
    assert result.metrics["num_images"] == len(result.image_scores) == 3 * (2 + 2 + 1 + 1)
    assert all(math.isfinite(value) for value in _numbers(result.metrics))
    assert list(result.identity_plot.columns) == ["prompt", "variant", "identity"]


def test_the_same_inputs_give_the_same_figures_and_another_seed_other_intervals() -> None:
    measured, real = _spread()
    again = compute_metrics(measured, real, 300, seed=1)

    assert compute_metrics(measured, real, 300, seed=1) == again
    other = compute_metrics(measured, real, 300, seed=2)
    assert other["identity"]["lora"]["mean"] == again["identity"]["lora"]["mean"]
    assert other["identity"]["lora"]["ci_low"] != again["identity"]["lora"]["ci_low"]


def test_gain_is_compared_prompt_by_prompt() -> None:
    """Both sides vary much, in step: the difference hardly does."""
    identity = compute_metrics(*_spread(), resamples=500, seed=1)["identity"]

    assert identity["gain_over_base"] == pytest.approx(0.3)
    assert identity["gain_over_base_ci_high"] - identity["gain_over_base_ci_low"] < 1e-9
    assert identity["lora"]["ci_high"] - identity["lora"]["ci_low"] > 0.1


def test_an_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(20), 2)
    hits = 0
    for trial in range(100):
        values = np.repeat(rng.normal(size=20), 2)  # images of one prompt are alike
        found = Bootstrap.draw(groups.tolist(), 200, trial).mean_with_interval(values, groups.tolist())
        hits += found.ci_low <= 0 <= found.ci_high

    assert 84 <= hits <= 99


def test_a_bootstrap_without_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one group"):
        Bootstrap.draw([], 100, 0)


def test_refused_images_are_left_out_and_counted() -> None:
    drawing = models(lora=RED, base=GREEN)
    result = evaluate(
        TEMPLATES,
        PERSON,
        TWO_AND_TWO,
        replace(drawing, unsafe=lambda image: "too red" if image.getpixel((0, 0)) == RED else None),
        CONFIG,
        7,
        {},
    )

    assert result.metrics["num_filtered"] == 6
    assert not any(name.startswith("lora/") for name in result.evaluation_images)
    assert result.metrics["identity"]["lora"]["mean"] == 0
    assert "Rejected by the content filter: lora/0000, too red" in result.evaluation_notes["notes"]
    with pytest.raises(NothingToMeasureError, match="rejected every image: nothing is shown"):
        evaluate(
            TEMPLATES,
            PERSON,
            TWO_AND_TWO,
            replace(drawing, unsafe=lambda image: "nothing is shown"),
            CONFIG,
            7,
            {},
        )


def test_a_prompt_that_was_trained_on_is_left_out_and_reported() -> None:
    name = next(iter(TWO_AND_TWO.captions))
    said = parse(TEMPLATES)[1].text("test_woman woman")
    trained = replace(TWO_AND_TWO, captions={**TWO_AND_TWO.captions, name: said})
    result = run(trained, lora=RED)

    assert result.metrics["num_images"] == 2 * (2 + 2 + 1 + 1)
    assert not result.image_scores["prompt"].str.startswith("serious").any()
    _, note = result.evaluation_notes["notes"]  # the first: there are no judges of attributes
    assert note == f"Excluded, it is a training caption: {TEMPLATES[1]}"
    assert note in laid_out(result, trained, TEMPLATES, PERSON)[1]
    with pytest.raises(InvalidPromptsError, match="every prompt is a training caption"):
        run(trained, TEMPLATES[1:2])


def test_a_caption_of_a_held_out_portrait_was_not_trained_on() -> None:
    name = list(TWO_AND_TWO.captions)[-1]
    said = parse(TEMPLATES)[1].text("test_woman woman")
    result = run(replace(TWO_AND_TWO, captions={**TWO_AND_TWO.captions, name: said}), lora=RED)

    assert result.image_scores["prompt"].nunique() == len(TEMPLATES)


def test_a_prompt_that_the_word_policy_refuses_is_named() -> None:
    with pytest.raises(InvalidPromptsError, match=r"prompt 2: .*sexual"):
        run(templates=[TEMPLATES[0], "nude photo of {subject}"])


@pytest.mark.parametrize(
    ("train", "held_out", "missing"), [([RED], [], "held out"), ([], [RED], "for training")]
)
def test_without_portraits_on_both_sides_nothing_is_measured(
    train: list[tuple[int, int, int]], held_out: list[tuple[int, int, int]], missing: str
) -> None:
    with pytest.raises(NothingToMeasureError, match=f"none of 1 aligned portraits is {missing}"):
        run(known(train, held_out), lora=RED)


def test_portraits_left_out_by_align_take_no_part() -> None:
    some = known([RED, BLUE], [RED])
    faces = some.faces.assign(accepted=[True, False, True])

    assert portraits(some.aligned, faces, ColourClip()).names == tuple(faces["sha256"][[0, 2]])


def _spread() -> tuple[ScoredImages, Portraits]:
    """Scores that differ from prompt to prompt by much more than from bare base to LoRA."""
    planned = plan_images(parse([f"photo of {{subject}}, scene {i}" for i in range(9)]), PERSON, 2, 1)
    offset = {"lora": 0.4, "base": 0.1, "base_trigger": 0.0, "floor": 0.0}
    scores = pd.DataFrame(
        {
            "identity": [take.prompt.number / 20 + offset[take.variant] for take in planned],
            "face_probability": 0.99,
            "clip_t": 0.3,
            "clip_i": 0.5,
            "identity_training": 0.1,
            "nearest_training": 0.5,
            "memorized": False,
        }
    )
    content = _unit(np.random.default_rng(0).normal(size=(len(planned), 4)))
    known_real = portraits(TWO_AND_TWO.aligned, TWO_AND_TWO.faces, ColourClip())
    assert set(VARIANTS) == {take.variant for take in planned}
    return ScoredImages(tuple(planned), scores, content), known_real


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _numbers(metrics: object) -> list[float]:
    if isinstance(metrics, dict):
        return [number for value in metrics.values() for number in _numbers(value)]
    assert isinstance(metrics, int | float)
    return [metrics]

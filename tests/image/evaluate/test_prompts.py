from pathlib import Path

import pytest
import yaml

from judges import PERSON, TEMPLATES
from valentina_pipeline.image.evaluate.prompts import (
    MAIN_VARIANTS,
    VARIANTS,
    InvalidPromptsError,
    parse,
    plan_images,
    split_seen,
    subjects,
)
from valentina_pipeline.image.renderer.wording import caption_from_traits
from valentina_pipeline.image.safety.policy.judge import refuse_prompt

TRAINED = "test_woman woman"


def test_a_prompt_reads_like_a_caption_of_training() -> None:
    prompt = parse(TEMPLATES)[0]
    scene = {"expression": "smiling", "dress": "red dress", "background": "beach"}

    assert prompt.text(TRAINED) == caption_from_traits(scene, TRAINED)
    assert prompt.text("actor") == "photo of an actor, smiling, wearing a red dress, beach background"
    assert prompt.label == "01 smiling, red dress, beach"


def test_the_bare_base_gets_the_description_and_the_floor_does_not() -> None:
    assert subjects(PERSON) == {
        "lora": TRAINED,
        "base": "woman, oval face, green eyes",
        "base_trigger": TRAINED,
        "floor": "woman",
    }
    assert set(subjects(PERSON)) == set(VARIANTS)


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ("photo of {subject}", "a list"),
        ([], "a list"),
        (["photo of a woman"], "prompt 1 .*once"),
        (["photo of {subject}", "{subject} and {subject}"], "prompt 2 .*once"),
        (["photo of {subject}, at sea", "photo of {subject},  At sea"], "prompt 1 is duplicated"),
        ([7], "prompt 1"),
    ],
)
def test_unusable_prompts_are_named(templates: object, message: str) -> None:
    with pytest.raises(InvalidPromptsError, match=message):
        parse(templates)


def test_a_prompt_that_a_caption_says_in_any_order_was_seen() -> None:
    prompts = parse(TEMPLATES)
    captions = [
        "photo of a test_woman woman, Smiling, beach background, wearing a red dress",
        "photo of a test_woman woman, serious, wearing a blue shirt, sunset background",
    ]
    new, seen = split_seen(prompts, captions, TRAINED)

    assert [p.number for p in seen] == [1]
    assert [p.number for p in new] == [2, 3]


def test_variants_share_seeds_and_numbers() -> None:
    planned = plan_images(parse(TEMPLATES), PERSON, 2, seed=10)
    seeds = {
        variant: {t.name.split("/")[1]: t.seed for t in planned if t.variant == variant}
        for variant in VARIANTS
    }

    assert seeds["lora"] == seeds["base"]
    assert len(set(seeds["lora"].values())) == 6
    for variant in set(VARIANTS) - set(MAIN_VARIANTS):
        assert len(seeds[variant]) == 3
        assert seeds[variant].items() <= seeds["lora"].items()


def test_a_prompt_keeps_its_seeds_when_another_is_left_out() -> None:
    prompts = parse(TEMPLATES)
    alone = {take.name: take.seed for take in plan_images(prompts[2:], PERSON, 2, seed=10)}

    assert (
        alone.items() <= {take.name: take.seed for take in plan_images(prompts, PERSON, 2, seed=10)}.items()
    )


def test_seeds_stay_in_range() -> None:
    assert all(0 <= take.seed < 2**32 for take in plan_images(parse(TEMPLATES), PERSON, 2, seed=2**32 - 1))


def test_the_projects_prompts_are_allowed_and_speak_the_renderers_words(root: Path) -> None:
    from valentina_pipeline.image.renderer.traits import (
        BACKGROUNDS,
        DRESS_COLORS,
        DRESSES,
        EXPRESSIONS,
        LIGHTS,
    )

    prompts = parse(yaml.safe_load((root / "conf/base/prompts/character.yml").read_text("utf-8")))
    known = {*EXPRESSIONS, *LIGHTS, "facing the camera"}
    known |= {f"turned {degree}to the {side}" for degree in ("", "slightly ") for side in ("left", "right")}
    known |= {f"wearing a {colour} {dress}" for colour in DRESS_COLORS for dress in DRESSES}
    known |= {f"{background} background" for background in BACKGROUNDS}

    assert len(prompts) >= 10
    for prompt in prompts:
        refuse_prompt(prompt.template)
        assert set(prompt.scene.split(", ")) <= known

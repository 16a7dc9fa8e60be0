import re

import pytest

from valentina_pipeline.image.caption.description import (
    Description,
    compose_caption,
    drop_identity_phrases,
    from_attributes,
    from_phrases,
    from_sentence,
)

GONE = {"face", "eyes", "brows", "hair", "haired", "scar", "chin", "her_token", "woman"}


def caption(description: Description) -> str:
    return compose_caption(drop_identity_phrases(description, GONE), "her_token", "woman")


def test_attributes_name_only_what_varies() -> None:
    known = {"eyes": "brown", "hair_color": "black", "expression": "smiling", "dress": "red dress"}
    known["background"] = "beach"
    description = from_attributes(known)
    assert description == Description(expression="smiling", clothes="a red dress", place="beach background")
    assert (
        caption(description) == "photo of a her_token woman, smiling, wearing a red dress, beach background"
    )


def test_a_sidecar_may_use_the_names_of_fields() -> None:
    known = from_attributes({"framing": "close up", "place": "in a car", "light": "", "mood": "blue"})
    assert known == Description(framing="close up", place="in a car")


def test_a_picture_of_which_nothing_is_known_is_just_hers() -> None:
    assert caption(Description()) == "photo of a her_token woman"
    assert compose_caption(Description(), "ada", "woman") == "photo of an ada woman"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("a woman with long brown hair and blue eyes wearing a brown dress", "wearing a brown dress"),
        ("a close up of a brown haired lady in a red shirt", "wearing a red shirt, close up"),
        (
            "araffe woman with long hair and a yellow shirt smiling at the camera",
            "smiling at the camera, wearing a yellow shirt",
        ),
        ("a black and white photo of a woman", "black and white"),
        ("there is a girl standing on a beach, laughing", "laughing, standing, on a beach"),
        ("a woman with a scar on her chin in a garden", "in a garden"),
        ("a woman and another woman in a park", "in a park"),
        ("a her_token woman with a her_token in a park", "in a park"),
        ("a sunset over the sea", "a sunset over the sea"),
        (
            "a woman sitting at a table with a hat and a scarf",
            "sitting, wearing a hat and a scarf, at a table",
        ),
        ("", ""),
    ],
)
def test_a_sentence_becomes_hers(said: str, words: str) -> None:
    result = caption(from_sentence(said, "woman"))
    assert result == ", ".join(["photo of a her_token woman", *([words] if words else [])])
    assert result.count("her_token") == len(re.findall(r"\bwoman\b", result)) == 1


def test_what_was_said_of_her_stays_in_the_description_and_out_of_the_caption() -> None:
    description = from_sentence("a close up of a brown haired lady smiling", "woman")
    assert description.subject == "brown haired lady"
    assert caption(description) == "photo of a her_token woman, smiling, close up"


def test_tags_are_sorted_into_fields() -> None:
    assert from_phrases(["smile", "red dress", "looking at viewer", "outdoors", "upper body", "sunset"]) == (
        Description("", "red dress", "looking at viewer", "smile", "outdoors", "sunset", "upper body")
    )


def test_a_phrase_of_hers_leaves_and_its_neighbours_stay() -> None:
    said = Description(
        clothes="a red dress and a scarf over her hair, gloves", place="a mirror with her face"
    )
    assert drop_identity_phrases(said, GONE) == Description(clothes="a red dress, gloves", place="a mirror")


def test_a_model_that_rambles_is_cut() -> None:
    assert len(from_sentence("a woman wearing " + "a hat " * 1000, "woman").clothes) <= 200

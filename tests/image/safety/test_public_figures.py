"""Real people are not drawn: names however they are spelt, and what only looks like one."""

import pytest

from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
from valentina_pipeline.image.safety.public_figures import refuse_real_person


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("photo of Taylor Swift at sea", "Taylor Swift"),
        ("TAYLOR   SWIFT", "Taylor Swift"),
        ("taylor_swift, smiling", "Taylor Swift"),
        ("a portrait in the style of taylor-swift's video", "Taylor Swift"),
        ("taylorswift", "Taylor Swift"),
        ("Tay1or Sw1ft", "Taylor Swift"),
        ("t.a.y.l.o.r s.w.i.f.t", "Taylor Swift"),
        ("ｔａｙｌｏｒ ｓｗｉｆｔ", "Taylor Swift"),
        ("Tay\u200blor Swift", "Taylor Swift"),
        ("Tаylоr Swіft", "Taylor Swift"),  # with Cyrillic letters
        ("Tâylör Swift", "Taylor Swift"),
        ("3lon Mu5k", "Elon Musk"),
        ("Penélope Cruz laughing", "Penelope Cruz"),
        ("beyoncé on a stage", "Beyonce"),
        ("jay-z", "Jay-Z"),
        ("J.K. Rowling", "J. K. Rowling"),
        ("King Charles III as a knight", "King Charles III"),
        ("a woman like Mohammed bin Salman, at night", "Mohammed bin Salman"),
        ("a Paris Hilton hotel lobby", "Paris Hilton"),  # erring towards refusing
    ],
)
def test_a_real_person_s_name_is_refused_however_it_is_spelt(prompt: str, name: str) -> None:
    with pytest.raises(UnsafePromptError) as caught:
        refuse_real_person(prompt)
    assert caught.value.reason == (
        f"it names a real person ({name}): only characters with rights on record may be generated"
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "the Jordan river at sunset",
        "a Hilton hotel in Paris",
        "a king charles spaniel on her lap",
        "a swift flies past, wearing a taylor made suit",
        "portrait, tiger, woods in the background",
        "a union jack, black boots",
        "madonna and child, renaissance painting",
        "she will smithy a sword in the megan foxglove garden",
        "Valentina Moreau smiling, adele knit, drake on a pond, cher ami",
    ],
)
def test_words_that_only_look_like_a_name_pass(prompt: str) -> None:
    refuse_real_person(prompt)


def test_a_character_whose_rights_are_on_record_is_drawn_by_her_own_name() -> None:
    refuse_real_person("Penelope Cruz at sea", own="Penélope Cruz")
    with pytest.raises(UnsafePromptError, match="Tom Cruise"):
        refuse_real_person("Penelope Cruz with Tom Cruise", own="Penélope Cruz")

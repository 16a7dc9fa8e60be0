import pytest

from valentina_pipeline.image.models.vocabulary import warn_of_word


@pytest.mark.parametrize("trigger", ["rose", "may", "ada", "valentina"])
def test_a_trigger_that_is_a_word_is_warned_of_with_another_in_its_place(trigger: str) -> None:
    assert f"such as {trigger}_01" in warn_of_word(trigger)


@pytest.mark.parametrize("trigger", ["valentina_moreau", "ada_lind", "sks", "ohwx", "zwx", "rose_01", "r0se"])
def test_a_coined_trigger_is_not(trigger: str) -> None:
    assert warn_of_word(trigger) == ""

"""The scene library, as people write it."""

import pytest

from valentina_pipeline.domain.scene import InvalidScenesError, Scene, parse_scenes


def test_scenes_keep_their_order_and_know_their_category() -> None:
    found = parse_scenes(
        {"travel": {"beach": "laughing,  beach background "}, "fashion": {"red": "a red dress"}}
    )
    assert found == {
        "beach": Scene("travel", "laughing, beach background"),
        "red": Scene("fashion", "a red dress"),
    }
    assert list(found) == ["beach", "red"]


@pytest.mark.parametrize(
    ("library", "said"),
    [
        (None, "must map categories"),
        ({"travel": "beach"}, "category travel must map names"),
        ({"travel": {"The Beach": "sand"}}, "travel.The Beach is not a valid name"),
        ({"travel": {"beach": 3}}, "scene beach has no words"),
        ({"travel": {"beach": " "}}, "scene beach has no words"),
        ({"travel": {"beach": "a"}, "fashion": {"beach": "b"}}, "in travel and in fashion"),
    ],
)
def test_a_library_of_another_form_says_which_scene_is_wrong(library: object, said: str) -> None:
    with pytest.raises(InvalidScenesError, match=said):
        parse_scenes(library)

"""A1111's notation for weights."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valentina_pipeline.image.generate.prompt_weights import (
    BREAK,
    HEAVIEST,
    InvalidPromptWeightError,
    parse,
    plain,
)


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("smiling, beach", [("smiling, beach", 1.0)]),
        ("(smiling:1.3), beach", [("smiling", 1.3), (", beach", 1.0)]),
        ("((a)) b [c]", [("a", 1.21), (" b ", 1.0), ("c", 0.9091)]),
        ("(a, (b:1.5), c:1.1)", [("a, ", 1.1), ("b", 1.65), (", c", 1.1)]),
        (r"a \(b\) :) (x", [("a (b) :) (x", 1.0)]),
        (r"(a\):1.2)", [("a)", 1.2)]),
        ("Beach BREAK BREAKFAST", [("Beach ", 1.0), (BREAK, 1.0), (" BREAKFAST", 1.0)]),
        ("()", []),
    ],
)
def test_the_notation_is_read_as_a1111_has_it(prompt: str, parts: list[tuple[str, float]]) -> None:
    assert [(text, round(weight, 4)) for text, weight in parse(prompt)] == parts


@pytest.mark.parametrize("prompt", ["(4:3)", "((((((((a))))))))", "(a:-1)", "[a:b:0.3]", "[:b:5]", "[a|b]"])
def test_what_is_not_drawn_is_refused(prompt: str) -> None:
    with pytest.raises(InvalidPromptWeightError):
        parse(prompt)


def test_a_word_that_brackets_take_apart_is_one_word_again() -> None:
    assert plain("n(u:1.2)de [a] BREAK b") == "nude a   b"


@given(st.text(alphabet="ab,:. ()[]\\|1BREAK", max_size=60))
def test_every_text_is_read_or_refused_and_weights_stay_in_bounds(prompt: str) -> None:
    try:
        parts = parse(prompt)
    except InvalidPromptWeightError:
        return
    assert all(0 <= weight <= HEAVIEST for _, weight in parts)
    if not set(prompt) & set("()[]\\"):
        assert "".join(text for text, _ in parts) == prompt


def test_deep_brackets_are_read_in_no_time() -> None:
    assert parse("([" * 500 + "a" + "])" * 500) == [("a", pytest.approx(1.0))]

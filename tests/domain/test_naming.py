import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valentina_pipeline.domain.naming import by_name, canonical, permits, prohibits, same

MAC = unicodedata.normalize("NFD", "Zoë 01.png")
PC = unicodedata.normalize("NFC", "Zoë 01.png")


@pytest.mark.parametrize(
    ("covers", "name"),
    [
        ("IMG [2].png", "IMG [2].png"),
        ("why?.png", "why?.png"),
        ("Zoë*", MAC),
        (MAC, PC),
        (PC, MAC),
        ("*", "anything/at all.png"),
        ("shoot/*", "shoot/day 1/a.png"),
        ("pattern:*_000[01].png", "a_0001.png"),
        ("pattern: shoot/?.png", "shoot/1.png"),
        ("pattern:a[*]b.png", "a*b.png"),
        ("cdn.example/ada/*", "cdn.example/%61da/x.png"),
        ("https://cdn.example/ada/*", "cdn.example/ada/x.png"),
        ("cdn.example/~ada/*", "cdn.example/%7Eada/x.png"),
        ("cdn.example/Zo%C3%AB/*", "cdn.example/Zoë/x.png"),
        ("100%25.png", "100%25.png"),
        ("50% off.png", "50% off.png"),
    ],
)
def test_a_name_is_covered_however_it_is_spelled(covers: str, name: str) -> None:
    assert permits(covers, name)
    assert prohibits(covers, name)


@pytest.mark.parametrize(
    ("covers", "name"),
    [
        ("cdn.example/ada/*", "cdn.example/ada/../bob/x.png"),
        ("cdn.example/ada/*", "cdn.example/ada/%2e%2e/bob/x.png"),
        ("cdn.example/ada/*", "cdn.example/ada/%2E./bob/x.png"),
        ("cdn.example/ada/*", "cdn.example/ada/%2e%2e%2fbob/x.png"),
        ("cdn.example/ada/*", "cdn.example/ada/%252e%252e/bob/x.png"),
        ("cdn.example/ada/*", "cdn.example/ada/%25252e%25252e%25252fbob/x.png"),
        ("cdn.example/ada/*", "cdn.example/ada/..\\bob\\x.png"),
        ("cdn.example/ada/*", "cdn.example/ada/..%5cbob/x.png"),
        ("cdn.example/ada/*", "cdn.example/ada/./../bob/x.png"),
        ("cdn.example/ada/*", "cdn.example/ada//..//../cdn.example/bob/x.png"),
        ("shoot/*", "shoot/../../bob.png"),
    ],
)
def test_no_way_leads_out_of_what_is_covered(covers: str, name: str) -> None:
    assert not permits(covers, name)


@pytest.mark.parametrize(
    ("covers", "name"),
    [
        ("IMG_1.jpg", "IMG_1.JPG"),
        ("IMG [2].png", "IMG 2.png"),
        ("Img*", "IMG_1.jpg"),
        (" IMG_1.jpg ", "IMG_1.jpg"),
        ("shoot\\a.png", "shoot/a.png"),
        ("./shoot//a.png", "shoot/a.png"),
        ("Screenshot 10.15 AM.png", "Screenshot 10.15\u202fAM.png"),
        ("IMG_1.jpg", "IMG\u200e_1.jpg"),
        ("ﬁrst.png", "first.png"),
        ("STRASSE.png", "straße.png"),
        ("a b.png", "a%20b.png"),
    ],
)
def test_in_doubt_a_name_is_prohibited_and_not_permitted(covers: str, name: str) -> None:
    assert prohibits(covers, name)
    assert not permits(covers, name)


@pytest.mark.parametrize("covers", ["IMG_1.jpg", "pattern:IMG_1*", "shoot/*", "IMG [3].png"])
def test_another_picture_is_not_prohibited(covers: str) -> None:
    assert not prohibits(covers, "IMG_2.jpg")


@given(st.text(min_size=1, max_size=40))
def test_a_name_is_itself(name: str) -> None:
    if not name.strip().startswith("pattern:"):
        assert permits(name, name)
        if name.strip():
            assert prohibits(name, name)
    assert same(name, name)
    assert canonical(canonical(name)) == canonical(canonical(canonical(name)))


def test_values_are_found_by_any_spelling_of_a_name() -> None:
    assert by_name({PC: 1, "a.png": 2})[canonical(MAC)] == 1
    with pytest.raises(ValueError, match="occurs twice"):
        by_name({PC: 1, MAC: 2})

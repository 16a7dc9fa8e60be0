"""The review page as a person uses it: in a real Chromium."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from browsers import chromium
from listening import listening
from reviewed import MACHINE, NAMES
from valentina_pipeline.integrations import captions
from valentina_pipeline.review.app import create_app
from valentina_pipeline.review.dataset import Dataset

A, B, C = NAMES
pytestmark = pytest.mark.slow

SERVE = """
import sys
from pathlib import Path
from types import SimpleNamespace
from valentina_pipeline.review.cli import review
review.main(["--concept", "vee", "--port", "0", "--editor", "Ada", "--no-browser"],
            obj=SimpleNamespace(project_path=Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def context() -> Iterator[object]:
    """A browser, started once."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(dataset: Dataset, context: object) -> Iterator[Page]:
    """The page in a window of its own; errors in it fail the test."""
    with listening(create_app(dataset, "Ada")) as url:
        yield from opened(context, url)


def opened(context: Any, url: str) -> Iterator[Page]:
    window = context.new_page()
    errors: list[str] = []
    window.on("pageerror", lambda error: errors.append(str(error)))
    window.goto(url)
    expect(window.locator("#list button")).to_have_count(3)
    yield window
    window.close()
    assert errors == []


def table(dataset: Dataset) -> dict[str, dict[str, str]]:
    return captions.read(dataset.captions).set_index("sha256").to_dict("index")


def test_the_command_says_where_it_serves_the_page(dataset: Dataset, context: object) -> None:
    command = [sys.executable, "-u", "-c", SERVE, str(dataset.root)]
    serving = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout
        said = serving.stdout.readline()
        assert said.startswith("3 images of vee: http://127.0.0.1:")
        for window in opened(context, said.split()[4]):
            window.keyboard.press("a")
            expect(window.locator("#counts")).to_contain_text("1 accepted")
    finally:
        serving.terminate()
        serving.wait(20)
    assert table(dataset)[B]["editor"] == "Ada"


def test_pictures_have_boxes_and_scores(page: Page) -> None:
    expect(page.locator("#about")).to_have_text("y.png · held out")
    expect(page.locator("#marks rect")).to_have_count(1)
    expect(page.locator("#marks circle")).to_have_count(5)
    expect(page.locator("#scores")).to_contain_text("yaw, degrees20")
    expect(page.locator("#counts")).to_contain_text("2 without verdict, 1 excluded by align")


def test_the_keyboard_is_enough_to_judge_and_to_edit(page: Page, dataset: Dataset) -> None:
    page.keyboard.press("a")
    expect(page.locator("#about")).to_contain_text("z.png")  # the next one
    page.keyboard.press("r")
    expect(page.locator("#counts")).to_contain_text("1 accepted, 1 rejected")
    page.keyboard.press("k")
    page.keyboard.press("k")
    page.keyboard.press("e")
    page.keyboard.press("Control+A")
    page.keyboard.type("photo of a vee woman, laughing")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_have_text("saved")
    rows = table(dataset)
    assert (rows[A]["verdict"], rows[B]["verdict"]) == ("rejected", "accepted")
    assert (rows[B]["human"], rows[B]["editor"]) == ("photo of a vee woman, laughing", "Ada")
    page.keyboard.press("u")
    expect(page.locator("#counts")).to_contain_text("0 accepted")
    assert table(dataset)[B]["verdict"] == ""


def test_typed_words_are_not_lost_by_going_on_and_escape_takes_them_back(
    page: Page, dataset: Dataset
) -> None:
    page.fill("#caption", "half a cap")
    page.locator("#list button").nth(1).click()
    expect(page.locator("#status")).to_have_text("save the caption, or press Esc to discard changes")
    expect(page.locator("#caption")).to_have_value("half a cap")
    page.locator("#caption").press("Escape")
    expect(page.locator("#caption")).to_have_value(MACHINE[1])
    page.keyboard.press("j")
    expect(page.locator("#about")).to_contain_text("z.png")
    assert table(dataset)[B]["human"] == ""


def test_words_typed_against_somebody_elses_edit_stay_in_the_box(page: Page, dataset: Dataset) -> None:
    captions.edit(dataset.captions, {B: captions.Edit({}, {"human": "theirs"})}, "Bob")
    page.fill("#caption", "mine")
    page.locator("#save").click()
    expect(page.locator("#status")).to_have_text("another edit wrote 'theirs' meanwhile: reload the page")
    expect(page.locator("#caption")).to_have_value("mine")
    assert table(dataset)[B]["human"] == "theirs"


def test_find_and_replace_goes_through_all_captions(page: Page, dataset: Dataset) -> None:
    expect(page.locator("#tags")).to_contain_text("beach background2")
    page.locator("#tags button", has_text="beach background").click()
    expect(page.locator("#found")).to_have_text("in 2 captions")
    page.fill("#by", "on a beach")
    page.locator("#replace button").click()
    expect(page.locator("#status")).to_have_text("2 captions changed")
    assert {row["human"].split(", ")[-1] for row in table(dataset).values()} == {"on a beach"}
    expect(page.locator("#tags")).to_contain_text("on a beach2")


def test_what_align_left_out_says_why_and_hostile_names_stay_text(page: Page) -> None:
    page.locator("#list button").nth(2).click()
    expect(page.locator("#about")).to_contain_text("<b>x</b>.png · excluded: no face")
    expect(page.locator("#accept")).to_be_disabled()
    assert page.locator("#about b").count() == 0


def test_a_file_that_a_person_broke_is_an_error_and_not_an_empty_page(page: Page, dataset: Dataset) -> None:
    dataset.captions.write_text("sha256,caption\n")
    page.reload()
    expect(page.locator("#status")).to_contain_text("allowed are sha256, source_name, machine, human")


def test_the_page_looks_as_meant(page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    shot = tmp_path / "page.png"
    page.screenshot(path=shot)
    boxes = [page.locator(name).bounding_box() for name in ("nav", "main", "aside")]
    assert all(boxes) and [round(box["width"]) for box in boxes if box] == [300, 680, 300]
    assert shot.stat().st_size > 10_000

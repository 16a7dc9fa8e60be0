import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from PIL import Image

from judges import CONFIG, GREEN, PERSON, RED, TEMPLATES, known, laid_out, models
from valentina_pipeline.image.evaluate.comparison_grid import CELL, COLUMNS
from valentina_pipeline.image.evaluate.evaluate import CharacterData, EvaluationModels, evaluate
from valentina_pipeline.image.io.contact_sheet import PAPER

VOID = {"meta", "img", "line", "circle", "br"}


class Outline(HTMLParser):
    """Collects what a page points to, its headings, and tags left open."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


SEEN = known([RED, RED], [RED, GREEN])


def reported(
    templates: list[str] = TEMPLATES,
    data: CharacterData = SEEN,
    drawing: EvaluationModels | None = None,
    **changes: object,
) -> tuple[Image.Image, str, dict[str, Any]]:
    """Return grid, page and metrics of an evaluation."""
    person = PERSON.model_copy(update=changes)
    drawing = drawing or models(lora=RED, base=GREEN)
    result = evaluate(templates, person, data, drawing, CONFIG, 7, {"base": "a <base>"})
    return *laid_out(result, data, templates, person), result.metrics


def test_the_report_needs_nothing_beside_it() -> None:
    _, page, _ = reported()
    outline = Outline()
    outline.feed(page)

    assert outline.open == []
    assert outline.links and all(link.startswith("data:image/jpeg;base64,") for link in outline.links)
    assert not re.search(r"<script|<link|@import|url\(|https?://", page)


def test_the_report_shows_figures_images_captions_and_settings() -> None:
    _, page, metrics = reported()
    outline = Outline()
    outline.feed(page)
    text = " ".join(outline.text)

    identity = metrics["identity"]["lora"]
    assert f"{identity['mean']:.3f} ({identity['ci_low']:.3f} to {identity['ci_high']:.3f})" in text
    assert "01 smiling, red dress, beach" in text
    assert "a photo" in text
    assert "a <base>" in text
    # a strip's reference and images, the nearest pairs, the captions' thumbnails
    assert len(outline.links) == 3 * (1 + 6) + 2 * 6 + 4


def test_the_same_evaluation_gives_the_same_bytes() -> None:
    first, second = reported(), reported()

    assert first[1] == second[1]
    assert first[0].tobytes() == second[0].tobytes()


def test_names_are_escaped() -> None:
    _, page, _ = reported(name="A <b>bold</b> & name")

    assert "A &lt;b&gt;bold&lt;/b&gt; &amp; name" in page
    assert "<b>bold" not in page


def test_the_grid_has_a_column_a_prompt_and_rows_of_portrait_lora_and_bare_base() -> None:
    page, _, _ = reported()

    assert page.width == 12 + 3 * (CELL + 12)
    step = (page.height - 12) // 3
    middle = 12 + CELL // 2
    assert [page.getpixel((middle, middle + row * step)) for row in range(3)] == [RED, RED, GREEN]


def test_more_prompts_than_columns_make_a_second_band_and_refused_images_an_empty_cell() -> None:
    many = [f"photo of {{subject}}, scene {number}" for number in range(COLUMNS + 1)]
    drawing = models(lora=RED, base=GREEN)
    refusing = replace(drawing, unsafe=lambda image: "red" if image.getpixel((0, 0)) == RED else None)
    page, _, _ = reported(many, drawing=refusing)

    step = (page.height - 12) // 6
    middle = 12 + CELL // 2
    assert page.width == 12 + COLUMNS * (CELL + 12)
    assert [page.getpixel((middle, middle + row * step)) for row in (1, 2)] == [PAPER, GREEN]
    assert page.getpixel((middle + CELL + 12, middle + 3 * step)) == PAPER  # no eighth prompt


@pytest.mark.parametrize("colour", [RED, GREEN])
def test_axis_and_marks_stay_inside_the_plot(colour: tuple[int, int, int]) -> None:
    _, page, _ = reported(data=known([RED, RED], [RED, RED]), drawing=models(lora=colour, base=GREEN))
    svg = page[page.index("<svg") : page.index("</svg>")]

    places = [float(x) for x in re.findall(r'(?:x1|x2|cx)="([\d.-]+)"', svg)]
    assert places and min(places) >= 190 and max(places) <= 720

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from judges import CONFIG, GREEN, PERSON, RED, TEMPLATES, known, laid_out, models
from valentina_pipeline.common.missing_model import MissingModelError
from valentina_pipeline.image.evaluate.attribute_questions import AttributeQuestions, load_questions
from valentina_pipeline.image.evaluate.evaluate import evaluate
from valentina_pipeline.image.evaluate.panel import Panel

IMAGE = Image.new("RGB", (8, 8))


def test_each_requested_attribute_is_one_question_and_yes_is_the_word() -> None:
    asked = []

    def ask(image: Image.Image, question: str, max_tokens: int) -> str:
        asked.append(question)
        return " Yes." if "smiling" in question else "It may be" if "clothes" in question else "no"

    requested = {"expression": "smiling", "turn": "left", "clothes_color": "red"}
    seen = AttributeQuestions(ask).read(IMAGE, None, requested)

    assert seen == {"expression": "smiling", "turn": "something else", "clothes_color": "something else"}
    assert asked[0] == "Is the person's expression smiling? Answer with yes or no."
    assert "turned to the left side of the picture?" in asked[1]
    assert AttributeQuestions(ask).read(IMAGE, None, {}) == {}


def test_attributes_are_measured_on_a_base_of_which_no_strangers_are_known() -> None:
    def sees_red(image: Image.Image, question: str, max_tokens: int) -> str:
        red, green, _ = np.asarray(image, np.float64).mean(axis=(0, 1))
        return "Yes" if "red" in question and red > green else "No"

    drawing = replace(models(lora=RED, base=GREEN), panel=Panel(AttributeQuestions(sees_red)))
    data = known(train=[RED], held_out=[RED])
    settings = {"attribute model": "a/model"}
    result = evaluate(TEMPLATES, PERSON, data, drawing, CONFIG, 7, settings)

    shown = result.metrics["attributes"]
    assert shown["clothes_color"]["lora"]["mean"] == pytest.approx(1 / 3)  # one prompt of three says red
    assert shown["clothes_color"]["base"]["mean"] == shown["place"]["lora"]["mean"] == 0
    assert "strangers" not in shown["clothes_color"]
    assert not {"identification", "identity_scale"} & result.metrics.keys()
    assert result.image_scores["rank"].isna().all()
    assert "place: something else, not beach" in result.image_scores["missed"][0]
    _, page = laid_out(result, data, TEMPLATES, PERSON)
    assert "A vision-language model was asked about each: a/model." in page
    assert "Identification and the identity scale were not measured" in page


def test_a_missing_model_is_named_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match=r"nowhere.*evaluate\.attribute_model"):
        load_questions(str(tmp_path / "nowhere"))

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from judges import BLACK, CONFIG, GREEN, PERSON, RED, known, laid_out, models
from valentina_pipeline.image.evaluate.evaluate import Evaluation, evaluate
from valentina_pipeline.image.evaluate.panel import Panel
from valentina_pipeline.image.evaluate.step_comparison import STEP_COLUMNS, step_names, step_variants

TEMPLATES = [
    f"photo of {{subject}}, smiling, beach background, {light}" for light in ("soft light", "warm light")
]
SEEN = known(train=[RED], held_out=[RED])


def sees_smiles_at_the_beach(image: Image.Image, face: object, _: object) -> dict[str, str]:
    return {"expression": "smiling", "place": "beach"} if face else {}


PANEL: Any = Panel(
    SimpleNamespace(
        read=sees_smiles_at_the_beach, accuracy=dict.fromkeys(("expression", "place", "light"), 0.9)
    ),  # type: ignore[arg-type]
    np.array([[0.0, 1.0, 0.0]]),
)


def run(**colors: tuple[int, int, int]) -> Evaluation:
    """An evaluation with kept LoRAs of the steps 100 and 200; 300 is the finished one."""
    drawn = {name.replace("step_", "step-"): color for name, color in colors.items()}
    drawing = replace(models(**drawn), panel=PANEL, step_variants=step_names([100, 200, 300]))
    return evaluate(TEMPLATES, PERSON, SEEN, drawing, CONFIG, 7, {})


def test_each_kept_step_is_drawn_and_scored_as_the_finished_lora_is() -> None:
    result = run(step_0100=GREEN, step_0200=RED, lora=RED, base=GREEN)
    table = result.step_scores.set_index(["step", "score"])

    assert list(result.step_scores.columns) == list(STEP_COLUMNS)
    assert [table.loc[(step, "identity"), "mean"] for step in (100, 200, 300)] == pytest.approx([0, 1, 1])
    assert table.loc[(100, "attributes"), "mean"] == pytest.approx(2 / 3)
    assert table.loc[(300, "identity"), "mean"] == result.metrics["identity"]["lora"]["mean"]
    kept = [name for name in result.evaluation_images if name.startswith("step-0100/")]
    assert kept == [f"step-0100/{number:04d}" for number in range(4)]
    # the metrics and scores of the finished LoRA do not change
    plain = evaluate(
        TEMPLATES, PERSON, SEEN, replace(models(lora=RED, base=GREEN), panel=PANEL), CONFIG, 7, {}
    )
    assert result.metrics == plain.metrics
    assert result.image_scores.equals(plain.image_scores)
    assert plain.step_scores.empty


def test_the_step_at_which_the_lora_begins_to_forget_words_is_marked() -> None:
    result = run(step_0100=GREEN, step_0200=RED, lora=BLACK, base=GREEN)
    falls = result.step_scores.set_index(["step", "score"])["falls"]

    assert falls[(300, "attributes")] == 1  # no face: nothing that was requested is seen
    assert falls.drop((300, "attributes")).sum() == 0
    _, page = laid_out(result, SEEN, TEMPLATES, PERSON)
    assert page.count("0.000 (0.000 to 0.000) ▼") == 1
    assert page.count("<figcaption>step 200</figcaption>") == 4
    assert page.count("<figcaption>step 300</figcaption>") == 4


def test_without_kept_steps_the_report_says_how_to_keep_them() -> None:
    result = evaluate(TEMPLATES, PERSON, SEEN, models(lora=RED, base=GREEN), CONFIG, 7, {})
    assert "train_lora.keep_every" in laid_out(result, SEEN, TEMPLATES, PERSON)[1]


def test_steps_are_the_folders_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for step in ("1000", "50", "200"):
        (tmp_path / step).mkdir()
    assert step_variants(tmp_path) == {50: "step-0050", 200: "step-0200", 1000: "lora"}

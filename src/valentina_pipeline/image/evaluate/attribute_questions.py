"""Requested attributes as yes/no questions to a vision-language model, for images of any base model.

VQAScore (Lin et al. 2024) and TIFA (Hu et al. 2023) measure prompt adherence by such questions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from PIL import Image

from valentina_pipeline.common.missing_model import MissingModelError, missing_hub_model
from valentina_pipeline.image.faces.detection import Face
from valentina_pipeline.image.models.vision_language import AskImage, load_vision_language

QUESTIONS: Final[Mapping[str, str]] = {
    "expression": "Is the person's expression {}?",
    "turn": "Is the person's head turned {}?",
    "clothes_color": "Are the person's clothes {}?",
    "place": "Is this what is behind the person: {}?",
    "light": "Is this how the photograph is lit: {}?",
}
SIDES = {"left": "to the left side of the picture", "right": "to the right side of the picture"}
YES_OR_NO = " Answer with yes or no."
MAX_TOKENS = 4

SOMETHING_ELSE = "something else"
"""Reading of an attribute where the model does not say yes."""


@dataclass(frozen=True)
class AttributeQuestions:
    """Reads attributes by asking whether an image shows what its prompt requests.

    Attributes:
        ask: vision-language model.
        accuracy: share of right readings on known images by attribute: not measured.
    """

    ask: AskImage
    accuracy: Mapping[str, float] = field(default_factory=dict)

    def read(self, image: Image.Image, _: Face | None, requested: Mapping[str, str]) -> dict[str, str]:
        """Return each requested word where the model answers yes, else SOMETHING_ELSE."""
        seen = {}
        for name, word in requested.items():
            question = QUESTIONS[name].format(SIDES.get(word, word)) + YES_OR_NO
            answer = self.ask(image.convert("RGB"), question, MAX_TOKENS)
            seen[name] = word if answer.strip().casefold().startswith("yes") else SOMETHING_ELSE
        return seen


def load_questions(model: str) -> AttributeQuestions:
    """Load a vision-language model, on a GPU if there is one.

    Raises:
        MissingModelError: the model is not on this machine, or is of another kind.
    """
    import torch

    try:
        return AttributeQuestions(load_vision_language(model, "cuda" if torch.cuda.is_available() else "cpu"))
    except (OSError, ValueError, KeyError) as err:
        raise missing_questions_model(model) from err


def missing_questions_model(model: str) -> MissingModelError:
    """Return the error for a vision-language model that is not on this machine, or is of another kind."""
    return missing_hub_model("the vision-language model", model, "see its card", "evaluate.attribute_model")

"""The package as an MLflow model: what `mlflow models serve` and `mlflow.pyfunc.load_model` call."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.serving.inference.engine import InferenceEngine
from valentina_pipeline.serving.inference.request import parse_request

if TYPE_CHECKING:
    import pandas as pd


class Model:
    """A studio that answers tables with tables."""

    def __init__(self, studio: InferenceEngine) -> None:
        self._studio = studio

    def predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Draw one image a row.

        Args:
            model_input: prompt; by option other fields of `Request`, such as seed and preset.
            params: none are known.

        Returns:
            A row each: image (PNG as base64, "" if refused), prompt, seed, preset, refused (why, else ""),
            identity (see `Drawn`).

        Raises:
            BadRequest: a row asks for what is not drawn.
        """
        import pandas as pd

        from valentina_pipeline.image.io import png

        rows = pd.DataFrame(model_input).to_dict("records")
        orders = [self._studio.order(parse_request(_given(row))) for row in rows]
        answers = [
            {
                "image": base64.b64encode(png.encode(d.image)).decode() if d.image else "",
                "prompt": d.order.prompt,
                "seed": d.seed,
                "preset": d.order.preset,
                "refused": d.refused,
                "identity": d.identity,
            }
            for drawn in self._studio.draw(orders)
            for d in drawn
        ]
        return pd.DataFrame(answers)


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> Model:
    """Return the package in `path` for MLflow; `model_config={"base": ...}` names the base elsewhere.

    `engine` in it names another one than torch.
    """
    given = model_config or {}
    return Model(InferenceEngine.open(Path(path), given.get("base"), engine=given.get("engine", "torch")))


def _given(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what one row of MLflow's table says; a missing value comes as None or NaN."""
    return {str(name): value for name, value in row.items() if value is not None and value == value}

"""MLflow model of a package, for `mlflow models serve` and `mlflow.pyfunc.load_model`."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.serving.inference.engine import InferenceEngine
from valentina_pipeline.serving.inference.request import parse_request

if TYPE_CHECKING:
    import pandas as pd


class Model:
    """Inference engine with a table of requests as input and a table of images as output."""

    def __init__(self, engine: InferenceEngine) -> None:
        self._engine = engine

    def predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Generate one image per row.

        Args:
            model_input: prompt; optionally other fields of `GenerationRequest`, such as seed.
            params: not used.

        Returns:
            One row per image: image (PNG as base64, "" if blocked), prompt, seed, preset, blocked_reason (the
            reason, else ""), identity (see `GenerationResult`).

        Raises:
            InvalidRequestError: a row is an invalid request.
        """
        import pandas as pd

        from valentina_pipeline.image.io import png

        rows = pd.DataFrame(model_input).to_dict("records")
        orders = [self._engine.order(parse_request(_row_fields(row))) for row in rows]
        results = [
            {
                "image": base64.b64encode(png.encode(r.image)).decode() if r.image else "",
                "prompt": r.order.prompt,
                "seed": r.seed,
                "preset": r.order.preset,
                "blocked_reason": r.blocked_reason,
                "identity": r.identity,
            }
            for order_results in self._engine.draw(orders)
            for r in order_results
        ]
        return pd.DataFrame(results)


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> Model:
    """Return the model of the package in `path`.

    Args:
        path: the package's folder.
        model_config: optional keys `base`, a base model elsewhere, and `engine`, by default torch.
    """
    config = model_config or {}
    return Model(InferenceEngine.open(Path(path), config.get("base"), engine=config.get("engine", "torch")))


def _row_fields(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the fields of one row of MLflow's table, without missing values (None or NaN)."""
    return {str(name): value for name, value in row.items() if value is not None and value == value}

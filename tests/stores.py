"""An empty MLflow store, made once: its database takes seconds to be born."""

import shutil
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from valentina_pipeline.integrations import mlflow


@lru_cache(maxsize=1)
def _newborn() -> Path:
    folder = Path(mkdtemp(prefix="mlflow-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow.client(folder).search_experiments()
    return folder / "mlflow.db"


def empty_store(root: Path, patch: pytest.MonkeyPatch) -> Any:
    """Give the project at `root` a store of its own, and return a client of it."""
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(_newborn(), root / "mlflow.db")
    return mlflow.client(root)

"""Dataset of one JSON file."""

import json
from collections.abc import Mapping
from typing import Any

from valentina_pipeline.common import atomic_files
from valentina_pipeline.datasets._base import _PathDataset, _round_floats
from valentina_pipeline.datasets.previews import JSONPreview


class JsonFile(_PathDataset[Mapping[str, Any], dict[str, Any]]):
    """One JSON object with sorted keys and floats of six decimals, so that diffs show only real changes."""

    def load(self) -> dict[str, Any]:
        """Return the object."""
        loaded: dict[str, Any] = json.loads(self._require_path().read_text("utf-8"))
        return loaded

    def save(self, data: Mapping[str, Any]) -> None:
        """Write the object; a number that is not finite raises DatasetError with its key."""
        text = json.dumps(_round_floats(data, self._path.name), indent=2, sort_keys=True, ensure_ascii=False)
        atomic_files.replace(self._path, f"{text}\n".encode())

    def preview(self) -> JSONPreview:
        """Return the object for `kedro viz`."""
        return JSONPreview(json.dumps(self.load()))

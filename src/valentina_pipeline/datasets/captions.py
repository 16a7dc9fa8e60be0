"""Dataset of captions that people edit."""

import pandas as pd
from kedro.io import DatasetError

from valentina_pipeline.datasets._base import _PathDataset, logger
from valentina_pipeline.datasets.previews import TablePreview, preview_table
from valentina_pipeline.integrations import captions


class ReviewedCsv(_PathDataset[pd.DataFrame, pd.DataFrame]):
    """Machine captions and people's edits and verdicts, which every rerun keeps: integrations/captions.py.

    Saves a table [sha256, source_name, machine]; loads [sha256, caption, rejected], where a person's text
    overrides the machine's.
    """

    def load(self) -> pd.DataFrame:
        """Return one caption for each image: the person's if there is one, else the machine's."""
        try:
            table = captions.read(self._require_path())
        except captions.InvalidCaptionsError as err:
            raise DatasetError(str(err)) from err
        caption = table["human"].where(table["human"] != "", table["machine"])
        rejected = table["verdict"] == captions.REJECTED
        return pd.DataFrame({"sha256": table["sha256"], "caption": caption, "rejected": rejected})

    def save(self, data: pd.DataFrame) -> None:
        """Write new machine captions and keep people's edits; warn if an edited image was replaced."""
        if data["sha256"].duplicated().any():
            raise DatasetError(f"{self._path}: an image has two new captions")
        try:
            captions.merge_machine_captions(self._path, data)
            changed = captions.find_superseded(captions.read(self._path), set(data["sha256"]))
        except captions.InvalidCaptionsError as err:
            raise DatasetError(str(err)) from err
        for new, former in sorted(changed.items()):
            logger.warning(
                "image %s replaced %s, whose caption was edited: `kedro review` shows both",
                new,
                former,
            )

    def preview(self, nrows: int = 5) -> TablePreview:
        """Return the first captions for `kedro viz`."""
        return preview_table(self.load(), nrows)

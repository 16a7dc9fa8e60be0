from pathlib import Path

import pandas as pd
import pytest

from portraits import noise
from reviewed import MACHINE, NAMES
from valentina_pipeline.image.io import png
from valentina_pipeline.integrations import captions
from valentina_pipeline.review.dataset import BOX, LANDMARKS, Dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two portraits with captions, and a picture that align left out; source names in reverse order."""
    for layer, folder, names in (("03_primary", "aligned", NAMES[:2]), ("02_intermediate", "images", NAMES)):
        place = tmp_path / "data" / layer / "vee"
        (place / folder).mkdir(parents=True)
        for seed, name in enumerate(names):
            (place / folder / f"{name}.png").write_bytes(png.encode(noise(seed, 64, 64)))
    faces = pd.DataFrame(
        {
            "sha256": NAMES,
            "probability": [0.99, 0.98, 0.5],
            **{name: [10.0 + index, 12.0, float("nan")] for index, name in enumerate((*BOX, *LANDMARKS))},
            "yaw": [-3.0, 20.0, float("nan")],
            "identity_distance": [0.1, 0.2, float("nan")],
            "accepted": [True, True, False],
            "reason": ["", "", "no face"],
            "split": ["train", "held_out", ""],
        }
    )
    faces.to_parquet(tmp_path / "data/03_primary/vee/faces.parquet")
    manifest = pd.DataFrame(
        {
            "sha256": NAMES,
            "source_name": ["z.png", "y.png", "<b>x</b>.png"],
            "sharpness": 30.0,
            "jpeg_quality": [None, 92.0, None],
        }
    )
    manifest.to_parquet(tmp_path / "data/02_intermediate/vee/manifest.parquet")
    made = Dataset(tmp_path, "vee")
    said = {"sha256": NAMES[:2], "source_name": ["z.png", "y.png"], "machine": MACHINE}
    captions.merge_machine_captions(made.captions, pd.DataFrame(said))
    return made
